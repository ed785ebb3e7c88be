"""A manifest: one table with a row per file, under column names that people use."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from beatmeter.datasets import files
from beatmeter.datasets.dataset import LABEL_PROBLEM, ROW, Dataset, Exclusion, merge_rows
from beatmeter.datasets.labels import Labels, parse_labels
from beatmeter.datasets.tables import Row, read_table
from beatmeter.errors import DataError, shown
from beatmeter.schema import Track

FILE = ("file", "path", "filename", "audio")
CLASS = ("class", "meter", "label")  # the first that is there
GROUP = ("group", "tune", "song", "artist")
_SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
_USED = {"id", "source", "split", "start", "end", *FILE}


def fits(columns: Sequence[str]) -> bool:
    """Whether a table with these columns names files and their classes."""
    return any(name in columns for name in FILE) and any(name in columns for name in CLASS)


def read(path: Path, classes: Sequence[str]) -> Dataset:
    """Read a manifest whose files are relative to its folder.

    A track's id is its `id`, or its file as it lies under the folder; its group the first of GROUP, else the
    song of a segment, else the track itself; `split` may be absent.
    """
    table = read_table(path)
    if not any(name in table.columns for name in FILE):
        raise DataError(
            f"{shown(path)} names no files",
            f"One column must be called {', '.join(FILE[:-1])} or {FILE[-1]}; it has: "
            f"{', '.join(table.columns)}.",
        )
    audio = files.AudioFolder(path.parent)
    tracks: list[Track] = []
    excluded: list[Exclusion] = []
    for row in table.rows:
        outcome = _track(row, audio, classes)
        (tracks if isinstance(outcome, Track) else excluded).append(outcome)  # type: ignore[arg-type]
    kept, doubles = merge_rows(tracks)
    return Dataset(tuple(kept), (*excluded, *doubles), files.name_of(path.parent), "manifest", table.sha256)


def _track(row: Row, audio: files.AudioFolder, classes: Sequence[str]) -> Track | Exclusion:
    cell = next((row.cells[name] for name in FILE if row.text(name)), "")
    source, split = shown(row.text("source")), row.text("split")

    def exclude(kind: str, reason: str) -> Exclusion:
        return Exclusion(
            shown(row.text("id") or cell),
            shown(cell),
            row.where,
            kind,
            reason,
            _SPLITS.get(split.lower()),
            source,
        )

    if row.problem:
        return exclude("row", row.problem)
    if split and split.lower() not in _SPLITS:
        return exclude("row", f"split {split!r} is none of train, val, test")
    if row.text("end") or row.text("start").strip("0.:"):
        return exclude("row", "start and end name a part of a file: cut that part into a file of its own")
    try:
        path = audio.find(cell)
    except files.MissingFileError as error:
        return exclude(error.kind, error.what)
    place = path.relative_to(audio.root)
    extra = {ROW: row.where, **row.others(_USED)}
    labels = Labels({}, "")
    try:
        if cell_of_class := row.text(*CLASS):
            labels = parse_labels(cell_of_class, classes)
    except DataError as error:
        extra[LABEL_PROBLEM] = str(error)
    piece = files.song(files.stem(files.clean(cell)).name)
    group = shown(row.text(*GROUP)) or (f"song:{shown(piece)}" if piece else "")
    identity = shown(row.text("id") or place.as_posix())
    return Track(
        identity,
        path,
        labels.weights,
        labels.primary or None,
        group,
        source or files.name_of(audio.root),
        _SPLITS.get(split.lower()),
        extra,
    )
