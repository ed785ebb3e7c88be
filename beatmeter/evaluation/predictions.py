"""Predictions as a CSV file with a JSON file beside it: the exchange format of every command right of the
second waist.

`docs/predictions.md` describes the columns. Numbers are written with the fewest digits that give the same
float64 back, so reading returns exactly what was written.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from beatmeter.errors import DataError, SchemaError, nearest
from beatmeter.evaluation.lines import Columns, Lines, items_of_lines, numbers, of_split
from beatmeter.runtime.artifacts import read_bytes, read_json, to_json
from beatmeter.runtime.atomic import write_text
from beatmeter.runtime.paths import StrPath, as_path
from beatmeter.schema import SPLITS, ClassPredictions, Items

FORMAT = 1
LARGEST = 8 << 30  # bytes of a file
SCORE, TARGET = "score_", "target_"
PLAIN = ("id", "group", "source", "split", "start", "end", "primary")
DESCRIBED = "docs/predictions.md describes the columns."


def sidecar(path: StrPath) -> Path:
    """The JSON file that belongs to the CSV file `path`."""
    return as_path(path).with_suffix(".meta.json")


def to_csv(predictions: ClassPredictions) -> str:
    """The file's text: one header line, one line per item."""
    classes = predictions.classes
    odd = [c for c in classes if not c or c != c.strip()]
    if odd:
        raise SchemaError(f"the class name {odd[0]!r} cannot be a column", "Take away the spaces around it.")
    lines = [[*PLAIN, *(TARGET + c for c in classes), *(SCORE + c for c in classes)]]
    numbers = [
        a.astype(np.float64).tolist() for a in (predictions.times, predictions.targets, predictions.scores)
    ]
    for i, (times, targets, scores) in enumerate(zip(*numbers, strict=True)):
        k = int(predictions.primary[i])
        names = [predictions.ids[i], predictions.groups[i], predictions.sources[i], predictions.split]
        lines.append(
            [
                *names,
                *("" if math.isnan(t) else repr(t) for t in times),
                classes[k] if k >= 0 else "",
                *map(repr, targets),
                *map(repr, scores),
            ]
        )
    return "".join(",".join(map(cell_text, line)) + "\n" for line in lines)


def cell_text(text: str) -> str:
    """One cell, quoted where CSV needs it (`csv.writer` leaves a lone carriage return bare)."""
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"\r\n') else text


def write_predictions(path: StrPath, predictions: ClassPredictions) -> str:
    """Write `path` (CSV) and the JSON beside it; returns the sha256 of the CSV.

    Both appear whole. The old JSON goes first, so no moment shows a CSV with the JSON of another.
    """
    exclusive = {"exclusive": True} if predictions.exclusive else {}
    return write_table(
        as_path(path),
        predictions,
        lambda: to_csv(predictions),
        {"classes": list(predictions.classes), **exclusive},
    )


def write_table(path: Path, record: Items, as_text: Callable[[], str], about: Mapping[str, Any]) -> str:
    """Write a record as CSV with the JSON beside it, which holds what is in `about` and what all records
    have; its sha256."""
    try:
        text = as_text()
        digest = hashlib.sha256(text.encode("utf-8")).hexdigest()
        about = {
            "format": FORMAT,
            **about,
            "split": record.split,
            "items": len(record),
            "sha256": digest,
            "meta": dict(record.meta),
        }
        described = to_json(about, ensure_ascii=False) + "\n"
        sidecar(path).unlink(missing_ok=True)
        write_text(path, text)
        write_text(sidecar(path), described)
    except UnicodeEncodeError as error:
        raise DataError(
            f"cannot write {path}: the name {error.object!r} is not valid UTF-8", "Rename that audio file."
        ) from None
    except (TypeError, ValueError) as error:
        raise SchemaError(f"the meta of these predictions cannot be written as JSON: {error}") from None
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}") from None
    return digest


