"""A part of a file is never taken for the whole: headers that count too little, streams that follow one
another, pages and frames that are damaged or missing. All of it is read, or an error says what is wrong."""

from __future__ import annotations

import os
import shutil
import stat
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from meterfolders import encode, music

from beatmeter.audio import ffmpeg, flac, ogg, sndfile
from beatmeter.audio.decode import load, measure, probe, stream
from beatmeter.audio.inspection import Inspection, inspect
from beatmeter.datasets.check import check
from beatmeter.errors import AudioError
from beatmeter.settings import DataConfig

RATE = 22_050
needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed here")


def refused(path: Path, kind: str, *words: str) -> str:
    """The file is refused by load, stream and measure alike, with the same words."""
    with pytest.raises(AudioError) as error:
        load(path)
    for other in (lambda: list(stream(path)), lambda: measure(path)):
        with pytest.raises(AudioError) as again:
            other()
        assert str(again.value) == str(error.value)
    assert (error.value.kind, [word for word in words if word not in str(error.value)]) == (kind, [])
    assert "\n" not in str(error.value)
    return str(error.value)


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def patched(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


def chunk_format(suffix: str, seconds: float) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a")
        soundfile.write(path, music(1, seconds), RATE, format=suffix.upper(), subtype="PCM_16")
        return path.read_bytes()


SHORTER = {  # the sizes of headers that are written for one second: where, relative to the mark, and how
    "wav": [(b"data", 4, "<I", 0), (b"RIFF", 4, "<I", 36)],
    "rf64": [(b"ds64", 16, "<Q", 0)],
    "aiff": [(b"SSND", 4, ">I", 8), (b"COMM", 10, ">I", None)],
    "w64": [(b"data", 16, "<Q", 24)],
    "caf": [(b"data", 4, ">Q", 4)],
    "au": [(b".snd", 8, ">I", 0)],
}


@pytest.mark.parametrize("suffix", SHORTER)
def test_a_header_of_one_second_over_twenty(suffix: str, tmp_path: Path) -> None:
    data = chunk_format(suffix, 20.0)
    assert len(load(write(tmp_path / f"a.{suffix}", data))) == 480_000
    for mark, offset, code, extra in SHORTER[suffix]:
        value = RATE if extra is None else RATE * 2 + extra
        data = patched(data, data.index(mark) + offset, struct.pack(code, value))
    refused(write(tmp_path / f"b.{suffix}", data), "damaged", "counts 1.00 s", "another 19.00 s")
    with pytest.raises(AudioError, match="another 19"):
        probe(tmp_path / f"b.{suffix}")


@pytest.mark.parametrize("suffix", ["wav", "aiff", "w64", "caf", "au"])
def test_two_files_in_one(suffix: str, tmp_path: Path) -> None:
    refused(
        write(tmp_path / f"a.{suffix}", chunk_format(suffix, 3.0) + chunk_format(suffix, 2.0)),
        "damaged",
        "lie behind them",
    )


def test_a_second_chunk_of_audio(tmp_path: Path) -> None:
    data = chunk_format("wav", 2.0)
    size = len(data) - data.index(b"data") - 8
    both = data + b"data" + struct.pack("<I", size) + data[-size:]
    refused(
        write(tmp_path / "a.wav", patched(both, 4, struct.pack("<I", len(both) - 8))),
        "damaged",
        "lie behind them",
    )


CHUNKS = [
    b"LIST" + struct.pack("<I", 4) + b"INFO",
    b"id3 " + struct.pack("<I", 200_001) + bytes(200_001),
    b"cue " + struct.pack("<I", 4) + bytes(4),
]


@pytest.mark.parametrize("padded", [True, False], ids=["padded", "not padded"])
def test_chunks_and_tags_behind_the_audio_do_no_harm(tmp_path: Path, padded: bool) -> None:
    chunks = b"".join(chunk + bytes(len(chunk) % 2 if padded else 0) for chunk in CHUNKS)
    data = chunk_format("wav", 2.0) + chunks
    assert len(load(write(tmp_path / "a.wav", patched(data, 4, struct.pack("<I", len(data) - 8))))) == 48_000
    assert len(load(write(tmp_path / "b.wav", data))) == 48_000  # the size of all was not mended
    for tag in (b"TAG" + bytes(125), b"ID3\x04" + bytes(300_000), b"APETAGEX" + bytes(300_000)):
        assert len(load(write(tmp_path / "c.wav", data + tag))) == 48_000
    data = chunk_format("aiff", 2.0) + b"ANNO" + struct.pack(">I", 100) + bytes(100)
    assert len(load(write(tmp_path / "d.aiff", data))) == 48_000


def test_sizes_that_streams_leave_open(tmp_path: Path) -> None:
    data = chunk_format("wav", 20.0)
    for riff in (bytes(4), b"\xff\xff\xff\xff"):
        assert len(load(write(tmp_path / "a.wav", patched(data, 4, riff)))) == 480_000
        streamed = patched(patched(data, 4, riff), data.index(b"data") + 4, b"\xff\xff\xff\xff")
        assert len(load(write(tmp_path / "b.wav", streamed))) == 480_000
    data = chunk_format("au", 20.0)
    assert len(load(write(tmp_path / "c.au", patched(data, 8, b"\xff\xff\xff\xff")))) == 480_000


def ogg_file(seed: int, seconds: float, subtype: str = "VORBIS", rate: int = 48_000) -> bytes:
    return encode(music(seed, seconds, rate), ".ogg", rate, subtype)


def pages(data: bytes) -> list[bytes]:
    result = []
    while data:
        size = 27 + data[26] + sum(data[27 : 27 + data[26]])
        result.append(data[:size])
        data = data[size:]
    return result


def plain_crc(data: bytes) -> int:
    """Ogg's checksum bit by bit, as RFC 3533 says it."""
    crc = 0
    for byte in data:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1) ^ (0x104C11DB7 if crc & 0x80000000 else 0)
    return crc


