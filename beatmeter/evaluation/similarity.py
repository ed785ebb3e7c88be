"""Judging embeddings: does an item find the others of its label, and what else does it listen to?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from beatmeter.errors import EvaluationError
from beatmeter.evaluation.metrics.intervals import REPLICATES, Estimate, group_bootstrap
from beatmeter.evaluation.metrics.retrieval import (
    average_precision,
    first_rank,
    hit_at,
    hubness,
    precision_at_r,
    rank,
    same_auc,
)
from beatmeter.schema import Embeddings

METRICS = {
    "mAP": average_precision,
    "MAP@R": precision_at_r,
    "hit@1": lambda ranking: hit_at(ranking, 1),
    "hit@10": lambda ranking: hit_at(ranking, 10),
    "MR1": first_rank,
}


@dataclass(frozen=True)
class Retrieval:
    """`metrics` are means over queries with intervals by bootstrap over groups; `null` are those of vectors
    that were shuffled between items; `factors` say by how much a view tells apart items of different labels
    by a column: the area under the ROC curve, .5 for not at all."""

    queries: int
    labels: int
    metrics: Mapping[str, Estimate]
    null: Mapping[str, float]
    hubness: float
    mean_cosine: float
    factors: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "queries": self.queries,
            "labels": self.labels,
            "metrics": {n: {"value": e.value, "low": e.low, "high": e.high} for n, e in self.metrics.items()},
            "null": dict(self.null),
            "hubness": self.hubness,
            "mean_cosine": self.mean_cosine,
            "factors": {n: (None if np.isnan(v) else v) for n, v in self.factors.items()},
        }


def judge(
    record: Embeddings,
    factors: Mapping[str, Sequence[str]] | None = None,
    scores: Float[np.ndarray, "item item"] | None = None,
    replicates: int = REPLICATES,
) -> Retrieval:
    """Every item as a query among all others, by the cosine of the vectors or by `scores`, row by row, such
    as those of a second look. Intervals draw labels (works), with all of their items; with 0 `replicates`
    there are none. Raises
    EvaluationError where no two items share a label."""
    cosines = record.unit @ record.unit.T
    scores = cosines if scores is None else scores
    ranking = rank(scores, record.labels)
    known = ranking.known
    if not known.any():
        hint = "Name the column that says what is a version of what: beatmeter embed ... --label work"
        raise EvaluationError("no two items have the same label: there is nothing to find", hint)
    works = [record.labels[i] for i in np.flatnonzero(known)]
    metrics = {name: _estimate(of(ranking)[known], works, replicates) for name, of in METRICS.items()}
    n = len(record)
    order = np.random.default_rng(0).permutation(n)
    chance = rank(scores[np.ix_(order, order)], record.labels)
    null = {name: float(np.nanmean(of(chance))) for name, of in METRICS.items()}
    mean = float((cosines.sum() - np.trace(cosines)) / (n * (n - 1)))
    tables = {name: same_auc(scores, record.labels, values) for name, values in (factors or {}).items()}
    return Retrieval(int(known.sum()), len(set(works)), metrics, null, hubness(ranking), mean, tables)


def _estimate(values: np.ndarray, groups: Sequence[str], replicates: int) -> Estimate:
    if not replicates:
        return Estimate(float(values.mean()), np.nan, np.nan, len(values), "no interval")

    def mean(weights: np.ndarray | None) -> Any:
        w = np.ones(len(values)) if weights is None else weights
        total = w.sum(axis=-1)
        return (w @ values) / np.where(total > 0, total, 1)

    return group_bootstrap(mean, groups, replicates)
