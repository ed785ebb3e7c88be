"""Files of structure: `Marks` as CSV with the JSON beside it, `Curves` as .npz with the JSON beside it.

Marks: one line per item (`role` empty), followed by its marks: `role` is `marks` for what a system says and
`truth` for what is right, then `kind`, `name`, `from` and `to` in seconds, and `score`, empty where there is
none.

Curves: the arrays `values` (row, name) of all items one after the other, `lengths` (item,) rows of each,
`starts` (item,) and `times` (item, 2) in seconds; the JSON holds names, rate and, item by item, ids and
truth.
"""

from __future__ import annotations

import hashlib
import io
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from beatmeter.errors import DataError, SchemaError
from beatmeter.evaluation.lines import Columns, Lines, items_of_lines, numbers, of_split
from beatmeter.evaluation.predictions import (
    DESCRIBED,
    FORMAT,
    LARGEST,
    cell_text,
    read_lines,
    sidecar,
    write_table,
)
from beatmeter.runtime.artifacts import read_bytes, read_json, require, to_json
from beatmeter.runtime.atomic import write_bytes, write_text
from beatmeter.schema import Curves, MarkList, Marks

ROLES = ("marks", "truth")
HEADER = ("id", "group", "source", "split", "start", "end", "role", "kind", "name", "from", "to", "score")
TIMES = (-86_400.0, 1e9)  # seconds
MARK_LIST = {"kinds": [str], "names": [str], "starts": [float], "ends": [float]}
ABOUT = {
    "names": [str],
    "rate": float,
    "ids": [str],
    "groups": [str],
    "sources": [str],
    "split": str,
    "truth": [MARK_LIST],
    "sha256": str,
    "?meta": {},
}


def write_marks(path: Path, marks: Marks) -> str:
    """Write marks as CSV and JSON; the sha256 of the CSV. Raises DataError."""
    return write_table(path, marks, lambda: _csv(marks), {"record": "marks"})


def _csv(marks: Marks) -> str:
    rows = [list(HEADER)]
    for i, (start, end) in enumerate(marks.times.tolist()):
        item = [marks.ids[i], marks.groups[i], marks.sources[i], marks.split, _number(start), _number(end)]
        rows.append([*item, *[""] * 6])
        for role in ROLES:
            found: MarkList = getattr(marks, role)[i]
            numbers_of = zip(found.starts.tolist(), found.ends.tolist(), found.scores.tolist(), strict=True)
            for kind, name, (a, b, score) in zip(found.kinds, found.names, numbers_of, strict=True):
                rows.append([*item, role, kind, name, _number(a), _number(b), _number(score)])
    return "".join(",".join(map(cell_text, row)) + "\n" for row in rows)


def _number(value: float) -> str:
    return "" if math.isnan(value) else repr(value)


def read_marks(path: Path, split: str | None = None) -> Marks:
    """Read what `write_marks` wrote, or another program. Raises DataError with file and line."""
    header, lines, about = read_lines(path)
    missing = [name for name in ("id", "role", "kind", "from") if name not in header]
    if missing:
        raise DataError(f"{path} has no column {missing[0]!r}", f"It has: {', '.join(header)}. {DESCRIBED}")
    columns = Columns({name: i for i, name in enumerate(header)}, ())
    lines, split = of_split(path, columns, lines, split, about)
    items = [(at, cells) for at, cells in lines if not columns.cell(cells, "role")]
    fields = items_of_lines(path, columns, items, split, about)
    marks = [(at, cells) for at, cells in lines if columns.cell(cells, "role")]
    where = {_key(columns, cells): i for i, (_, cells) in enumerate(items)}
    lists: dict[str, list[Lines]] = {role: [[] for _ in items] for role in ROLES}
    for at, cells in marks:
        role, key = columns.cell(cells, "role"), _key(columns, cells)
        if role not in lists:
            raise DataError(
                f"{path}:{at}: role = {role!r} is none of {', '.join(ROLES)}",
                "An item's own line has no role.",
            )
        if key not in where:
            raise DataError(
                f"{path}:{at}: a mark of {key[0]!r}, which has no line of its own",
                "Every item has one line with an empty role.",
            )
        lists[role][where[key]].append((at, cells))
    try:
        found, right = (tuple(_mark_list(path, columns, its) for its in lists[role]) for role in ROLES)
        return Marks(marks=found, truth=right, **fields)
    except SchemaError as error:
        raise DataError(f"{path}: {error}") from None


