"""Metrics of marks: one value per item and metric, so that intervals, paired tests and reports are those of
every record.

Beats and sections are judged by mir_eval (`beatmeter.evaluation.metrics.beats`, `.sections`). Systems that
heard nothing stand beside every figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from beatmeter.evaluation.metrics.beats import any_octave, continuity, f_measure
from beatmeter.evaluation.metrics.checks import Array
from beatmeter.evaluation.metrics.events import event_f, right_share
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

EVENT_METRICS: dict[str, tuple[str, str, Callable[[MarkList, MarkList], float]]] = {
    "drop_f": ("drops", "F within one beat", partial(event_f, "drop")),
    "build_up_f": ("build-ups", "F of their starts within one beat", partial(event_f, "build-up")),
}
FUNCTION_METRICS: dict[str, tuple[str, str, Callable[[MarkList, MarkList], float]]] = {
    "function_share": ("functions", "share of the time right", partial(right_share, "function")),
}
MARK_METRICS = {
    **BEAT_METRICS,
    **{name: ("sections", title, _section_metric(name)) for name, title in SECTION_METRICS.items()},
    **EVENT_METRICS,
    **FUNCTION_METRICS,
}
METRICS_OF_KIND = {  # of which kind of marks the truth must hold some
    "beat": tuple(BEAT_METRICS),
    "section": tuple(SECTION_METRICS),
    "drop": ("drop_f",),
    "build-up": ("build_up_f",),
    "function": tuple(FUNCTION_METRICS),
}


def per_item(name: str) -> PerItem:
    """A metric of marks as values (item,), nan for items of which nothing is known."""
    value = MARK_METRICS[name][2]

    def values(marks: Marks) -> Array:
        return np.array([value(t, m) for t, m in zip(marks.truth, marks.marks, strict=True)], float)

    return values


def metrics_known(marks: Marks) -> tuple[str, ...]:
    """The metrics of what is known of some item: of beats, of sections, of events, of functions."""
    known = {kind: any(len(truth.of(kind)) for truth in marks.truth) for kind in METRICS_OF_KIND}
    return tuple(name for kind, names in METRICS_OF_KIND.items() if known[kind] for name in names)


EIGHT = 8  # bars of a section by the same
STEADY = 0.5  # seconds between the beats of a system that heard nothing


def steady(marks: Marks) -> Marks:
    """What a metronome says: a beat every STEADY seconds from the first on, in bars of four; a section every
    EIGHT bars of the true grid where it is known, else of its own; a drop and a build-up where each second
    of these sections begins; and everywhere the function that most of the time has."""
    marked = []
    there = {kind for truth in marks.truth for kind in truth.kinds}
    usual = _most_time(marks.truth)
    for truth in marks.truth:
        end = float(truth.ends.max(initial=0.0))
        times = np.arange(0.0, end + STEADY, STEADY)
        found = MarkList.moments("beat", times, [str(i % 4 + 1) for i in range(len(times))])
        starts = (truth.downbeats if len(truth.downbeats) > 1 else times[::4])[::EIGHT]
        starts = starts[starts < end]
        if "section" in there:
            found += MarkList.spans("section", starts, np.append(starts[1:], end), ["A"] * len(starts))
        for kind in ("drop", "build-up"):
            found += MarkList.moments(kind, starts[::2] if kind in there else ())
        found += MarkList.spans("function", [0.0] * bool(usual), [end] * bool(usual), [usual] * bool(usual))
        marked.append(found)
    return marks.saying(marked)


def _most_time(truths: Sequence[MarkList]) -> str:
    """The function that most of the time has; "" where none is known."""
    seconds: dict[str, float] = {}
    for truth in truths:
        of = truth.of("function")
        for name, length in zip(of.names, (of.ends - of.starts).tolist(), strict=True):
            seconds[name] = seconds.get(name, 0.0) + length
    return max(sorted(seconds), key=lambda name: seconds[name], default="")


def of_another(marks: Marks, by: int = 1) -> Marks:
    """The same system's marks of another item."""
    n = len(marks)
    return marks.saying([marks.marks[(i + by) % n] for i in range(n)])