def read_predictions(path: StrPath, split: str | None = None) -> ClassPredictions:
    """Read a predictions file, written by `write_predictions` or elsewhere.

    Needed columns: `id`, `score_<class>` for every class, and labels: `primary`, or `target_<class>` columns,
    or both. `group` defaults to the id, `source` to "", times to unknown. `split` picks the lines of one
    split; a file that holds several needs it; lines without a split fit any. Raises DataError with file and
    line for whatever is missing or wrong.
    """
    path = as_path(path)
    if path.suffix.lower() == ".npz":
        raise DataError(
            f"{path} holds curves over time, and scores of classes are needed here",
            "`report` and `evaluate` read other records.",
        )
    header, lines, about = read_lines(path)
    if about.get("record", "class") != "class":
        raise DataError(
            f"{path} holds {about['record'].rstrip('s')}s, and scores of classes are needed here",
            "Only `report` and `evaluate` read other records.",
        )
    return _build(path, _columns(path, header), lines, split, about)


def read_lines(path: Path) -> tuple[list[str], Lines, dict[str, Any]]:
    """The header, the other lines with their numbers, and what the JSON beside it says. Raises DataError with
    file and line."""
    text, digest = _read_text(path)
    about = _read_sidecar(path, digest)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        lines = []
        for cells in reader:
            if len(cells) == len(header):
                lines.append((reader.line_num, cells))
            elif cells:
                raise DataError(
                    f"{path}:{reader.line_num}: {len(cells)} cells, the header has {len(header)}",
                    "Quote cells that hold commas.",
                )
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: not valid CSV: {error}") from None
    return header, lines, about


def open_predictions(where: StrPath, split: str | None = None) -> ClassPredictions:
    """Predictions from a run folder (`predictions/<split>.csv`, by default of the test split) or from a CSV
    file."""
    return read_predictions(*file_of(where, split))


def file_of(where: StrPath, split: str | None = None) -> tuple[Path, str | None]:
    """The file of a run folder or file that holds the predictions of a split, and which of its lines to
    take."""
    where = as_path(where)
    if not where.is_dir():
        return where, split
    wanted = split or "test"
    vectors = where / "predictions" / f"{wanted}.npz"
    path = vectors if vectors.exists() else vectors.with_suffix(".csv")
    if not path.exists():
        files = [p for p in (where / "predictions").glob("*.*") if p.suffix in (".csv", ".npz")]
        splits = sorted(p.stem for p in files if not p.name.endswith(".curves.npz"))
        known = (
            f"It has predictions for: {', '.join(splits)}."
            if splits
            else "A run folder holds predictions/<split>.csv; or name a predictions file."
        )
        raise DataError(f"{where} has no predictions for the split {wanted!r}", known)
    return path, wanted if wanted in SPLITS else None  # others are files about other data, or other labels


def _read_text(path: Path) -> tuple[str, str]:
    if not os.path.lexists(path):
        raise DataError(
            f"there is no file or folder {path}", "Name a run folder or a predictions file (CSV)."
        )
    raw = read_bytes(path, DataError, largest=LARGEST)
    try:
        return raw.decode("utf-8-sig"), hashlib.sha256(raw).hexdigest()
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise DataError(f"{path}:{line}: not valid UTF-8", "Save the file as UTF-8.") from None


def _read_sidecar(path: Path, digest: str) -> dict[str, Any]:
    beside = sidecar(path)
    if not os.path.lexists(beside):
        return {}
    about = read_json(beside, DataError, "Delete it to read the CSV without its description.")
    if "sha256" not in about or not isinstance(about.get("meta", {}), dict):
        return {}  # a JSON file of something else that happens to share the name
    if about["sha256"] != digest:
        raise DataError(
            f"{path} was changed after {beside.name} was written for it",
            f"Delete {beside} to read the CSV as it is, or restore the CSV.",
        )
    return about


