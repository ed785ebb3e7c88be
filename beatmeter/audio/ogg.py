"""Whether an Ogg file is whole: every page's checksum and number, the last page of every stream, and how long
the audio is.

libsndfile and ffmpeg leave out pages that are damaged or missing and go on, and libsndfile reads the first of
several streams that follow one another. Layout: RFC 3533 section 6 (pages), the Vorbis I specification, RFC
7845 (Opus).
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from beatmeter.audio.reader import FETCH_AGAIN
from beatmeter.errors import AudioError, shown

_HEADER = 27  # bytes of a page before its table of segments
_BITS_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_NO_PACKET_ENDS = -1  # the granule position of a page on which none does
_OPUS_RATE = 48_000  # Hz, of Opus' granule positions, whatever the rate of what was encoded
_BLOCK = 1 << 20
_REMUX = "Fetch it again; if it is complete as it is, write it anew: ffmpeg -i OLD -c copy NEW."


@dataclass(frozen=True)
class Streams:
    """Audio streams that follow one another in a file (`links`; more than one is a chain), and the seconds of
    all together: at `least`, when they began with the first page that tells a position, at `most`, when they
    began at position 0."""

    links: int
    least: float
    most: float


@dataclass
class _Stream:
    rate: int  # granules a second; 0: no audio
    skip: int  # granules before the audio
    page: int  # number of the last page
    first: int | None = None  # granule position of the first page with audio
    last: int = 0
    ended: bool = False

    def seconds(self, since: int) -> float:
        return max(0, self.last - self.skip - since) / self.rate


def inspect(path: Path, start: int = 0) -> Streams:
    """Walk over all pages from byte `start`. Raises AudioError of the kind damaged for a page whose checksum
    is wrong or that is missing, truncated when a stream of audio lacks its last page, unreadable when no page
    holds audio."""
    links: list[_Stream] = []
    streams: dict[bytes, _Stream] = {}  # by serial number, of the group that is read
    beginning = False  # the pages read last began streams: others that begin now lie beside them, not after
    audio: _Stream | None = None
    with path.open("rb", buffering=_BLOCK) as file:
        file.seek(start)
        while (page := _next_page(file, path, audio)) is not None:
            header, body = page
            serial, number, flags = header[14:18], int.from_bytes(header[18:22], "little"), header[5]
            granule = int.from_bytes(header[6:14], "little", signed=True)
            if flags & 2:
                if not beginning:
                    _require_ended(path, audio)
                    streams, audio, beginning = {}, None, True
                stream = streams[serial] = _Stream(*_rate_and_skip(body), page=number)
                if stream.rate and audio is None:
                    audio = stream
                    links.append(stream)
            else:
                beginning = False
                stream = streams.get(serial) or _Stream(0, 0, number - 1)
                missing = (number - stream.page - 1) & 0xFFFFFFFF
                if missing and stream.rate:
                    raise AudioError(
                        f"{shown(path)} is damaged: Ogg pages are missing {_where(audio)}",
                        _REMUX,
                        kind="damaged",
                    )
                stream.page = number
            if granule > 0 and stream.rate:
                stream.first, stream.last = granule if stream.first is None else stream.first, granule
            stream.ended |= bool(flags & 4)
    _require_ended(path, audio)
    if not links:
        raise AudioError(f"{shown(path)} is an Ogg file without audio that is known")
    return Streams(len(links), sum(s.seconds(s.first or 0) for s in links), sum(s.seconds(0) for s in links))


def _next_page(file: BinaryIO, path: Path, audio: _Stream | None) -> tuple[bytes, bytes] | None:
    """Header and body of the next page, its checksum compared; None when there is no more. Bytes between
    pages are passed over: what they cost is known by the numbers of the pages."""
    header = file.read(_HEADER)
    if header[:4] != b"OggS":
        if not _find_page(file, header):
            return None
        header = file.read(_HEADER)
    table = file.read(header[26]) if len(header) == _HEADER else b""
    size = sum(table)
    body = file.read(size)
    if len(header) < _HEADER or len(table) < header[26] or len(body) < size:
        raise AudioError(
            f"{shown(path)} is truncated: it ends inside an Ogg page {_where(audio)}",
            FETCH_AGAIN,
            kind="truncated",
        )
    if _checksum(b"".join((header[:22], bytes(4), header[26:], table, body))) != int.from_bytes(
        header[22:26].translate(_BITS_REVERSED)
    ):
        raise AudioError(
            f"{shown(path)} is damaged: the checksum of an Ogg page is wrong {_where(audio)}",
            FETCH_AGAIN,
            kind="damaged",
        )
    return header, body


def _find_page(file: BinaryIO, read: bytes) -> bool:
    """Move to the next page, given the bytes just `read`; False when there is none."""
    position, block = file.tell() - len(read), read
    while True:
        block += file.read(_BLOCK)
        at = block.find(b"OggS")
        if at >= 0:
            file.seek(position + at)
            return True
        if len(block) < _BLOCK:
            return False
        position, block = position + len(block) - 3, block[-3:]


def _checksum(page: bytes) -> int:
    """Ogg's CRC (polynomial 0x04c11db7, highest bit first, from 0) with its bits in reverse: the one that
    zlib computes, of bytes whose bits are reversed, without its start and end of ones."""
    return zlib.crc32(page.translate(_BITS_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF


def _rate_and_skip(packet: bytes) -> tuple[int, int]:
    """Granules a second and granules before the audio, from the first packet of a stream; (0, 0) of one that
    is no audio."""
    if packet.startswith(b"\x01vorbis"):
        return int.from_bytes(packet[12:16], "little"), 0
    if packet.startswith(b"OpusHead"):
        return _OPUS_RATE, int.from_bytes(packet[10:12], "little")
    if packet.startswith(b"\x7fFLAC"):
        return int.from_bytes(packet[27:30]) >> 4, 0
    if packet.startswith(b"Speex   "):
        return int.from_bytes(packet[36:40], "little"), 0
    return 0, 0


def _require_ended(path: Path, audio: _Stream | None) -> None:
    if audio is not None and not audio.ended:
        raise AudioError(
            f"{shown(path)} is truncated: there is no last Ogg page, the audio stops {_where(audio)}",
            _REMUX,
            kind="truncated",
        )


def _where(audio: _Stream | None) -> str:
    return "at its beginning" if audio is None or not audio.last else f"after {audio.seconds(0):.2f} s"
