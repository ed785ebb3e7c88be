"""METER2800 and tables like it: `filename label meter alt_meter`, one table per split, `/SRC/stem.wav` for a
name.

A clip is `SRC/stem`: stems collide between sources. Labels are taken as published. The same columns with
several meters in a cell, under `/WIKI/`, are the WIKIMETER tables: there a group is a song, cut into
segments, or what a column `group` says.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from beatmeter.datasets import files
from beatmeter.datasets.dataset import LABEL_PROBLEM, ROW, Dataset, Exclusion, merge_rows
from beatmeter.datasets.labels import Labels, parse_labels, to_class
from beatmeter.datasets.tables import SUFFIXES, Row, read_table
from beatmeter.errors import DataError, shown
from beatmeter.schema import Track

COLUMNS = ("filename", "label", "meter")
_OFFICIAL = re.compile(r"data_(train|val|test)_([24])_classes", re.IGNORECASE)
_SPLIT = re.compile(r"(?<![a-z])(train|val|test)(?![a-z])", re.IGNORECASE)

# Clips of METER2800 that are known to be no music. They were reported by stem, without their source, so a
# clip with such a stem is left out whatever its source.
NON_MUSIC = ("0143", "0144", "00361")

# Sources that the public archives of METER2800 leave out, and what to do about it.
NOT_IN_ARCHIVES = {
    "GTZAN": "GTZAN is not in the public archives of METER2800: get it by itself and put it under GTZAN/"
}


def official_tables(folder: Path, classes: int) -> list[Path]:
    """The tables `data_{train,val,test}_{2,4}_classes` of a folder, for `classes` (0: 4 where there are any,
    else 2); a `.tab` is taken before a `.csv` of the same name. Raises DataError when only the others are
    there."""
    found: dict[tuple[str, str], Path] = {}
    for path in sorted(
        files.listing(folder),
        key=lambda p: (SUFFIXES.index(p.suffix.lower()) if p.suffix.lower() in SUFFIXES else 9, p.name),
    ):
        match = _OFFICIAL.fullmatch(path.stem)
        if match and path.suffix.lower() in SUFFIXES:
            found.setdefault((match[2], match[1].lower()), path)
    wanted = str(classes) if classes else ("4" if any(n == "4" for n, _ in found) else "2")
    tables = [found[wanted, split] for split in ("train", "val", "test") if (wanted, split) in found]
    if found and not tables:
        raise DataError(
            f"{shown(folder)} has no tables of {wanted} classes", f"Set data.classes={next(iter(found))[0]}."
        )
    return tables


def split_of(path: Path) -> str | None:
    """The split that a table's name tells: `data_val_4_classes.tab`, `wiki-train.csv`."""
    names = {match.lower() for match in _SPLIT.findall(path.stem.replace("_", " "))}
    return names.pop() if len(names) == 1 else None


def read(root: Path, tables: Sequence[Path], classes: Sequence[str]) -> Dataset:
    """Read label tables whose files lie under `root`."""
    read_tables = [(path, read_table(path)) for path in tables]
    rows = [(row, split_of(path)) for path, table in read_tables for row in table.rows]
    for path, table in read_tables:
        lacking = [name for name in COLUMNS if name not in table.columns]
        if lacking:
            raise DataError(
                f"{shown(path)} lacks the columns {', '.join(lacking)}",
                f"It has: {', '.join(table.columns)}.",
            )
    audio = files.AudioFolder(root)
    sources = {_source(row) for row, _ in rows} - {""}
    kind = "wikimeter" if sources and all("WIKI" in source.upper() for source in sources) else "meter2800"
    tracks: list[Track] = []
    excluded: list[Exclusion] = []
    for row, split in rows:
        outcome = _track(row, split, audio, classes, kind, anywhere=len(sources) <= 1)
        (tracks if isinstance(outcome, Track) else excluded).append(outcome)  # type: ignore[arg-type]
    kept, doubles = merge_rows(tracks)
    content = hashlib.sha256("".join(table.sha256 for _, table in read_tables).encode()).hexdigest()
    return Dataset(tuple(kept), (*excluded, *doubles), files.name_of(root), kind, content)


def _source(row: Row) -> str:
    try:
        parts = files.clean(row.cells.get("filename", "")).parts
    except files.MissingFileError:
        return ""
    return parts[0] if len(parts) > 1 else ""


def _track(
    row: Row, split: str | None, audio: files.AudioFolder, classes: Sequence[str], kind: str, anywhere: bool
) -> Track | Exclusion:
    cell, source = row.cells.get("filename", ""), _source(row)

    def exclude(why: str, reason: str) -> Exclusion:
        return Exclusion(identity, shown(cell), row.where, why, reason, split, source)

    identity = shown(cell)
    if row.problem:
        return exclude("row", row.problem)
    try:
        name = files.stem(files.clean(cell))
        identity = shown(name)
        if kind == "meter2800" and name.name in NON_MUSIC:
            return exclude("non-music", f"known to be no music: clip {name.name} of METER2800")
        path = audio.find(cell, anywhere)
    except files.MissingFileError as error:
        told = NOT_IN_ARCHIVES.get(source.upper()) if error.kind == "missing" else None
        return exclude(error.kind, told or error.what)
    extra = {ROW: row.where, **row.others(COLUMNS)}
    labels = Labels({}, "")
    try:
        if row.text("meter", "label"):
            labels = _labels(row, classes)
    except DataError as error:
        extra[LABEL_PROBLEM] = str(error)
    piece = files.song(name.name)
    group = shown(row.text("group")) or (f"song:{shown(piece)}" if piece else identity)
    return Track(identity, path, labels.weights, labels.primary or None, group, source, split, extra)


def _labels(row: Row, classes: Sequence[str]) -> Labels:
    """The meter column decides; the word in the label column must be one of its meters."""
    labels = parse_labels(row.text("meter", "label"), classes)
    word, meter = row.text("label"), row.text("meter")
    if word and meter and _as_class(word, classes) not in (None, *labels.weights):
        raise DataError(f"its label says {word!r}, its meter {meter!r}")
    return labels


def _as_class(word: str, classes: Sequence[str]) -> str | None:
    try:
        return to_class(word, classes)
    except DataError:
        return None
