"""Meter over time: scores of overlapping windows become segments with one meter each, and the times where it
changes.

A hidden Markov model with one state per class, and one for sound without meter: states last (`DURATION`
seconds in the mean), windows are noisy witnesses of them. Windows that overlap share audio, so each counts
only for the part that is new.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from beatmeter.errors import EvaluationError
from beatmeter.evaluation.metrics.checks import Array
from beatmeter.schema import ClassPredictions

WINDOW = 10.0  # seconds
HOP = 2.5
DURATION = 30.0  # seconds that a meter is expected to last


@dataclass(frozen=True)
class Segment:
    """A stretch with one meter: seconds, the meter, its mean probability, the mean gap to the next class, and
    a second meter that was above its threshold in most of its windows. Where no meter is heard, `meter` is
    None, `score` the mean probability of that, and the gap 0."""

    start: float
    end: float
    meter: str | None
    score: float
    gap: float
    second: str | None


@dataclass(frozen=True)
class Timeline:
    """Windows and what they say: `times` (window, 2) in seconds, `scores` (window, class), `heard` (window,)
    the probability that there is a meter at all (None: not asked), smoothed `posterior` (window, class), with
    a last column for no meter where that was asked, the `path` (window,) of class indices, -1 where no meter
    is heard, and the segments it makes.

    `stability` is the share of windows whose own answer is the meter of their segment.
    """

    classes: tuple[str, ...]
    times: Float[np.ndarray, "window 2"]
    scores: Float[np.ndarray, "window klass"]
    heard: Float[np.ndarray, " window"] | None
    posterior: Float[np.ndarray, "window state"]
    path: Int[np.ndarray, " window"]
    segments: tuple[Segment, ...]
    stability: float

    @property
    def changes(self) -> tuple[float, ...]:
        """Seconds where the meter changes."""
        return tuple(s.start for s in self.segments[1:])

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        from beatmeter.evaluation.diagnostics import plain

        heard = [{}] * len(self.path) if self.heard is None else [{"heard": h} for h in self.heard.tolist()]
        return {
            "classes": list(self.classes),
            "segments": plain(self.segments),
            "changes": list(self.changes),
            "stability": self.stability,
            "windows": [
                {
                    "start": a,
                    "end": b,
                    "meter": self.classes[k] if k >= 0 else None,
                    "scores": dict(zip(self.classes, row, strict=True)),
                    **h,
                }
                for (a, b), k, row, h in zip(
                    self.times.tolist(), self.path.tolist(), self.scores.tolist(), heard, strict=True
                )
            ],
        }

    def to_text(self) -> str:
        """One line per segment."""
        head = "   from       to  meter  probability    gap  second"
        rows = [
            (
                f"{clock(s.start):>7}  {clock(s.end):>7}  {s.meter or 'none':>5}  {s.score:11.2f}  "
                f"{s.gap:5.2f}  {s.second or '-':>6}"
            )
            for s in self.segments
        ]
        noun = "change" if len(self.changes) == 1 else "changes"
        return (
            "\n".join([head, *rows, f"{len(self.changes)} {noun}, stability {100 * self.stability:.0f}%"])
            + "\n"
        )


def clock(seconds: float) -> str:
    """75.5 as "1:15.5"."""
    tenths = round(seconds * 10)
    return f"{tenths // 600}:{tenths // 10 % 60:02d}.{tenths % 10}"


def timeline(
    times: Float[np.ndarray, "window 2"],
    scores: Float[np.ndarray, "window klass"],
    classes: Sequence[str],
    thresholds: Float[np.ndarray, " klass"] | None = None,
    duration: float = DURATION,
    heard: Float[np.ndarray, " window"] | None = None,
) -> Timeline:
    """The most probable sequence of meters (Viterbi), with smoothed probabilities (forward-backward).

    `times` are in seconds, in order; `scores` are probabilities, calibrated ones if there are; `thresholds`
    (class,) say when a second class counts, the production thresholds of a calibration for instance; `heard`
    are the probabilities that a window has a meter at all: without them every window has one. Raises
    EvaluationError without windows or when they are out of order.
    """
    times, scores = np.asarray(times, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    n = len(scores)
    if (
        not n
        or times.shape != (n, 2)
        or not np.isfinite(times).all()
        or (np.diff(times[:, 0]) <= 0).any()
        or (times[:, 1] <= times[:, 0]).any()
    ):
        raise EvaluationError(
            f"a timeline needs windows in order of time, not {n} with times of shape {times.shape}"
        )
    heard = None if heard is None else np.asarray(heard, dtype=np.float64)
    new = np.clip(np.diff(times[:, 1], prepend=times[0, 0]) / (times[:, 1] - times[:, 0]), 0, 1)
    evidence, stay = evidence_of(scores, new, heard), _stay(times, duration)
    path = _viterbi(evidence, stay)
    path[path == scores.shape[1]] = -1
    none = np.zeros(n) if heard is None else 1 - heard
    segments = tuple(
        _segment(times, scores, none, path, tuple(classes), thresholds, a, b) for a, b in _runs(path)
    )
    own = np.where(none > 0.5, -1, scores.argmax(axis=1)) == path
    return Timeline(
        tuple(classes), times, scores, heard, _smooth(evidence, stay), path, segments, float(own.mean())
    )


def timelines(
    p: ClassPredictions, thresholds: Array | None = None, duration: float = DURATION
) -> dict[str, Timeline]:
    """A timeline for every id whose items are windows. Raises EvaluationError when there are only whole
    tracks."""
    found: dict[str, list[int]] = {}
    for i, id in enumerate(p.ids):
        if not np.isnan(p.times[i, 0]):
            found.setdefault(id, []).append(i)
    if not found:
        raise EvaluationError(
            "these predictions are of whole tracks",
            "A timeline needs windows: the columns start and end must be filled.",
        )
    lines = {}
    for id, rows in found.items():
        at = np.array(rows)[np.argsort(p.times[rows, 0], kind="stable")]
        lines[id] = timeline(p.times[at], p.scores[at], p.classes, thresholds, duration)
    return lines


def windows(seconds: float, window: float = WINDOW, hop: float = HOP) -> Float[np.ndarray, "window 2"]:
    """Start and end of every window, seconds; the last ends with the audio, audio shorter than a window is
    one window."""
    if not 0 < hop <= window:
        raise EvaluationError(
            f"windows of {window:g} s every {hop:g} s leave gaps",
            "The hop must be above 0 and at most the window.",
        )
    last = seconds - window
    if last <= 1e-6 * hop:  # rounding must not give a window that begins just after the first one
        return np.array([[0.0, seconds]])
    starts = np.arange(0.0, last, hop)
    starts = np.append(
        starts[starts < last - 1e-6 * hop], last
    )  # rounding must not give the last window twice
    return np.column_stack([starts, starts + window])


def evidence_of(scores: Array, share: Array | float, heard: Array | float | None = None) -> Array:
    """(..., class) log likelihood of every class up to a constant, from scores (..., class), weighted by the
    `share` (...) of a window that is new. With the probability `heard` (...) of a meter at all, (..., class +
    1): the last is that of no meter.

    Scores count as shares of their sum. As likelihoods they are divided by what is expected without a window:
    an equal share for every class, and as much for a meter as for none.
    """
    p = np.clip(scores, 1e-4, 1.0)
    likelihood = p / p.sum(axis=-1, keepdims=True)
    if heard is not None:
        h = np.clip(np.asarray(heard), 1e-4, 1 - 1e-4)[..., None]
        likelihood = np.concatenate([h * p.shape[-1] * likelihood, 1 - h], axis=-1)
    result: Array = np.log(likelihood) * np.asarray(share)[..., None]
    return result


def _stay(times: Array, duration: float) -> Array:
    """(window,) chance that the meter is the one of the window before."""
    result: Array = np.exp(-np.diff(times.mean(axis=1), prepend=times[0].mean()) / duration)
    return result


def _transition(stay: float, c: int) -> Array:
    """(from, to) log chances; all changes are equally likely."""
    other = (1 - stay) / max(1, c - 1)
    return np.log(np.clip(np.full((c, c), other) + (stay - other) * np.eye(c), 1e-12, 1))


def _viterbi(evidence: Array, stay: Array) -> Array:
    n, c = evidence.shape
    best, back = evidence[0], np.zeros((n, c), dtype=np.int64)
    for t in range(1, n):
        reach = best[:, None] + _transition(float(stay[t]), c)
        back[t] = reach.argmax(axis=0)
        best = reach.max(axis=0) + evidence[t]
    path = np.empty(n, dtype=np.int64)
    path[-1] = best.argmax()
    for t in range(n - 1, 0, -1):
        path[t - 1] = back[t, path[t]]
    return path


def _smooth(evidence: Array, stay: Array) -> Array:
    """(window, class) probability of every class given all windows."""
    n, c = evidence.shape
    forward, backward = evidence.copy(), np.zeros((n, c))
    for t in range(1, n):
        forward[t] += np.logaddexp.reduce(forward[t - 1][:, None] + _transition(float(stay[t]), c), axis=0)
        forward[t] -= np.logaddexp.reduce(forward[t])
    for t in range(n - 2, -1, -1):
        backward[t] = np.logaddexp.reduce(
            _transition(float(stay[t + 1]), c) + (evidence[t + 1] + backward[t + 1])[None, :], axis=1
        )
        backward[t] -= np.logaddexp.reduce(backward[t])
    both = forward + backward
    result: Array = np.exp(both - np.logaddexp.reduce(both, axis=1, keepdims=True))
    return result


def _runs(path: Array) -> list[tuple[int, int]]:
    """First and last window (inclusive) of every run of one class."""
    edges = [0, *(np.flatnonzero(np.diff(path)) + 1).tolist(), len(path)]
    return [(a, b - 1) for a, b in pairwise(edges)]


def _segment(
    times: Array,
    scores: Array,
    none: Array,
    path: Array,
    classes: tuple[str, ...],
    thresholds: Array | None,
    a: int,
    b: int,
) -> Segment:
    """Windows `a` to `b`; the border to a neighbour lies half-way between the centres of the two windows
    around it."""
    centres = times.mean(axis=1)
    start = float(times[0, 0] if a == 0 else centres[a - 1 : a + 1].mean())
    end = float(times[-1, 1] if b == len(times) - 1 else centres[b : b + 2].mean())
    inside, k = scores[a : b + 1], int(path[a])
    if k < 0:
        return Segment(start, end, None, float(none[a : b + 1].mean()), 0.0, None)
    others = np.delete(inside, k, axis=1)
    second = None
    if thresholds is not None and others.shape[1]:
        over: Array = (inside > thresholds).mean(axis=0)
        over[k] = 0
        second = classes[int(over.argmax())] if over.max() > 0.5 else None
    gap = float((inside[:, k] - others.max(axis=1)).mean()) if others.shape[1] else 1.0
    return Segment(start, end, classes[k], float(inside[:, k].mean()), gap, second)