def test_the_checksum_of_a_page() -> None:
    for page in pages(ogg_file(1, 1.0))[:4]:
        zeroed = patched(page, 22, bytes(4))
        told = int.from_bytes(page[22:26], "little")
        assert plain_crc(zeroed) == told
        assert int(f"{ogg._checksum(zeroed):032b}"[::-1], 2) == told


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_ogg_pages(tmp_path: Path, subtype: str) -> None:
    data = ogg_file(1, 20.0, subtype)
    parts = pages(data)
    path = tmp_path / "a.ogg"
    assert len(load(write(path, data))) == 480_000
    found = ogg.inspect(path)
    assert (found.links, found.most) == (1, pytest.approx(20, abs=0.01))
    assert 15 < found.least <= found.most
    for at in (len(parts[0]) + 40, len(data) // 2, len(data) - 10):
        refused(
            write(path, patched(data, at, bytes([data[at] ^ 4]))),
            "damaged",
            "checksum of an Ogg page is wrong",
        )
    refused(write(path, b"".join(parts[:-4] + parts[-3:])), "damaged", "Ogg pages are missing after 1")
    refused(write(path, b"".join(parts[:-1])), "truncated", "no last Ogg page")
    refused(write(path, data[:-7]), "truncated", "ends inside an Ogg page")
    refused(write(path, b"".join([*parts[:-3], b"OggT" + parts[-3][4:], *parts[-2:]])), "damaged", "missing")
    assert (
        len(load(write(path, b"".join([*parts[:-2], b"junk", *parts[-2:], b"TAG", bytes(125)])))) == 480_000
    )
    write(path, b"ID3\x04\0\0\0\0\0\x0a" + bytes(10) + data)
    assert inspect(path).ogg == found
    if ffmpeg.available():  # libsndfile does not look behind tags here
        assert len(load(path)) == 480_000


def chained(tmp_path: Path, subtype: str, rates: tuple[int, int] = (48_000, 48_000)) -> Path:
    return write(
        tmp_path / "chained.ogg", ogg_file(1, 6.0, subtype, rates[0]) + ogg_file(2, 4.0, subtype, rates[1])
    )


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_ogg_streams_that_follow_one_another_need_ffmpeg(
    tmp_path: Path, subtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = chained(tmp_path, subtype)
    assert ogg.inspect(path).links == 2
    monkeypatch.setattr(ffmpeg, "available", lambda: False)
    refused(path, "unreadable", "only the first of the 2 Ogg streams", "ffmpeg is not installed")


@needs_ffmpeg
@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
@pytest.mark.parametrize("rates", [(48_000, 48_000), (48_000, 24_000), (16_000, 48_000)])
def test_ogg_streams_that_follow_one_another_are_read_by_ffmpeg(
    tmp_path: Path, subtype: str, rates: tuple[int, int]
) -> None:
    wave = load(chained(tmp_path, subtype, rates))
    assert len(wave) / 24_000 == pytest.approx(10, abs=0.1)
    second = load(write(tmp_path / "b.ogg", ogg_file(2, 4.0, subtype, rates[1])))
    length = 48_000
    spectra = [np.abs(np.fft.rfft(part[-length:])) for part in (wave, second)]
    assert np.corrcoef(*spectra)[0, 1] > 0.9  # at its own pitch


def script(path: Path, text: str) -> None:
    path.write_text(f"#!{sys.executable}\n{text}")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def fake_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """An ffmpeg that gives so many seconds of a ramp at 48 kHz, whatever the file."""

    def install(seconds: float) -> None:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        samples = round(seconds * 48_000)
        script(
            folder / "ffmpeg",
            "import array, struct, sys\n"
            "sys.stdout.buffer.write(b'.snd' + struct.pack('>5I', 24, 0xFFFFFFFF, 6, 48000, 1))\n"
            f"ramp = array.array('f', [i / {samples} for i in range({samples})])\n"
            "if sys.byteorder == 'little':\n    ramp.byteswap()\n"
            "sys.stdout.buffer.write(ramp.tobytes())\n",
        )
        monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)

    return install


def gives_up_after(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """libsndfile fails inside the file, as it does with Opus at 510 kb/s."""
    original = sndfile.soundfile.SoundFile.read

    def read(self, frames=-1, *arguments, **options):
        if self.tell() >= seconds * self.samplerate:
            raise soundfile.LibsndfileError(3)
        return original(self, frames, *arguments, **options)

    monkeypatch.setattr(sndfile.soundfile.SoundFile, "read", read)


def test_where_libsndfile_gives_up_ffmpeg_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake_ffmpeg: Callable[[float], None]
) -> None:
    path = write(tmp_path / "a.opus", ogg_file(1, 20.0, "OPUS"))
    whole = load(path)
    fake_ffmpeg(20.0)
    gives_up_after(9.0, monkeypatch)
    found = load(path)
    assert len(found) == 480_000
    given = int(np.argmax(found != whole))
    assert 24_000 * 4 < given < 24_000 * 12.1
    ramp = np.arange(480_000) / 480_000
    assert np.abs(found[given + 100 : -100] - ramp[given + 100 : -100]).max() < 1e-3
    assert np.array_equal(np.concatenate(list(stream(path, block_seconds=0.7))), found)
    assert measure(path) == 20
    fake_ffmpeg(15.0)
    refused(path, "damaged", "ffmpeg reads 15.00 s", "which holds 19.")
    monkeypatch.setattr(ffmpeg, "available", lambda: False)
    refused(path, "unreadable", "libsndfile stops after", "which is whole", "ffmpeg is not installed")


def test_where_a_damaged_file_ends_ffmpeg_does_not_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake_ffmpeg: Callable[[float], None]
) -> None:
    path = write(tmp_path / "a.flac", encode(music(1, 20.0), ".flac"))
    fake_ffmpeg(20.0)
    gives_up_after(9.0, monkeypatch)
    refused(path, "truncated", "libsndfile says")


