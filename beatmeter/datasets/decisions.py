"""A CSV file with the decisions of a reviewer: its rows with their lines, and the words that decide."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from beatmeter.datasets.dataset import Dataset
from beatmeter.errors import DataError, nearest, shown
from beatmeter.runtime.artifacts import read_bytes
from beatmeter.runtime.paths import StrPath, as_path

KEEP, DROP = ("keep", "ok"), ("drop", "exclude", "leave out")
KINDS = ("moved", "removed", "added")  # of corrections of beats
POINT = "Write seconds with a decimal point: 12.345."
BEAT_DECISION = "new time"  # the column that a reviewer of beats fills in


@dataclass(frozen=True)
class Decided:
    """One row: its cells by column, and `line`, the number of its last line in the file."""

    line: int
    cells: Mapping[str, str]

    def text(self, column: str) -> str:
        """A cell without spaces around it; empty where there is none."""
        return (self.cells.get(column) or "").strip()


@dataclass(frozen=True)
class DecisionTable:
    """A file as it was read; `sha256` is the hash of its bytes."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[Decided, ...]
    sha256: str

    @classmethod
    def read(cls, path: StrPath) -> Self:
        """Read a file. Raises DataError (file and line) for one that is no UTF-8, and for a row without an
        id or with more cells than the header."""
        path = as_path(path)
        try:
            data = read_bytes(path, DataError)
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(f"cannot read {shown(path)}: {error}") from None
        reader = csv.DictReader(io.StringIO(text, newline=""))
        columns = tuple(reader.fieldnames or ())
        rows = []
        for row in reader:
            if "id" in columns and (not row["id"] or None in row):
                wrong = "has an empty id" if not row["id"] else "has more cells than the header"
                beats = BEAT_DECISION in columns
                hint = POINT if beats else 'Labels that hold commas must be quoted: "3,4".'
                raise DataError(f"{shown(path)}:{reader.line_num}: this line {wrong}", hint)
            rows.append(Decided(reader.line_num, {k: v or "" for k, v in row.items() if k is not None}))
        return cls(path, columns, tuple(rows), hashlib.sha256(data).hexdigest())

    @property
    def of_beats(self) -> bool:
        """Whether beats are decided on, and not labels of tracks."""
        return "label" not in self.columns and "time" in self.columns

    def require_columns(self, *names: str, hint: str) -> None:
        """Raise DataError for a column that is not there."""
        missing = [name for name in names if name not in self.columns]
        if missing:
            raise DataError(f"{shown(self.path)} has no column {missing[0]!r}", hint)


def strangers(path: Path, named: Collection[str], dataset: Dataset) -> list[str]:
    """Which of the ids that a file names are no track of a dataset and none that it has left out. Raises
    DataError when none is."""
    ids = {t.id for t in dataset.tracks}
    gone = {e.id for e in dataset.excluded}
    unknown = sorted(id for id in named if id not in ids and id not in gone)
    if named and len(unknown) == len(named):
        hint = nearest(unknown[0], ids) if ids else ""
        raise DataError(
            f"{shown(path)} names no track of {dataset.name}",
            hint if hint.startswith("Did") else "It belongs to another dataset.",
        )
    return unknown
