"""Answering only when sure: accuracy of the answered items against the share that is answered."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from beatmeter.evaluation.metrics import correct, share
from beatmeter.evaluation.metrics.checks import Array
from beatmeter.schema import ClassPredictions

COVERAGES = tuple(round(1 - 0.05 * k, 2) for k in range(20))  # 1.0, 0.95, ..., 0.05


@dataclass(frozen=True)
class SelectiveRow:
    """Items whose highest score is at least `threshold`: the share of all (`coverage`), and their accuracy
    with its interval."""

    coverage: float
    threshold: float
    accuracy: float
    low: float
    high: float


def selective_table(p: ClassPredictions) -> list[SelectiveRow]:
    """One row per coverage from all items down to the surest twentieth. Coverage counts whole runs of equal
    scores."""
    labelled = p.take(p.primary >= 0)
    right, confidence = correct(labelled.scores, labelled.primary), labelled.scores.max(axis=1)
    falling = np.sort(confidence)[::-1]
    rows: list[SelectiveRow] = []
    for wanted in COVERAGES:
        threshold = 0.0 if wanted == 1 else float(falling[max(1, round(wanted * len(falling))) - 1])
        kept = confidence >= threshold
        e = share(np.where(kept, right, np.nan), labelled.groups)
        row = SelectiveRow(float(kept.mean()), threshold, e.value, e.low, e.high)
        if not rows or row.coverage < rows[-1].coverage:
            rows.append(row)
    return rows


def selective_curve(p: ClassPredictions) -> tuple[Array, Array]:
    """(point,) coverage and accuracy for every threshold, surest items first."""
    labelled = p.take(p.primary >= 0)
    confidence = labelled.scores.max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    right = correct(labelled.scores, labelled.primary)[order]
    ends = np.flatnonzero(np.diff(confidence[order], append=-1.0))
    return (ends + 1) / len(labelled), right.cumsum()[ends] / (ends + 1)
