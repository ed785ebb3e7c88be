"""The metrics of every family of records but meter: name, unit, which way is up, and the value under item
weights.

A metric whose value is the mean of something that every item has gives that too (`per_item`), for paired
tests and lists.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from beatmeter.evaluation.metrics import multilabel as multi
from beatmeter.evaluation.metrics import primary as acc
from beatmeter.evaluation.metrics import retrieval, structure
from beatmeter.evaluation.metrics import values as val
from beatmeter.evaluation.metrics.checks import Array, Value, ratio, unbox, weigh
from beatmeter.evaluation.metrics.confidence import primary_ece
from beatmeter.evaluation.metrics.intervals import REPLICATES, Estimate, bootstrap, interval, share
from beatmeter.schema import ClassPredictions, Embeddings, Items, Marks, ValuePredictions

SHUFFLES = 100  # permutations behind the null system that answers at random
RANKED = 10  # the same where every one ranks all items for each


@dataclass(frozen=True)
class FamilyMetric:
    """`value(record, weights)` with weights (*batch, item) or None gives (*batch); `per_item(record)` (item,)
    with nan for items that do not count. `of` is the name of what is measured where a record has several."""

    name: str
    title: str
    better: Literal["higher", "lower"]
    value: Callable[[Any, Array | None], Value]
    counts: Callable[[Any], Array]
    per_item: Callable[[Any], Array] | None = None
    unit: str = ""
    of: str = ""
    share: bool = False  # of items: `per_item` gives 0, 1 and nan


def _of_items(per_item: Callable[[Any], Array]) -> Callable[[Any, Array | None], Value]:
    """The mean over the items that count."""

    return lambda record, weights: mean_of(per_item(record), weights)


def mean_of(items: Array, weights: Array | None) -> Value:
    """(*batch) the mean of what items (item,) give under weights (*batch, item), over those that are not
    nan."""
    w = weigh(weights, len(items)) * ~np.isnan(items)
    return unbox(ratio(w @ np.nan_to_num(items), w.sum(axis=-1)))


def _labelled(p: ClassPredictions) -> Array:
    return p.primary >= 0


def _right(p: ClassPredictions) -> Array:
    return acc.correct(p.scores, p.primary)


def _cross_entropy(p: ClassPredictions) -> Array:
    """(item,) -log of the score of the right class, in nats; scores below 1e-12 count as that."""
    scores = np.clip(p.scores[np.arange(len(p)), np.maximum(p.primary, 0)], 1e-12, 1.0)
    return np.where(p.primary >= 0, -np.log(scores), np.nan)


MULTICLASS = (
    FamilyMetric("accuracy", "accuracy", "higher", _of_items(_right), _labelled, _right, share=True),
    FamilyMetric(
        "balanced_accuracy",
        "balanced accuracy",
        "higher",
        lambda p, w: acc.balanced_accuracy(p.scores, p.primary, w),
        _labelled,
    ),
    FamilyMetric(
        "cross_entropy",
        "cross-entropy",
        "lower",
        _of_items(_cross_entropy),
        _labelled,
        _cross_entropy,
        "nats",
    ),
    FamilyMetric(
        "primary_ece",
        "ECE of the answer",
        "lower",
        lambda p, w: primary_ece(p.scores, p.primary, w),
        _labelled,
    ),
)
MULTILABEL = (
    FamilyMetric(
        "map", "mAP", "higher", lambda p, w: multi.mean_average_precision(p.scores, p.targets, w), _labelled
    ),
    FamilyMetric(
        "macro_f1",
        "macro-F1 at 0.5",
        "higher",
        lambda p, w: multi.macro_f1(p.scores, p.targets, 0.5, w),
        _labelled,
    ),
    FamilyMetric("lrap", "LRAP", "higher", lambda p, w: multi.lrap(p.scores, p.targets, w), _labelled),
    FamilyMetric(
        "subset_accuracy",
        "all labels right at 0.5",
        "higher",
        lambda p, w: multi.subset_accuracy(p.scores, p.targets, 0.5, w),
        _labelled,
        lambda p: multi.exact(p.scores, p.targets, 0.5),
        share=True,
    ),
)


def of_values(p: ValuePredictions) -> tuple[FamilyMetric, ...]:
    """Mean absolute error, R2 and Spearman's rank correlation of every name."""
    found = []
    for k, (name, unit) in enumerate(zip(p.names, p.units, strict=True)):

        def counts(q: ValuePredictions, k: int = k) -> Array:
            known: Array = ~np.isnan(q.targets[:, k])
            return known

        def error(q: ValuePredictions, k: int = k) -> Array:
            return val.absolute_error(q.values[:, k], q.targets[:, k])

        def explained(q: ValuePredictions, w: Array | None, k: int = k) -> Value:
            return unbox(val.r2(q.values[:, [k]], q.targets[:, [k]], w)[..., 0])

        def ranked(q: ValuePredictions, w: Array | None, k: int = k) -> Value:
            return unbox(val.spearman(q.values[:, [k]], q.targets[:, [k]], w)[..., 0])

        found += [
            FamilyMetric(
                "absolute_error", "mean absolute error", "lower", _of_items(error), counts, error, unit, name
            ),
            FamilyMetric("r2", "R2", "higher", explained, counts, of=name),
            FamilyMetric("spearman", "Spearman", "higher", ranked, counts, of=name),
        ]
    return tuple(found)


