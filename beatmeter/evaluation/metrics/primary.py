"""Metrics of the primary answer: the class with the highest score against the primary class. Unlabelled items
do not count."""

from __future__ import annotations

import numpy as np

from beatmeter.evaluation.metrics.checks import (
    Array,
    Primary,
    Scores,
    Targets,
    Value,
    Weights,
    mean_where,
    one_hot,
    ratio,
    unbox,
    validate,
    weigh,
)


def occurring(primary: Primary, n_classes: int) -> Array:
    """(class,) bool: the classes that some item has as its primary class."""
    return np.isin(np.arange(n_classes), primary)


def answer(scores: Scores, allowed: Array | None = None) -> Array:
    """(item,) index of the highest score, among the `allowed` (class,) bool classes; the first of equals."""
    validate(scores)
    index: Array = (scores if allowed is None else np.where(allowed, scores, -1.0)).argmax(axis=1)
    return index


def correct(scores: Scores, primary: Primary, restricted: bool = False) -> Array:
    """(item,) 1.0 where the answer is the primary class, 0.0 where not, nan where there is no label.

    `restricted` lets only the classes answer that occur as a primary class in these items.
    """
    validate(scores, primary)
    guess = answer(scores, occurring(primary, scores.shape[1]) if restricted else None)
    return np.where(primary < 0, np.nan, (guess == primary).astype(np.float64))


def accuracy(
    scores: Scores, primary: Primary, weights: Weights | None = None, restricted: bool = False
) -> Value:
    """Share of items whose highest score is the primary class (scikit-learn: accuracy_score)."""
    validate(scores, primary, weights=weights)
    w = weigh(weights, len(scores)) * (primary >= 0)
    return unbox(ratio(w @ np.nan_to_num(correct(scores, primary, restricted)), w.sum(axis=-1)))


def duel(scores: Scores, primary: Primary, first: int, second: int) -> Array:
    """(item,) 1.0 where, of two classes, the primary one has the higher score; nan where neither is the
    primary class.

    `first` and `second` are indices of classes, -1 for one that these items do not know: then nothing counts.
    """
    validate(scores, primary)
    counts = ((primary == first) | (primary == second)) & (min(first, second) >= 0)
    guess = np.where(scores[:, first] >= scores[:, second], first, second)
    return np.where(counts, (guess == primary).astype(np.float64), np.nan)


def hits(scores: Scores, targets: Targets) -> Array:
    """(item,) 1.0 where the highest score is any of the item's classes, 0.0 where not, nan without labels."""
    validate(scores, targets=targets)
    present = targets > 0
    hit = present[np.arange(len(scores)), scores.argmax(axis=1)] if len(scores) else np.zeros(0, dtype=bool)
    return np.where(present.any(axis=1), hit.astype(np.float64), np.nan)


def hit_rate(scores: Scores, targets: Targets, weights: Weights | None = None) -> Value:
    """Share of items whose highest score is any of their classes: 1 - one-error of the multi-label
    literature."""
    validate(scores, targets=targets, weights=weights)
    w = weigh(weights, len(scores)) * (targets > 0).any(axis=1)
    return unbox(ratio(w @ np.nan_to_num(hits(scores, targets)), w.sum(axis=-1)))


def recall_per_class(
    scores: Scores, primary: Primary, weights: Weights | None = None, restricted: bool = False
) -> Array:
    """(*batch, class) share of the items of each primary class that are answered right; nan for classes that
    do not occur."""
    validate(scores, primary, weights=weights)
    truth = one_hot(primary, scores.shape[1])
    w = weigh(weights, len(scores))
    return ratio(w @ (truth * np.nan_to_num(correct(scores, primary, restricted))[:, None]), w @ truth)


def precision_per_class(
    scores: Scores, primary: Primary, weights: Weights | None = None, restricted: bool = False
) -> Array:
    """(*batch, class) share of the answers of each class that are right; nan for classes that are never
    answered."""
    validate(scores, primary, weights=weights)
    guess = answer(scores, occurring(primary, scores.shape[1]) if restricted else None)
    predicted = one_hot(np.where(primary >= 0, guess, -1), scores.shape[1])
    w = weigh(weights, len(scores))
    return ratio(w @ (predicted * one_hot(primary, scores.shape[1])), w @ predicted)


def balanced_accuracy(
    scores: Scores, primary: Primary, weights: Weights | None = None, restricted: bool = False
) -> Value:
    """Mean recall over the classes that occur (scikit-learn: balanced_accuracy_score)."""
    recall = recall_per_class(scores, primary, weights, restricted)
    return unbox(mean_where(recall, ~np.isnan(recall)))


def confusion_matrix(scores: Scores, primary: Primary, weights: Weights | None = None) -> Array:
    """(*batch, class, class) how often items of the primary class (row) were answered with a class
    (column)."""
    validate(scores, primary, weights=weights)
    c = scores.shape[1]
    cell = np.where(primary >= 0, primary * c + scores.argmax(axis=1), -1)
    w = weigh(weights, len(scores))
    result: Array = (w @ one_hot(cell, c * c)).reshape(*w.shape[:-1], c, c)
    return result
