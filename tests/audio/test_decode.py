"""Decoding: every format gives the same music, and every broken file an error that says what is wrong with
it."""

from __future__ import annotations

import contextlib
import os
import socket
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st
from meterfolders import encode, music

from beatmeter.audio import decode, ffmpeg
from beatmeter.audio.decode import SAMPLE_RATE, load, measure, probe, stream
from beatmeter.audio.levels import SILENCE
from beatmeter.errors import AudioError

FORMATS = {  # suffix -> (format, subtype, rate, largest difference of rms of the error to the signal's)
    "wav": ("WAV", "PCM_16", 44_100, 1e-3),
    "float.wav": ("WAV", "FLOAT", 48_000, 1e-6),
    "flac": ("FLAC", "PCM_16", 44_100, 1e-3),
    "aiff": ("AIFF", "PCM_24", 32_000, 1e-5),
    "au": ("AU", "PCM_16", 22_050, 1e-3),
    "caf": ("CAF", "PCM_16", 44_100, 1e-3),
    "w64": ("W64", "PCM_16", 96_000, 1e-3),
    "ogg": ("OGG", "VORBIS", 44_100, 0.3),
    "opus": ("OGG", "OPUS", 48_000, 0.6),
    "mp3": ("MP3", None, 44_100, 0.3),
}


def write(
    path: Path, wave: np.ndarray, rate: int, format: str = "WAV", subtype: str | None = "PCM_16"
) -> Path:
    soundfile.write(os.fsencode(path), wave, rate, format=format, subtype=subtype)
    return path


def refused(path: Path, kind: str, *words: str) -> AudioError:
    """The file is refused by load, stream and measure alike, with the same words."""
    with pytest.raises(AudioError) as error:
        load(path)
    for other in (lambda: list(stream(path)), lambda: measure(path)):
        with pytest.raises(AudioError) as again:
            other()
        assert str(again.value) == str(error.value)
    assert error.value.kind == kind
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)
    return error.value


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_music(tmp_path: Path, name: str) -> None:
    format, subtype, rate, tolerance = FORMATS[name]
    wave = music(1, 4.0, rate)
    path = write(tmp_path / f"a.{name}", np.stack([wave, 0.5 * wave], 1), rate, format, subtype)
    expected = soxr.resample(0.75 * wave, rate, SAMPLE_RATE, quality="HQ")
    found = load(path)
    assert found.dtype == np.float32
    n = min(len(found), len(expected))
    assert abs(len(found) - len(expected)) <= 1
    error = found[:n] - expected[:n]
    assert np.sqrt(np.mean(error**2)) < tolerance * np.sqrt(np.mean(expected**2))
    info = probe(path)
    assert (info.sample_rate, info.channels, info.reader) == (rate, 2, "libsndfile")
    assert info.seconds == pytest.approx(4.0, abs=0.01)


@settings(max_examples=30)
@given(
    rate=st.sampled_from([8_000, 11_025, 22_050, 24_000, 44_100, 48_000]),
    channels=st.integers(1, 3),
    seconds=st.floats(1.0, 9.5),
    block=st.floats(0.01, 12.0),
    seed=st.integers(0, 5),
)
def test_a_stream_is_the_whole_file_and_the_plain_way(
    tmp_path_factory, rate: int, channels: int, seconds: float, block: float, seed: int
) -> None:
    wave = np.stack([music(seed + c, seconds, rate) for c in range(channels)], 1)
    path = write(tmp_path_factory.mktemp("s") / "a.wav", wave, rate, subtype="FLOAT")
    if len(wave) / rate < 1:
        return
    whole = load(path)
    blocks = list(stream(path, block_seconds=block))
    size = max(1, round(block * SAMPLE_RATE))
    assert [len(b) for b in blocks[:-1]] == [size] * (len(blocks) - 1)
    assert 0 < len(blocks[-1]) <= size
    assert np.array_equal(np.concatenate(blocks), whole)
    mono = wave[:, 0] if channels == 1 else wave.mean(axis=1, dtype=np.float32)
    plain = mono if rate == SAMPLE_RATE else soxr.resample(mono, rate, SAMPLE_RATE, quality="HQ")
    assert np.array_equal(whole, plain)


