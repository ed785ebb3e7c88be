"""Metrics of retrieval: pure numpy, one value per query, so that the bootstrap over works and paired tests
apply as to every other metric.

A gallery is ranked for each query by similarity (larger is nearer; ties keep the order of the gallery). An
item is relevant where it has the query's label, and it is never relevant to itself: the query's own clip
takes no part. With R relevant items of a query and P(k) the share of relevant ones among the first k:

    average precision   mean of P(k) over the ranks k of relevant items                     (its mean is mAP)
    precision at R      mean over k = 1 ... R of P(k) where k is relevant, else 0            (MAP@R,
    Musgrave 2020) hit at k            1 where one of the first k is relevant first rank          rank of
    the first relevant item                                     (its mean is MR1)

A query without a relevant item has nan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from beatmeter.errors import EvaluationError

Array = np.ndarray
MOST_PAIRS = 200_000  # that `same_auc` looks at


@dataclass(frozen=True)
class Ranking:
    """`order` (query, rank) holds positions in the gallery, the nearest first, the query itself left out;
    `relevant` (query, rank) says which of them share the query's label."""

    order: Int[np.ndarray, "query rank"]
    relevant: Bool[np.ndarray, "query rank"]

    @property
    def known(self) -> Bool[np.ndarray, " query"]:
        """Queries that have a relevant item."""
        found: Array = np.any(self.relevant, axis=1)
        return found


def rank(similarity: Float[np.ndarray, "item item"], labels: Sequence[str]) -> Ranking:
    """Every item as query among all others. An empty label is relevant to nothing. Raises EvaluationError
    where similarities are not finite or do not fit the labels."""
    n = len(labels)
    s = np.asarray(similarity)
    if s.shape != (n, n) or n < 2:
        raise EvaluationError(
            f"retrieval among {n} items with similarities of shape {s.shape}", "Two items are the least."
        )
    off = ~np.eye(n, dtype=bool)
    if not np.isfinite(s[off]).all():
        raise EvaluationError("similarities are not finite")
    names = np.asarray([str(label) for label in labels])
    scored = np.where(off, s, -np.inf)
    order = np.argsort(-scored, axis=1, kind="stable")[:, : n - 1]
    relevant = (names[order] == names[:, None]) & (names[:, None] != "")
    return Ranking(order, relevant)


def average_precision(ranking: Ranking) -> Float[np.ndarray, " query"]:
    """(query,) in [0, 1]."""
    return _mean_at(ranking.relevant, _precision(ranking) * ranking.relevant)


def precision_at_r(ranking: Ranking) -> Float[np.ndarray, " query"]:
    """(query,) MAP@R before the mean, in [0, 1]."""
    count = ranking.relevant.sum(axis=1, keepdims=True)
    within = np.arange(ranking.relevant.shape[1])[None] < count
    return _mean_at(ranking.relevant, _precision(ranking) * (ranking.relevant & within))


def hit_at(ranking: Ranking, k: int) -> Float[np.ndarray, " query"]:
    """(query,) 0 or 1."""
    return np.where(ranking.known, ranking.relevant[:, :k].any(axis=1).astype(float), np.nan)


def first_rank(ranking: Ranking) -> Float[np.ndarray, " query"]:
    """(query,) from 1 on: lower is better."""
    found: Array = np.where(ranking.known, np.argmax(ranking.relevant, axis=1) + 1.0, np.nan)
    return found


def occurrences(ranking: Ranking, k: int = 10) -> Int[np.ndarray, " item"]:
    """(item,) in how many lists of the nearest `k` each item stands; `k` is the mean."""
    found: Array = np.bincount(ranking.order[:, :k].ravel(), minlength=len(ranking.order))
    return found


def hubness(ranking: Ranking, k: int = 10) -> float:
    """Skewness of `occurrences` (Radovanovic 2010): 0 where all items are found equally often, above 1
    where a few hubs are found by everything; 0 where all are equal."""
    n = occurrences(ranking, k).astype(float)
    spread = n.std()
    return float(((n - n.mean()) ** 3).mean() / spread**3) if spread > 0 else 0.0


def same_auc(
    similarity: Float[np.ndarray, "item item"],
    works: Sequence[str],
    factor: Sequence[str],
    within: float = 0.0,
) -> float:
    """How well the similarity of two items of different works tells whether they share the value of a factor
    (instrument, room, key ...): the area under the ROC curve, .5 where the view does not hear the factor; nan
    where all pairs share it or none. An empty value takes no part. With `within`, values are positive numbers
    and the same where they differ by no more than this share (.04: four percent)."""
    found: float = same_aucs(similarity, works, factor, within, np.ones((1, len(works))))[0]
    return float(found)


def same_aucs(
    similarity: Float[np.ndarray, "item item"],
    works: Sequence[str],
    factor: Sequence[str],
    within: float,
    weights: Float[np.ndarray, "replicate item"],
) -> Float[np.ndarray, " replicate"]:
    """`same_auc` where items count `weights` times, and pairs the product of theirs: for the bootstrap over
    works. Of more than MOST_PAIRS pairs a random choice takes part."""
    s, work = np.asarray(similarity, dtype=float), np.asarray(works)
    value, known = _values(factor, within)
    i, j = np.triu_indices(len(work), 1)
    kept = np.flatnonzero((work[i] != work[j]) & known[i] & known[j])
    if len(kept) > MOST_PAIRS:
        kept = np.random.default_rng(0).choice(kept, MOST_PAIRS, replace=False)
    i, j = i[kept], j[kept]
    pair = s[i, j] + s[j, i]
    order = np.argsort(pair, kind="stable")
    i, j, pair = i[order], j[order], pair[order]
    alike = np.abs(value[i] - value[j]) <= np.log1p(within) + 1e-9
    if alike.all() or not alike.any():
        return np.full(len(weights), np.nan)
    ties = np.flatnonzero(np.concatenate([[True], np.diff(pair) > 0]))  # equal ones share their mean rank
    step = max(1, 4_000_000 // len(pair))
    found = []
    for at in range(0, len(weights), step):
        count = weights[at : at + step, i] * weights[at : at + step, j]
        yes = np.add.reduceat(count * alike, ties, axis=1)
        no = np.add.reduceat(count * ~alike, ties, axis=1)
        below = np.cumsum(no, axis=1) - no / 2
        total = yes.sum(axis=1) * no.sum(axis=1)
        found.append(np.where(total > 0, (yes * below).sum(axis=1) / np.maximum(total, 1e-12), np.nan))
    return np.concatenate(found)


def _values(factor: Sequence[str], within: float) -> tuple[Array, Array]:
    """Numbers that are equal where the values are (their logarithms with `within`), and which are known."""
    texts = [str(f) for f in factor]
    if not within:
        return np.unique(texts, return_inverse=True)[1].astype(float), np.array([t != "" for t in texts])
    try:
        numbers = np.array([float(t) if t else np.nan for t in texts])
    except ValueError:
        raise EvaluationError(
            "values that may differ by a share must be numbers", "Name the column without ~."
        ) from None
    known = numbers > 0  # nan is not
    return np.log(np.where(known, numbers, 1.0)), known


def _precision(ranking: Ranking) -> Float[np.ndarray, "query rank"]:
    found: Array = ranking.relevant.cumsum(axis=1) / np.arange(1, ranking.relevant.shape[1] + 1)
    return found


def _mean_at(relevant: Array, values: Array) -> Array:
    count = relevant.sum(axis=1)
    found: Array = np.where(count > 0, values.sum(axis=1) / np.maximum(count, 1), np.nan)
    return found
