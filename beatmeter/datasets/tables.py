"""Delimited text as rows of named cells with their line: tab or comma, quoted or not, whatever program wrote
it."""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from beatmeter.errors import DataError, shown
from beatmeter.runtime.artifacts import read_bytes
from beatmeter.runtime.regular import open_file

LARGEST = 4 << 30  # bytes of a table
SUFFIXES = (".tab", ".tsv", ".csv")
_DELIMITERS = ("\t", ",", ";")


@dataclass(frozen=True)
class Row:
    """Cells by column name (lower case) as they stand, and `table:line` to point at. `problem` says what is
    wrong with it."""

    where: str
    cells: Mapping[str, str]
    problem: str = ""

    def text(self, *names: str) -> str:
        """The first of these cells that is there and not blank, without spaces around it; else nothing."""
        return next((text for name in names if (text := self.cells.get(name, "").strip())), "")

    def others(self, used: Collection[str]) -> dict[str, str]:
        """The cells of all other columns that hold something."""
        return {name: cell for name, cell in self.cells.items() if name not in used and cell.strip()}


@dataclass(frozen=True)
class Table:
    """A table as it was read; `sha256` is the hash of the file."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    sha256: str


def read_table(path: Path) -> Table:
    """Read a table whose first line names its columns. Bytes that are not UTF-8 survive as they do in file
    names.

    A row with too many or too few cells comes back with its `problem`. Raises DataError (file:line) when the
    file cannot be read at all: no header, quotes that never close, the same column twice.
    """
    data = read_bytes(path, DataError, "Check the path and its permissions.", LARGEST)
    text = _decode(data)
    delimiter = _delimiter(path, text)
    rows: list[Row] = []
    columns: list[str] = []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line = 1
    try:
        for cells in reader:
            where, line = f"{shown(path.name)}:{line}", reader.line_num + 1
            if not any(cell.strip() for cell in cells):
                continue
            if not columns:
                columns = [name.strip().lower() for name in cells]
            elif len(cells) != len(columns):
                rows.append(
                    Row(
                        where,
                        dict(zip(columns, cells, strict=False)),
                        f"{len(cells)} cells, the header has {len(columns)}",
                    )
                )
            else:
                rows.append(Row(where, dict(zip(columns, cells, strict=True))))
    except csv.Error as error:
        raise DataError(
            f"{shown(path)}:{line}: {error}", "Look for a quote that never closes, or save the table again."
        ) from None
    if not columns:
        raise DataError(f"{shown(path)} is empty", "Its first line must name the columns.")
    twice = {name for name in columns if name and columns.count(name) > 1}
    if twice:
        raise DataError(
            f"{shown(path)} names a column twice: {', '.join(sorted(twice))}", "Rename one of them."
        )
    return Table(path, tuple(columns), tuple(rows), hashlib.sha256(data).hexdigest())


def read_columns(path: Path) -> tuple[str, ...]:
    """The column names of a table, or none when it is no table."""
    try:
        with open_file(path, "rb") as file:
            head = file.read(1 << 16)
        line = _decode(head).splitlines()[0]
        cells = next(csv.reader([line], delimiter=_delimiter(path, line)), [])
    except (OSError, csv.Error, IndexError):
        return ()
    return tuple(cell.strip().lower() for cell in cells)


def _decode(data: bytes) -> str:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # a spreadsheet's "Unicode text"
        return data.decode("utf-16", "replace")
    return data.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")


def _delimiter(path: Path, text: str) -> str:
    """By the first line; a .tab or .tsv file is tab-separated whatever else its header holds."""
    head = next((line for line in text.splitlines() if line.strip()), "")
    if path.suffix.lower() != ".csv" and "\t" in head:
        return "\t"
    return max(_DELIMITERS, key=head.count)