def test_another_rate(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", music(1, 3.0, 24_000), 24_000)
    assert len(load(path, 16_000)) == 48_000
    assert len(np.concatenate(list(stream(path, 16_000, 0.5)))) == 48_000


def test_192_khz_in_eight_channels(tmp_path: Path) -> None:
    wave = music(1, 2.0, 192_000)
    path = write(tmp_path / "a.wav", np.stack([wave] * 8, 1), 192_000, subtype="PCM_24")
    assert len(load(path)) == 48_000
    assert probe(path).channels == 8


def test_a_long_file_streams_in_flat_memory(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    minute = (music(1, 60.0, 8_000) * 3).clip(-1, 1)
    with soundfile.SoundFile(path, "w", 8_000, 1, subtype="PCM_U8") as file:
        for _ in range(30):
            file.write(minute)
    tracemalloc.start()
    try:
        samples = sum(len(block) for block in stream(path))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert samples == 30 * 60 * SAMPLE_RATE
    assert peak < 12e6  # the whole would be 172 MB


NAMES = [
    "two words.wav",
    "new\nline.wav",
    b"caf\xe9-\xff.wav",
    "-i.wav",
    "http:colon.wav",
    "100%d.wav",
    "日本.wav",
    "no-suffix",
    "upper.WAV",
]


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_names_are_only_names(tmp_path: Path, name: str | bytes) -> None:
    path = tmp_path / os.fsdecode(name)
    write(path, music(1, 1.5), 22_050)
    assert len(load(path)) == 36_000
    path.write_bytes(b"x")
    shown = str(refused(path, "unreadable"))
    shown.encode()  # printable anywhere


def test_no_file(tmp_path: Path) -> None:
    refused(tmp_path / "absent.wav", "missing", "absent.wav")
    refused(tmp_path, "unreadable", "is a folder")
    refused(Path("a\0b.wav"), "unreadable")
    refused(tmp_path / ("n" * 300), "unreadable")
    os.mkfifo(tmp_path / "pipe.wav")
    refused(tmp_path / "pipe.wav", "unreadable", "not a regular file")
    (tmp_path / "device.wav").symlink_to(os.devnull)
    refused(tmp_path / "device.wav", "unreadable", "not a regular file")
    with socket.socket(socket.AF_UNIX) as listening, contextlib.chdir(tmp_path):
        listening.bind("socket.wav")
    refused(tmp_path / "socket.wav", "unreadable", "not a regular file")
    (tmp_path / "loop.wav").symlink_to(tmp_path / "loop.wav")
    refused(tmp_path / "loop.wav", "unreadable")


@pytest.mark.parametrize("suffix", ["mp3", "wav", "flac", "ogg", "m4a", "raw"])
@pytest.mark.parametrize(
    "content",
    [b"hello, this is a text\n" * 300, bytes(9_000), b"\xff", b"ID3\x04\0\0\0\0\0\x0a"],
    ids=["text", "zeros", "byte", "tag"],
)
def test_no_audio_inside(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(content)
    refused(path, "unreadable", f"a.{suffix}")


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a.mp3").touch()
    refused(tmp_path / "a.mp3", "empty", "0 bytes")


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("share", [0.1, 0.6])
def test_a_truncated_file_is_never_taken_for_a_short_one(tmp_path: Path, name: str, share: float) -> None:
    format, subtype, rate, _ = FORMATS[name]
    path = write(tmp_path / f"a.{name}", music(2, 12.0, rate), rate, format, subtype)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(AudioError) as error:
        load(path)
    assert error.value.kind == "truncated"
    assert "truncated" in str(error.value)


def test_what_follows_the_audio_does_no_harm(tmp_path: Path) -> None:
    for suffix in ("wav", "flac", "ogg", "mp3", "aiff"):
        path = tmp_path / f"a.{suffix}"
        path.write_bytes(encode(music(3, 3.0), suffix) + b"TAG" + bytes(125))
        assert len(load(path)) == pytest.approx(72_000, abs=2400)


def of_unknown_size(tmp_path: Path, size: bytes) -> Path:
    data = bytearray(encode(music(3, 3.0), ".wav"))
    at = data.index(b"data") + 4
    data[at : at + 4] = size
    path = tmp_path / "a.wav"
    path.write_bytes(data)
    return path


def test_a_wav_that_was_streamed_is_whole(tmp_path: Path) -> None:
    for size in (b"\xff\xff\xff\xff", b"\xf0\xff\xff\x7f"):
        assert len(load(of_unknown_size(tmp_path, size))) == 72_000


def test_a_wav_beyond_its_header(tmp_path: Path) -> None:
    for suffix in ("wav", "aiff"):
        path = tmp_path / f"a.{suffix}"
        path.write_bytes(encode(music(3, 3.0), suffix))
        os.truncate(path, (1 << 32) + 1_000_000)  # sparse: no disk is filled
        refused(path, "truncated", "larger than its header can tell")


@pytest.mark.parametrize("fork", ["._song.mp3", ".AppleDouble/song.mp3"])
def test_what_macos_leaves_beside_a_file_hides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fork: str
) -> None:
    monkeypatch.setattr(ffmpeg, "available", lambda: False)
    path = tmp_path / "song.mp3"
    path.write_bytes(encode(music(1), ".mp3"))
    alone = load(path)
    (tmp_path / fork).parent.mkdir(exist_ok=True)
    (tmp_path / fork).write_bytes(b"\0\5\x16\7 AppleDouble")
    np.testing.assert_array_equal(load(path), alone)
    assert probe(path).seconds == pytest.approx(2.5, abs=0.01)
    (tmp_path / "song.mp3").write_bytes(b"This is no music.\n" * 400)
    open_files = Path("/proc/self/fd")
    before = len(list(open_files.iterdir())) if open_files.is_dir() else 0
    refused(path, "unreadable", "song.mp3")
    after = len(list(open_files.iterdir())) if open_files.is_dir() else 0
    assert after == before


def test_a_wav_that_nobody_closed_needs_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = of_unknown_size(tmp_path, bytes(4))
    if ffmpeg.available():
        assert len(load(path)) == 72_000
    monkeypatch.setattr(ffmpeg, "available", lambda: False)
    refused(path, "unreadable", "sees no samples", "Install ffmpeg")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.nan, "not finite"),
        (np.inf, "not finite"),
        (-np.inf, "not finite"),
        (1e30, "far beyond full scale"),
    ],
)
def test_samples_that_are_no_audio(tmp_path: Path, value: float, words: str) -> None:
    wave = np.stack([music(1, 12.0, 22_050)] * 2, 1)
    wave[22_050 * 11, 1] = value
    refused(write(tmp_path / "a.wav", wave, 22_050, subtype="FLOAT"), "damaged", words, "11.000 s")


