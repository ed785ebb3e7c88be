"""Serato's tags in audio files: beat grid, cues and loops. Reading them needs mutagen (extra `dj`).

The formats are described at https://github.com/Holzhaus/serato-tags.
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Iterator
from pathlib import Path

from beatmeter.datasets.dj.library import Cue, Doubts, Library, LibraryTrack, Tempo
from beatmeter.datasets.files import find_audio, stem
from beatmeter.errors import DataError, shown

_ENVELOPE = b"application/octet-stream\0"
_NONE = 0x7F7F7F7F
_NAMES = {  # of a tag, by the container
    "grid": ("GEOB:Serato BeatGrid", "----:com.serato.dj:beatgrid", "serato_beatgrid"),
    "marks": ("GEOB:Serato Markers2", "----:com.serato.dj:markersv2", "serato_markers_v2", "serato_markers2"),
}


def read_serato(folder: Path) -> Library:
    """The tags of all audio files under a folder. Raises DataError without mutagen, and when no file has
    such tags."""
    try:
        import mutagen
    except ImportError:
        raise DataError("reading Serato's tags needs mutagen", "pip install 'beatmeter[dj]'") from None
    tracks: list[LibraryTrack] = []
    left_out: list[tuple[str, str]] = []
    for path in find_audio(folder) if folder.is_dir() else [folder]:
        name = path.relative_to(folder).as_posix() if folder.is_dir() else path.name
        try:
            file = mutagen.File(path)
        except (mutagen.MutagenError, OSError) as error:
            left_out.append((shown(name), f"its tags cannot be read: {shown(error)}"))
            continue
        grid, marks = (_tag(file, names) for names in _NAMES.values()) if file is not None else (None, None)
        if grid is None and marks is None:
            left_out.append((shown(name), "it has no tags of Serato"))
            continue
        try:
            tracks.append(_track(name, path, grid, marks, getattr(file.info, "length", None)))
        except DataError as error:
            left_out.append((shown(name), error.what))
    if not tracks:
        raise DataError(
            f"no audio file under {shown(folder)} has tags of Serato", "Analyse the tracks in Serato first."
        )
    return Library("Serato", tuple(tracks), tuple(left_out))


def _tag(file: object, names: tuple[str, ...]) -> bytes | None:
    tags = getattr(file, "tags", None)
    if tags is None:
        return None
    for name in names:
        try:
            value = tags[name]
        except (KeyError, ValueError):
            continue
        value = getattr(value, "data", value)
        value = value[0] if isinstance(value, list) else value
        return value.encode("latin-1", "replace") if isinstance(value, str) else bytes(value)
    return None


def _track(
    name: str, path: Path, grid: bytes | None, marks: bytes | None, seconds: float | None
) -> LibraryTrack:
    doubts = Doubts()
    tempos = parse_beatgrid(grid) if grid is not None else ()
    cues = parse_markers2(marks) if marks is not None else ()
    if tempos:
        doubts.add("downbeats assumed at the grid markers")
    return LibraryTrack(
        shown(stem(Path(name)).as_posix()),
        path.as_posix(),
        seconds,
        path.stem,
        "",
        tempos,
        cues,
        tuple(doubts.flags),
        whole_seconds=False,
    )


def parse_beatgrid(data: bytes) -> tuple[Tempo, ...]:
    """The tempo changes of a `Serato BeatGrid`, from any container. Raises DataError for a tag that is not
    whole."""
    body = _unwrap(data)
    if body[:2] != b"\x01\x00" or len(body) < 6:
        raise DataError("its beat grid is not one that Serato wrote")
    (count,) = struct.unpack_from(">I", body, 2)
    if count == 0:
        return ()
    if len(body) < 6 + 8 * count:  # the footer may be any byte, or missing
        raise DataError(f"its beat grid is cut: {len(body)} bytes for {count} markers")
    found: list[Tempo] = []
    for i in range(count):
        (time,) = struct.unpack_from(">f", body, 6 + 8 * i)
        if i + 1 < count:
            (beats,) = struct.unpack_from(">I", body, 10 + 8 * i)
            (following,) = struct.unpack_from(">f", body, 14 + 8 * i)
            bpm = 60 * beats / (following - time) if following > time else 0.0
        else:
            (bpm,) = struct.unpack_from(">f", body, 10 + 8 * i)
        if not (1 < bpm < 1000 and abs(time) < 1e6):
            raise DataError(f"its beat grid has a tempo of {bpm:g} at {time:g} s")
        place = (
            1
            if not found
            else (found[-1].place - 1 + round((time - found[-1].time) * found[-1].bpm / 60)) % 4 + 1
        )
        found.append(Tempo(float(time), float(bpm), place))
    return tuple(found)


def parse_markers2(data: bytes) -> tuple[Cue, ...]:
    """The cues and loops of `Serato Markers2`, from any container. Raises DataError for a tag that is not
    whole."""
    body = _unwrap(data)
    if body[:2] != b"\x01\x01":
        raise DataError("its cues are not ones that Serato wrote")
    inner = body if _is_entry(body[2:]) else b"\x01\x01"
    if inner is not body and body[2:].strip(b"\0\n"):
        inner = _base64(body[2:].split(b"\0", 1)[0])
    cues = []
    for name, entry in _entries(inner[2:]):
        if name == b"CUE" and len(entry) >= 12:
            (start,) = struct.unpack_from(">I", entry, 2)
            if start != _NONE:
                cues.append(Cue(start / 1000, "hot", _text(entry[12:])))
        elif name == b"LOOP" and len(entry) >= 20:
            start, end = struct.unpack_from(">II", entry, 2)
            if _NONE not in (start, end):
                cues.append(Cue(start / 1000, "loop", _text(entry[20:]), max(0, end - start) / 1000))
    return tuple(cues)


def _text(data: bytes) -> str:
    return shown(data.split(b"\0", 1)[0].decode("utf-8", "replace")).strip()


def _is_entry(data: bytes) -> bool:
    name, zero, rest = data.partition(b"\0")
    return bool(zero) and name in (b"COLOR", b"CUE", b"LOOP", b"BPMLOCK", b"FLIP") and len(rest) >= 4


def _entries(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(name, content) until an empty name. Raises DataError where one is cut."""
    while data and not data.startswith(b"\0"):
        name, _, data = data.partition(b"\0")
        length = struct.unpack_from(">I", data)[0] if len(data) >= 4 else -1
        if length < 0 or len(data) < 4 + length:
            raise DataError(f"its cues are cut within {shown(name.decode('latin-1'))[:20]!r}")
        yield name, data[4 : 4 + length]
        data = data[4 + length :]


def _unwrap(data: bytes) -> bytes:
    """The body of a tag: as it is in ID3, within base64 in FLAC and MP4 (after a MIME type and a name) and
    in Ogg."""
    if data[:2] in (b"\x01\x00", b"\x01\x01"):
        return data
    body = _base64(data)
    if body.startswith(_ENVELOPE):
        body = body[len(_ENVELOPE) :].partition(b"\0")[2].partition(b"\0")[2]
    return body


def _base64(data: bytes) -> bytes:
    """Base64 with line ends, with or without `=`, with a stray last byte. Raises DataError for anything
    else."""
    text = b"".join(data.split()).rstrip(b"\0=")
    if len(text) % 4 == 1:
        text = text[:-1]
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise DataError("a tag of Serato is no base64") from None
