"""`.beats`: time and place in the bar, one beat a line; Harmonix adds the number of the bar."""

from __future__ import annotations

import numpy as np

from beatmeter.datasets.annotations.lines import Line, beats_around, read_lines, seconds
from beatmeter.datasets.annotations.records import Annotation, Grid, Provenance
from beatmeter.errors import DataError


def parse(text: str, where: str) -> Annotation:
    """Beats by time and, where it is given, place in the bar (else 0). Raises DataError (file:line) for a
    beat that is not after the one before it, for a place that is no whole number of at least 1, and for
    bars that count down."""
    times: list[float] = []
    places: list[int] = []
    bar = None
    for line in read_lines(text, where, 1, 3):
        time = line.seconds(0)
        if times and time <= times[-1]:
            raise line.refuse(
                f"the beat at {time:g} s is not after the one before it, at {times[-1]:g} s",
                "Sort the beats, and leave out doubles.",
            )
        place = _whole(line, 1, "place in the bar") if len(line.cells) > 1 else 0
        if len(line.cells) > 2:
            number = _whole(line, 2, "number of the bar", -(10**6))
            if bar is not None and number < bar:
                raise line.refuse(f"bar {number} comes after bar {bar}")
            bar = number
        times.append(time)
        places.append(place)
    beats = np.array(times)
    return Annotation(
        grid=Grid(beats, np.array(places), known=beats_around(beats), provenance=Provenance("beats file"))
    )


def _whole(line: Line, cell: int, what: str, least: int = 1) -> int:
    try:
        value = float(line.cells[cell])
    except ValueError:
        value = float("nan")
    if value != value or value % 1 or value < least:
        raise line.refuse(
            f"{line.cells[cell]!r} is no {what}", "Places are whole numbers from 1, the downbeat."
        )
    return int(value)


def render(annotation: Annotation) -> str:
    """Beats as text. Raises DataError when there are none."""
    if annotation.grid is None or not len(annotation.grid):
        raise DataError("this annotation has no beats to write", "Choose a format of sections or events.")
    rows = zip(annotation.grid.times.tolist(), annotation.grid.places.tolist(), strict=True)
    return "".join(f"{seconds(time)}\t{place}\n" if place else f"{seconds(time)}\n" for time, place in rows)
