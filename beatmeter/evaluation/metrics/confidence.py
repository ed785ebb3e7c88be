"""How sure a model is and how right it is to be so: gap, entropy, proper scores, calibration error,
reliability."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from beatmeter.evaluation.metrics.checks import (
    Array,
    Primary,
    Scores,
    Targets,
    Value,
    Weights,
    ratio,
    unbox,
    validate,
    weigh,
)
from beatmeter.evaluation.metrics.primary import correct

BINS = 15  # of equal width, as in Guo et al., "On calibration of modern neural networks", ICML 2017


def top_two(scores: Scores) -> Array:
    """(item, 2) the highest and the second highest score; the second is 0 when there is only one class."""
    validate(scores)
    ordered = np.sort(scores, axis=1)[:, ::-1][:, :2]
    return ordered if ordered.shape[1] == 2 else np.column_stack([ordered, np.zeros(len(scores))])


def confidence_gap(scores: Scores) -> Array:
    """(item,) P1 - P2: the highest score minus the second highest."""
    two = top_two(scores)
    result: Array = two[:, 0] - two[:, 1]
    return result


def binary_entropy(scores: Scores) -> Array:
    """(item,) normalised binary entropy: mean over classes of -[p log2 p + (1 - p) log2(1 - p)], from 0 (sure
    of every class) to 1 (every sigmoid at 0.5)."""
    validate(scores)
    p = scores.astype(np.float64)
    terms = _x_log_x(p) + _x_log_x(1.0 - p)
    result: Array = -terms.mean(axis=1) / math.log(2)
    return result


def _x_log_x(p: Array) -> Array:
    """p log p, 0 at p = 0."""
    result: Array = p * np.log(np.where(p > 0, p, 1.0))
    return result


def brier_per_class(scores: Scores, targets: Targets, weights: Weights | None = None) -> Array:
    """(*batch, class) mean of (score - present)^2 (scikit-learn: brier_score_loss per class)."""
    validate(scores, targets=targets, weights=weights)
    w = weigh(weights, len(scores)) * (targets > 0).any(axis=1)
    return ratio(w @ np.square(scores - (targets > 0)), w.sum(axis=-1)[..., None])


def log_loss_per_class(scores: Scores, targets: Targets, weights: Weights | None = None) -> Array:
    """(*batch, class) mean binary cross-entropy in nats; scores are kept 2.2e-16 away from 0 and 1 as
    scikit-learn does."""
    validate(scores, targets=targets, weights=weights)
    w = weigh(weights, len(scores)) * (targets > 0).any(axis=1)
    eps = np.finfo(np.float64).eps
    p = np.clip(scores.astype(np.float64), eps, 1 - eps)
    return ratio(w @ -np.where(targets > 0, np.log(p), np.log1p(-p)), w.sum(axis=-1)[..., None])


def calibration_error(
    confidence: Array, outcome: Array, weights: Weights | None = None, bins: int = BINS
) -> Value:
    """Expected calibration error: sum over bins of (share of items) |mean confidence - share of outcomes|.

    `confidence` (item,) in [0, 1], `outcome` (item,) 0 or 1 (nan: the item does not count).
    """
    validate(confidence[:, None], weights=weights)
    counted = ~np.isnan(outcome)
    w = weigh(weights, len(confidence)) * counted
    members = (bin_of(confidence, bins)[:, None] == np.arange(bins)).astype(np.float64)
    surplus = w @ (members * (confidence - np.nan_to_num(outcome))[:, None])
    return unbox(ratio(np.abs(surplus).sum(axis=-1), w.sum(axis=-1)))


def bin_of(confidence: Array, bins: int) -> Array:
    """(item,) number of the bin of equal width that holds each value; 1.0 belongs to the last bin."""
    index: Array = np.minimum((confidence * bins).astype(int), bins - 1)
    return index


def ece_per_class(
    scores: Scores, targets: Targets, weights: Weights | None = None, bins: int = BINS
) -> Array:
    """(*batch, class) calibration error of every sigmoid against presence of its class."""
    validate(scores, targets=targets, weights=weights)
    present: Array = targets > 0
    outcome = np.where(present.any(axis=1, keepdims=True), present.astype(np.float64), np.nan)
    return np.stack(
        [calibration_error(scores[:, k], outcome[:, k], weights, bins) for k in range(scores.shape[1])],
        axis=-1,
    )


def primary_ece(scores: Scores, primary: Primary, weights: Weights | None = None, bins: int = BINS) -> Value:
    """Calibration error of the answer: its score against whether it is right."""
    validate(scores, primary, weights=weights)
    return calibration_error(scores.max(axis=1), correct(scores, primary), weights, bins)


def primary_brier(scores: Scores, primary: Primary, weights: Weights | None = None) -> Value:
    """Mean of (score of the answer - whether it is right)^2."""
    validate(scores, primary, weights=weights)
    w = weigh(weights, len(scores)) * (primary >= 0)
    return unbox(
        ratio(w @ np.square(scores.max(axis=1) - np.nan_to_num(correct(scores, primary))), w.sum(axis=-1))
    )


def selective_accuracy(
    scores: Scores, primary: Primary, coverage: float, weights: Weights | None = None
) -> Value:
    """Accuracy of the surest `coverage` of the labelled items, the least sure left unanswered (El-Yaniv and
    Wiener, "On the foundations of noise-free selective classification", JMLR 2010). An item at the border
    counts with the part of it that is inside."""
    validate(scores, primary, weights=weights)
    surest = np.argsort(-scores.max(axis=1), kind="stable")
    w = (weigh(weights, len(scores)) * (primary >= 0))[..., surest]
    before = np.cumsum(w, axis=-1) - w
    inside = np.clip(coverage * w.sum(axis=-1, keepdims=True) - before, 0.0, w)
    return unbox(ratio(inside @ np.nan_to_num(correct(scores, primary))[surest], inside.sum(axis=-1)))


@dataclass(frozen=True)
class Reliability:
    """One reliability curve: per bin its `edges` (bin + 1,), how many `items` fell in, their mean
    `confidence` and their share of `outcome` (nan in empty bins)."""

    edges: Array
    items: Array
    confidence: Array
    outcome: Array


def reliability(confidence: Array, outcome: Array, bins: int = 10) -> Reliability:
    """Mean confidence against the share of outcomes, in bins of equal width; outcomes of nan do not count."""
    validate(confidence[:, None])
    counted = np.asarray(~np.isnan(outcome))
    confidence, outcome = confidence[counted], outcome[counted]
    at = bin_of(confidence, bins)
    items = np.bincount(at, minlength=bins)
    sums = [ratio(np.bincount(at, weights=v, minlength=bins), items) for v in (confidence, outcome)]
    return Reliability(np.linspace(0.0, 1.0, bins + 1), items, *sums)