def of_marks(marks: Marks) -> tuple[FamilyMetric, ...]:
    """F of beats, downbeats and sections, where the truth holds some."""
    found = []
    for name in structure.metrics_known(marks):
        of, title, _ = structure.MARK_METRICS[name]
        each = structure.per_item(name)

        def counts(m: Marks, each: structure.PerItem = each) -> Array:
            known: Array = ~np.isnan(each(m))
            return known

        found.append(FamilyMetric(name, title, "higher", _of_items(each), counts, each, of=of))
    return tuple(found)


def of_embeddings() -> tuple[FamilyMetric, ...]:
    """Whether every item finds the others of its label, by the cosine of their vectors."""
    last: list[tuple[Embeddings, retrieval.Ranking]] = []  # all metrics of a record rank it once

    def ranking(record: Embeddings) -> retrieval.Ranking:
        if not last or last[0][0] is not record:
            last[:] = [(record, retrieval.rank(record.unit @ record.unit.T, record.labels))]
        return last[0][1]

    def metric(
        name: str, title: str, of: Callable[[retrieval.Ranking], Array], share: bool = False
    ) -> FamilyMetric:
        def per_item(record: Embeddings) -> Array:
            return of(ranking(record))

        better: Literal["higher", "lower"] = "lower" if name == "mr1" else "higher"
        return FamilyMetric(
            name, title, better, _of_items(per_item), lambda r: ranking(r).known, per_item, share=share
        )

    return (
        metric("map", "mAP", retrieval.average_precision),
        metric("map_at_r", "MAP@R", retrieval.precision_at_r),
        metric("hit_at_1", "hit@1", lambda r: retrieval.hit_at(r, 1), share=True),
        metric("hit_at_10", "hit@10", lambda r: retrieval.hit_at(r, 10), share=True),
        metric("mr1", "mean rank of the first hit", retrieval.first_rank),
    )


def metrics_of(record: Items) -> tuple[FamilyMetric, ...]:
    """The metrics of a record, by its kind."""
    if isinstance(record, Embeddings):
        return of_embeddings() if len(record) > 1 else ()
    if isinstance(record, ValuePredictions):
        return of_values(record)
    if isinstance(record, Marks):
        return of_marks(record)
    return MULTICLASS if isinstance(record, ClassPredictions) and record.exclusive else MULTILABEL


def estimate_of(metric: FamilyMetric, record: Items, replicates: int = REPLICATES, seed: int = 0) -> Estimate:
    """The metric with its 95 % interval: Wilson's for shares of items, else the bootstrap over groups. nan
    and n = 0 where it is not defined."""
    if metric.share and metric.per_item is not None:
        return share(metric.per_item(record), record.groups)
    value, draws = bootstrap(lambda w: metric.value(record, w), record.groups, replicates, seed)
    if math.isnan(float(value)):
        return Estimate(math.nan, math.nan, math.nan, 0, "bootstrap over groups")
    low, high = interval(draws)
    return Estimate(
        float(value), float(low), float(high), int(metric.counts(record).sum()), "bootstrap over groups"
    )


def null_systems(record: Items, constant: Array | None, seed: int = 0) -> Mapping[str, list[Items]]:
    """Systems that heard nothing, as records: the `constant` answer of the train split (mean, shares of the
    classes) for every item, and the record's own answers in SHUFFLES random orders."""
    if isinstance(record, Marks):
        return {"shuffled": [structure.of_another(record)], "steady": [structure.steady(record)]}
    embedded = isinstance(record, Embeddings)
    name = "vectors" if embedded else "values" if isinstance(record, ValuePredictions) else "scores"
    own = np.asarray(getattr(record, name))
    random = np.random.default_rng(seed)

    def answering(answers: Array) -> Items:
        changed: dict[str, Any] = {name: answers}
        return replace(record, **changed)

    orders = [random.permutation(len(record)) for _ in range(RANKED if embedded else SHUFFLES)]
    found = {"shuffled": [answering(own[order]) for order in orders]}
    if constant is not None and np.shape(constant) == own.shape[1:]:
        found["constant"] = [answering(np.broadcast_to(np.asarray(constant, dtype=float), own.shape))]
    return found


def null_values(metric: FamilyMetric, systems: Mapping[str, list[Items]]) -> dict[str, float]:
    """The mean value of a metric over each null system, nan where it is not defined for it."""
    found = {}
    for name, records in systems.items():
        values = np.array([float(metric.value(record, None)) for record in records])
        found[name] = float(np.nanmean(values)) if not np.isnan(values).all() else math.nan
    return found


def constant_of(record: Items, validation: Items | None) -> Array | None:
    """The constant answer (class,) or (name,) of the train split, which the model wrote down; where it did
    not, the mean target of `validation`."""
    loss = record.meta.get("loss", {})
    if isinstance(loss, dict) and isinstance(loss.get("constant"), list):
        return np.asarray(loss["constant"], dtype=float)
    if (
        not isinstance(validation, ClassPredictions | ValuePredictions)
        or validation is record
        or not len(validation)
    ):
        return None
    targets = validation.targets
    known = ~np.isnan(targets).all(axis=0)
    return np.nanmean(targets, axis=0) if known.all() else None
