"""Which of several systems is better, for records of any family: numbers, marks, whatever has metrics in
`beatmeter.evaluation.metrics.families`. Scores of classes have `compare`, which knows answers and labels too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from beatmeter.errors import EvaluationError, nearest
from beatmeter.evaluation.comparison.alignment import align
from beatmeter.evaluation.comparison.compare import MetricTest, SystemMetric
from beatmeter.evaluation.diagnostics import plain
from beatmeter.evaluation.metrics import Difference, Estimate, bootstrap_weights, holm, interval, sign_flip
from beatmeter.evaluation.metrics.checks import Array, Value
from beatmeter.evaluation.metrics.families import (
    FamilyMetric,
    constant_of,
    mean_of,
    metrics_of,
    null_systems,
    null_values,
)
from beatmeter.schema import Items

Weighted = Callable[[Array | None], Value]  # weights (*batch, item) or None to (*batch)


@dataclass(frozen=True)
class RecordPair:
    """Two systems on the same items: a test of every metric, second minus first."""

    first: str
    second: str
    tests: tuple[MetricTest, ...]


@dataclass(frozen=True)
class RecordComparison:
    """Systems on the same items, every metric of each (by system, by metric), what null systems come to (by
    null system, by metric), and the pairs that were tested. `titles` are the metrics in words."""

    systems: Mapping[str, tuple[Items, ...]]
    titles: Mapping[str, str]
    metrics: Mapping[str, Mapping[str, SystemMetric]]
    nulls: Mapping[str, Mapping[str, float]]
    pairs: tuple[RecordPair, ...]
    left_out: int

    @property
    def items(self) -> Items:
        """The items that were compared, as the first system answers them."""
        return next(iter(self.systems.values()))[0]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, verdicts included."""
        return {
            "items": len(self.items),
            "groups": len(set(self.items.groups)),
            "left_out": self.left_out,
            "metrics": plain(self.metrics),
            "nulls": plain(self.nulls),
            "pairs": [
                {**plain(p), "tests": [{**plain(t), "verdict": t.verdict} for t in p.tests]}
                for p in self.pairs
            ],
        }


def key_of(metric: FamilyMetric) -> str:
    """The name of a metric among all of a record."""
    return f"{metric.of}: {metric.name}" if metric.of else metric.name


def compare_records(
    systems: Mapping[str, Sequence[Items]],
    metrics: Sequence[str] = (),
    common: bool = False,
    all_pairs: bool = False,
    replicates: int = 2000,
    seed: int = 0,
) -> RecordComparison:
    """Compare systems, each with one or several seeds, on the items they share, by `metrics` (names; all of
    the record by default).

    Every other system is tested against the first, or all against all. A metric that is a mean over items is
    tested by sign flips of groups over the items that count for both, any other by the paired bootstrap over
    groups; intervals come from that bootstrap always, over seeds too where a system has several. Holm's
    correction runs over the pairs, for every metric on its own. Raises EvaluationError when fewer than two
    systems are given, nothing can be measured, or the items do not fit together.
    """
    if len(systems) < 2:
        raise EvaluationError(
            "a comparison needs two systems at least", "Name another run or predictions file."
        )
    aligned = align(
        {
            (name if len(runs) == 1 else f"{name}, seed {i}"): p
            for name, runs in systems.items()
            for i, p in enumerate(runs, 1)
        },
        common,
    )
    rest = iter(aligned.members.values())
    found = {name: tuple(next(rest) for _ in runs) for name, runs in systems.items()}
    items = next(iter(found.values()))[0]
    chosen = _chosen(items, metrics)
    names = list(found)
    named = list(combinations(names, 2)) if all_pairs else [(names[0], other) for other in names[1:]]
    weighted = {
        (name, key): [_weighted(m, run) for run in runs]
        for name, runs in found.items()
        for key, m in chosen.items()
    }
    draws = _draws(weighted, items.groups, max(replicates, 100 * len(named)), seed)
    pairs = [RecordPair(a, b, tuple(_tests(a, b, found, chosen, draws, seed))) for a, b in named]
    adjusted = [holm([p.tests[k].p for p in pairs]) for k in range(len(chosen))]
    pairs = [
        replace(p, tests=tuple(replace(t, adjusted=adjusted[k][i]) for k, t in enumerate(p.tests)))
        for i, p in enumerate(pairs)
    ]
    nulls = null_systems(items, constant_of(items, None), seed)
    values = {key: null_values(m, nulls) for key, m in chosen.items()}
    return RecordComparison(
        found,
        {key: (f"{m.of}: " if m.of else "") + m.title for key, m in chosen.items()},
        {
            name: {
                key: _system_metric(m, found[name], weighted[name, key], draws[name, key])
                for key, m in chosen.items()
            }
            for name in found
        },
        {name: {key: values[key][name] for key in chosen} for name in nulls},
        tuple(pairs),
        max(aligned.left_out.values()),
    )


