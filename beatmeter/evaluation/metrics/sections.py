"""How well sections are found, by mir_eval, one value per track and metric: boundaries within half a second
and three seconds, labels by pairs of frames.

Sections are intervals (section, 2) in seconds, without gaps, with one label each. *Trimmed* leaves out the
first and the last boundary, which everyone finds; untrimmed counts them and is higher by .10 to .15 for
every system, null systems included.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from beatmeter.errors import DataError

Intervals = Float[np.ndarray, "section 2"]
SECTION_METRICS: Mapping[str, str] = {
    "hr5": "F of boundaries within .5 s, trimmed",
    "hr3": "F of boundaries within 3 s, trimmed",
    "hr5_untrimmed": "F of boundaries within .5 s, first and last included",
    "hr3_untrimmed": "F of boundaries within 3 s, first and last included",
    "pairwise_f": "F of pairs of frames with one label",
}
FRAME = 0.1  # seconds between the frames whose pairs are counted
SHORTEST = 1e-4  # seconds


def section_scores(
    reference: Intervals, reference_labels: Sequence[str], estimate: Intervals, labels: Sequence[str] | None
) -> dict[str, float]:
    """Every metric of SECTION_METRICS for one track; `pairwise_f` is nan without labels. Raises DataError
    for bad intervals.

    Trimmed scores are nan where the reference has no inner boundary.
    """
    reference, estimate = _checked(reference, "the reference"), _checked(estimate, "the estimate")
    scores = {}
    for name, window in (("hr5", 0.5), ("hr3", 3.0)):
        scores[name] = boundary_f(reference, estimate, window, trim=True)
        scores[f"{name}_untrimmed"] = boundary_f(reference, estimate, window, trim=False)
    scores["pairwise_f"] = (
        float("nan") if labels is None else _pairwise_f(reference, reference_labels, estimate, labels)
    )
    return {name: scores[name] for name in SECTION_METRICS}


def boundary_f(reference: Intervals, estimate: Intervals, window: float, *, trim: bool) -> float:
    """F of boundaries matched one to one within `window` seconds (mir_eval.segment.detection); nan when
    none is to be found."""
    if trim and len(reference) < 2:
        return float("nan")
    if trim and len(estimate) < 2:
        return 0.0
    zero = min(reference[0, 0], estimate[0, 0])  # mir_eval knows no time below zero
    import mir_eval

    scores = mir_eval.segment.detection(reference - zero, estimate - zero, window=window, trim=trim)
    return float(scores[2])


def _pairwise_f(
    reference: Intervals, reference_labels: Sequence[str], estimate: Intervals, labels: Sequence[str]
) -> float:
    """Both over the time of the reference: what the estimate leaves out there is a section of its own."""
    start, end = float(reference[0, 0]), float(reference[-1, 1])
    edges, names = [start], []
    for (low, high), label in zip(estimate.tolist(), labels, strict=True):
        if low > edges[-1] + SHORTEST and low < end:
            edges.append(low)
            names.append("")
        if min(high, end) > edges[-1] + SHORTEST:
            edges.append(min(high, end))
            names.append(f"={label}")
    if edges[-1] < end - SHORTEST:
        edges.append(end)
        names.append("")
    edges[-1] = end
    fitted = intervals_of(np.array(edges))
    import mir_eval

    scores = mir_eval.segment.pairwise(
        reference - start, list(reference_labels), fitted - start, names, frame_size=FRAME
    )
    return float(scores[2])


def _checked(intervals: Intervals, whose: str) -> Intervals:
    intervals = np.asarray(intervals, dtype=float)
    if intervals.ndim != 2 or intervals.shape[1] != 2 or not len(intervals):
        raise DataError(f"the sections of {whose} are no table of start and end: shape {intervals.shape}")
    if not np.isfinite(intervals).all() or (np.diff(intervals, axis=1) <= 0).any():
        raise DataError(f"a section of {whose} has no length, or a time that is no number")
    if (np.abs(intervals[1:, 0] - intervals[:-1, 1]) > 1e-6).any():
        raise DataError(
            f"the sections of {whose} leave gaps or overlap",
            "Every section begins where the one before ends.",
        )
    return intervals


def intervals_of(boundaries: Float[np.ndarray, " boundary"]) -> Intervals:
    """(boundary - 1, 2) sections between boundaries in seconds."""
    return np.stack([boundaries[:-1], boundaries[1:]], axis=1)
