"""Metrics of marks: one value per item and metric, so that intervals, paired tests and reports are those of
every record.

Beats are judged by mir_eval (`beatmeter.evaluation.metrics.beats`). Systems that heard nothing stand beside
every figure."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from beatmeter.evaluation.metrics.beats import any_octave, continuity, f_measure
from beatmeter.evaluation.metrics.checks import Array
from beatmeter.schema import MarkList, Marks

PerItem = Callable[[Marks], Array]

# name -> (of, title, value of one item from truth and marks)
BEAT_METRICS: dict[str, tuple[str, str, Callable[[MarkList, MarkList], float]]] = {
    "beat_f": ("beats", "F at 70 ms", lambda truth, said: f_measure(truth.beats, said.beats)),
    "beat_f_any_octave": (
        "beats",
        "F, doubling and halving forgiven",
        lambda truth, said: any_octave(truth.beats, said.beats),
    ),
    "beat_continuity": ("beats", "CMLt", lambda truth, said: continuity(truth.beats, said.beats)),
    "downbeat_f": ("downbeats", "F at 70 ms", lambda truth, said: f_measure(truth.downbeats, said.downbeats)),
}


def per_item(name: str) -> PerItem:
    """A beat metric as values (item,), nan for items of which nothing is known."""
    value = BEAT_METRICS[name][2]

    def values(marks: Marks) -> Array:
        return np.array([value(t, m) for t, m in zip(marks.truth, marks.marks, strict=True)], float)

    return values


def of_beats(marks: Marks) -> bool:
    """Whether beats of some item are known."""
    return any(len(truth.of("beat")) for truth in marks.truth)


STEADY = 0.5  # seconds between the beats of a system that heard nothing


def steady(marks: Marks) -> Marks:
    """What a metronome says: a beat every STEADY seconds from the first on, in bars of four."""
    said = []
    for truth in marks.truth:
        end = float(truth.ends.max(initial=0.0))
        times = np.arange(0.0, end + STEADY, STEADY)
        said.append(MarkList.moments("beat", times, [str(i % 4 + 1) for i in range(len(times))]))
    return marks.saying(said)


def of_another(marks: Marks, by: int = 1) -> Marks:
    """The same system's marks of another item."""
    n = len(marks)
    return marks.saying([marks.marks[(i + by) % n] for i in range(n)])
