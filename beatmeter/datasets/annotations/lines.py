"""Text formats of one mark a line: cells by tab or space, with the number of the line for errors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from beatmeter.datasets.annotations.records import OVERLAP, Annotation, Provenance, Spans
from beatmeter.errors import DataError, shown


@dataclass(frozen=True)
class Line:
    """The cells of a line, and `file:line` to point at."""

    where: str
    cells: tuple[str, ...]

    def refuse(self, what: str, hint: str = "") -> DataError:
        """The error for this line."""
        return DataError(f"{self.where}: {what}", hint)

    def seconds(self, cell: int) -> float:
        """A cell as seconds. Raises DataError for what is no finite number."""
        try:
            value = float(self.cells[cell])
        except ValueError:
            raise self.refuse(
                f"{shown(self.cells[cell])!r} is no time in seconds",
                "Write seconds with a decimal point: 12.345.",
            ) from None
        if not math.isfinite(value):
            raise self.refuse(f"a time must be finite, not {self.cells[cell]}")
        return value


def read_lines(
    text: str, where: str, fewest: int, most: int, cut: Callable[[str, int], Sequence[str]] | None = None
) -> list[Line]:
    """Lines that are neither blank nor comments (`#`), of `fewest` to `most` cells; the last cell takes
    what is left of its line.

    Raises DataError (file:line) for other numbers of cells, and (file) when there is no line at all.
    """
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        cells = tuple(cell.strip() for cell in (cut or _cells)(line, most))
        one = Line(f"{where}:{number}", cells)
        if not fewest <= len(cells) <= most:
            wanted = f"{fewest}" if fewest == most else f"{fewest} to {most}"
            line_text = f"{shown(line.strip())[:60]!r}"
            raise one.refuse(
                f"{len(cells)} {'cell' if len(cells) == 1 else 'cells'}, not {wanted}: {line_text}"
            )
        found.append(one)
    if not found:
        raise DataError(f"{where} is empty", "An annotation has a line for each mark.")
    return found


def _cells(line: str, most: int) -> Sequence[str]:
    """By tabs where there are some, else by any space."""
    return line.strip("\r\n").split("\t", most - 1) if "\t" in line else line.split(None, most - 1)


def sections_of(rows: Iterable[tuple[Line, float, float, str]], source: str) -> Annotation:
    """Spans that a text lists. Raises DataError (file:line) for one that ends before it begins or that
    begins before the one before it ends; spans of no length are left out, and a flag says how many."""
    kept: list[tuple[float, float, str]] = []
    empty = 0
    for line, start, end, label in rows:
        if end < start:
            raise line.refuse(
                f"the section ends at {end:g} s, before it begins at {start:g} s",
                "Correct the times, or leave the line out.",
            )
        if kept and start < kept[-1][1] - OVERLAP:
            raise line.refuse(
                f"the section begins at {start:g} s, before the one before it ends at {kept[-1][1]:g} s",
                "Sort or correct them.",
            )
        if end == start:
            empty += 1
        else:
            kept.append((start, end, label))
    if not kept:
        return Annotation(
            sections=Spans(
                np.zeros(0),
                np.zeros(0),
                (),
                provenance=Provenance(source, flags=("no section has a length",)),
            )
        )
    flags = (f"{empty} without length left out",) if empty else ()
    starts, ends, labels = zip(*kept, strict=True)
    known = np.array([[starts[0], ends[-1]]])
    return Annotation(
        sections=Spans(
            np.array(starts), np.array(ends), labels, known=known, provenance=Provenance(source, flags=flags)
        )
    )


def seconds(value: float) -> str:
    """A time as text: microseconds, without zeros at the end. The same value gives the same text on every
    machine."""
    whole, _, part = f"{round(value, 6) + 0.0:.6f}".partition(".")
    return f"{whole}.{part.rstrip('0'):0<3}"


def beats_around(times: Float[np.ndarray, " beat"]) -> Float[np.ndarray, "interval 2"]:
    """Where a list of beats says something: from one beat before the first to one after the last, and not
    before the audio begins."""
    if not len(times):
        return np.zeros((0, 2))
    if len(times) == 1:
        return np.array([[times[0] - 0.5, times[0] + 0.5]])
    start = float(times[0] - (times[1] - times[0]))
    return np.array([[max(0.0, start) if times[0] > 0 else start, float(2 * times[-1] - times[-2])]])
