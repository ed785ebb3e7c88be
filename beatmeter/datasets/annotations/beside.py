"""Annotations beside audio: found by the columns of a manifest, or by name in folders beside the audio's.

For `MUSIC/audio/set/song.ogg` these are looked for, in this order; each gives the parts that those before
it lack:

    columns `annotation`, `beats`, `sections` of the manifest    files, relative to the manifest's folder
    MUSIC/audio/set/song.json (.yaml, .jams, .beats, .lab)       beside the audio itself
    MUSIC/annotations/set/song.json (.yaml, .jams)
    MUSIC/beats/set/song.beats
    MUSIC/lab/set/song.lab                                       or another folder, by name
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from beatmeter.datasets import files
from beatmeter.datasets.annotations import native
from beatmeter.datasets.annotations.edits import with_corrections
from beatmeter.datasets.annotations.records import Annotation
from beatmeter.datasets.annotations.registry import read_annotation
from beatmeter.errors import DataError, shown
from beatmeter.schema import Track

WHOLE = (".json", ".yaml", ".yml", ".jams")
_DEPTH = 4  # folders above the audio in which its set may begin


@dataclass(frozen=True)
class Folders:
    """Where annotations lie: the columns of a manifest that name files, and the folders beside the
    audio's."""

    annotations: str = "annotations"
    beats: str = "beats"
    sections: str = "lab"
    columns: tuple[str, ...] = ("annotation", "beats", "sections")


def find_annotations(tracks: Sequence[Track], folders: Folders | None = None) -> dict[str, Annotation]:
    """The annotations of the tracks by id; a track without any is not in it. Raises DataError for a file
    that cannot be read (file and line), and for one that a manifest names and that is not there."""
    found: dict[str, Annotation] = {}
    for track in tracks:
        annotation = find_annotation(track, folders)
        if annotation is not None:
            found[track.id] = annotation
    return found


def find_annotation(track: Track, folders: Folders | None = None) -> Annotation | None:
    """What is known of one track, its beats as they were corrected; None when there is nothing. Raises
    DataError as `find_annotations`."""
    found: Annotation | None = None
    for path in annotation_files(track, folders or Folders()):
        here = read_annotation(path)
        found = here if found is None else found.beneath(here)
    return None if found is None else replace(with_corrections(found, track.extra), id=track.id)


def annotation_files(track: Track, folders: Folders) -> Iterator[Path]:
    """The files that say something about a track, the most telling first. Raises DataError for a named file
    that is not there."""
    yield from _named(track.path, track.extra, folders.columns)
    stem = files.stem(track.path)
    for suffix in WHOLE:
        if _is_ours(path := stem.with_name(stem.name + suffix)):
            yield path
    yield from (p for suffix in (".beats", ".lab") if (p := stem.with_name(stem.name + suffix)).is_file())
    for folder in list(track.path.parents)[:_DEPTH]:
        place = stem.relative_to(folder)
        inner = place.parts[1:]  # without the folder `audio`
        for name in (Path(*inner), place) if inner else (place,):
            for kind, suffixes in (
                (folders.annotations, WHOLE),
                (folders.beats, (".beats",)),
                (folders.sections, (".lab",)),
            ):
                for suffix in suffixes if kind else ():
                    path = folder / kind / name.with_name(name.name + suffix)
                    if path.is_file() and (suffix not in WHOLE or _is_ours(path)):
                        yield path


def _named(audio: Path, cells: Mapping[str, str], columns: Sequence[str]) -> Iterator[Path]:
    for column in columns:
        cell = cells.get(column, "").strip()
        if not cell or Path(cell).suffix.lower() not in (
            *WHOLE,
            ".beats",
            ".lab",
            ".txt",
        ):  # a column of another meaning
            continue
        place = files.clean(cell)
        path = next((p for folder in list(audio.parents)[:_DEPTH] if (p := folder / place).is_file()), None)
        if path is None:
            where = f"{cells.get('row', '')}: " if cells.get("row") else ""
            raise DataError(
                f"{where}the file {shown(cell)} of the column {column!r} is not there",
                "It is looked for beside the manifest.",
            )
        yield path


def _is_ours(path: Path) -> bool:
    """Whether it is there, and no other JSON: a set that the generator made keeps its own notes under the
    same name."""
    if not path.is_file():
        return False
    if path.suffix.lower() == ".jams":
        return True
    with path.open(encoding="utf-8", errors="replace") as file:
        return native.fits(file.read(4096))
