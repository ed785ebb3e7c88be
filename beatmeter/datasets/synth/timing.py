"""From pulses to seconds: bars on a pulse axis, and the tempo curve that bends it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from beatmeter.datasets.synth.clip import FloatArray, IntArray
from beatmeter.datasets.synth.forms import Form

FEELS = ("machine", "steady", "human", "rubato")


@dataclass(frozen=True)
class Layout:
    """Bars of one meter on the pulse axis of a piece.

    starts: (bar,) downbeats in pulses; one more than the bars that are played, as the end of the last.
    groups: pulses per group. unit: length of this meter's pulse in pulses of the piece (not 1 in a
    polyrhythm). division: ticks that a pulse is divided into (1-4).
    """

    starts: FloatArray
    groups: tuple[int, ...]
    unit: float
    division: int

    @property
    def pulses(self) -> int:
        """Own pulses in a bar."""
        return sum(self.groups)

    @property
    def bars(self) -> int:
        """Bars that are played."""
        return len(self.starts) - 1

    def group_starts(self) -> IntArray:
        """(group,) own pulse in the bar where each group starts."""
        return np.concatenate([[0], np.cumsum(self.groups)[:-1]]).astype(np.int64)

    def weights(self) -> FloatArray:
        """(tick in bar,) metrical weight: 3 downbeat, 2 group start, 1 pulse, 0.5 or less inside a pulse."""
        weights = np.full(self.pulses * self.division, 0.3)
        if self.division % 2 == 0:
            weights[self.division // 2 :: self.division] = 0.5
        weights[:: self.division] = 1.0
        weights[self.group_starts() * self.division] = 2.0
        weights[0] = 3.0
        return weights

    def at(self, bar: int, tick: float) -> float:
        """Pulse position of a tick (may be fractional or beyond the bar) of a bar."""
        return float(self.starts[bar]) + tick * self.unit / self.division

    def felt_beats(self, form_unit: str) -> IntArray:
        """(beat,) own pulse of each felt beat: every pulse of quarter bars, group starts of eighth bars."""
        return np.arange(self.pulses, dtype=np.int64) if form_unit == "quarter" else self.group_starts()


@dataclass(frozen=True)
class Timing:
    """The performed time of every pulse.

    seconds: (pulse,) time of pulse `first` + index. swing: where the middle of a pulse falls, 0.5 is
    straight. jitter: standard deviation of a note's onset around the curve, seconds.
    """

    seconds: FloatArray
    first: int
    swing: float
    jitter: float

    def at(self, pulses: FloatArray) -> FloatArray:
        """Seconds of positions on the pulse axis."""
        position = np.asarray(pulses, dtype=np.float64)
        if self.swing != 0.5:
            whole = np.floor(position + 1e-9)
            part = np.clip(position - whole, 0.0, 1.0)
            early = part * 2 * self.swing
            late = self.swing + (part - 0.5) * 2 * (1 - self.swing)
            position = whole + np.where(part < 0.5, early, late)
        axis = np.arange(self.first, self.first + len(self.seconds), dtype=np.float64)
        return np.interp(position, axis, self.seconds)


def draw_timing(
    rng: np.random.Generator,
    *,
    feel: str,
    pulse: float,
    bars: FloatArray,
    phrases: FloatArray,
    origin: float,
    swing: float,
) -> Timing:
    """Draw a tempo curve.

    feel: one of FEELS. pulse: mean pulse in seconds. bars, phrases: (n,) pulse positions of downbeats and of
    phrase ends. origin: the pulse position that falls on 0 s.
    """
    first, last = int(np.floor(bars[0])) - 2, int(np.ceil(bars[-1])) + 3
    axis = np.arange(first, last, dtype=np.float64)
    curve = np.zeros(len(axis))
    strength = {"machine": 0.0, "steady": 0.3, "human": 1.0, "rubato": 2.2}[feel]
    if strength:
        walk = np.cumsum(rng.normal(0.0, 1.0, len(axis)))
        walk -= np.linspace(walk[0], walk[-1], len(walk))
        curve += 0.004 * strength * walk
        period = rng.uniform(8, 40)
        curve += 0.015 * strength * rng.random() * np.sin(2 * np.pi * (axis / period + rng.random()))
        curve += rng.uniform(-0.03, 0.03) * strength * (axis - axis.mean()) / max(1.0, np.ptp(axis))
    if feel == "rubato":
        curve += _phrase_arcs(rng, axis, phrases)
        on_bar = np.isin(axis, np.round(bars))
        curve += rng.uniform(-0.02, 0.08) * on_bar + rng.normal(0.0, rng.uniform(0.01, 0.04), len(axis))
    lengths = np.exp(np.clip(curve, -0.5, 0.7))
    lengths *= pulse / lengths.mean()
    seconds = np.concatenate([[0.0], np.cumsum(lengths)])
    timing = Timing(
        seconds, first, swing, {"machine": 0.0, "steady": 0.004, "human": 0.009, "rubato": 0.012}[feel]
    )
    shift = float(timing.at(np.array([origin]))[0])
    return Timing(seconds - shift, first, swing, timing.jitter * float(rng.uniform(0.4, 1.6)))


def _phrase_arcs(rng: np.random.Generator, axis: FloatArray, phrases: FloatArray) -> FloatArray:
    """Slower at each phrase end (a ritardando of 5-45 %), a little faster in its middle."""
    curve = np.zeros(len(axis))
    depth = rng.uniform(0.05, 0.35)
    reach = rng.uniform(1.5, 5.0)
    fermata = 0.3 if rng.random() < 0.2 else 0.0
    for end in phrases:
        distance = end - axis
        near = (distance > 0) & (distance <= reach)
        curve[near] += depth * rng.uniform(0.3, 1.3) * (1 - distance[near] / reach) ** 1.5
        if rng.random() < fermata:
            curve[(distance > 0) & (distance <= 1)] += rng.uniform(0.2, 0.6)
    return curve


def draw_rubato(
    rng: np.random.Generator,
    *,
    pulse: float,
    bars: FloatArray,
    phrases: FloatArray,
    closing: FloatArray,
    origin: float,
    depth: float,
) -> Timing:
    """A tempo curve as a soloist plays it, which in one bar of ten goes `depth` (a share) or more from its
    median: phrases that begin and end slowly, a ritardando where a section closes, drift from bar to bar; and
    on top of it longer first beats and uneven pulses.

    pulse: mean pulse in seconds. bars, phrases, closing: (n,) pulse positions of downbeats, of phrase ends,
    and of those that close a section. origin: the pulse position that falls on 0 s.
    """
    first, last = int(np.floor(bars[0])) - 2, int(np.ceil(bars[-1])) + 3
    axis = np.arange(first, last, dtype=np.float64)
    edges = np.unique(np.concatenate([[axis[0]], phrases, [axis[-1] + 1]]))
    curve = np.zeros(len(axis))
    opening, ending = rng.uniform(0.0, 0.8), rng.uniform(0.5, 1.2)
    for start, end in pairwise(edges):
        inside = (axis >= start) & (axis < end)
        through = (axis[inside] - start) / (end - start)
        size = rng.uniform(0.5, 1.3)
        slow = opening * np.clip(1 - 3 * through, 0, 1) ** 2 + ending * np.clip(3 * through - 2, 0, 1) ** 1.5
        curve[inside] += size * (slow - 0.35 * np.sin(np.pi * through))
        if np.any(np.abs(closing - end) < 1e-6):
            reach = min(end - start, rng.uniform(3.0, 9.0))
            curve[inside] += rng.uniform(0.4, 1.2) * np.clip(1 - (end - axis[inside]) / reach, 0, 1) ** 2
    bar = float(np.median(np.diff(bars)))
    steps = rng.normal(0.0, rng.uniform(0.05, 0.35), int(len(axis) / bar) + 3)
    drift = np.interp(axis, first + bar * np.arange(len(steps)), np.cumsum(steps))
    window = max(1, round(16 * bar))
    slowly = np.convolve(np.pad(drift, window, mode="edge"), np.ones(window) / window, "same")
    curve += drift - slowly[window:-window]
    curve -= np.median(curve)
    by_bar = np.convolve(curve, np.ones(max(1, round(bar))) / max(1, round(bar)), "same")
    curve *= np.log1p(depth) / max(1e-9, float(np.quantile(np.abs(by_bar), 0.9)))
    curve = np.clip(curve, -1.0, 1.0)
    on_bar = np.isin(axis, np.round(bars))
    curve += rng.uniform(0.0, 0.3) * depth * on_bar + rng.normal(0.0, 0.01 + 0.06 * depth, len(axis))
    lengths = np.exp(curve)
    lengths *= pulse / lengths.mean()
    seconds = np.concatenate([[0.0], np.cumsum(lengths)])
    timing = Timing(seconds, first, 0.5, float(rng.uniform(0.004, 0.016)))
    return replace(timing, seconds=seconds - float(timing.at(np.array([origin]))[0]))


def make_layout(form: Form, *, pulses: float, division: int, unit: float = 1.0) -> Layout:
    """Lay bars of a form over at least `pulses` pulses of the piece, starting one bar before 0."""
    bar = form.pulses * unit
    count = int(np.ceil(pulses / bar)) + 3
    starts = (np.arange(count) - 1) * bar
    return Layout(starts.astype(np.float64), form.groups, unit, division)
