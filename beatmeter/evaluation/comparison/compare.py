"""Which of several systems is better, and whether that can be known: paired tests on the same items, several
seeds each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from beatmeter.errors import EvaluationError
from beatmeter.evaluation.comparison.alignment import align
from beatmeter.evaluation.diagnostics import plain
from beatmeter.evaluation.metrics import (
    Difference,
    Estimate,
    Metric,
    bootstrap_weights,
    correct,
    estimate,
    holm,
    interval,
    mcnemar,
    metric,
    require_labels,
    sign_flip,
)
from beatmeter.evaluation.metrics.checks import Array, one_hot
from beatmeter.schema import ClassPredictions

DEFAULT = (
    "accuracy",
    "accuracy_restricted",
    "balanced_accuracy",
    "map",
    "macro_f1",
    "lrap",
    "log_loss",
    "primary_ece",
)
ALPHA = 0.05


@dataclass(frozen=True)
class System:
    """One system: its predictions of the same items by one or several seeds."""

    name: str
    runs: tuple[ClassPredictions, ...]

    @property
    def seeds(self) -> int:
        return len(self.runs)

    def outcomes(self) -> Array:
        """(item,) share of the seeds that are right, nan without a label."""
        result: Array = np.mean([correct(p.scores, p.primary) for p in self.runs], axis=0)
        return result

    def answers(self) -> Array:
        """(item,) the class that most seeds answer; of equally many, the one with the highest mean score."""
        votes = sum(one_hot(p.scores.argmax(axis=1), len(p.classes)) for p in self.runs)
        result: Array = (votes + np.mean([p.scores for p in self.runs], axis=0) / 2).argmax(axis=1)
        return result


@dataclass(frozen=True)
class SystemMetric:
    """A metric of one system: the mean over its seeds with an interval, and every seed's value with their
    standard deviation (0 for one seed)."""

    mean: Estimate
    seeds: tuple[float, ...]
    spread: float


@dataclass(frozen=True)
class MetricTest:
    """Second system minus first in one metric: difference with interval, p-value, and p adjusted by Holm over
    the pairs."""

    metric: str
    first: str
    second: str
    difference: float
    low: float
    high: float
    p: float
    adjusted: float
    better: str = "higher"

    @property
    def verdict(self) -> str:
        """ "better" or "worse" (the second system) or "not distinguishable"."""
        if not self.adjusted < ALPHA or np.isnan(self.difference) or self.difference == 0:
            return "not distinguishable"
        return "better" if (self.difference > 0) == (self.better != "lower") else "worse"


@dataclass(frozen=True)
class ClassChange:
    """Items of one class that only the second system (`gains`) or only the first (`losses`) answers right;
    with several seeds, the mean over all pairs of seeds."""

    name: str
    items: int
    gains: float
    losses: float


@dataclass(frozen=True)
class Change:
    """One item that two systems answer differently in right or wrong: its position among the items, its
    label, both answers, and both scores of the label."""

    index: int
    id: str
    label: str
    first: str
    second: str
    first_score: float
    second_score: float
    gained: bool


@dataclass(frozen=True)
class Pair:
    """Two systems on the same items: tests of every metric, items gained and lost, exact tests of accuracy.

    With several seeds, items gained and lost are the mean over all pairs of seeds. `mcnemar` takes items as
    independent (nan with several seeds); `sign_flip` lets whole groups swap sides and is the p-value of
    accuracy in `tests`.
    """

    first: str
    second: str
    tests: tuple[MetricTest, ...]
    gains: float
    losses: float
    mcnemar: float
    sign_flip: float
    classes: tuple[ClassChange, ...]
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class Comparison:
    """Systems on the same items, every metric of each, and the pairs that were tested."""

    systems: tuple[System, ...]
    metrics: Mapping[str, Mapping[str, SystemMetric]]  # by system, by metric
    pairs: tuple[Pair, ...]
    left_out: int

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, verdicts included."""
        first = self.systems[0].runs[0]
        return {
            "items": len(first),
            "groups": len(set(first.groups)),
            "left_out": self.left_out,
            "metrics": plain(self.metrics),
            "pairs": [
                {**plain(p), "tests": [{**plain(t), "verdict": t.verdict} for t in p.tests]}
                for p in self.pairs
            ],
        }


