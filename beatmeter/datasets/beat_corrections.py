"""Corrected beats: a review of beats as a reviewer filled it in, applied to a dataset.

    id,kind,time,suggested,quality,new time,comment

`new time` is empty (undecided), `keep` (the annotation is right), `drop` (no beat is there), `suggested` (the
beat is at the suggested time), or the time of the beat in seconds. A line without `time` is of a beat that is
perhaps lacking; an id and a new time alone add one. What a review does to the count of the bar:
`beatmeter.datasets.annotations.edits`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any, Self

from beatmeter.datasets.annotations.beside import find_annotation
from beatmeter.datasets.annotations.edits import CORRECTED, FLAG, SAME, Edit, find_beat, to_text
from beatmeter.datasets.annotations.native import render_json
from beatmeter.datasets.dataset import Dataset
from beatmeter.datasets.decisions import (
    BEAT_DECISION,
    DROP,
    KEEP,
    KINDS,
    POINT,
    Decided,
    DecisionTable,
    strangers,
)
from beatmeter.datasets.files import clean, stem
from beatmeter.errors import DataError, shown
from beatmeter.runtime.artifacts import read_text
from beatmeter.runtime.atomic import write_text
from beatmeter.runtime.paths import StrPath
from beatmeter.schema import Track

SUGGESTED = ("suggested", "accept")
_HINT = "Write keep, drop, suggested, or the time of the beat in seconds: 12.345."


@dataclass(frozen=True)
class BeatFile:
    """What a review of beats says, by id: the corrections, and the beats that the reviewer kept as they are
    (corrections that change nothing)."""

    path: Path
    edits: Mapping[str, Sequence[Edit]]
    kept: Mapping[str, Sequence[Edit]]
    sha256: str = ""

    @classmethod
    def read(cls, path: StrPath) -> Self:
        """Read a file. Raises DataError with file and line."""
        return cls.of(DecisionTable.read(path))

    @classmethod
    def of(cls, table: DecisionTable) -> Self:
        """What a table says of beats. Raises DataError with file and line."""
        hint = "A review of beats has the columns id, time, suggested and new time."
        table.require_columns("id", "time", BEAT_DECISION, hint=hint)
        edits: dict[str, list[Edit]] = {}
        kept: dict[str, list[Edit]] = {}
        for row in table.rows:
            edit = _decision(row, f"{shown(table.path.name)}:{row.line}")
            if edit is None:
                continue
            id = row.cells["id"]
            for other in (*edits.get(id, ()), *kept.get(id, ())):
                if edit.time is not None and other.time is not None and abs(edit.time - other.time) <= SAME:
                    what = f"{edit.where}: the beat at {edit.time:.3f} s of {id!r} is decided on again"
                    raise DataError(f"{what}, after {other.where}", "Leave one of the two lines empty.")
            (kept if edit.time == edit.new else edits).setdefault(id, []).append(edit)
        return cls(table.path, edits, kept, table.sha256)


def _decision(row: Decided, where: str) -> Edit | None:
    """What a line says; None where nothing is decided, or where a beat that is not there is kept away. A
    beat that is kept is at its time anew."""
    decision, time = row.text(BEAT_DECISION), _seconds(row, "time", where)
    word = decision.lower()
    if not decision:
        return None
    if word in KEEP:
        return None if time is None else Edit(time, time, where)
    if word in DROP:
        if time is None:
            raise DataError(f"{where}: this line has no beat to drop", "Write keep: no beat is there.")
        return Edit(time, None, where)
    if word in SUGGESTED:
        new = _seconds(row, "suggested", where)
        if new is None:
            raise DataError(f"{where}: no time is suggested on this line", _HINT)
    else:
        new = _seconds(row, BEAT_DECISION, where)
        assert new is not None
        if new < 0:
            raise DataError(f"{where}: a beat at {new:g} s lies before the audio begins", _HINT)
    return Edit(time, time if time is not None and abs(new - time) <= SAME else new, where)


def _seconds(row: Decided, column: str, where: str) -> float | None:
    """A cell as seconds, None for an empty one."""
    text = row.text(column)
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        hint = _HINT if column == BEAT_DECISION else POINT
        raise DataError(f"{where}: the {column} {shown(text)[:40]!r} is no time in seconds", hint)
    return value


def correct_beats(dataset: Dataset, file: BeatFile) -> Dataset:
    """The dataset whose annotations are read with the beats corrected.

    `Dataset.corrections` says what the file did. Raises DataError (file and line) for a decision that does
    not fit the annotation that is there now, and when the file names nothing of this dataset.
    """
    foreign = strangers(file.path, sorted({*file.edits, *file.kept}), dataset)
    tracks: list[Track] = []
    changes: dict[str, list[list[float | None]]] = {}
    doubtful: dict[str, list[str]] = {}
    for track in dataset.tracks:
        edits, kept = file.edits.get(track.id, ()), file.kept.get(track.id, ())
        if not edits and not kept:
            tracks.append(track)
            continue
        tracks.append(corrected := _corrected(track, file, edits, kept))
        if edits:
            changes[track.id] = [[e.time, e.new] for e in edits]
            annotation = find_annotation(corrected)
            assert annotation is not None
            assert annotation.grid is not None
            flags = [f for f in annotation.grid.provenance.flags if f != FLAG and "corrected beat" in f]
            doubtful |= {track.id: flags} if flags else {}
    kinds = [e.kind for id in changes for e in file.edits[id]]
    done: dict[str, Any] = {
        "file": shown(file.path),
        "sha256": file.sha256,
        **{kind: kinds.count(kind) for kind in KINDS},
        "kept": sum(len(file.kept.get(t.id, ())) for t in dataset.tracks),
        "not here": foreign,
        "beats": changes,
        "doubtful": doubtful,
    }
    return replace(dataset, tracks=tuple(tracks), corrections=(*dataset.corrections, done))


def _corrected(track: Track, file: BeatFile, edits: Sequence[Edit], kept: Sequence[Edit]) -> Track:
    """The track with the decisions on its beats. Raises DataError for what cannot have been reviewed."""
    annotation = find_annotation(track)
    if annotation is None or annotation.grid is None:
        where = [*edits, *kept][0].where
        raise DataError(f"{where}: no beats of {track.id!r} are annotated", "See docs/annotations.md.")
    for edit in kept:
        assert edit.time is not None
        find_beat(annotation.grid, edit.time, edit.where)
    if not edits:
        return track
    text = to_text(track.extra.get(CORRECTED, ""), shown(file.path.name), edits)
    return replace(track, extra={**track.extra, CORRECTED: text})


def write_corrected(dataset: Dataset, folder: Path, out: Path) -> int:
    """Write what is known of the annotated tracks of a dataset in `folder`, their beats corrected, to `out`;
    how many files. They are named as their audio, so that they are found where `out` becomes the folder
    `annotations` of the dataset.

    Raises DataError, before anything is written, for a file that is there and says something else.
    """
    texts: dict[Path, str] = {}
    for track in dataset.tracks:
        annotation = find_annotation(track)
        if annotation is not None:
            texts[out / _place(track, folder)] = render_json(annotation)
    for path, text in texts.items():
        if path.exists() and (not path.is_file() or read_text(path, DataError) != text):
            raise DataError(f"{shown(path)} is there already", "Name a new folder with --out.")
    for path, text in texts.items():
        write_text(path, text)
    return len(texts)


def _place(track: Track, folder: Path) -> PurePath:
    """The name of a track's annotation: that of its audio, without the folder `audio`."""
    audio = stem(track.path)
    try:
        parts = audio.relative_to(folder).parts
    except ValueError:
        parts = stem(Path(*clean(track.id).parts)).parts
    inner = parts[1:] if len(parts) > 1 and parts[0] == "audio" else parts
    return PurePath(*inner[:-1], inner[-1] + ".json")
