"""Intervals: Wilson's for shares, widened when items come in groups, and the bootstrap over groups for
everything else.

Segments of one song are not independent: the bootstrap draws whole songs with all their segments.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from beatmeter.errors import EvaluationError
from beatmeter.evaluation.metrics.checks import Array, Value

REPLICATES = 2000
BATCH_NUMBERS = 4_000_000  # weights held at once, 32 MB


@dataclass(frozen=True)
class Estimate:
    """A value with its interval: `low` to `high` holds it with the stated confidence; `n` items stand behind
    it."""

    value: float
    low: float
    high: float
    n: int
    method: str

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def wilson(successes: int | float, n: int | float, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share (E. B. Wilson, JASA 22, 1927); (0, 1) when n is 0."""
    if n < 0 or not 0 <= successes <= n:
        raise EvaluationError(f"{successes} successes of {n} is not possible")
    if n == 0:
        return 0.0, 1.0
    z = _z(confidence)
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return low, high


def share(outcomes: Array, groups: Sequence[str], confidence: float = 0.95) -> Estimate:
    """Share of `outcomes` (item,) that are 1 (nan: does not count), with Wilson's interval at the effective
    sample size.

    With groups of one item that is Wilson's interval. Otherwise n is divided by the design effect, the
    variance of the share between groups over that of independent items (Kish, "Survey Sampling", 1965; Rao
    and Scott, 1992), and never exceeds n; a share of 0 or 1, which shows no variance, counts every group
    once.
    """
    counted = ~np.isnan(outcomes)
    n = int(counted.sum())
    if n == 0:
        return Estimate(math.nan, 0.0, 1.0, 0, "wilson")
    values = outcomes[counted]
    member = group_index([name for name, counts in zip(groups, counted, strict=True) if counts])
    g = int(member.max()) + 1
    p = float(values.mean())
    if g == n:
        return Estimate(p, *wilson(float(values.sum()), n, confidence), n, "wilson")
    effective: float = g
    if g > 1 and 0 < p < 1:
        surplus = np.bincount(member, weights=values - p, minlength=g)
        between = g / (g - 1) * float(np.square(surplus).sum()) / n**2
        effective = min(float(n), p * (1 - p) / between) if between > 0 else float(n)
        effective = max(1.0, effective)
    return Estimate(p, *wilson(p * effective, effective, confidence), n, "wilson over groups")


def group_index(groups: Sequence[str]) -> Array:
    """(item,) number of the group of every item, 0-based, in the order in which groups appear."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in groups], dtype=np.int64)


def bootstrap_weights(groups: Sequence[str], replicates: int = REPLICATES, seed: int = 0) -> Iterator[Array]:
    """Batches (replicate, item) of item weights: each replicate draws as many groups as there are, with
    replacement.

    The same groups, replicates and seed give the same weights, so two systems can be compared on the same
    draws.
    """
    member = group_index(groups)
    if not len(member):
        raise EvaluationError("there are no items to draw from")
    g = int(member.max()) + 1
    random = np.random.default_rng(seed)
    size = max(1, BATCH_NUMBERS // max(len(member), g))
    for start in range(0, replicates, size):
        counts = random.multinomial(g, np.full(g, 1.0 / g), size=min(size, replicates - start))
        yield counts[:, member].astype(np.float64)


def bootstrap(
    metric: Callable[[Array | None], Value],
    groups: Sequence[str],
    replicates: int = REPLICATES,
    seed: int = 0,
) -> tuple[Array, Array]:
    """The value of `metric(None)` and its values on every replicate, (replicate, *shape of the value).

    `metric` takes item weights (replicate, item) and gives (replicate, ...), as all functions of
    `beatmeter.evaluation.metrics` do.
    """
    value = np.asarray(metric(None), dtype=np.float64)
    draws = np.concatenate(
        [
            np.asarray(metric(weights), dtype=np.float64)
            for weights in bootstrap_weights(groups, replicates, seed)
        ]
    )
    return value, draws


def interval(draws: Array, confidence: float = 0.95) -> tuple[Value, Value]:
    """Percentile interval over the first axis, leaving out replicates where the metric is not defined
    (nan)."""
    tail = (1 - confidence) / 2
    defined = ~np.isnan(draws)
    if defined.all():
        low, high = np.quantile(draws, [tail, 1 - tail], axis=0)
        return low, high
    flat, counted = draws.reshape(len(draws), -1), defined.reshape(len(draws), -1)
    columns = [flat[counted[:, k], k] for k in range(flat.shape[1])]
    pairs = np.array([np.quantile(c, [tail, 1 - tail]) if len(c) else (np.nan, np.nan) for c in columns]).T
    return pairs[0].reshape(draws.shape[1:]), pairs[1].reshape(draws.shape[1:])


def group_bootstrap(
    metric: Callable[[Array | None], Value],
    groups: Sequence[str],
    replicates: int = REPLICATES,
    seed: int = 0,
    confidence: float = 0.95,
) -> Estimate:
    """Percentile interval of a scalar metric by the bootstrap over groups."""
    value, draws = bootstrap(metric, groups, replicates, seed)
    low, high = interval(draws, confidence)
    return Estimate(float(value), float(low), float(high), len(groups), "bootstrap over groups")


def _z(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise EvaluationError(f"a confidence of {confidence} is not between 0 and 1")
    return NormalDist().inv_cdf(0.5 + confidence / 2)
