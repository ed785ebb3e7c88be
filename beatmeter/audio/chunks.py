"""How many bytes of audio a file made of chunks counts (WAV, RF64, W64, AIFF, CAF) or its header (AU), how
many of them are there, and what lies behind all chunks.

Readers stop where the header says. So a header that was written before the audio was complete, two files
joined in one and a second chunk of audio hide what follows.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_UNKNOWN = (1 << 31) - (
    1 << 20
)  # 32-bit sizes from here on, of more than there is, mean: not known when the header was written
_AUDIO = (b"data", b"SSND")
_FILES = (
    b"RIFF",
    b"RIFX",
    b"RF64",
    b"BW64",
    b"FORM",
    b"riff",
    b"caff",
)  # a file behind a file, not a chunk of the first
_TAGS = (b"ID3", b"TAG", b"APETAGEX", b"LYRICSBEGIN")  # what programs append to any file


@dataclass(frozen=True)
class Extent:
    """`counted` bytes of audio in the header, `present` of them in the file, and `behind` bytes that belong
    to no chunk, or to one of audio that readers pass over. All are 0 for a header that does not tell (of a
    stream written to a pipe)."""

    counted: int
    present: int
    behind: int


UNTOLD = Extent(0, 0, 0)


@dataclass(frozen=True)
class _Layout:
    start: int  # byte of the first chunk
    name: int  # bytes of a chunk's name
    size: int  # bytes of its size
    order: str
    inclusive: bool = False  # the size counts name and size too
    align: int = 2


def _layout(head: bytes) -> _Layout | None:
    if head[:4] in (b"RIFF", b"RF64", b"BW64") and head[8:12] == b"WAVE":
        return _Layout(12, 4, 4, "little")
    if head[:4] == b"RIFX" and head[8:12] == b"WAVE":
        return _Layout(12, 4, 4, "big")
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return _Layout(12, 4, 4, "big")
    if head[:4] == b"riff" and head[24:28] == b"wave":
        return _Layout(40, 16, 8, "little", inclusive=True, align=8)
    if head[:4] == b"caff":
        return _Layout(8, 4, 8, "big", align=1)
    return None


def measure(path: Path) -> Extent | None:
    """The extent of the audio, None for other formats."""
    with path.open("rb") as file:
        end = file.seek(0, 2)
        file.seek(0)
        head = file.read(40)
        if head[:4] in (b".snd", b"dns."):
            order = "big" if head[:4] == b".snd" else "little"
            start, counted = (int.from_bytes(head[at : at + 4], order) for at in (4, 8))  # type: ignore[arg-type]
            known = start <= end and counted < 0xFFFFFFFF
            return (
                Extent(counted, min(counted, end - start), max(0, end - start - counted)) if known else UNTOLD
            )
        layout = _layout(head)
        return None if layout is None else _walk(file, end, layout)


def _walk(file: BinaryIO, end: int, layout: _Layout) -> Extent:
    position, counted, present, long = layout.start, 0, 0, None
    while (chunk := _chunk(file, position, end, layout)) is not None:
        name, begin, size = chunk
        if name[:4] in _FILES or (counted and name[:4] in _AUDIO):
            break
        if name == b"ds64":
            long = int.from_bytes(file.read(16)[8:16], "little")  # RF64: the size of the audio, in 64 bits
        if name[:4] in _AUDIO:
            if size == 0xFFFFFFFF and long is not None:
                size = long
            room = end - begin
            if size == 0 or (size > room and (_UNKNOWN <= size <= 0xFFFFFFFF or size >= 1 << 63)):
                return UNTOLD
            counted, present = size, min(size, room)
        elif size > end - begin:
            break  # these bytes are no chunk
        position = begin + size
        padded = position + -size % layout.align
        if padded != position and (
            padded >= end or _chunk(file, padded, end, layout) or not _chunk(file, position, end, layout)
        ):
            position = padded
    if not counted:
        return UNTOLD
    file.seek(min(position, end))
    tagged = file.read(11).startswith(_TAGS)
    return Extent(counted, present, 0 if tagged else max(0, end - position))


def _chunk(file: BinaryIO, position: int, end: int, layout: _Layout) -> tuple[bytes, int, int] | None:
    """Name, first byte and size of the chunk at `position`; None when there is none."""
    width = layout.name + layout.size
    if position + width > end:
        return None
    file.seek(position)
    header = file.read(width)
    name, size = header[: layout.name], int.from_bytes(header[layout.name :], layout.order)  # type: ignore[arg-type]
    if not all(32 <= byte < 127 for byte in name[:4]) or (layout.inclusive and size < width):
        return None
    return name, position + width, size - width if layout.inclusive else size
