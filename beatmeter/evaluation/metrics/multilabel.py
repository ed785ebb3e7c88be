"""Metrics of all labels of an item. A class is present when its target weight is above 0, and predicted
positive when its score is above a threshold. Items without labels do not count; means over classes take the
classes that occur."""

from __future__ import annotations

import numpy as np

from beatmeter.evaluation.metrics.checks import (
    Array,
    Scores,
    Targets,
    Value,
    Weights,
    mean_where,
    ratio,
    unbox,
    validate,
    weigh,
)


def _labelled(targets: Targets, weights: Weights | None) -> Array:
    result: Array = weigh(weights, len(targets)) * (targets > 0).any(axis=1)
    return result


def average_precision(scores: Scores, targets: Targets, weights: Weights | None = None) -> Array:
    """(*batch, class) area under the precision-recall steps, sum of (R_k - R_{k-1}) P_k over distinct scores
    (scikit-learn: average_precision_score); nan for classes that do not occur."""
    validate(scores, targets=targets, weights=weights)
    w = _labelled(targets, weights)
    out = np.full((*w.shape[:-1], scores.shape[1]), np.nan)
    for k in range(scores.shape[1]):
        order = np.argsort(-scores[:, k], kind="stable")
        ends = np.flatnonzero(
            np.diff(scores[order, k], append=-1.0)
        )  # last item of every run of equal scores
        sorted_weights = w[..., order]
        predicted = sorted_weights.cumsum(axis=-1)[..., ends]
        right = (sorted_weights * (targets[order, k] > 0)).cumsum(axis=-1)[..., ends]
        if len(ends):
            steps = np.diff(right, axis=-1, prepend=0.0)
            precision = np.nan_to_num(ratio(right, predicted))
            out[..., k] = ratio((steps * precision).sum(axis=-1), right[..., -1])
    return out


def roc_auc(values: Array, positive: Array, weights: Weights | None = None) -> Value:
    """Area under the ROC curve: the chance that a positive item has the higher of two `values` (item,), ties
    half (scikit-learn: roc_auc_score); nan without both kinds."""
    validate(values[:, None], weights=weights)
    w = weigh(weights, len(values))
    order = np.argsort(values, kind="stable")
    ends = np.flatnonzero(np.diff(values[order], append=2.0))  # last item of every run of equal values
    good = (w * positive)[..., order].cumsum(axis=-1)[..., ends]
    bad = (w * ~positive)[..., order].cumsum(axis=-1)[..., ends]
    pos, neg = np.diff(good, axis=-1, prepend=0.0), np.diff(bad, axis=-1, prepend=0.0)
    won = (pos * (bad - neg / 2)).sum(axis=-1)
    return unbox(ratio(won, good[..., -1] * bad[..., -1] if len(ends) else np.zeros(w.shape[:-1])))


def mean_average_precision(scores: Scores, targets: Targets, weights: Weights | None = None) -> Value:
    """mAP: mean average precision over the classes that occur."""
    ap = average_precision(scores, targets, weights)
    return unbox(mean_where(ap, ~np.isnan(ap)))


def f1_per_class(
    scores: Scores, targets: Targets, threshold: float | Array = 0.5, weights: Weights | None = None
) -> Array:
    """(*batch, class) 2 TP / (2 TP + FP + FN) of `score > threshold`; nan for classes that do not occur.

    `threshold` is one number or one per class.
    """
    validate(scores, targets=targets, weights=weights)
    w = _labelled(targets, weights)
    present, predicted = targets > 0, scores > threshold
    twice = 2 * (w @ (present & predicted).astype(np.float64))
    value = ratio(twice, w @ present.astype(np.float64) + w @ predicted.astype(np.float64))
    return np.where(w @ present.astype(np.float64) > 0, value, np.nan)


def macro_f1(
    scores: Scores, targets: Targets, threshold: float | Array = 0.5, weights: Weights | None = None
) -> Value:
    """Mean F1 over the classes that occur (scikit-learn: f1_score with average="macro" and those labels)."""
    f1 = f1_per_class(scores, targets, threshold, weights)
    return unbox(mean_where(f1, ~np.isnan(f1)))


def exact(scores: Scores, targets: Targets, threshold: float | Array = 0.5) -> Array:
    """(item,) 1.0 where exactly the present classes are predicted, 0.0 where not, nan without labels."""
    validate(scores, targets=targets)
    present = targets > 0
    same = ((scores > threshold) == present).all(axis=1)
    return np.where(present.any(axis=1), same.astype(np.float64), np.nan)


def subset_accuracy(
    scores: Scores, targets: Targets, threshold: float | Array = 0.5, weights: Weights | None = None
) -> Value:
    """Share of items where exactly the present classes are predicted (scikit-learn: accuracy_score of
    indicator matrices)."""
    validate(scores, targets=targets, weights=weights)
    w = _labelled(targets, weights)
    return unbox(ratio(w @ np.nan_to_num(exact(scores, targets, threshold)), w.sum(axis=-1)))


def ranking_precision(scores: Scores, targets: Targets) -> Array:
    """(item,) mean over the present classes of (present classes at or above its score) / (classes at or above
    it)."""
    validate(scores, targets=targets)
    present = targets > 0
    above = scores[:, None, :] >= scores[:, :, None]  # (item, class, other): other is at or above class
    share = (above & present[:, None, :]).sum(axis=2) / np.maximum(above.sum(axis=2), 1)
    return mean_where(share, present)


def lrap(scores: Scores, targets: Targets, weights: Weights | None = None) -> Value:
    """Label ranking average precision (scikit-learn: label_ranking_average_precision_score)."""
    validate(scores, targets=targets, weights=weights)
    w = _labelled(targets, weights)
    return unbox(ratio(w @ np.nan_to_num(ranking_precision(scores, targets)), w.sum(axis=-1)))


def pairs_found(scores: Scores, targets: Targets) -> Array:
    """(item,) for items with exactly two classes: 1.0 where these are the two highest scores, else 0.0; nan
    for all others."""
    validate(scores, targets=targets)
    present = targets > 0
    pair = present.sum(axis=1) == 2
    if scores.shape[1] < 3:  # with two classes every pair is found: the question means nothing
        return np.full(len(scores), np.nan)
    weakest = np.where(present, scores, np.inf).min(axis=1)
    strongest_other = np.where(present, -np.inf, scores).max(axis=1)
    return np.where(pair, (weakest > strongest_other).astype(np.float64), np.nan)


def pair_recall(scores: Scores, targets: Targets, weights: Weights | None = None) -> Value:
    """Share of two-meter items whose two classes are the two highest scores."""
    validate(scores, targets=targets, weights=weights)
    found = pairs_found(scores, targets)
    w = weigh(weights, len(scores)) * ~np.isnan(found)
    return unbox(ratio(w @ np.nan_to_num(found), w.sum(axis=-1)))