def _key(columns: Columns, cells: list[str]) -> tuple[str, str, str]:
    return (columns.cell(cells, "id"), columns.cell(cells, "start"), columns.cell(cells, "end"))


def _mark_list(path: Path, columns: Columns, lines: Lines) -> MarkList:
    starts = numbers(path, columns, lines, ["from"], TIMES, "Times are seconds.")[:, 0]
    ends = numbers(path, columns, lines, ["to"], TIMES, "Times are seconds.", empty=math.nan)[:, 0]
    scores = numbers(
        path,
        columns,
        lines,
        ["score"],
        (0.0, 1.0),
        "Scores are probabilities; leave the cell empty for none.",
        empty=math.nan,
    )[:, 0]
    kinds, names = (tuple(columns.cell(cells, name) for _, cells in lines) for name in ("kind", "name"))
    return MarkList(kinds, starts, np.where(np.isnan(ends), starts, ends), names, scores)


def write_curves(path: Path, curves: Curves) -> str:
    """Write curves as .npz, whatever the suffix of `path`, and JSON; the sha256 of the .npz. Raises
    DataError."""
    path = path.with_suffix(".npz")
    values = np.concatenate([np.zeros((0, len(curves.names))), *curves.values]).astype(np.float32)
    buffer = io.BytesIO()
    np.savez(
        buffer,
        values=values,
        lengths=np.array([len(v) for v in curves.values], int),
        starts=curves.starts,
        times=curves.times,
    )
    data = buffer.getvalue()
    digest = hashlib.sha256(data).hexdigest()
    about = {
        "format": FORMAT,
        "record": "curves",
        **{name: list(getattr(curves, name)) for name in ("names", "ids", "groups", "sources")},
        "rate": curves.rate,
        "split": curves.split,
        "items": len(curves),
        "sha256": digest,
        "meta": dict(curves.meta),
        "truth": [_list_json(marks) for marks in curves.truth],
    }
    try:
        described = to_json(about, ensure_ascii=False, indent=None) + "\n"
        sidecar(path).unlink(missing_ok=True)
        write_bytes(path, data)
        write_text(sidecar(path), described)
    except UnicodeEncodeError as error:
        raise DataError(
            f"cannot write {path}: the name {error.object!r} is not valid UTF-8", "Rename that audio file."
        ) from None
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}") from None
    return digest


def _list_json(marks: MarkList) -> dict[str, Any]:
    return {
        "kinds": list(marks.kinds),
        "names": list(marks.names),
        "starts": marks.starts.tolist(),
        "ends": marks.ends.tolist(),
    }


def _list_of(value: Mapping[str, Any]) -> MarkList:
    nobody = np.full(len(value["kinds"]), np.nan)
    return MarkList(
        tuple(value["kinds"]),
        np.array(value["starts"], float),
        np.array(value["ends"], float),
        tuple(value["names"]),
        nobody,
    )


def read_curves(path: Path, split: str | None = None) -> Curves:
    """Read what `write_curves` wrote. Raises DataError by name for files that are damaged or do not fit each
    other."""
    data = read_bytes(path, DataError, largest=LARGEST)
    beside = "It is written beside the arrays by `predict` and `embed`: bring both."
    about = read_json(sidecar(path), DataError, beside)
    require(about, ABOUT, str(sidecar(path)), DataError)
    if about["sha256"] != hashlib.sha256(data).hexdigest():
        raise DataError(
            f"{path} was changed after {sidecar(path).name} was written for it",
            "Restore both, or predict again.",
        )
    if split not in (None, about["split"]):
        raise DataError(f"{path} has no items of the split {split!r}", f"It has: {about['split']!r}.")
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("values", "lengths", "starts", "times")}
        ends = np.cumsum(arrays["lengths"])
        return Curves(
            names=tuple(about["names"]),
            rate=float(about["rate"]),
            starts=arrays["starts"],
            values=tuple(np.split(arrays["values"], ends[:-1])) if len(ends) else (),
            truth=tuple(map(_list_of, about["truth"])),
            times=arrays["times"],
            meta=about.get("meta", {}),
            **{name: about[name] for name in ("ids", "groups", "sources", "split")},
        )
    except SchemaError as error:
        raise DataError(f"{path}: {error}") from None
    except (KeyError, ValueError, TypeError, IndexError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is not a whole file of curves: {error}", "Predict again.") from None
