"""Beats and bars by a pointer that moves through bars of hidden length and kind, and reads both curves
(Whiteley, Cemgil and Godsill, ISMIR 2006; Krebs, Boeck and Widmer, ISMIR 2015), as a Viterbi search over
beats instead of frames.

A state is a beat: where it lies (`FINE` rows a row), the place it has in which kind of bar, and the mean
length of a beat at that moment. The next beat follows after the length that its place has in the bar. A
path collects the log-odds of the beat curve at its beats and of the downbeat curve at its first places,
against the track's own mean, and pays for every change of tempo by the log of the ratio, and for a change
of the kind of bar."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from beatmeter.tasks.structure.decoding.patterns import Pattern, patterns
from beatmeter.tasks.structure.decoding.peaks import refined

FINE = 2  # places of a beat per row of the curves
FEW = 12  # beats of a track that is not decoded again
STEADY = 1.3  # beats that are decoded again are so much shorter and longer than twice those before
BEATS, DOWNBEATS = 16, 8  # of a window in which every second one is compared with the others
MOSTLY = 0.8  # share of the bars that have two beats where two of them may be one bar
LARGEST = 6.0  # log-odds count up to here
NEVER = -1e9
LONG, SHARED = 300.0, 20.0  # seconds of a track that are decoded at a time, and that neighbours share


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
    slower: tuple[float, ...] = (-6.16, 0.777, 1.003, -3.867)
    # How much weaker every second downbeat of bars of two beats is where two of them are one bar of four,
    # and the cost of leaving out none, or two, in such a row; None for bars as they are found.
    pairs: tuple[float, float] | None = (1.38, 10.0)


@dataclass(frozen=True)
class Beats:
    """`times` (beat,) seconds, `places` (beat,) in the bar from 1, `scores` (beat,) of the beat curve, and
    the `meter` of most bars."""

    times: Float[np.ndarray, " beat"]
    places: Int[np.ndarray, " beat"]
    scores: Float[np.ndarray, " beat"]
    meter: str


NO_BEATS = Beats(np.zeros(0), np.zeros(0, int), np.zeros(0), "")


def find_bars(
    curves: Float[np.ndarray, "time 2"],
    rate: float,
    start: float = 0.0,
    prior: Mapping[str, float] | None = None,
    settings: PointerSettings = PointerSettings(),
) -> Beats:
    """Beats and their places from curves (time, beat and downbeat) of probabilities at `rate` Hz, the first
    row at `start` seconds. `prior` are probabilities of the meters, by class.

    What the path adds up cannot tell a beat from half a beat that is a little weaker. So where every second
    beat and downbeat is weak, the track is decoded again with beats of about twice the length; and where
    every second downbeat of bars of two beats still is, two of them are one bar."""
    if len(curves) < 2 or not (curves[:, 0] > 0).any():
        return NO_BEATS
    odds = log_odds(curves)
    found = _decode(curves, rate, start, prior, settings)
    slower = _slower(found, odds, rate, start, settings)
    again = _decode(curves, rate, start, prior, slower) if slower else found
    best = again if (again.places == 1).sum() > 2 else found
    return paired(best, odds, rate, start, settings.pairs) if settings.pairs else best


def _decode(
    curves: Float[np.ndarray, "time 2"],
    rate: float,
    start: float,
    prior: Mapping[str, float] | None,
    settings: PointerSettings,
) -> Beats:
    """The best path; of a long track part by part."""
    if len(curves) > LONG * rate:
        return _in_parts(curves, rate, start, prior, settings)
    kinds = patterns(prior)
    rows, places, which = follow(curves, rate, kinds, settings)
    if not len(rows):
        return NO_BEATS
    scores = np.interp(rows, np.arange(len(curves)), curves[:, 0])
    meter = kinds[int(np.bincount(which).argmax())].meter
    return Beats(start + rows / rate, places + 1, scores, meter)


def follow(
    curves: Float[np.ndarray, "time 2"],
    rate: float,
    kinds: list[Pattern],
    settings: PointerSettings = PointerSettings(),
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


def _slower(
    found: Beats, odds: Float[np.ndarray, "time 2"], rate: float, start: float, settings: PointerSettings
) -> PointerSettings | None:
    """Settings for beats of about twice the length, where more speaks for them than against."""
    if not settings.slower or len(found.times) < FEW:
        return None
    cues = (1.0, *octave_cues(found, odds, rate, start))
    speaks = sum(weight * cue for weight, cue in zip(settings.slower, cues, strict=True))
    return twice_as_long(found, settings) if speaks > 0 else None


def octave_cues(
    found: Beats, odds: Float[np.ndarray, "time 2"], rate: float, start: float
) -> tuple[float, float, float]:
    """How much weaker every second beat and every second downbeat is in the log-odds of both curves, and the
    log of a beat's seconds."""
    beats = _strengths(odds[:, 0], (found.times - start) * rate)
    downbeats = _strengths(odds[:, 1], (found.times[found.places == 1] - start) * rate)
    length = float(np.log(np.median(np.diff(found.times))))
    return _every_other(beats, BEATS), _every_other(downbeats, DOWNBEATS), length


