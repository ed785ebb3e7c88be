"""How much is missing at the end of an MP4, M4A, MOV, Matroska or WebM file, by the sizes in it alone.

Where nobody tells how long such a file should be, this does: boxes (ISO 14496-12, 4.2) and EBML elements
(RFC 8794) begin with their size.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

_FIRST = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")  # with what such files begin
_NEEDED = (b"moov", b"mdat", b"moof")
_EBML, _SEGMENT = b"\x1aE\xdf\xa3", b"\x18S\x80g"


def missing(path: Path) -> int:
    """Bytes that its container counts behind the end of the file; 0 for whole files and for other formats."""
    with path.open("rb") as file:
        end = file.seek(0, 2)
        file.seek(0)
        head = file.read(8)
        if head[4:] in _FIRST:
            return _missing_of_boxes(file, end)
        return _missing_of_elements(file, end) if head.startswith(_EBML) else 0


def _missing_of_boxes(file: BinaryIO, end: int) -> int:
    position = 0
    while position + 8 <= end:
        file.seek(position)
        header = file.read(16)
        size, name = int.from_bytes(header[:4]), header[4:8]
        if size == 1:
            size = int.from_bytes(header[8:16])
        if size < 8:  # 0: as far as the file goes; else it is no box
            return 0
        position += size
        if position > end:
            return position - end if name in _NEEDED else 0
    return 0


def _missing_of_elements(file: BinaryIO, end: int) -> int:
    """The header of the file and the segment that follows it."""
    position = 0
    for name in (_EBML, _SEGMENT):
        file.seek(position)
        head = file.read(12)
        width = 9 - head[4].bit_length() if len(head) > 4 else 9
        if head[:4] != name or width > 8 or len(head) < 4 + width:
            return 0
        size = int.from_bytes(head[4 : 4 + width]) & ((1 << 7 * width) - 1)
        if size == (1 << 7 * width) - 1:  # not known when it was written
            return 0
        position += 4 + width + size
    return max(0, position - end)