def test_integers_that_nobody_scaled_are_audio(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", music(1, 2.0, 24_000) * 32768, 24_000, subtype="FLOAT")
    assert np.array_equal(load(path), music(1, 2.0, 24_000) * 32768)


@pytest.mark.parametrize("samples", [1, 2, 100, 23_999])
def test_too_short(tmp_path: Path, samples: int) -> None:
    path = write(tmp_path / "a.wav", music(1, 2.0, 24_000)[:samples], 24_000)
    refused(path, "short", "1 sample of" if samples == 1 else " of audio")
    assert len(load(write(path, music(1, 2.0, 24_000)[:24_000], 24_000))) == 24_000


def test_silence(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    n = 24_000 * 4
    refused(write(tmp_path / "zero.wav", np.zeros(n), 24_000), "silent", "zero.wav is silent. ")
    refused(write(tmp_path / "dither.wav", rng.normal(0, SILENCE / 3, n), 24_000), "silent", "-80 dB")
    refused(write(tmp_path / "dc.wav", np.full(n, 0.5), 24_000), "silent", "constant level of 0.5")
    wave = music(1, 4.0, 24_000)
    refused(
        write(tmp_path / "antiphase.wav", np.stack([wave, -wave], 1), 24_000, subtype="FLOAT"),
        "silent",
        "cancel",
    )
    soft = music(1, 4.0, 24_000) * 0.003
    assert len(load(write(tmp_path / "soft.wav", soft, 24_000, subtype="FLOAT"))) == n
    assert len(load(write(tmp_path / "offset.wav", wave + 0.3, 24_000, subtype="FLOAT"))) == n


def test_mostly_silent(tmp_path: Path) -> None:
    wave = np.zeros(24_000 * 40, np.float32)
    wave[: 24_000 * 3] = music(1, 3.0, 24_000)
    refused(write(tmp_path / "a.wav", wave, 24_000), "silent", "mostly silent", "92%")
    wave[: 24_000 * 5] = music(1, 5.0, 24_000)
    path = write(tmp_path / "b.wav", wave, 24_000)
    assert len(load(path)) == len(wave)
    assert measure(path) == 40
    clicks = np.zeros(24_000 * 20, np.float32)
    clicks[:: 24_000 * 4 // 5] = 0.9  # a metronome with nothing between its clicks
    assert len(load(write(tmp_path / "clicks.wav", clicks, 24_000))) == len(clicks)


def test_without_ffmpeg_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ffmpeg, "available", lambda: False)
    path = tmp_path / "a.m4a"
    path.write_bytes(b"\0\0\0\x20ftypM4A " + bytes(4000))
    refused(path, "unreadable", "a.m4a", "ffmpeg is not installed", "install ffmpeg")


def test_the_reader_is_closed_when_a_stream_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.wav", music(1, 30.0), 22_050)
    closed = []
    original = decode.SoundFileReader.close
    monkeypatch.setattr(decode.SoundFileReader, "close", lambda self: (closed.append(self), original(self)))
    blocks = stream(path, block_seconds=1)
    next(blocks)
    assert not closed
    blocks.close()
    assert len(closed) == 1
