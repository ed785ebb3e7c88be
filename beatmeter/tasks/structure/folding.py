"""A track folded by its bars: what its frames hold at every quarter of a pulse, one row for each bar.

Which bars these are is a guess: the best path of the pointer through bars of a known meter, and bars that are
twice or three times as long or as short as that. Who reads them decides between these readings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from beatmeter.audio.barwise import bar_means
from beatmeter.tasks.structure.decoding.patterns import patterns_of
from beatmeter.tasks.structure.decoding.pointer import follow

PARTS = 4  # of a pulse
# (pulses of a reading for one of the path, pulses by which it begins later): bars as they were found, twice
# as long, half as long, three times as long, a third
READINGS = ((1, 0), (1 / 2, 0), (1 / 2, 1 / 2), (2, 0), (1 / 3, 0), (1 / 3, 1 / 3), (1 / 3, 2 / 3), (3, 0))
BARS = (0.55, 14.0)  # seconds of a bar
BEYOND = 40.0  # pulses by which the first and the last tempo go on


@dataclass(frozen=True)
class Grid:
    """Pulses over time: number `pulses` (knot,) lies at `seconds` (knot,), between them in proportion. Bars
    begin at multiples of the meter."""

    seconds: Float[np.ndarray, " knot"]
    pulses: Float[np.ndarray, " knot"]

    def at(self, seconds: Float[np.ndarray, " time"]) -> Float[np.ndarray, " time"]:
        """Pulses at these times."""
        found: np.ndarray = np.interp(seconds, self.seconds, self.pulses)
        return found


@dataclass(frozen=True)
class Reading:
    """A track folded by one grid. rows: (bar, PARTS x pulses of a bar, channel), the first part about the
    first pulse. seconds: of a bar, in the mean. scaled: whether its bars are not those that were found."""

    grid: Grid
    rows: Float[np.ndarray, "bar part channel"]
    seconds: float
    scaled: bool


def find_pulses(curves: Float[np.ndarray, "time 2"], rate: float, start: float, meter: str) -> Grid | None:
    """The pulses of a track by its curves of beats and downbeats (`rate` Hz, the first row at `start`
    seconds), whose bars are of this meter; None where fewer than three beats are found."""
    rows, places, which = follow(curves, rate, kinds := patterns_of(meter))
    bars = np.flatnonzero(places == 0)
    if len(rows) < 3 or not len(bars):
        return None
    steps = np.array([kinds[k].pulses[place] for k, place in zip(which, places, strict=True)], float)
    pulses = np.concatenate([[0.0], np.cumsum(steps[:-1])])
    return extended(Grid(start + rows / rate, pulses - pulses[bars[0]]))


def extended(grid: Grid) -> Grid:
    """The same with the first and the last tempo, means over four knots, going on."""
    seconds, pulses = grid.seconds, grid.pulses
    near = min(4, len(seconds) - 1)
    first = (seconds[near] - seconds[0]) / max(pulses[near] - pulses[0], 1e-6)
    last = (seconds[-1] - seconds[-1 - near]) / max(pulses[-1] - pulses[-1 - near], 1e-6)
    return Grid(
        np.concatenate([[seconds[0] - BEYOND * first], seconds, [seconds[-1] + BEYOND * last]]),
        np.concatenate([[pulses[0] - BEYOND], pulses, [pulses[-1] + BEYOND]]),
    )


def readings(
    frames: Float[np.ndarray, "time channel"], rate: float, start: float, grid: Grid, meter: int
) -> list[Reading]:
    """A track (frames at `rate` Hz, the first at `start` seconds) folded by its bars as they were found and
    by others; the first reading is of those, where they are not too short or too long."""
    length = len(frames) / rate
    found = []
    for scale, later in READINGS:
        own = Grid(grid.seconds, grid.pulses * scale + later)
        begin, end = own.at(np.array([start, start + length]))
        bar = length / max(1e-6, (end - begin) / meter)
        if BARS[0] <= bar <= BARS[1] and (scale == 1 or bar <= 1.05 * length):
            rows = fold(frames, rate, start, own, meter)
            found.append(Reading(own, rows, bar, scale != 1))
    return found


def fold(
    frames: Float[np.ndarray, "time channel"], rate: float, start: float, grid: Grid, meter: int
) -> Float[np.ndarray, "bar part channel"]:
    """Means of frames over the parts of all whole bars; of one bar that is cut where there is no whole
    one."""
    end = start + (len(frames) - 1) / rate
    first, last = grid.at(np.array([start - 0.5 / rate, end + 0.5 / rate])) / meter
    bars = np.arange(int(np.ceil(first)), int(np.floor(last)))
    bars = bars if len(bars) else np.array([int(np.floor(first))])
    parts = meter * PARTS
    edges = (np.arange(len(bars) * parts + 1) - 0.5) / PARTS + bars[0] * meter
    times = np.interp(edges, grid.pulses, grid.seconds) - start
    return bar_means(frames, rate, times, 1).reshape(len(bars), parts, -1)
