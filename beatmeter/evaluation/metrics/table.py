"""Every metric of meter predictions by name, and `measure`, which gives all of them with intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np

from beatmeter.errors import EvaluationError, nearest
from beatmeter.evaluation.metrics import confidence as conf
from beatmeter.evaluation.metrics import multilabel as multi
from beatmeter.evaluation.metrics import primary as acc
from beatmeter.evaluation.metrics.checks import Array, Value, mean_where, ratio, unbox, weigh
from beatmeter.evaluation.metrics.intervals import REPLICATES, Estimate, bootstrap, interval, share
from beatmeter.schema import ClassPredictions

ITEM_THRESHOLD = 0.5  # a class is predicted above this, for F1 and subset accuracy
SURE = 0.8  # share of items that selective accuracy answers


@dataclass(frozen=True)
class Metric:
    """One metric: `value(predictions, weights)` with weights (*batch, item) or None gives (*batch).

    `outcomes(predictions)` is there for shares of items: (item,) of 0, 1 and nan for items that do not count;
    their mean is the metric. `better` says which way is up ("" for a description that is neither).
    `counts(predictions)` (item,) bool says which items it is of.
    """

    name: str
    title: str
    value: Callable[[ClassPredictions, Array | None], Value]
    better: Literal["higher", "lower", ""] = "higher"
    outcomes: Callable[[ClassPredictions], Array] | None = None
    counts: Callable[[ClassPredictions], Array] = lambda p: p.primary >= 0


def _mean(per_class: Array) -> Value:
    return unbox(mean_where(per_class, ~np.isnan(per_class)))


def _average(items: Array, weights: Array | None) -> Value:
    w = weigh(weights, len(items))
    return unbox(ratio(w @ items, w.sum(axis=-1)))


def _share(outcomes: Array, weights: Array | None) -> Value:
    """Mean of the outcomes that count."""
    w = weigh(weights, len(outcomes)) * ~np.isnan(outcomes)
    return unbox(ratio(w @ np.nan_to_num(outcomes), w.sum(axis=-1)))


def _duel(p: ClassPredictions) -> Array:
    """Of the two classes that nearly all music is in, the higher; items that have both do not count."""
    first, second = (p.classes.index(c) if c in p.classes else -1 for c in ("3", "4"))
    both = (p.targets[:, first] > 0) & (p.targets[:, second] > 0)
    return np.where(both, np.nan, acc.duel(p.scores, p.primary, first, second))


def _one_meter(p: ClassPredictions) -> Array:
    """(item,) the primary class of items in one meter; -1, which does not count, for all others."""
    return np.where((p.targets > 0).sum(axis=1) == 1, p.primary, -1)


_ALL = (
    Metric(
        "accuracy",
        "accuracy",
        lambda p, w: acc.accuracy(p.scores, p.primary, w),
        outcomes=lambda p: acc.correct(p.scores, p.primary),
    ),
    Metric(
        "accuracy_restricted",
        "accuracy, occurring classes",
        lambda p, w: acc.accuracy(p.scores, p.primary, w, restricted=True),
        outcomes=lambda p: acc.correct(p.scores, p.primary, restricted=True),
    ),
    Metric(
        "balanced_accuracy", "balanced accuracy", lambda p, w: acc.balanced_accuracy(p.scores, p.primary, w)
    ),
    Metric(
        "balanced_accuracy_restricted",
        "balanced, occurring classes",
        lambda p, w: acc.balanced_accuracy(p.scores, p.primary, w, restricted=True),
    ),
    Metric(
        "single_accuracy",
        "accuracy, one-meter items",
        lambda p, w: acc.accuracy(p.scores, _one_meter(p), w),
        outcomes=lambda p: acc.correct(p.scores, _one_meter(p)),
    ),
    Metric(
        "single_balanced_accuracy",
        "balanced, one-meter items",
        lambda p, w: acc.balanced_accuracy(p.scores, _one_meter(p), w),
        counts=lambda p: _one_meter(p) >= 0,
    ),
    Metric(
        "three_against_four", "3 against 4", lambda p, w: _share(_duel(p), w), outcomes=lambda p: _duel(p)
    ),
    Metric(
        "hit_rate",
        "answer is any label",
        lambda p, w: acc.hit_rate(p.scores, p.targets, w),
        outcomes=lambda p: acc.hits(p.scores, p.targets),
    ),
    Metric(
        "selective_accuracy",
        f"accuracy, surest {SURE:.0%}",
        lambda p, w: conf.selective_accuracy(p.scores, p.primary, SURE, w),
    ),
    Metric("map", "mAP", lambda p, w: multi.mean_average_precision(p.scores, p.targets, w)),
    Metric(
        "macro_f1", "macro-F1 at 0.5", lambda p, w: multi.macro_f1(p.scores, p.targets, ITEM_THRESHOLD, w)
    ),
    Metric(
        "subset_accuracy",
        "subset accuracy at 0.5",
        lambda p, w: multi.subset_accuracy(p.scores, p.targets, ITEM_THRESHOLD, w),
        outcomes=lambda p: multi.exact(p.scores, p.targets, ITEM_THRESHOLD),
    ),
    Metric("lrap", "LRAP", lambda p, w: multi.lrap(p.scores, p.targets, w)),
    Metric(
        "pair_recall",
        "two-meter items, both on top",
        lambda p, w: multi.pair_recall(p.scores, p.targets, w),
        outcomes=lambda p: multi.pairs_found(p.scores, p.targets),
    ),
    Metric(
        "brier",
        "Brier, mean over classes",
        lambda p, w: _mean(conf.brier_per_class(p.scores, p.targets, w)),
        "lower",
    ),
    Metric(
        "log_loss",
        "log loss, mean over classes",
        lambda p, w: _mean(conf.log_loss_per_class(p.scores, p.targets, w)),
        "lower",
    ),
    Metric(
        "ece",
        "ECE, mean over classes",
        lambda p, w: _mean(conf.ece_per_class(p.scores, p.targets, w)),
        "lower",
    ),
    Metric(
        "primary_brier",
        "Brier of the answer",
        lambda p, w: conf.primary_brier(p.scores, p.primary, w),
        "lower",
    ),
    Metric(
        "primary_ece", "ECE of the answer", lambda p, w: conf.primary_ece(p.scores, p.primary, w), "lower"
    ),
    Metric("gap", "mean gap P1 - P2", lambda p, w: _average(conf.confidence_gap(p.scores), w), ""),
    Metric("entropy", "mean binary entropy", lambda p, w: _average(conf.binary_entropy(p.scores), w), ""),
)
METRICS: Mapping[str, Metric] = {m.name: m for m in _ALL}


def metric(name: str) -> Metric:
    """The metric of this name, or an EvaluationError that names the nearest."""
    if name not in METRICS:
        raise EvaluationError(f"there is no metric {name!r}", nearest(name, METRICS))
    return METRICS[name]


def estimate(
    m: Metric, predictions: ClassPredictions, replicates: int = REPLICATES, seed: int = 0
) -> Estimate:
    """The metric with its 95 % interval: Wilson's for shares of items, else the bootstrap over groups.

    A metric that these items do not define (pair recall without two-meter items) has the value nan and n = 0.
    """
    require_items(predictions)
    if m.outcomes is not None:
        return share(m.outcomes(predictions), predictions.groups)
    value, draws = bootstrap(lambda w: m.value(predictions, w), predictions.groups, replicates, seed)
    if math.isnan(float(value)):
        return Estimate(math.nan, math.nan, math.nan, 0, "bootstrap over groups")
    low, high = interval(draws)
    n = len(predictions) if m.better == "" else int(m.counts(predictions).sum())
    return Estimate(float(value), float(low), float(high), n, "bootstrap over groups")


@dataclass(frozen=True)
class ClassRow:
    """What is known of one class: items of it and answers of it, recall and precision of the primary answer,
    average precision, Brier score and calibration error of its sigmoid (nan where it does not occur)."""

    name: str
    items: int
    answers: int
    recall: Estimate
    precision: Estimate
    average_precision: float
    brier: float
    ece: float


@dataclass(frozen=True)
class PairRow:
    """One pair of classes: `items` that have exactly these two, the share where they are the two highest
    scores (`top2`), and the share where both are predicted (`above`)."""

    pair: tuple[str, str]
    items: int
    top2: Estimate
    above: Estimate


@dataclass(frozen=True)
class Measures:
    """All metrics of one set of predictions, per class too, with the confusion matrix (class, class) of
    counts."""

    overall: Mapping[str, Estimate]
    classes: tuple[ClassRow, ...]
    confusion: Array
    pairs: tuple[PairRow, ...]


def measure(predictions: ClassPredictions, replicates: int = REPLICATES, seed: int = 0) -> Measures:
    """Every metric that these items define, with 95 % intervals. Raises EvaluationError without a labelled
    item."""
    require_labels(predictions)
    p = predictions
    overall = {name: estimate(m, p, replicates, seed) for name, m in METRICS.items()}
    return Measures(
        overall={name: e for name, e in overall.items() if e.n},
        classes=tuple(per_class(p)),
        confusion=acc.confusion_matrix(p.scores, p.primary).astype(np.int64),
        pairs=tuple(per_pair(p)),
    )


def per_class(p: ClassPredictions) -> list[ClassRow]:
    """One row per class, recall and precision with intervals."""
    right, guess = acc.correct(p.scores, p.primary), acc.answer(p.scores)
    ap, brier, ece = (
        multi.average_precision(p.scores, p.targets),
        conf.brier_per_class(p.scores, p.targets),
        conf.ece_per_class(p.scores, p.targets),
    )
    rows = []
    for k, name in enumerate(p.classes):
        of, predicted = p.primary == k, (guess == k) & (p.primary >= 0)
        recall, precision = (share(np.where(mask, right, np.nan), p.groups) for mask in (of, predicted))
        rows.append(
            ClassRow(
                name,
                int(of.sum()),
                int(predicted.sum()),
                recall,
                precision,
                float(ap[k]),
                float(brier[k]),
                float(ece[k]),
            )
        )
    return rows


def per_pair(p: ClassPredictions, threshold: float | Array = ITEM_THRESHOLD) -> list[PairRow]:
    """Recall of items with exactly two classes, one row per pair that occurs, most frequent first."""
    present, predicted = p.targets > 0, p.scores > threshold
    found, two = multi.pairs_found(p.scores, p.targets), present.sum(axis=1) == 2
    rows = []
    for i, j in combinations(range(len(p.classes)), 2):
        mine = two & present[:, i] & present[:, j]
        if mine.any():
            above = np.where(mine, (predicted[:, i] & predicted[:, j]).astype(np.float64), np.nan)
            top2 = share(np.where(mine, found, np.nan), p.groups)
            rows.append(PairRow((p.classes[i], p.classes[j]), int(mine.sum()), top2, share(above, p.groups)))
    return sorted(rows, key=lambda r: -r.items)


def require_items(predictions: ClassPredictions) -> None:
    """Raise EvaluationError when there is nothing to measure."""
    if not len(predictions):
        raise EvaluationError(
            f"there are no predictions of the split {predictions.split!r}", "Check that the split has items."
        )


def require_labels(predictions: ClassPredictions) -> None:
    """Raise EvaluationError when no item has a label."""
    require_items(predictions)
    if not (predictions.primary >= 0).any():
        raise EvaluationError(
            f"none of the {len(predictions)} predictions has a label",
            "Metrics need labels: fill the column `primary`.",
        )