@needs_ffmpeg
def test_opus_that_libsndfile_calls_malformed(tmp_path: Path) -> None:
    source, path = (
        write(tmp_path / "a.wav", encode(np.stack([music(1, 20.0, 44_100)] * 2, 1), ".wav", 44_100)),
        tmp_path / "a.opus",
    )
    subprocess.run(
        ["ffmpeg", "-nostdin", "-v", "error", "-i", source, "-c:a", "libopus", "-b:a", "510k", path],
        check=True,
    )
    assert len(load(path)) == 480_000
    assert measure(path) == 20


def test_pictures_and_videos_beside_the_audio(tmp_path: Path) -> None:
    other = bytearray(pages(ogg_file(1, 1.0))[0])
    other[28:35] = b"\x80theora"
    other[14:18] = b"abcd"
    other[22:26] = bytes(4)
    other[22:26] = plain_crc(bytes(other)).to_bytes(4, "little")
    parts = pages(ogg_file(1, 5.0))
    path = write(tmp_path / "a.ogv", b"".join([parts[0], bytes(other), *parts[1:]]))
    assert ogg.inspect(path).links == 1
    refused(write(path, bytes(other)), "unreadable", "without audio")


@pytest.mark.parametrize(
    ("subtype", "channels"), [("PCM_16", 1), ("PCM_16", 2), ("PCM_24", 1), ("PCM_24", 3), ("PCM_S8", 2)]
)
def test_flac_samples_are_those_that_were_encoded(tmp_path: Path, subtype: str, channels: int) -> None:
    wave = np.stack([music(n, 9.3, 22_051) for n in range(channels)], 1)[: 22_051 * 9 + 3]
    path = write(tmp_path / "a.flac", encode(wave, ".flac", 22_051, subtype))
    data = path.read_bytes()
    info = flac.inspect(path)
    assert (info.samples, info.sample_rate, info.bits) == (
        len(wave),
        22_051,
        {"PCM_16": 16, "PCM_24": 24, "PCM_S8": 8}[subtype],
    )
    whole = load(path)
    with (
        sndfile.SoundFileReader(path, inspect(path)) as checked,
        sndfile.SoundFileReader(path, Inspection()) as plain,
    ):
        assert checked._checksum is not None
        assert plain._checksum is None
        for _ in range(4):
            assert np.array_equal(checked.read(60_000), plain.read(60_000))
    assert np.array_equal(
        load(write(path, patched(data, 26, bytes(16)))), whole
    )  # no MD5: nothing to compare
    refused(write(path, patched(data, 26, bytes([data[26] ^ 1]))), "damaged", "MD5")
    at = len(data) // 2
    refused(write(path, patched(data, at, bytes([data[at] ^ 8]))), "truncated", "libsndfile says")


