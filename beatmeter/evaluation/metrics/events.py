"""How well moments are found: F within a window, and within one beat of the track."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from beatmeter.schema import MarkList

BEAT = 0.5  # seconds of a beat where no tempo is known
Times = Float[np.ndarray, " moment"]


def moment_f(truth: Times, found: Times, window: float) -> float:
    """F of moments matched one to one within `window` seconds (mir_eval.util.match_events). nan where none
    is right and none was found: there was nothing to find, and nothing was."""
    from mir_eval.util import f_measure, match_events

    if not len(truth):
        return 0.0 if len(found) else float("nan")
    if not len(found):
        return 0.0
    hits = len(match_events(np.sort(truth), np.sort(found), window))
    return float(f_measure(hits / len(found), hits / len(truth)))


def one_beat(truth: MarkList) -> float:
    """Seconds of a beat by the truth's mark of the kind `tempo`, whose name is beats a minute."""
    try:
        tempo = float(next(iter(truth.of("tempo").names), "nan"))
    except ValueError:
        return BEAT
    return 60 / tempo if 0 < tempo < np.inf else BEAT


def event_f(kind: str, truth: MarkList, said: MarkList) -> float:
    """F of the starts of the marks of a kind, within one beat."""
    if not len(truth.known(kind)):
        return float("nan")
    return moment_f(truth.of(kind).starts, said.of(kind).starts, one_beat(truth))


def right_share(kind: str, truth: MarkList, said: MarkList) -> float:
    """Share of the time that the truth's spans of a kind cover in which `said` has a span of the same
    name there; nan without such spans."""
    spans, given = truth.of(kind), said.of(kind)
    total = float((spans.ends - spans.starts).sum())
    if total <= 0:
        return float("nan")
    right = sum(
        max(0.0, min(b, d) - max(a, c))
        for a, b, name in zip(spans.starts, spans.ends, spans.names, strict=True)
        for c, d, other in zip(given.starts, given.ends, given.names, strict=True)
        if name == other
    )
    return float(right / total)
