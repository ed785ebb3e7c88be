"""Every kind of record by one writer and one reader: the JSON beside the table says in `record` which kind it
is.

class (or nothing)   `beatmeter.evaluation.predictions`: score_<class>, target_<class>, primary value
value_<name> and target_<name>, an empty target where nobody knows; the JSON holds the units marks, curves
`beatmeter.evaluation.marks_file`: beats, sections and events as CSV, probabilities over time as .npz
embeddings           `beatmeter.evaluation.embeddings_file`: ids and vectors as .npz
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from beatmeter.errors import DataError, SchemaError
from beatmeter.evaluation.embeddings_file import holds_embeddings, read_embeddings, write_embeddings
from beatmeter.evaluation.lines import Columns, items_of_lines, numbers, of_split
from beatmeter.evaluation.marks_file import read_curves, read_marks, write_curves, write_marks
from beatmeter.evaluation.predictions import (
    DESCRIBED,
    PLAIN,
    TARGET,
    cell_text,
    file_of,
    read_lines,
    read_predictions,
    write_predictions,
    write_table,
)
from beatmeter.runtime.paths import StrPath, as_path
from beatmeter.schema import ClassPredictions, Curves, Embeddings, Items, Marks, ValuePredictions

VALUE = "value_"
SPAN = (-1.7e308, 1.7e308)


def write_records(path: StrPath, record: Items) -> str:
    """Write a record as CSV (curves as .npz) with a JSON file beside it; the sha256 of the table. Raises
    DataError."""
    if isinstance(record, ClassPredictions):
        return write_predictions(path, record)
    if isinstance(record, ValuePredictions):
        about = {"record": "value", "names": list(record.names), "units": list(record.units)}
        return write_table(as_path(path), record, lambda: _values_csv(record), about)
    if isinstance(record, Marks):
        return write_marks(as_path(path), record)
    if isinstance(record, Curves):
        return write_curves(as_path(path), record)
    if isinstance(record, Embeddings):
        return write_embeddings(as_path(path), record)
    raise SchemaError(f"records of the kind {type(record).__name__} have no file")


def read_records(path: StrPath, split: str | None = None) -> Items:
    """Read a record of any kind, as `read_predictions` does for classes. Raises DataError with file and
    line."""
    path = as_path(path)
    if path.suffix.lower() == ".npz":
        return read_embeddings(path, split) if holds_embeddings(path) else read_curves(path, split)
    header, _, about = read_lines(path)
    guess = (
        "value"
        if any(name.startswith(VALUE) for name in header)
        else "marks"
        if "role" in header
        else "class"
    )
    kind = about.get("record", guess)
    readers: dict[Any, Any] = {"class": read_predictions, "value": read_values, "marks": read_marks}
    if kind not in readers:
        raise DataError(
            f"{path} holds a record of the kind {kind!r}, which this version does not know",
            f"Known: {', '.join(readers)}.",
        )
    found: Items = readers[kind](path, split)
    return found


def open_records(where: StrPath, split: str | None = None) -> Items:
    """A record of any kind from a run folder (of the test split by default) or from a file."""
    return read_records(*file_of(where, split))


def read_values(path: StrPath, split: str | None = None) -> ValuePredictions:
    """Read values. Needed columns: `id`, and `value_<name>` with `target_<name>` for every name."""
    path = as_path(path)
    header, lines, about = read_lines(path)
    names = tuple(name[len(VALUE) :] for name in header if name.startswith(VALUE) and name != VALUE)
    missing = [name for name in ("id", *(TARGET + n for n in names)) if name not in header]
    if missing or not names:
        what = f"no column {missing[0]!r}" if missing else f"no columns {VALUE}<name>"
        raise DataError(f"{path} has {what}", f"It has: {', '.join(header)}. {DESCRIBED}")
    columns = Columns({name: i for i, name in enumerate(header)}, names)
    lines, split = of_split(path, columns, lines, split, about)
    hint = "Values are finite numbers; leave a target empty where it is not known."
    known = dict(zip(about.get("names", ()), about.get("units", ()), strict=False))
    try:
        return ValuePredictions(
            names=names,
            units=tuple(str(known.get(name, "")) for name in names),
            values=numbers(path, columns, lines, [VALUE + n for n in names], SPAN, hint),
            targets=numbers(path, columns, lines, [TARGET + n for n in names], SPAN, hint, empty=np.nan),
            **items_of_lines(path, columns, lines, split, about),
        )
    except SchemaError as error:
        raise DataError(f"{path}: {error}") from None


def _values_csv(p: ValuePredictions) -> str:
    """The file's text: one header line, one line per item; numbers with the fewest digits that give the same
    float64 back."""
    odd = [n for n in p.names if not n or n != n.strip()]
    if odd:
        raise SchemaError(f"the name {odd[0]!r} cannot be a column", "Take away the spaces around it.")
    plain = [name for name in PLAIN if name != "primary"]
    rows = [[*plain, *(TARGET + n for n in p.names), *(VALUE + n for n in p.names)]]
    numbers_of = np.concatenate([p.times, p.targets, p.values], axis=1).astype(np.float64).tolist()
    for i, cells in enumerate(numbers_of):
        rows.append(
            [p.ids[i], p.groups[i], p.sources[i], p.split, *("" if math.isnan(x) else repr(x) for x in cells)]
        )
    return "".join(",".join(map(cell_text, row)) + "\n" for row in rows)
