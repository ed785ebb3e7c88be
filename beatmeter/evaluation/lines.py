"""The lines of a predictions file: those of one split, its items, and cells as numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from beatmeter.errors import DataError

Lines = list[tuple[int, list[str]]]  # line number and cells


class Columns:
    """Where each column is: `at[name]`, and the classes in the order of their score columns."""

    def __init__(self, at: dict[str, int], classes: tuple[str, ...]) -> None:
        self.at, self.classes = at, classes

    def cell(self, cells: Sequence[str], name: str) -> str:
        return cells[self.at[name]] if name in self.at else ""


def of_split(
    path: Path, columns: Columns, lines: Lines, split: str | None, about: Mapping[str, Any]
) -> tuple[Lines, str]:
    """The lines of a split, and its name."""
    splits = sorted({columns.cell(cells, "split") for _, cells in lines})
    if split is not None:
        kept = [(at, cells) for at, cells in lines if columns.cell(cells, "split") in ("", split)]
        if lines and not kept:
            raise DataError(
                f"{path} has no items of the split {split!r}", f"It has: {', '.join(map(repr, splits))}."
            )
        return kept, split
    if len(splits) > 1:
        raise DataError(
            f"{path} holds several splits: {', '.join(map(repr, splits))}",
            "Say which one, or keep each in its own file.",
        )
    return lines, splits[0] if splits else str(about.get("split", ""))


def items_of_lines(
    path: Path, columns: Columns, lines: Lines, split: str, about: Mapping[str, Any]
) -> dict[str, Any]:
    """The fields of `Items`."""
    times = numbers(
        path,
        columns,
        lines,
        ["start", "end"],
        (0.0, math.inf),
        "Times are seconds; leave both empty for a whole track.",
        empty=math.nan,
    )
    ids = [columns.cell(cells, "id") for _, cells in lines]
    seen: dict[tuple[str, str, str], int] = {}
    for (line, cells), id, (start, end) in zip(lines, ids, times.tolist(), strict=True):
        if not id:
            raise DataError(f"{path}:{line}: the id is empty")
        if math.isnan(start) != math.isnan(end) or end <= start:
            raise DataError(
                f"{path}:{line}: start and end of {id!r} must both be empty, or end must follow start"
            )
        key = (id, columns.cell(cells, "start"), columns.cell(cells, "end"))
        if seen.setdefault(key, line) != line:
            raise DataError(
                f"{path}:{line}: {id!r} stands on line {seen[key]} already",
                "Ids are unique; windows of one track differ in start and end.",
            )
    return {
        "ids": tuple(ids),
        "groups": tuple(
            columns.cell(cells, "group") or id for (_, cells), id in zip(lines, ids, strict=True)
        ),
        "sources": tuple(columns.cell(cells, "source") for _, cells in lines),
        "split": split,
        "times": times,
        "meta": about.get("meta", {}),
    }


def numbers(
    path: Path,
    columns: Columns,
    lines: Lines,
    names: list[str],
    span: tuple[float, float],
    hint: str,
    empty: float | None = None,
) -> Float[np.ndarray, "item column"]:
    """The cells of the columns `names` as float64; an absent column or empty cell gives `empty`, or an error
    without one."""
    values = np.empty((len(lines), len(names)))
    for j, name in enumerate(names):
        for i, (line, cells) in enumerate(lines):
            text = columns.cell(cells, name).strip()
            if not text and empty is not None:
                values[i, j] = empty
                continue
            try:
                value = float(text)
            except ValueError:
                value = math.nan
            if not span[0] <= value <= span[1] or math.isinf(value):
                raise DataError(
                    f"{path}:{line}: {name} = {text!r} is not a number in [{span[0]:g}, {span[1]:g}]", hint
                )
            values[i, j] = value
    return values
