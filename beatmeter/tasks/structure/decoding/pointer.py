"""Beats and bars by a pointer that moves through bars of hidden length and kind, and reads both curves
(Whiteley, Cemgil and Godsill, ISMIR 2006; Krebs, Boeck and Widmer, ISMIR 2015), as a Viterbi search over
beats instead of frames.

A state is a beat: where it lies (`FINE` rows a row), the place it has in which kind of bar, and the mean
length of a beat at that moment. The next beat follows after the length that its place has in the bar. A
path collects the log-odds of the beat curve at its beats and of the downbeat curve at its first places,
against the track's own mean, and pays for every change of tempo by the log of the ratio, and for a change
of the kind of bar."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from beatmeter.tasks.structure.decoding.patterns import Pattern
from beatmeter.tasks.structure.decoding.peaks import refined

FINE = 2  # places of a beat per row of the curves
LARGEST = 6.0  # log-odds count up to here
NEVER = -1e9


@dataclass(frozen=True)
class PointerSettings:
    """What a path may do and what it pays. Times in seconds; costs in nats."""

    beats: tuple[float, float] = (0.2, 2.2)  # shortest and longest mean length of a beat in a bar
    bars: tuple[float, float] = (0.7, 10.0)
    lengths: int = 64  # of a beat, log-spaced
    change: float = 60.0  # times |log ratio| of neighbouring lengths
    other_bar: float = 12.0  # for another kind of bar
    prior: float = 2.0  # weight of the log-probability of a kind of bar, once
    each: float = 0.5  # weight of the same, for every bar
    length: float = 2.0  # weight of the log-probability of the length of a bar, for every bar
    usual: tuple[float, float] = (2.1, 0.6)  # seconds of a bar and the spread of its log
    pace: float = 0.2  # weight of the log-probability of the length of a beat, for every beat
    moderate: tuple[float, float] = (0.6, 0.32)  # seconds of a beat and the spread of its log
    downbeat: float = 1.0  # weight of the downbeat curve against the beat curve
    beat: float = 0.7  # for every beat: what keeps a path from taking the pulses between beats too
    skipped: float = 0.5  # for each second before the first beat
    # What speaks for beats of twice the length, as log-odds: a constant, and the weights of how much weaker
    # every second beat and every second downbeat is, and of the log of a beat's seconds; empty for no choice.
    slower: tuple[float, ...] = (-6.017, 0.768, 0.989, -3.68)
    # How much weaker every second downbeat of bars of two beats is where two of them are one bar of four,
    # and the cost of leaving out none, or two, in such a row; None for bars as they are found.
    pairs: tuple[float, float] | None = (1.4, 10.0)


USUAL = PointerSettings()


@dataclass(frozen=True)
class Beats:
    """`times` (beat,) seconds, `places` (beat,) in the bar from 1, `scores` (beat,) of the beat curve, and
    the `meter` of most bars."""

    times: Float[np.ndarray, " beat"]
    places: Int[np.ndarray, " beat"]
    scores: Float[np.ndarray, " beat"]
    meter: str


def follow(
    curves: Float[np.ndarray, "time 2"],
    rate: float,
    kinds: list[Pattern],
    settings: PointerSettings = USUAL,
) -> tuple[Float[np.ndarray, " beat"], Int[np.ndarray, " beat"], Int[np.ndarray, " beat"]]:
    """The best path through bars of these kinds: the row of every beat (with fractions), its place in the
    bar from 0, and the kind of its bar."""
    odds = log_odds(curves)
    fine = np.linspace(0, len(odds) - 1, FINE * (len(odds) - 1) + 1)
    beat, down = (np.interp(fine, np.arange(len(odds)), column) for column in odds.T)
    path = _Search(kinds, rate * FINE, settings).best(beat - settings.beat, settings.downbeat * down)
    if not path:
        return np.zeros(0), np.zeros(0, int), np.zeros(0, int)
    frames, places, which = (np.array(column) for column in zip(*path, strict=True))
    return _on_peaks(curves[:, 0], frames / FINE), places, which


def log_odds(curves: Float[np.ndarray, "time 2"]) -> Float[np.ndarray, "time 2"]:
    """Log-odds of every row against those of the mean of its curve."""
    p = np.clip(curves.astype(float), 1e-4, 1 - 1e-4)
    mean = p.mean(axis=0)
    found: np.ndarray = np.clip(np.log(p / (1 - p)) - np.log(mean / (1 - mean)), -LARGEST, LARGEST)
    return found


def _on_peaks(
    curve: Float[np.ndarray, " time"], rows: Float[np.ndarray, " beat"]
) -> Float[np.ndarray, " beat"]:
    """Each beat on the peak of the curve within a row of it, between rows by a parabola; where there is
    none it stays."""
    near = np.clip(np.rint(rows).astype(int)[:, None] + np.array([0, -1, 1]), 0, len(curve) - 1)
    top = near[np.arange(len(rows)), curve[near].argmax(axis=1)]
    inside = (top > 0) & (top < len(curve) - 1)
    peak = inside & (curve[top] >= curve[np.maximum(top - 1, 0)])
    peak &= curve[top] >= curve[np.minimum(top + 1, len(curve) - 1)]
    moved = np.where(peak, top + refined(curve, top), rows)
    found: np.ndarray = np.maximum.accumulate(moved)
    return np.where(np.diff(found, prepend=-1.0) > 0.5, found, rows)


class _Search:
    """The best path through kinds of bars; states are (length, place), the places of all kinds one after
    the other."""

    def __init__(self, kinds: list[Pattern], rate: float, settings: PointerSettings) -> None:
        self.settings = settings
        sizes = np.array([len(kind.beats) for kind in kinds])
        self.first = np.cumsum(sizes) - sizes
        self.last = self.first + sizes - 1
        self.kind = np.repeat(np.arange(len(kinds)), sizes)
        self.before = np.arange(sizes.sum()) - 1
        self.before[self.first] = self.last
        self.place = np.arange(sizes.sum()) - self.first[self.kind]
        self.lengths = np.geomspace(*settings.beats, settings.lengths)
        beats = np.concatenate([kind.beats for kind in kinds])
        seconds = self.lengths[:, None] * beats
        bars = self.lengths[:, None] * sizes[self.kind]
        shortest = np.minimum.reduceat(seconds, self.first, axis=1)[:, self.kind]  # of the same bar
        fits = (bars >= settings.bars[0]) & (bars <= settings.bars[1]) & (shortest >= 0.6 * settings.beats[0])
        self.barred = np.where(fits, 0.0, NEVER)
        self.rows = np.maximum(1, np.rint(seconds * rate).astype(int))  # until the beat after each place
        self.step = settings.change * float(np.log(self.lengths[1] / self.lengths[0]))
        weights = np.array([kind.weight for kind in kinds])
        self.chance = settings.prior * np.log(weights / weights.sum())[self.kind]
        self.wait = settings.skipped / rate
        far = np.log(bars[:, self.first] / settings.usual[0]) / settings.usual[1]
        off = np.log(self.lengths / settings.moderate[0]) / settings.moderate[1]
        share = settings.each * np.log(weights / weights.max()) - 0.5 * settings.length * far**2
        share -= 0.5 * settings.pace * sizes * off[:, None] ** 2
        self.bar = share.astype(np.float32)  # (length, kind), at every first place

    def best(
        self, beat: Float[np.ndarray, " row"], down: Float[np.ndarray, " row"]
    ) -> list[tuple[int, int, int]]:
        """Row, place and kind of bar of every beat. Rows that are too close for one to follow another are
        searched at once."""
        lengths, places = self.barred.shape
        behind = self.rows[:, self.before]
        fits = self.barred == 0
        together = int(behind[fits].min()) if fits.any() else 1
        depth = int(self.rows.max()) + together
        # scores of leaving a beat, by row modulo depth; length before a change, kind of bar before, and
        # whether a path begins there, by row
        left = np.full((depth, lengths, places), NEVER, np.float32)
        came = np.zeros((len(beat), lengths, places), np.uint8)
        other = np.zeros((len(beat), lengths, len(self.first)), np.uint8)
        begun = np.zeros((len(beat), lengths, places), bool)
        ladder = np.arange(lengths, dtype=np.uint8)[:, None]
        slope = np.float32(self.step) * ladder.astype(np.float32)
        every, at = np.arange(lengths)[:, None], self.before[None, :]
        own = np.arange(len(self.first))
        barred = self.barred.astype(np.float32)
        chance = self.chance[self.first].astype(np.float32)
        start_score = (self.chance + self.barred).astype(np.float32)
        beat, down = beat.astype(np.float32)[:, None, None], down.astype(np.float32)[:, None, None]
        top, end = NEVER, None
        for begin in range(0, len(beat), together):
            rows = np.arange(begin, min(begin + together, len(beat)))
            ago = rows[:, None, None] - behind
            arrived = left[ago % depth, every, at]
            if begin < depth:
                arrived[ago < 0] = NEVER
            closing = arrived[:, :, self.first]  # from the last place of the same kind
            best_kind = (closing + chance).argmax(axis=2)[:, :, None]
            through = np.take_along_axis(closing, best_kind, 2) - np.float32(self.settings.other_bar)
            switch = through > closing
            other[rows] = np.where(switch, best_kind, own)
            arrived[:, :, self.first] = np.where(switch, through, closing)
            fresh = start_score - np.float32(self.wait) * rows[:, None, None].astype(np.float32)
            begun[rows] = fresh > arrived
            score = np.maximum(arrived, fresh, out=arrived)
            score += beat[rows] + barred
            score[:, :, self.first] += down[rows] + self.bar
            rising, falling = score + slope, (score - slope)[:, ::-1]
            up, low = np.maximum.accumulate(rising, axis=1), np.maximum.accumulate(falling, axis=1)
            from_up = np.maximum.accumulate(np.where(rising >= up, ladder, 0), axis=1)
            from_low = np.maximum.accumulate(np.where(falling >= low, ladder, 0), axis=1)[:, ::-1]
            rise, fall = up - slope, low[:, ::-1] + slope
            left[rows % depth] = np.maximum(rise, fall)
            came[rows] = np.where(rise >= fall, from_up, lengths - 1 - from_low)
            highest = score.reshape(len(rows), -1).max(axis=1) - self.wait * (len(beat) - 1 - rows)
            last = len(rows) - 1 - int(highest[::-1].argmax())
            if highest[last] >= top:
                top, end = float(highest[last]), (int(rows[last]), *divmod(int(score[last].argmax()), places))
        return self._trace(end, came, other, begun)

    def _trace(
        self, end: tuple[int, int, int] | None, came: np.ndarray, other: np.ndarray, begun: np.ndarray
    ) -> list[tuple[int, int, int]]:
        path = []
        at = end
        while at is not None:
            row, length, place = at
            path.append((row, int(self.place[place]), int(self.kind[place])))
            if begun[row, length, place]:
                break
            before = int(self.before[place])
            if self.place[place] == 0:
                before = int(self.last[other[row, length, self.kind[place]]])
            row -= int(self.rows[length, before])
            at = None if row < 0 else (row, int(came[row, length, before]), before)
        return path[::-1]
