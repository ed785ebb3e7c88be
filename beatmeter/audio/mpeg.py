"""How long an MPEG audio file (MP3) really is: its frames counted, beside the number that its header
promises.

libsndfile believes the header of the first frame (Xing, Info or VBRI tag) or, without one, guesses from the
bit rate; it then stops where it believes the end to be, or where frames of another sample rate follow. So a
truncated file, several joined in one, and one of variable bit rate without the tag all need the count.

Layout: ISO 11172-3 2.4.2.3, and the Xing and VBRI tags as encoders write them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from beatmeter.errors import AudioError, shown

_KBPS = {  # (MPEG 1?, layer) -> kilobits per second by bit-rate index 1-14
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = {
    3: (44_100, 48_000, 32_000),
    2: (22_050, 24_000, 16_000),
    0: (11_025, 12_000, 8_000),
}  # by version bits
_OTHER_FORMATS = (
    b"RIFF",
    b"RF64",
    b"RIFX",
    b"fLaC",
    b"OggS",
    b"FORM",
    b".snd",
    b"caff",
    b"riff",
    b"\x1aE\xdf\xa3",
)
_BLOCK = 1 << 20
_JUNK = 1 << 16  # bytes searched for the first frame, as libmpg123 does
_RUN = 8  # frames of another kind in a row that are audio, and no junk that looks like it


@dataclass(frozen=True)
class Length:
    """`samples` per channel counted in the file, `promised` by its header (None without one), at the
    `sample_rate` (Hz) of the first frame. `joined` are the seconds of audio whose rate, version or layer is
    another."""

    samples: int
    promised: int | None
    sample_rate: int
    joined: float = 0.0

    @property
    def seconds(self) -> float:
        """Seconds of audio in the file."""
        return self.samples / self.sample_rate + self.joined


@dataclass(frozen=True)
class _Header:
    bytes: int
    samples: int
    sample_rate: int
    side_info: int  # bytes between the header and a Xing tag
    kind: tuple[int, int, int]  # version, layer, rate: constant in a stream


@lru_cache(maxsize=4096)
def _parse(word: bytes) -> _Header | None:
    """The four bytes of a frame header, or None when they are none (free format, which nobody writes,
    included)."""
    if len(word) < 4 or word[0] != 0xFF or word[1] & 0xE0 != 0xE0:
        return None
    version, layer = word[1] >> 3 & 3, 4 - (word[1] >> 1 & 3)
    rate_index, bitrate_index = word[2] >> 2 & 3, word[2] >> 4
    if version == 1 or layer == 4 or rate_index == 3 or bitrate_index in (0, 15):
        return None
    kbps, rate, padding = (
        _KBPS[version == 3, layer][bitrate_index - 1],
        _RATES[version][rate_index],
        word[2] >> 1 & 1,
    )
    if layer == 1:
        length, samples = (12_000 * kbps // rate + padding) * 4, 384
    else:
        samples = 576 if layer == 3 and version != 3 else 1152
        length = samples // 8 * 1000 * kbps // rate + padding
    mono = word[3] >> 6 == 3
    side = (17 if mono else 32) if version == 3 else (9 if mono else 17)
    return _Header(length, samples, rate, side, (version, layer, rate_index))


class _Bytes:
    """A window that slides forward over a file."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._buffer, self._start = b"", 0

    def at(self, position: int, n: int) -> bytes:
        """`n` bytes at `position`, fewer at the end of the file. Positions may not go back by more than a
        block."""
        offset = position - self._start
        if offset + n > len(self._buffer) or offset < 0:
            self._file.seek(position)
            self._start, offset = position, 0
            self._buffer = self._file.read(max(_BLOCK, n))
        return self._buffer[offset : offset + n]

    def close(self) -> None:
        self._file.close()


