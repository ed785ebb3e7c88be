"""Cross-validation over groups: what a fit says of items it has not seen."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from beatmeter.errors import EvaluationError
from beatmeter.evaluation.metrics import group_index
from beatmeter.evaluation.metrics.checks import Array
from beatmeter.schema import ClassPredictions

Fit = Callable[[Array, Array], Callable[[Array], Array]]


def fold_of(p: ClassPredictions, folds: int, seed: int = 0) -> Array:
    """(item,) fold number. Groups stay whole and are dealt out class by class, so every fold sees every class
    where it can.

    Raises EvaluationError with fewer than two groups.
    """
    member = group_index(p.groups)
    n = int(member.max(initial=-1)) + 1
    if n < 2:
        raise EvaluationError(
            f"{n} group of labelled items is too few to calibrate on",
            "Use a validation split with more songs.",
        )
    primary = np.zeros(n, dtype=np.int64)
    primary[member] = p.primary
    order = np.lexsort((np.random.default_rng(seed).random(n), primary))
    fold = np.empty(n, dtype=np.int64)
    fold[order] = np.arange(n) % min(folds, n)
    result: Array = fold[member]
    return result


def out_of_fold(p: ClassPredictions, folds: int, seed: int, fit: Fit) -> Array:
    """(item, class) scores of every item by a fit on the other folds. `fit(scores, present)` returns the
    function to apply."""
    fold = fold_of(p, folds, seed)
    out = np.empty(p.scores.shape)
    for k in np.unique(fold):
        inside = fold != k
        out[~inside] = fit(p.scores[inside].astype(np.float64), p.targets[inside] > 0)(
            p.scores[~inside].astype(np.float64)
        )
    return out