def test_flac_frames_that_the_header_does_not_count(tmp_path: Path) -> None:
    data = encode(music(1, 20.0), ".flac")
    packed = int.from_bytes(data[18:26])
    path = tmp_path / "a.flac"
    for seconds, kind, words in (
        (1, "damaged", "counts 1.00 s of audio, its frames end at 20.00 s"),
        (30, "truncated", "promises 30.00 s"),
    ):
        counted = (packed & ~((1 << 36) - 1) | seconds * RATE).to_bytes(8)
        refused(write(path, patched(patched(data, 18, counted), 26, bytes(16))), kind, words)
    for second in (data, encode(music(2, 5.0), ".flac")):
        refused(write(path, data + second), "damaged", "another FLAC file")
    assert len(load(write(path, data + b"TAG" + bytes(125)))) == 480_000


@pytest.mark.parametrize("options", [{}, {"compression_level": 0.0}, {"compression_level": 1.0}])
@pytest.mark.parametrize("rate", [8_000, 22_050, 37_123, 44_100, 96_000])
def test_flac_as_encoders_write_it_is_whole(tmp_path: Path, rate: int, options: dict[str, float]) -> None:
    for seconds in (1.0, 2.7):
        data = encode(music(1, seconds, rate), ".flac", rate, **options)
        path = write(tmp_path / "a.flac", data)
        info = flac.inspect(path)
        assert info.samples in flac._ends_of_frames(data[42:], int.from_bytes(data[10:12]))
        assert measure(path) == pytest.approx(seconds, abs=1 / rate)


def test_checks_of_a_data_set_name_what_is_partial(tmp_path: Path) -> None:
    wav = chunk_format("wav", 20.0)
    files = {
        "sound.wav": chunk_format("wav", 2.0),
        "header.wav": patched(wav, wav.index(b"data") + 4, struct.pack("<I", RATE * 2)),
        "page.ogg": b"".join(pages(ogg_file(3, 8.0))[:-1]),
        "md5.flac": patched(encode(music(4, 3.0), ".flac"), 26, b"\x01" * 16),
    }
    (tmp_path / "three").mkdir()
    for name, data in files.items():
        write(tmp_path / "three" / name, data)
    report = check(tmp_path, DataConfig(path=str(tmp_path)), ("3", "4"))
    assert [track.path.name for track in report.dataset.tracks] == ["sound.wav"]
    kinds = {Path(e.id).name: e.kind for e in report.dataset.excluded}
    assert sorted(kinds.values()) == ["damaged", "damaged", "truncated"]
    assert report.status == 1