def twice_as_long(found: Beats, settings: PointerSettings) -> PointerSettings | None:
    """Settings that look for beats about twice as long as these; None where none may be so long."""
    length = 2 * float(np.median(np.diff(found.times)))
    low, high = max(length / STEADY, settings.beats[0]), min(length * STEADY, settings.beats[1])
    if high <= low:
        return None
    share = float(np.log(high / low) / np.log(settings.beats[1] / settings.beats[0]))
    return replace(settings, beats=(low, high), lengths=max(8, round(share * settings.lengths)))


def pairs_cue(found: Beats, odds: Float[np.ndarray, "time 2"], rate: float, start: float) -> float | None:
    """How much weaker every second downbeat is; None unless most bars are of 4/4 and have two beats."""
    first = np.flatnonzero(found.places == 1)
    if found.meter != "4" or len(first) < DOWNBEATS // 2 or (np.diff(first) == 2).mean() < MOSTLY:
        return None
    return _every_other(_strengths(odds[:, 1], (found.times[first] - start) * rate), DOWNBEATS)


def paired(
    found: Beats, odds: Float[np.ndarray, "time 2"], rate: float, start: float, pairs: tuple[float, float]
) -> Beats:
    """Bars of four beats where those that were found have two and every second downbeat is weak."""
    weak = pairs_cue(found, odds, rate, start)
    if weak is None or weak <= pairs[0]:
        return found
    first = np.flatnonzero(found.places == 1)
    kept = first[_strong_ones(_strengths(odds[:, 1], (found.times[first] - start) * rate), pairs[1])]
    beat = np.arange(len(found.times))
    since = beat - kept[np.maximum(np.searchsorted(kept, beat, side="right") - 1, 0)]
    return replace(found, places=np.where(since < 0, since % 4, since) + 1)


def _strong_ones(strong: Float[np.ndarray, " bar"], cost: float) -> Int[np.ndarray, " kept"]:
    """Every second of some downbeats, the strongest in sum; each time that none or two are left out between
    neighbours costs something."""
    best, before = strong.astype(float), np.full(len(strong), -1)
    for at in range(1, len(strong)):
        steps = [step for step in (2, 1, 3) if step <= at]
        reached = [best[at - step] - cost * (step != 2) for step in steps]
        if at > 2 or max(reached) > 0:
            best[at] += max(reached)
            before[at] = at - steps[int(np.argmax(reached))]
    path = [len(strong) - 2 + int(np.argmax(best[-2:]))]
    while before[path[-1]] >= 0:
        path.append(int(before[path[-1]]))
    return np.array(path[::-1])


def _strengths(
    curve: Float[np.ndarray, " time"], rows: Float[np.ndarray, " beat"]
) -> Float[np.ndarray, " beat"]:
    found: np.ndarray = np.interp(rows, np.arange(len(curve)), curve)
    return found


def _every_other(strong: Float[np.ndarray, " beat"], size: int) -> float:
    """How far the mean of every second beat is from that of the others, in windows of `size` that overlap by
    half, mean over the windows; windows of less than half the size count for nothing."""
    windows = [strong[at : at + size] for at in range(0, max(1, len(strong) - size + 1), size // 2)]
    apart = [abs(w[::2].mean() - w[1::2].mean()) for w in windows if 2 * len(w) >= size]
    return float(np.mean(apart)) if apart else 0.0


def _in_parts(
    curves: Float[np.ndarray, "time 2"],
    rate: float,
    start: float,
    prior: Mapping[str, float] | None,
    settings: PointerSettings,
) -> Beats:
    """A long track part by part, so that memory does not grow with it: parts share SHARED seconds, and one
    goes on for the other in the middle of them, where the bars of the later one begin."""
    size, hop = round(LONG * rate), round((LONG - SHARED) * rate)
    parts: list[Beats] = []
    for first in range(0, max(1, len(curves) - round(SHARED * rate)), hop):
        part = _decode(curves[first : first + size], rate, start + first / rate, prior, settings)
        if parts and len(part.times) and len(parts[-1].times):
            seam = start + (first / rate) + SHARED / 2
            bars = part.times[(part.places == 1) & (part.times >= seam)]
            cut = float(bars[0]) if len(bars) and bars[0] < seam + SHARED / 2 else seam
            gap = 0.5 * float(np.median(np.diff(part.times))) if len(part.times) > 1 else 0.0
            parts[-1] = _kept(parts[-1], parts[-1].times < cut - gap)
            part = _kept(part, part.times >= cut - 1e-6)
        parts.append(part)
    times, places, scores = (
        np.concatenate([getattr(p, name) for p in parts]) for name in ("times", "places", "scores")
    )
    meters = [p.meter for p in parts for _ in range(len(p.times))]
    return Beats(times, places, scores, max(sorted(set(meters)), key=meters.count) if meters else "")


def _kept(beats: Beats, which: np.ndarray) -> Beats:
    return Beats(beats.times[which], beats.places[which], beats.scores[which], beats.meter)


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
