"""Which items have one meter, which have two, and which are answered right: what most diagnostics start
from."""

from __future__ import annotations

import numpy as np

from beatmeter.evaluation.metrics.checks import Array
from beatmeter.schema import ClassPredictions


def single(p: ClassPredictions) -> Array:
    """(item,) bool: exactly one class is present."""
    result: Array = (p.targets > 0).sum(axis=1) == 1
    return result


def several(p: ClassPredictions) -> Array:
    """(item,) bool: two or more classes are present."""
    result: Array = (p.targets > 0).sum(axis=1) >= 2
    return result


def right(p: ClassPredictions) -> Array:
    """(item,) bool: the highest score is the primary class."""
    result: Array = (p.scores.argmax(axis=1) == p.primary) if len(p) else np.zeros(0, dtype=bool)
    return result


def ranked(p: ClassPredictions) -> tuple[Array, Array]:
    """(item, 2) the two classes with the highest scores, highest first, and their scores; needs two
    classes."""
    order = np.argsort(-p.scores, axis=1, kind="stable")[:, :2]
    return order, np.take_along_axis(p.scores, order, axis=1)
