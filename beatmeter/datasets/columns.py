"""Any column of a dataset as what is learned: one class a track, several labels, or numbers; and tables of
targets by track id."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from beatmeter.datasets.dataset import JOINED, LABEL_PROBLEM, ROW, Dataset, Exclusion
from beatmeter.datasets.tables import read_table
from beatmeter.errors import DataError, nearest, shown
from beatmeter.runtime.artifacts import read_bytes
from beatmeter.runtime.paths import StrPath, as_path
from beatmeter.schema import Track

UNKNOWN = {"", "nan", "na", "n/a", "null", "?"}  # cells, in lower case, that say nothing
_SEPARATORS = re.compile(r"[;,|]")


def with_targets(dataset: Dataset, path: StrPath) -> Dataset:
    """The dataset with the columns of a table of targets, a row per track under its `id`; they go before its
    own columns.

    Raises DataError for a table without ids, for an id that stands in it twice, and when it names none of the
    tracks.
    """
    path = as_path(path)
    cells = _parquet(path) if path.suffix.lower() == ".parquet" else _text(path)
    if not any(t.id in cells for t in dataset.tracks):
        example = f", for instance not {dataset.tracks[0].id!r}" if dataset.tracks else ""
        raise DataError(
            f"{shown(path)} names none of the {len(dataset.tracks)} tracks{example}",
            "Its column `id` must hold the ids of the tracks.",
        )
    tracks = tuple(replace(t, extra={**t.extra, **cells.get(t.id, {})}) for t in dataset.tracks)
    content = read_bytes(path, DataError)
    return replace(
        dataset, tracks=tracks, sha256=hashlib.sha256(dataset.sha256.encode() + content).hexdigest()
    )


def _text(path: Path) -> dict[str, dict[str, str]]:
    """The cells of a delimited table by id."""
    table = read_table(path)
    _require_ids(path, table.columns)
    problem = next((row for row in table.rows if row.problem), None)
    if problem is not None:
        raise DataError(f"{problem.where}: {problem.problem}")
    return _by_id(path, [(row.where, row.cells) for row in table.rows])


def _parquet(path: Path) -> dict[str, dict[str, str]]:
    """The cells of a Parquet table by id, as text."""
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise DataError(
            f"{shown(path)}: reading Parquet needs pyarrow", "pip install pyarrow, or save the table as CSV."
        ) from None
    try:
        table = parquet.read_table(path)
    except (OSError, ArrowException) as error:
        raise DataError(f"{shown(path)} cannot be read as Parquet: {str(error).splitlines()[0]}") from None
    names = [name.strip().lower() for name in table.column_names]
    _require_ids(path, names)
    rows = zip(*(column.to_pylist() for column in table.columns), strict=True)
    return _by_id(
        path,
        [
            (
                f"{shown(path.name)}:{i}",
                {n: "" if v is None else str(v) for n, v in zip(names, row, strict=True)},
            )
            for i, row in enumerate(rows, 1)
        ],
    )


def _require_ids(path: Path, columns: Sequence[str]) -> None:
    if "id" not in columns:
        raise DataError(
            f"{shown(path)} has no column 'id'",
            f"A table of targets has a row per track id; it has: {', '.join(columns)}.",
        )


def _by_id(path: Path, rows: Sequence[tuple[str, Mapping[str, str]]]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for where, cells in rows:
        name = cells["id"].strip()
        if name in found:
            raise DataError(f"{where}: {name!r} stands in {shown(path.name)} twice", "Keep one of the rows.")
        found[name] = {column: cell for column, cell in cells.items() if column != "id"}
    return found


def require_columns(tracks: Sequence[Track], columns: Sequence[str], what: str) -> None:
    """Raise DataError, with the nearest name, for a column that no track has a cell of. `what` is the setting
    that names it."""
    known = {name for t in tracks for name in t.extra} - {LABEL_PROBLEM, ROW, JOINED}
    for column in columns:
        if column not in known:
            raise DataError(
                f"{what} = {column!r} is no column of this dataset",
                nearest(column, known) if known else "It has no columns.",
            )


def text_of(track: Track, column: str) -> str:
    """What a cell says; empty where it says that nothing is known."""
    cell = track.extra.get(column, "").strip()
    return "" if cell.lower() in UNKNOWN else cell


def one_class(track: Track, column: str) -> tuple[str, ...]:
    """The cell as one class; none where nothing is known."""
    cell = text_of(track, column)
    return (shown(cell),) if cell else ()


def several_labels(track: Track, column: str) -> tuple[str, ...]:
    """The cell as several labels, separated by comma, semicolon or bar."""
    parts = (part.strip() for part in _SEPARATORS.split(text_of(track, column)))
    return tuple(dict.fromkeys(shown(part) for part in parts if part))


def number_of(track: Track, column: str) -> float:
    """The cell as a number, nan where nothing is known. Raises DataError for what is none."""
    cell = text_of(track, column)
    if not cell:
        return math.nan
    try:
        value = float(cell)
    except ValueError:
        value = math.inf
    if math.isinf(value):
        where = track.extra.get(ROW, track.id)
        raise DataError(
            f"{where}: {column} = {cell!r} is not a number",
            "Leave the cell empty where the value is not known.",
        )
    return value


def labelled_by(dataset: Dataset, column: str, read: Callable[[Track, str], tuple[str, ...]]) -> Dataset:
    """The dataset with the classes of a column as its labels; tracks of which the column says nothing are
    left out."""
    tracks, unknown = [], []
    for track in dataset.tracks:
        names = read(track, column)
        if names:
            tracks.append(replace(track, labels=dict.fromkeys(names, 1.0), primary=names[0]))
        else:
            unknown.append(Exclusion.of(track, "unlabelled", f"nothing is known of its {column}"))
    return replace(dataset, tracks=tuple(tracks), excluded=(*dataset.excluded, *unknown))


def grouped_by(tracks: Sequence[Track], columns: Sequence[str], what: str = "split.groups") -> list[Track]:
    """The tracks in groups of those that share a value in any of the columns, directly or through others
    (connected components).

    A group is named after its alphabetically first value. A track without any of these values keeps its
    group. Raises DataError for a column that no track has; `what` is the setting that names them.
    """
    require_columns(tracks, columns, what)
    values = [
        [f"{column}:{shown(cell)}" for column in columns if (cell := text_of(t, column))] for t in tracks
    ]
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        parent.setdefault(name, name)
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for names in values:
        for name in names:
            first, other = sorted((root(names[0]), root(name)))
            parent[other] = first  # the first name of a component is its root
    return [replace(t, group=root(names[0])) if names else t for t, names in zip(tracks, values, strict=True)]
