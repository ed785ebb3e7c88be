"""Tests of two systems on the same items: McNemar's, its form for grouped items, the paired bootstrap, and
Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from beatmeter.errors import EvaluationError
from beatmeter.evaluation.metrics.checks import Array, Value
from beatmeter.evaluation.metrics.intervals import REPLICATES, bootstrap_weights, group_index, interval

EXACT_GROUPS = 16  # up to this many groups all sign patterns are counted


def mcnemar(gains: int, losses: int) -> float:
    """Exact two-sided p-value of McNemar's test (scipy: binomtest(gains, gains + losses)).

    `gains` items are right only with the second system, `losses` only with the first. Items must be
    independent.
    """
    if gains < 0 or losses < 0:
        raise EvaluationError(f"{gains} gains and {losses} losses are not counts")
    n = gains + losses
    if n >= 1000:  # whole numbers of that size are slow
        return min(1.0, 2 * math.exp(_log_tail(n, min(gains, losses))))
    tail: int = sum(math.comb(n, k) for k in range(min(gains, losses) + 1))
    return min(1.0, 2 * tail / int(2**n))


def _log_tail(n: int, k: int) -> float:
    """log P(X <= k) for X binomial(n, 1/2)."""
    logs = np.array([math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) for i in range(k + 1)])
    return float(logs.max() + math.log(np.exp(logs - logs.max()).sum()) - n * math.log(2))


def sign_flip(differences: Array, groups: Sequence[str], permutations: int = 10_000, seed: int = 0) -> float:
    """Two-sided p-value that `differences` (item,) of two systems are centred on 0, when groups may swap
    sides.

    The sum of every group keeps or changes its sign at random; nan items do not count. Exact up to 16 groups
    that differ, else by `permutations` random patterns (Monte Carlo p-value, (1 + hits) / (1 +
    permutations)). With one item a group and differences of -1, 0, 1 this is McNemar's test.
    """
    sums = np.bincount(group_index(groups), weights=np.nan_to_num(differences))
    sums = sums[np.abs(sums) > 1e-12]
    if not len(sums):
        return 1.0
    seen = abs(sums.sum()) * (1 - 1e-9)
    if len(sums) <= EXACT_GROUPS:
        patterns = 1 - 2 * ((np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums))) & 1)
        return float((np.abs(patterns @ sums) >= seen).mean())
    random = np.random.default_rng(seed)
    hits = 0
    step = max(1, 4_000_000 // len(sums))
    for start in range(0, permutations, step):
        signs = (
            random.integers(0, 2, size=(min(step, permutations - start), len(sums)), dtype=np.int8) * 2 - 1
        )
        hits += int((np.abs(signs @ sums) >= seen).sum())
    return (1 + hits) / (1 + permutations)


@dataclass(frozen=True)
class Difference:
    """Second system minus first: the value, its percentile interval, and a two-sided p-value of the paired
    bootstrap."""

    value: float
    low: float
    high: float
    p: float

    @classmethod
    def of(cls, value: float, draws: Array, confidence: float = 0.95) -> Difference:
        """From the differences (replicate,) on every draw of groups; replicates without a value (nan) do not
        count.

        p is twice the smaller share of replicates on either side of 0, ties counted on both (Efron and
        Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 15), never below 2 / (replicates + 1).
        """
        draws = draws[~np.isnan(draws)]
        if not len(draws):
            return cls(value, math.nan, math.nan, math.nan)
        low, high = interval(draws, confidence)
        below, above = int((draws <= 1e-12).sum()), int((draws >= -1e-12).sum())
        return cls(value, float(low), float(high), min(1.0, 2 * (1 + min(below, above)) / (1 + len(draws))))


def paired_bootstrap(
    first: Callable[[Array | None], Value],
    second: Callable[[Array | None], Value],
    groups: Sequence[str],
    replicates: int = REPLICATES,
    seed: int = 0,
    confidence: float = 0.95,
) -> Difference:
    """Difference of a metric between two systems on the same draws of groups."""
    draws = np.concatenate(
        [np.asarray(second(w)) - np.asarray(first(w)) for w in bootstrap_weights(groups, replicates, seed)]
    )
    return Difference.of(float(np.asarray(second(None)) - np.asarray(first(None))), draws, confidence)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values in the order given (S. Holm, Scand. J. Statist. 6, 1979); nan stays
    nan and does not count as a test."""
    adjusted = [math.nan] * len(p_values)
    tested = sorted((p, i) for i, p in enumerate(p_values) if not math.isnan(p))
    highest = 0.0
    for rank, (p, i) in enumerate(tested):
        if not 0 <= p <= 1:
            raise EvaluationError(f"{p} is not a p-value")
        highest = max(highest, min(1.0, (len(tested) - rank) * p))
        adjusted[i] = highest
    return adjusted
