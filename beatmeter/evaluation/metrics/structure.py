"""Metrics of marks: one value per item and metric, so that intervals, paired tests and reports are those of
every record.

Beats and sections are judged by mir_eval (`beatmeter.evaluation.metrics.beats`, `.sections`). Systems that
heard nothing stand beside every figure."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from beatmeter.evaluation.metrics.beats import any_octave, continuity, f_measure
from beatmeter.evaluation.metrics.checks import Array
from beatmeter.evaluation.metrics.sections import SECTION_METRICS, intervals_of, section_scores
from beatmeter.schema import MarkList, Marks

PerItem = Callable[[Marks], Array]

# name -> (of, title, value of one item from truth and marks)
BEAT_METRICS: dict[str, tuple[str, str, Callable[[MarkList, MarkList], float]]] = {
    "beat_f": ("beats", "F at 70 ms", lambda truth, own: f_measure(truth.beats, own.beats)),
    "beat_f_any_octave": (
        "beats",
        "F, doubling and halving forgiven",
        lambda truth, own: any_octave(truth.beats, own.beats),
    ),
    "beat_continuity": ("beats", "CMLt", lambda truth, own: continuity(truth.beats, own.beats)),
    "downbeat_f": (
        "downbeats",
        "F at 70 ms",
        lambda truth, own: f_measure(truth.downbeats, own.downbeats),
    ),
}


def _section_metric(name: str) -> Callable[[MarkList, MarkList], float]:
    def value(truth: MarkList, own: MarkList) -> float:
        right = _sections(truth)
        if right is None:
            return float("nan")
        whole = np.array([[right[0][0, 0], right[0][-1, 1]]])
        found = _sections(own) or (whole, ("",))  # nothing was found: the track is one section
        return section_scores(*right, *found)[name]

    return value


def _sections(marks: MarkList) -> tuple[Array, tuple[str, ...]] | None:
    """Intervals (section, 2) without gaps and their labels; what lies between sections has none."""
    of = marks.of("section")
    if not len(of):
        return None
    edges = np.unique(np.concatenate([of.starts, of.ends]))
    edges = edges[np.concatenate([[True], np.diff(edges) > APART])]
    middles = (edges[:-1] + edges[1:]) / 2
    names = [
        next((n for a, b, n in zip(of.starts, of.ends, of.names, strict=True) if a <= at < b), "")
        for at in middles
    ]
    return intervals_of(edges), tuple(names)


APART = 0.002  # seconds: closer boundaries are one, written twice

MARK_METRICS = {
    **BEAT_METRICS,
    **{name: ("sections", title, _section_metric(name)) for name, title in SECTION_METRICS.items()},
}


def per_item(name: str) -> PerItem:
    """A metric of marks as values (item,), nan for items of which nothing is known."""
    value = MARK_METRICS[name][2]

    def values(marks: Marks) -> Array:
        return np.array([value(t, m) for t, m in zip(marks.truth, marks.marks, strict=True)], float)

    return values


def metrics_known(marks: Marks) -> tuple[str, ...]:
    """The metrics of what is known of some item: of beats, of sections, of both."""
    known = {kind: any(len(truth.of(kind)) for truth in marks.truth) for kind in ("beat", "section")}
    return (*(BEAT_METRICS if known["beat"] else ()), *(SECTION_METRICS if known["section"] else ()))


EIGHT = 8  # bars of a section by the same
STEADY = 0.5  # seconds between the beats of a system that heard nothing


def steady(marks: Marks) -> Marks:
    """What a metronome says: a beat every STEADY seconds from the first on, in bars of four; and a section
    every EIGHT bars of the true grid where it is known, else of its own."""
    found = []
    for truth in marks.truth:
        end = float(truth.ends.max(initial=0.0))
        times = np.arange(0.0, end + STEADY, STEADY)
        beats = MarkList.moments("beat", times, [str(i % 4 + 1) for i in range(len(times))])
        starts = (truth.downbeats if len(truth.downbeats) > 1 else times[::4])[::EIGHT]
        starts = starts[starts < end]
        sections = MarkList.spans("section", starts, np.append(starts[1:], end), ["A"] * len(starts))
        found.append(beats + sections if len(truth.of("section")) else beats)
    return marks.saying(found)


def of_another(marks: Marks, by: int = 1) -> Marks:
    """The same system's marks of another item."""
    n = len(marks)
    return marks.saying([marks.marks[(i + by) % n] for i in range(n)])