def compare(
    systems: Mapping[str, Sequence[ClassPredictions]],
    metrics: Sequence[str] = DEFAULT,
    common: bool = False,
    all_pairs: bool = False,
    replicates: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Compare systems, each with one or several seeds, on the items they share.

    Every other system is tested against the first, or all against all. Intervals and p-values come from the
    paired bootstrap over groups, and over seeds where a system has several; accuracy is tested by sign flips
    of groups, which for single items and single seeds is McNemar's test. Holm's correction runs over the
    pairs, for every metric on its own, and there are enough replicates for it. Raises EvaluationError when
    fewer than two systems are given or the items do not fit together.
    """
    if len(systems) < 2:
        raise EvaluationError(
            "a comparison needs two systems at least", "Name another run or predictions file."
        )
    chosen = [metric(name) for name in metrics]
    members = {
        (name if len(runs) == 1 else f"{name}, seed {i}"): p
        for name, runs in systems.items()
        for i, p in enumerate(runs, 1)
    }
    aligned = align(members, common)
    rest = iter(aligned.members.values())
    found = tuple(System(name, tuple(next(rest) for _ in runs)) for name, runs in systems.items())
    items = found[0].runs[0]
    require_labels(items)
    chosen = [m for m in chosen if not np.isnan(float(m.value(items, None)))]
    named = list(combinations(found, 2)) if all_pairs else [(found[0], other) for other in found[1:]]
    draws = _draws(found, chosen, max(replicates, 100 * len(named)), seed)
    pairs = [_pair(a, b, chosen, draws, seed) for a, b in named]
    adjusted = [holm([p.tests[k].p for p in pairs]) for k in range(len(chosen))]
    pairs = [
        replace(p, tests=tuple(replace(t, adjusted=adjusted[k][i]) for k, t in enumerate(p.tests)))
        for i, p in enumerate(pairs)
    ]
    return Comparison(
        found,
        {s.name: {m.name: _system_metric(s, m, draws[s.name, m.name]) for m in chosen} for s in found},
        tuple(pairs),
        max(aligned.left_out.values()),
    )


def _draws(
    systems: Sequence[System], chosen: Sequence[Metric], replicates: int, seed: int
) -> dict[tuple[str, str], Array]:
    """Bootstrap values (replicate,) of every system and metric, on the same draws of groups; the seeds of a
    system are drawn too."""
    random = np.random.default_rng(seed + 1)
    picks = {s.name: random.integers(0, s.seeds, (replicates, s.seeds)) for s in systems}
    values: dict[tuple[str, str], list[Array]] = {(s.name, m.name): [] for s in systems for m in chosen}
    start = 0
    for weights in bootstrap_weights(systems[0].runs[0].groups, replicates, seed):
        rows = slice(start, start + len(weights))
        start = rows.stop
        for s in systems:
            for m in chosen:
                by_seed = np.stack([np.asarray(m.value(p, weights)) for p in s.runs], axis=1)
                values[s.name, m.name].append(
                    np.take_along_axis(by_seed, picks[s.name][rows], axis=1).mean(axis=1)
                )
    return {key: np.concatenate(parts) for key, parts in values.items()}


def _system_metric(s: System, m: Metric, draws: Array) -> SystemMetric:
    values = tuple(float(m.value(p, None)) for p in s.runs)
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    if len(values) == 1:
        return SystemMetric(
            estimate(m, s.runs[0], 200) if m.outcomes else _from_draws(values[0], draws, s), values, spread
        )
    return SystemMetric(_from_draws(float(np.mean(values)), draws, s), values, spread)


def _from_draws(value: float, draws: Array, s: System) -> Estimate:
    low, high = interval(draws)
    return Estimate(
        value,
        float(low),
        float(high),
        len(s.runs[0]),
        "bootstrap over groups" + (" and seeds" if s.seeds > 1 else ""),
    )


def _pair(
    a: System, b: System, chosen: Sequence[Metric], draws: Mapping[tuple[str, str], Array], seed: int
) -> Pair:
    p = a.runs[0]
    difference = b.outcomes() - a.outcomes()
    flips = sign_flip(difference, p.groups, seed=seed)
    tests = []
    for m in chosen:
        value = float(
            np.mean([float(m.value(r, None)) for r in b.runs])
            - np.mean([float(m.value(r, None)) for r in a.runs])
        )
        d = Difference.of(value, draws[b.name, m.name] - draws[a.name, m.name])
        chance = flips if m.name == "accuracy" else d.p
        tests.append(
            MetricTest(m.name, a.name, b.name, d.value, d.low, d.high, chance, chance, m.better or "higher")
        )
    before, after = np.nan_to_num(a.outcomes()), np.nan_to_num(b.outcomes())
    gained, lost = after * (1 - before), before * (1 - after)  # of seeds paired at random
    single = a.seeds == b.seeds == 1
    return Pair(
        a.name,
        b.name,
        tuple(tests),
        float(gained.sum()),
        float(lost.sum()),
        mcnemar(round(gained.sum()), round(lost.sum())) if single else float("nan"),
        flips,
        tuple(
            ClassChange(c, int(of.sum()), float(gained[of].sum()), float(lost[of].sum()))
            for c, of in zip(p.classes, one_hot(p.primary, len(p.classes)).T > 0, strict=True)
        ),
        tuple(_changes(a, b, difference)),
    )


def _changes(a: System, b: System, difference: Array) -> list[Change]:
    """Items on which half of the seeds or more change from wrong to right or back, the largest change of
    score first."""
    p = a.runs[0]
    first, second = a.answers(), b.answers()
    before, after = (np.mean([r.scores for r in s.runs], axis=0) for s in (a, b))
    rows = [
        Change(
            int(i),
            p.ids[i],
            p.classes[p.primary[i]],
            p.classes[first[i]],
            p.classes[second[i]],
            float(before[i, p.primary[i]]),
            float(after[i, p.primary[i]]),
            bool(difference[i] > 0),
        )
        for i in np.flatnonzero(np.abs(np.nan_to_num(difference)) >= 0.5)
    ]
    return sorted(rows, key=lambda c: (-abs(c.second_score - c.first_score), c.index))