def head(path: Path) -> tuple[bytes, int]:
    """The first four bytes after ID3 tags, and where they are."""
    data = _Bytes(path)
    try:
        start = _after_tags(data, 0)
        return data.at(start, 4), start
    finally:
        data.close()


def looks_like_mpeg(path: Path, head: bytes) -> bool:
    """Whether to expect MPEG audio, by the first bytes after ID3 tags and the name."""
    return _parse(head) is not None or (
        path.suffix.lower() in (".mp3", ".mp2", ".mpga") and not head.startswith(_OTHER_FORMATS)
    )


def measure(path: Path) -> Length:
    """Count the frames of an MPEG audio file without decoding it. Raises AudioError when there is none."""
    data = _Bytes(path)
    try:
        position = _after_tags(data, 0)
        start = _next_frame(data, position, None, position + _JUNK)
        if start is None:
            raise AudioError(
                f"{shown(path)} holds no MPEG audio", "It is damaged or another kind of file with this name."
            )
        first = _parse(data.at(start, 4))
        assert first is not None
        promised = _tag(data, start, first)
        samples, joined, kind, position = 0, 0.0, first.kind, start
        if promised is not None:
            position += first.bytes  # the frame of the tag holds no music
        while True:
            header = _parse(data.at(position, 4))
            if header is None or header.kind != kind:
                again = _next_frame(data, _after_tags(data, position), kind, None, _RUN)
                if again is None:
                    break
                position, header = again, _parse(data.at(again, 4))
                assert header is not None
                kind = header.kind
            if kind == first.kind:
                samples += header.samples
            else:
                joined += header.samples / header.sample_rate
            position += header.bytes
        return Length(
            samples, None if promised is None else promised * first.samples, first.sample_rate, joined
        )
    finally:
        data.close()


def _after_tags(data: _Bytes, position: int) -> int:
    """Past ID3v2 tags (id3.org, ID3v2.4 section 3.1: a size of four 7-bit bytes)."""
    while (head := data.at(position, 10))[:3] == b"ID3" and len(head) == 10 and max(head[6:10]) < 0x80:
        size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
        position += 10 + size + (10 if head[5] & 0x10 else 0)
    return position


def _next_frame(
    data: _Bytes, position: int, kind: tuple[int, int, int] | None, limit: int | None, others: int = 2
) -> int | None:
    """The next position where a frame of `kind` (or any) is followed by another of the same kind, or where
    `others` frames of some other kind follow one another; None when there is none before `limit`."""
    while limit is None or position < limit:
        block = data.at(position, _BLOCK)
        offset = block.find(b"\xff")
        while offset >= 0 and (limit is None or position + offset < limit):
            header = (
                _parse(block[offset : offset + 4])
                if offset + 4 <= len(block)
                else _parse(data.at(position + offset, 4))
            )
            if header is not None and _is_run(
                data, position + offset, header, 2 if kind in (None, header.kind) else others
            ):
                return position + offset
            offset = block.find(b"\xff", offset + 1)
        if len(block) < _BLOCK:
            return None
        position += len(block)
    return None


def _is_run(data: _Bytes, position: int, header: _Header, frames: int) -> bool:
    """Whether so many frames of the kind of `header`, which is the first, follow one another."""
    following: _Header | None = header
    for _ in range(frames - 1):
        assert following is not None
        position += following.bytes
        following = _parse(data.at(position, 4))
        if following is None or following.kind != header.kind:
            return False
    return True


def _tag(data: _Bytes, position: int, header: _Header) -> int | None:
    """Frames of audio that the first frame promises: a Xing or Info tag after the side information, or a VBRI
    tag."""
    frame = data.at(position, header.bytes)
    xing = frame[4 + header.side_info :]
    if xing[:4] in (b"Xing", b"Info"):
        return int.from_bytes(xing[8:12]) if len(xing) >= 12 and xing[7] & 1 else None
    if frame[36:40] == b"VBRI" and len(frame) >= 54:
        return int.from_bytes(frame[50:54])
    return None