def _columns(path: Path, header: list[str]) -> Columns:
    if len(header) <= 1:
        found = next(
            (name for sep, name in ((";", "semicolons"), ("\t", "tabs")) if header and sep in header[0]), None
        )
        what = (
            f"{path} separates its columns by {found}"
            if found
            else f"{path} has no header with several columns"
        )
        raise DataError(what, f"A predictions file is comma-separated. {DESCRIBED}")
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(f"{path}: the column {twice[0]!r} is there twice")
    classes = tuple(name[len(SCORE) :] for name in header if name.startswith(SCORE) and name != SCORE)
    known = [*PLAIN, *(TARGET + c for c in classes), *(SCORE + c for c in classes)]
    unknown = [name for name in header if name not in known]
    if "id" not in header:
        raise DataError(f"{path} has no column 'id'", f"It has: {', '.join(header)}. {DESCRIBED}")
    if not classes:
        raise DataError(
            f"{path} has no score columns",
            f"Name them score_<class>, for instance score_3, score_4. It has: {', '.join(header)}. "
            f"{DESCRIBED}",
        )
    for name in (
        unknown
    ):  # extra columns are the writer's own business, unless they look like a misspelt score or target
        if name.lower().startswith(("score", "target", "prob", "logit")):
            lonely = name.startswith(TARGET)
            hint = (
                (
                    f"Add {SCORE}{name[len(TARGET) :]} (0 where the model does not know this class), or "
                    "remove it."
                )
                if lonely
                else nearest(name, known)
            )
            fault = "has no score column beside it" if lonely else "is not known"
            raise DataError(f"{path}: the column {name!r} {fault}", hint)
    if "primary" not in header and not any(name.startswith(TARGET) for name in header):
        raise DataError(
            f"{path} has no labels: neither 'primary' nor target_<class> columns",
            "Add `primary` with the class of each item, empty where it is unknown. It has: "
            f"{', '.join(header)}. {DESCRIBED}",
        )
    return Columns({name: i for i, name in enumerate(header) if name in known}, classes)


def _build(
    path: Path, columns: Columns, lines: Lines, split: str | None, about: dict[str, Any]
) -> ClassPredictions:
    lines, split = of_split(path, columns, lines, split, about)
    classes = columns.classes
    scores = numbers(
        path,
        columns,
        lines,
        [SCORE + c for c in classes],
        (0.0, 1.0),
        "Scores are probabilities: apply a sigmoid to logits.",
    )
    items = items_of_lines(path, columns, lines, split, about)
    primary, targets = _labels(path, columns, lines)
    try:
        return ClassPredictions(
            classes=classes,
            targets=targets,
            scores=scores,
            primary=primary,
            exclusive=about.get("exclusive") is True,
            **items,
        )
    except SchemaError as error:
        raise DataError(f"{path}: {error}") from None


def _labels(
    path: Path, columns: Columns, lines: Lines
) -> tuple[Int[np.ndarray, " item"], Float[np.ndarray, "item klass"]]:
    """Primary class and target weights; each is filled from the other where only one of them is given."""
    classes = columns.classes
    targets = numbers(
        path,
        columns,
        lines,
        [TARGET + c for c in classes],
        (0.0, 1.0),
        "Targets are weights of labels; 0 where a class is absent.",
        empty=0.0,
    )
    primary = np.full(len(lines), -1, dtype=np.int64)
    for i, (line, cells) in enumerate(lines):
        name = columns.cell(cells, "primary").strip()
        row = targets[i]
        if name and name not in classes:
            raise DataError(
                f"{path}:{line}: the label {name!r} has no score column",
                f"{nearest(name, classes)} Or add {SCORE}{name}.",
            )
        if name:
            primary[i] = classes.index(name)
            if not row.any():
                targets[i, primary[i]] = 1.0
            elif not row[primary[i]]:
                raise DataError(
                    f"{path}:{line}: the primary class {name!r} has no weight in its target column"
                )
        elif row.any():
            best = np.flatnonzero(row == row.max())
            if len(best) > 1:
                tied = ", ".join(classes[k] for k in best)
                raise DataError(
                    f"{path}:{line}: the classes {tied} have equal weight",
                    "Say in a column `primary` which of them counts.",
                )
            primary[i] = best[0]
    return primary, targets
