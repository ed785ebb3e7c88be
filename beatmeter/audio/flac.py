"""What a FLAC file says of its samples: how many there are, their MD5, and whether the frames end where they
should.

Decoders stop after the number of samples in the header and do not compare its MD5. Layout: RFC 9639, sections
8.2 (STREAMINFO) and 9.1 (frame header).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int

from beatmeter.audio.reader import FETCH_AGAIN, TOLERANCE, truncated
from beatmeter.errors import AudioError, shown

_STREAMINFO = 34  # bytes
_BEGINNING = re.compile(rb"fLaC[\x00\x80]\x00\x00\x22")  # the marker and the header of STREAMINFO
_BLOCK = 1 << 20
_TAIL = 1 << 17  # bytes at the end in which the last frame is looked for, tags behind it included
_SIZES = {
    1: 192,
    **{code: 576 << (code - 2) for code in range(2, 6)},
    **{code: 256 << (code - 8) for code in range(8, 16)},
}


@dataclass(frozen=True)
class StreamInfo:
    """`samples` per channel (0: not told) at `sample_rate` Hz, bits of each, and the MD5 of all (None: not
    told)."""

    samples: int
    sample_rate: int
    bits: int
    md5: bytes | None


def inspect(path: Path, start: int = 0) -> StreamInfo:
    """The header of the FLAC file that begins at byte `start`. Raises AudioError (kind damaged) when more
    audio lies behind what the header counts, and (truncated) when the last frames are missing."""
    with path.open("rb") as file:
        file.seek(start)
        head = file.read(8 + _STREAMINFO)
        if not _BEGINNING.match(head) or len(head) < 8 + _STREAMINFO:
            raise AudioError(
                f"{shown(path)} is damaged: its FLAC header does not begin with STREAMINFO",
                FETCH_AGAIN,
                kind="damaged",
            )
        held = b""
        while block := file.read(_BLOCK):
            held = held[-7:] + block
            if _BEGINNING.search(held):
                what = f"{shown(path)} holds another FLAC file behind the first, which would not be read"
                raise AudioError(what, "Cut it into two, or re-encode it.", kind="damaged")
        end = file.tell()
        file.seek(max(start + len(head), end - _TAIL))
        tail = file.read()
    info = head[8:]
    packed = int.from_bytes(info[10:18])
    about = StreamInfo(
        packed & (1 << 36) - 1,
        packed >> 44,
        (packed >> 36 & 31) + 1,
        info[18:34] if any(info[18:34]) else None,
    )
    ends = _ends_of_frames(tail, int.from_bytes(info[2:4]))
    if about.samples and about.sample_rate and ends and about.samples not in ends:
        found, counted = ends[-1] / about.sample_rate, about.samples / about.sample_rate
        if counted - found > TOLERANCE:
            raise truncated(path, found, counted)
        raise AudioError(
            f"{shown(path)} is damaged: its header counts {counted:.2f} s of audio, its frames end at "
            f"{found:.2f} s",
            "Re-encode it.",
            kind="damaged",
        )
    return about


class Checksum:
    """The MD5 of decoded samples, block by block."""

    def __init__(self, info: StreamInfo) -> None:
        self.dtype = "int16" if info.bits <= 16 else "int32"
        self._bits = info.bits
        self._held = np.empty(0, np.int32)  # of 24 bits four are packed at a time
        self._expected, self._md5 = info.md5, hashlib.md5(usedforsecurity=False)

    def floats(self, block: Int[np.ndarray, "frame channel"]) -> Float32[np.ndarray, "frame channel"]:
        """Take note of a block of `dtype`, whose samples fill the highest bits; its values as libsndfile
        gives them in float32."""
        samples = block.reshape(-1)
        if self._bits == 16:
            self._update(samples.astype("<i2", copy=False))
        elif self._bits <= 16:
            samples = samples >> (16 - self._bits)
            self._update(samples.astype(np.int8) if self._bits <= 8 else samples.astype("<i2"))
        else:
            samples = np.concatenate([self._held, samples])
            whole = len(samples) // 4 * 4
            self._held = samples[whole:].copy()
            self._update(_pack(samples[:whole] >> (32 - self._bits)))
        values: np.ndarray = block.astype(np.float32)
        values *= np.float32(2.0 ** (1 - 8 * block.dtype.itemsize))
        return values

    def _update(self, values: np.ndarray) -> None:
        self._md5.update(values.data)

    @property
    def right(self) -> bool:
        """Whether the samples so far are those that were encoded."""
        if len(self._held):
            rest = np.pad(self._held, (0, 4 - len(self._held))) >> (32 - self._bits)
            self._update(_pack(rest).view(np.uint8)[: 3 * len(self._held)])
            self._held = self._held[:0]
        return self._md5.digest() == self._expected


def _pack(samples: Int[np.ndarray, " sample"]) -> np.ndarray:
    """Values of 24 bits, a multiple of four, as three bytes each, lowest first."""
    four = samples.astype("<i4", copy=False).view("<u4").reshape(-1, 4) & 0xFFFFFF
    three = np.empty((len(four), 3), "<u4")
    three[:, 0] = four[:, 0] | four[:, 1] << 24
    three[:, 1] = four[:, 1] >> 8 | four[:, 2] << 16
    three[:, 2] = four[:, 2] >> 16 | four[:, 3] << 8
    return three.reshape(-1)


def _ends_of_frames(data: bytes, block_size: int) -> list[int]:
    """The sample after each frame whose header lies in `data`, in order; `block_size` is the one of
    STREAMINFO."""
    ends = []
    at = data.find(b"\xff")
    while 0 <= at < len(data) - 6:
        if data[at + 1] & 0xFE == 0xF8 and (end := _end_of_frame(data[at : at + 16], block_size)) is not None:
            ends.append(end)
        at = data.find(b"\xff", at + 1)
    return ends


def _end_of_frame(header: bytes, block_size: int) -> int | None:
    """The sample after the frame with this header, None when it is no header: its checksum is compared."""
    size_code, rate_code, variable = header[2] >> 4, header[2] & 15, header[1] & 1
    if size_code == 0 or rate_code == 15 or header[3] >> 4 > 10 or header[3] & 1:
        return None
    ones = 8 - (header[4] ^ 0xFF).bit_length()  # the number is coded as in UTF-8, up to 7 bytes
    length = max(1, ones)
    if ones == 1 or ones == 8 or any(byte & 0xC0 != 0x80 for byte in header[5 : 4 + length]):
        return None
    number = header[4] & 0x7F >> ones
    for byte in header[5 : 4 + length]:
        number = number << 6 | byte & 0x3F
    at = 4 + length
    extra = {6: 1, 7: 2}.get(size_code, 0)
    size = int.from_bytes(header[at : at + extra]) + 1 if extra else _SIZES[size_code]
    at += extra + {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    if at >= len(header) or _crc8(header[:at]) != header[at]:
        return None
    return (number if variable else number * block_size) + size


def _crc8(data: bytes) -> int:
    """RFC 9639 section 9.1.8: polynomial x^8 + x^2 + x + 1, from 0."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ 0x07) & 0xFF if crc & 0x80 else crc << 1
    return crc