def _chosen(items: Items, names: Sequence[str]) -> dict[str, FamilyMetric]:
    every = metrics_of(items)
    known = {m.name for m in every}
    for name in names:
        if name not in known:
            raise EvaluationError(
                f"there is no metric {name!r} of such records", nearest(name, sorted(known))
            )
    chosen = {key_of(m): m for m in every if (not names or m.name in names) and bool(np.any(m.counts(items)))}
    if not chosen:
        raise EvaluationError(
            f"none of the {len(items)} items has a target that can be measured",
            "Comparing needs labels, values or annotations.",
        )
    return chosen


def _weighted(metric: FamilyMetric, record: Items) -> Weighted:
    """The value of a metric under weights. What every item gives is computed once."""
    if metric.per_item is None:
        return lambda weights: metric.value(record, weights)
    items = metric.per_item(record)
    return lambda weights: mean_of(items, weights)


def _draws(
    weighted: Mapping[tuple[str, str], Sequence[Weighted]], groups: Sequence[str], replicates: int, seed: int
) -> dict[tuple[str, str], Array]:
    """Bootstrap values (replicate,) of every system and metric, on the same draws of groups and of seeds."""
    random = np.random.default_rng(seed + 1)
    picks = {
        name: random.integers(0, len(runs), (replicates, len(runs))) for (name, _), runs in weighted.items()
    }
    values: dict[tuple[str, str], list[Array]] = {key: [] for key in weighted}
    start = 0
    for weights in bootstrap_weights(groups, replicates, seed):
        rows = slice(start, start + len(weights))
        start = rows.stop
        for (name, key), runs in weighted.items():
            by_seed = np.stack([np.asarray(value(weights)) for value in runs], axis=1)
            values[name, key].append(np.take_along_axis(by_seed, picks[name][rows], axis=1).mean(axis=1))
    return {key: np.concatenate(parts) for key, parts in values.items()}


def _system_metric(
    metric: FamilyMetric, runs: Sequence[Items], weighted: Sequence[Weighted], draws: Array
) -> SystemMetric:
    values = tuple(float(value(None)) for value in weighted)
    kept = draws[~np.isnan(draws)]
    low, high = map(float, interval(kept)) if len(kept) else (np.nan, np.nan)
    how = "bootstrap over groups" + (" and seeds" if len(runs) > 1 else "")
    counted = int(np.sum(metric.counts(runs[0])))
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return SystemMetric(Estimate(float(np.mean(values)), low, high, counted, how), values, spread)


def _tests(
    first: str,
    second: str,
    found: Mapping[str, Sequence[Items]],
    chosen: Mapping[str, FamilyMetric],
    draws: Mapping[tuple[str, str], Array],
    seed: int,
) -> list[MetricTest]:
    tests = []
    for key, m in chosen.items():
        before, after = (
            float(np.mean([m.value(run, None) for run in found[name]])) for name in (first, second)
        )
        d = Difference.of(after - before, draws[second, key] - draws[first, key])
        p = d.p
        if m.per_item is not None:
            mine, theirs = (
                np.mean([m.per_item(run) for run in found[name]], axis=0) for name in (first, second)
            )
            p = sign_flip(theirs - mine, found[first][0].groups, seed=seed)
        tests.append(MetricTest(key, first, second, d.value, d.low, d.high, p, p, m.better))
    return tests
