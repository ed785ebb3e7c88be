"""MP3 files whose header tells less or more than the truth, and the formats that only ffmpeg reads."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from meterfolders import encode, music

from beatmeter.audio import boxes, ffmpeg, mpeg
from beatmeter.audio.decode import load, measure, probe, stream
from beatmeter.errors import AudioError

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed here")


def mp3(tmp_path: Path, wave: np.ndarray, rate: int, tag: bool = True, **options: Any) -> Path:
    """An MP3, of variable bit rate unless told otherwise, with or without the tag frame that tells its
    length."""
    path = tmp_path / "a.mp3"
    data = encode(wave, ".mp3", rate, **options)
    if not tag:
        first = mpeg._parse(data[:4])
        assert first is not None
        assert b"Xing" in data[: first.bytes] or b"Info" in data[: first.bytes]
        data = data[first.bytes :]
    path.write_bytes(data)
    return path


def uneven(rate: int = 44_100) -> np.ndarray:
    """Silence, then noise: a bit rate guessed from the start is far off."""
    rng = np.random.default_rng(0)
    return np.concatenate([1e-3 * rng.standard_normal(rate * 6), 0.3 * rng.standard_normal(rate * 6)]).astype(
        np.float32
    )


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_counted_length(tmp_path: Path, rate: int, channels: int) -> None:
    wave = np.stack([music(1, 5.0, rate)] * channels, 1)
    for tag in (True, False):
        length = mpeg.measure(mp3(tmp_path, wave, rate, tag))
        assert length.sample_rate == rate
        assert (length.promised is not None) == tag
        assert length.seconds == pytest.approx(5.0, abs=3000 / rate)
        assert length.promised in (None, length.samples)


def test_tags_and_junk_around_the_frames(tmp_path: Path) -> None:
    path = mp3(tmp_path, music(1, 5.0, 44_100), 44_100)
    data, samples = path.read_bytes(), mpeg.measure(path).samples
    id3 = b"ID3\x04\0\0" + bytes([0, 0, 40, 5]) + b"\xff\xfb" * 2562 + b"\0"
    assert len(id3) == 10 + 40 * 128 + 5
    half = len(data) // 2
    for other in (
        id3 + data,
        id3 + id3 + data,
        bytes(700) + data,
        b"\xff" * 5000 + data,
        data + b"TAG" + bytes(125),
        data + b"\xff" * 5000,
    ):
        path.write_bytes(other)
        assert mpeg.looks_like_mpeg(path, mpeg.head(path)[0])
        assert abs(mpeg.measure(path).samples - samples) <= 1152
    path.write_bytes(data[:half] + b"\xffjunk" * 300 + data[half:])
    assert abs(mpeg.measure(path).samples - samples) <= 3 * 1152


def test_other_formats_are_not_taken_for_mpeg(tmp_path: Path) -> None:
    for suffix in ("wav", "flac", "ogg"):
        for name in (f"a.{suffix}", f"{suffix}.mp3"):
            path = tmp_path / name
            path.write_bytes(encode(music(1, 2.0), suffix))
            assert not mpeg.looks_like_mpeg(path, mpeg.head(path)[0])
            assert len(load(path)) == 48_000
    path = tmp_path / "tagged.flac"
    path.write_bytes(b"ID3\x04\0\0\0\0\0\x0a" + bytes(10) + encode(music(1, 2.0), "flac"))
    assert len(load(path)) == 48_000


def test_less_than_the_header_tells(tmp_path: Path) -> None:
    path = mp3(tmp_path, music(1, 10.0, 44_100), 44_100)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * 0.7)])
    with pytest.raises(
        AudioError, match=r"truncated: 6\.9\d s of audio, its header promises 10\.0\d s"
    ) as error:
        load(path)
    assert error.value.kind == "truncated"
    path.write_bytes(data[:-300])  # less than the tolerance: encoders pad
    assert len(load(path)) == pytest.approx(240_000, abs=2400)


def joined(tmp_path: Path) -> Path:
    path = tmp_path / "joined.mp3"
    path.write_bytes(
        encode(music(1, 4.0, 44_100), ".mp3", 44_100) + encode(music(2, 6.0, 44_100), ".mp3", 44_100)
    )
    return path


def test_more_than_the_header_tells_needs_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ffmpeg, "available", lambda: False)
    with pytest.raises(AudioError, match=r"only 4\.\d of the 10\.\d s .*Install ffmpeg"):
        load(joined(tmp_path))
    with pytest.raises(AudioError, match=r"of the 12\.\d s .*Install ffmpeg"):
        load(mp3(tmp_path, uneven(), 44_100, tag=False))


@needs_ffmpeg
def test_more_than_the_header_tells_with_ffmpeg(tmp_path: Path) -> None:
    assert len(load(joined(tmp_path))) / 24_000 == pytest.approx(10.0, abs=0.2)
    path = mp3(tmp_path, uneven(), 44_100, tag=False)
    assert probe(path).reader == "ffmpeg"
    wave = load(path)
    assert len(wave) / 24_000 == pytest.approx(12.0, abs=0.1)
    assert np.abs(wave[: 24_000 * 5]).max() < 0.02
    assert np.sqrt(np.mean(wave[-24_000 * 5 :] ** 2)) > 0.1


def joined_at(tmp_path: Path, *rates: int) -> Path:
    """MP3s of 4 s, each at its own sample rate, in one file."""
    path = tmp_path / "rates.mp3"
    path.write_bytes(b"".join(encode(music(i, 4.0, rate), ".mp3", rate) for i, rate in enumerate(rates)))
    return path


@pytest.mark.parametrize("rates", [(44_100, 48_000), (24_000, 44_100), (44_100, 48_000, 44_100)])
def test_files_of_other_sample_rates_behind_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rates: tuple[int, ...]
) -> None:
    path = joined_at(tmp_path, *rates)
    length = mpeg.measure(path)
    assert length.seconds == pytest.approx(4.0 * len(rates), abs=0.3)
    assert length.joined == pytest.approx(4.0, abs=0.1)
    if shutil.which("ffmpeg") is not None:
        assert len(load(path)) / 24_000 == pytest.approx(4.0 * len(rates), abs=0.3)
    monkeypatch.setattr(ffmpeg, "available", lambda: False)
    with pytest.raises(AudioError, match=r"would leave out 4\.\d s .*another sample rate.*Install ffmpeg"):
        load(path)


def test_a_truncated_file_before_another(tmp_path: Path) -> None:
    data = encode(music(1, 10.0, 44_100), ".mp3", 44_100)
    path = tmp_path / "a.mp3"
    path.write_bytes(data[: len(data) // 2] + encode(music(2, 4.0, 48_000), ".mp3", 48_000))
    with pytest.raises(AudioError, match="truncated"):
        load(path)


def test_constant_bit_rate_without_a_tag_needs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ffmpeg, "available", lambda: False)
    path = mp3(tmp_path, uneven(), 44_100, tag=False, bitrate_mode="CONSTANT", compression_level=0.5)
    assert len(load(path)) / 24_000 == pytest.approx(12.0, abs=0.1)
    assert probe(path).seconds == pytest.approx(12.0, abs=0.1)


def convert(path: Path, wave: np.ndarray, *options: str) -> Path:
    source = path.with_suffix(".source.wav")
    source.write_bytes(encode(wave, ".wav", 44_100))
    subprocess.run(["ffmpeg", "-nostdin", "-v", "error", "-y", "-i", source, *options, path], check=True)
    return path


@needs_ffmpeg
@pytest.mark.parametrize(
    ("suffix", "codec"),
    [("m4a", "aac"), ("m4a", "alac"), ("aac", "aac"), ("webm", "libopus"), ("wma", "wmav2"), ("mkv", "ac3")],
)
def test_formats_of_ffmpeg(tmp_path: Path, suffix: str, codec: str) -> None:
    wave = np.stack([music(1, 6.0, 44_100)] * 2, 1)
    path = convert(tmp_path / f"two words.{suffix}", wave, "-c:a", codec)
    found = load(path)
    assert len(found) / 24_000 == pytest.approx(6.0, abs=0.15)
    assert np.sqrt(np.mean(found**2)) == pytest.approx(np.sqrt(np.mean(wave**2)), rel=0.1)
    info = probe(path)
    assert (info.reader, info.channels) == ("ffmpeg", 2)
    assert info.seconds == pytest.approx(6.0, abs=0.15)
    assert np.array_equal(np.concatenate(list(stream(path, block_seconds=0.7))), found)


@needs_ffmpeg
def test_a_truncated_movie(tmp_path: Path) -> None:
    path = convert(tmp_path / "a.m4a", music(1, 12.0, 44_100), "-c:a", "aac", "-movflags", "faststart")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(AudioError, match="truncated") as error:
        load(path)
    assert error.value.kind == "truncated"
    path.write_bytes(data[:200])
    with pytest.raises(AudioError, match="ffmpeg finds no audio"):
        measure(path)


@needs_ffmpeg
@pytest.mark.parametrize("suffix", ["m4a", "webm"])
def test_a_truncated_movie_where_nobody_tells_its_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    options = ("-c:a", "aac", "-movflags", "faststart") if suffix == "m4a" else ("-c:a", "libopus")
    path = convert(tmp_path / f"a.{suffix}", music(1, 12.0, 44_100), *options)
    monkeypatch.setattr(
        ffmpeg.shutil, "which", lambda name: None if name == "ffprobe" else f"/usr/bin/{name}"
    )
    assert len(load(path)) / 24_000 == pytest.approx(12.0, abs=0.15)
    assert boxes.missing(path) == 0
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert boxes.missing(path) == len(data) - len(data) // 2
    with pytest.raises(AudioError, match="truncated: its container counts") as error:
        load(path)
    assert error.value.kind == "truncated"


@needs_ffmpeg
def test_ctrl_c_of_a_terminal_does_not_reach_what_reads_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ffmpeg", "ffprobe"):
        (tmp_path / name).write_text(
            f"#!{sys.executable}\nimport os, sys\n"
            f"open({str(tmp_path / name)!r} + '.group', 'w').write(str(os.getpgrp()))\n"
            f"os.execv({shutil.which(name)!r}, sys.argv)\n"
        )
        (tmp_path / name).chmod(0o755)
    path = convert(tmp_path / "a.webm", music(1, 2.0, 44_100), "-c:a", "libopus")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert measure(path) == pytest.approx(2.0, abs=0.1)
    groups = {int((tmp_path / f"{name}.group").read_text()) for name in ("ffmpeg", "ffprobe")}
    assert len(groups) == 2
    assert os.getpgrp() not in groups


def test_what_looks_like_boxes_and_is_none(tmp_path: Path) -> None:
    path = tmp_path / "a.m4a"
    box = (24).to_bytes(4, "big") + b"ftyp" + bytes(16)
    for data, missing in (
        (b"", 0),
        (b"\x00\x00\x00\x18ftyp", 0),  # shorter than its first box, which holds no audio
        (box + (0).to_bytes(4, "big") + b"mdat" + bytes(5), 0),  # as far as the file goes
        (box + (1).to_bytes(4, "big") + b"mdat" + (100).to_bytes(8, "big") + bytes(4), 80),
        (box + (5).to_bytes(4, "big") + b"mdat", 0),
        (b"\x1aE\xdf\xa3", 0),
        (b"\x1aE\xdf\xa3\x80\x18S\x80g\x01" + b"\xff" * 7, 0),  # a stream, whose length was not known
        (b"\x1aE\xdf\xa3\x80\x18S\x80g\x40\x0a" + bytes(4), 6),
        (b"\x1aE\xdf\xa3\x80\x18S\x80g\x00" + bytes(20), 0),
    ):
        path.write_bytes(data)
        assert boxes.missing(path) == missing, data


@needs_ffmpeg
def test_a_truncated_flac_that_only_ffmpeg_opens(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    data = bytearray(encode(music(1, 6.0), "flac"))
    path.write_bytes(data[: len(data) // 2])
    reader = ffmpeg.FFmpegReader(path)
    with pytest.raises(AudioError, match="truncated"), reader:
        list(reader.blocks())


@needs_ffmpeg
def test_a_playlist_is_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "list.m3u8"
    path.write_text("#EXTM3U\n#EXTINF:5,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(AudioError):
        load(path)


@needs_ffmpeg
def test_ctrl_c_of_a_terminal_does_not_reach_ffmpeg_and_make_the_file_look_truncated(tmp_path: Path) -> None:
    path = convert(tmp_path / "a.m4a", music(1, 60.0, 44_100), "-c:a", "aac")
    with ffmpeg.FFmpegReader(path) as reader:
        assert os.getpgid(reader._process.pid) != os.getpgid(0)


@needs_ffmpeg
def test_leaving_a_stream_ends_ffmpeg(tmp_path: Path) -> None:
    path = convert(tmp_path / "a.m4a", music(1, 60.0, 44_100), "-c:a", "aac")
    reader = ffmpeg.FFmpegReader(path)
    assert len(reader.read(100)) == 100
    reader.close()
    assert reader._process.poll() is not None
