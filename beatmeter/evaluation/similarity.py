"""Judging embeddings: does an item find the others of its label, and what else does it listen to?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Float

from beatmeter.errors import ConfigError, EvaluationError
from beatmeter.evaluation.metrics.intervals import (
    REPLICATES,
    Estimate,
    bootstrap_weights,
    group_bootstrap,
    interval,
)
from beatmeter.evaluation.metrics.retrieval import (
    Ranking,
    average_precision,
    first_rank,
    hit_at,
    hubness,
    precision_at_r,
    rank,
    same_auc,
    same_aucs,
)
from beatmeter.evaluation.metrics.significance import Difference
from beatmeter.schema import Embeddings

METRICS = {
    "mAP": average_precision,
    "MAP@R": precision_at_r,
    "hit@1": lambda ranking: hit_at(ranking, 1),
    "hit@10": lambda ranking: hit_at(ranking, 10),
    "MR1": first_rank,
}


FACTOR_REPLICATES = 500  # of the areas of factors, which look at all pairs
MOST_PARTS = 8  # values of a column of numbers that are not put together


@dataclass(frozen=True)
class Retrieval:
    """One way of ranking. `metrics` are means over queries with intervals by bootstrap over labels; `null`
    are those of items whose labels were shuffled."""

    queries: int
    labels: int
    metrics: Mapping[str, Estimate]
    null: Mapping[str, float]
    hubness: float
    mean_cosine: float

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "queries": self.queries,
            "labels": self.labels,
            "metrics": {n: estimate_json(e) for n, e in self.metrics.items()},
            "null": dict(self.null),
            "hubness": self.hubness,
            "mean_cosine": self.mean_cosine,
        }


def estimate_json(e: Estimate) -> dict[str, float | None]:
    """Plain JSON values; null where there is none."""
    return {
        name: None if np.isnan(v) else v for name, v in (("value", e.value), ("low", e.low), ("high", e.high))
    }


def judge(
    record: Embeddings,
    scores: Float[np.ndarray, "item item"] | None = None,
    replicates: int = REPLICATES,
) -> Retrieval:
    """Every item as a query among all others, by the cosine of the vectors or by `scores`, row by row, such
    as those of a second look. Intervals draw labels (works), with all of their items; with 0 `replicates`
    there are none. Raises EvaluationError where no two items share a label."""
    cosines = record.unit @ record.unit.T
    scores = cosines if scores is None else scores
    ranking = _ranked(record, scores)
    known = ranking.known
    works = [record.labels[i] for i in np.flatnonzero(known)]
    metrics = {name: _estimate(of(ranking)[known], works, replicates) for name, of in METRICS.items()}
    n = len(record)
    order = np.random.default_rng(0).permutation(n)
    chance = rank(scores[np.ix_(order, order)], record.labels)
    null = {name: float(np.nanmean(of(chance))) for name, of in METRICS.items()}
    mean = float((cosines.sum() - np.trace(cosines)) / (n * (n - 1)))
    return Retrieval(int(known.sum()), len(set(works)), metrics, null, hubness(ranking), mean)


def above(record: Embeddings, first: np.ndarray, second: np.ndarray) -> Difference:
    """Mean average precision of the (item, item) scores `second` minus that of `first`, paired: the same
    draws of labels."""
    a, b = (average_precision(_ranked(record, scores)) for scores in (first, second))
    known = ~np.isnan(a)
    works = [record.labels[i] for i in np.flatnonzero(known)]
    apart = (b - a)[known]
    draws = [w @ apart / w.sum(axis=1) for w in bootstrap_weights(works, REPLICATES, 0)]
    return Difference.of(float(apart.mean()), np.concatenate(draws))


def judge_parts(
    record: Embeddings, scores: Float[np.ndarray, "item item"], values: Sequence[str], metric: str = "hit@10"
) -> dict[str, Estimate]:
    """One of METRICS by the value of a column of the query (the gallery stays whole): how robust is the
    search where the query is in another key, tempo or band? More than MOST_PARTS numbers are put together in
    four parts of equal size."""
    found = METRICS[metric](_ranked(record, scores))
    parts: dict[str, list[int]] = {}
    for i, name in enumerate(parts_of(values)):
        if name and not np.isnan(found[i]):
            parts.setdefault(name, []).append(i)
    return {
        name: _estimate(found[at], [record.labels[i] for i in at], REPLICATES) for name, at in parts.items()
    }


def parts_of(values: Sequence[str]) -> list[str]:
    """The value of every item, or the quarter of the numbers that it lies in."""
    if len(set(values) - {""}) <= MOST_PARTS:
        return list(values)
    try:
        numbers = np.array([float(v) if v else np.nan for v in values])
    except ValueError:
        return list(values)
    edges = np.unique(np.nanquantile(numbers, [0, 0.25, 0.5, 0.75, 1]))
    if len(edges) < 3:
        return list(values)
    part = np.clip(np.searchsorted(edges, numbers, side="right") - 1, 0, len(edges) - 2)
    names = [f"{low:g} to {high:g}" for low, high in pairwise(edges.tolist())]
    return ["" if np.isnan(x) else names[k] for x, k in zip(numbers, part, strict=True)]


def selectivity(
    views: Mapping[str, Float[np.ndarray, "item item"]],
    labels: Sequence[str],
    factors: Mapping[str, tuple[Sequence[str], float]],
) -> dict[str, dict[str, Estimate]]:
    """For every view (a likeness of all pairs) and every factor (its values, and by which share numbers may
    differ) how well the likeness of two items of different labels tells whether they share the factor: the
    area under the ROC curve, .5 for not at all, with an interval over labels."""
    found: dict[str, dict[str, Estimate]] = {}
    for view, likeness in views.items():
        for factor, (values, within) in factors.items():
            area = same_auc(likeness, labels, values, within)
            draws = [
                same_aucs(likeness, labels, values, within, weights)
                for weights in bootstrap_weights(labels, FACTOR_REPLICATES, 0)
            ]
            low, high = (np.nan, np.nan) if np.isnan(area) else interval(np.concatenate(draws))
            found.setdefault(view, {})[factor] = Estimate(
                area, float(low), float(high), len(labels), "bootstrap over groups"
            )
    return found


def factor_of(text: str) -> tuple[str, float]:
    """A column, and the share by which its numbers may differ and still be the same (0: as texts), from
    `instrument` or `tempo~0.04`. Raises ConfigError."""
    name, marked, share = text.partition("~")
    try:
        within = float(share) if marked else 0.0
    except ValueError:
        within = -1.0
    if not name or not 0 <= within < 1:
        raise ConfigError(f"{text!r} names no factor", "Write NAME, or NAME~0.04 for numbers.")
    return name, within


def likeness_of_views(record: Embeddings) -> dict[str, Float[np.ndarray, "item item"]]:
    """Cosines of all pairs by every view of the record (rhythm, timbre) about its mean."""
    found = {}
    for name, size in record.view_names:
        if size > 2:  # a level is no direction
            x = record.view(name) - record.view(name).mean(axis=0)
            x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
            found[name] = x @ x.T
    return found


def _ranked(record: Embeddings, scores: np.ndarray) -> Ranking:
    ranking = rank(scores, record.labels)
    if not ranking.known.any():
        hint = "Name the column that says what is a version of what: beatmeter embed ... --label work"
        raise EvaluationError("no two items have the same label: there is nothing to find", hint)
    return ranking


def _estimate(values: np.ndarray, groups: Sequence[str], replicates: int) -> Estimate:
    if not replicates:
        return Estimate(float(values.mean()), np.nan, np.nan, len(values), "no interval")

    def mean(weights: np.ndarray | None) -> Any:
        w = np.ones(len(values)) if weights is None else weights
        total = w.sum(axis=-1)
        return (w @ values) / np.where(total > 0, total, 1)

    return group_bootstrap(mean, groups, replicates)
