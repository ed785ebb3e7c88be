"""The noise floor: how high the second activation gets on items that have only one meter and are answered
right.

Above the 95th percentile a second activation is taken as a second meter in evaluation, above the 99th in
production.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from beatmeter.errors import EvaluationError
from beatmeter.evaluation.diagnostics.labels import ranked, right, several, single
from beatmeter.evaluation.diagnostics.limits import LIMITS, Limits, percent, plain
from beatmeter.evaluation.metrics import Estimate, bootstrap_weights, interval, share
from beatmeter.evaluation.metrics.checks import Array
from beatmeter.runtime.display import count
from beatmeter.schema import ClassPredictions, Finding

EVALUATION, PRODUCTION = 0.95, 0.99
QUANTILES = {"median": 0.5, "p90": 0.9, "p95": EVALUATION, "p99": PRODUCTION}
REPLICATES = 1000
Key = str | tuple[str, str]


@dataclass(frozen=True)
class Floor:
    """Distribution of second activations: `items` of them, their mean, and quantiles with bootstrap intervals
    over groups."""

    items: int
    mean: float
    quantiles: Mapping[str, Estimate]

    def at(self, quantile: float) -> float:
        """The value of one of `QUANTILES`, by its level."""
        return next(self.quantiles[name].value for name, level in QUANTILES.items() if level == quantile)


@dataclass(frozen=True)
class NoiseFloor:
    """Floors over all items, by the class of the second activation, by the predicted class, and by pair
    (predicted, other)."""

    classes: tuple[str, ...]
    split: str
    overall: Floor
    by_class: Mapping[str, Floor]
    by_predicted: Mapping[str, Floor]
    by_pair: Mapping[tuple[str, str], Floor]

    def enough(self, name: str, quantile: float) -> bool:
        """Whether class `name` was second often enough to have a quantile of its own: 1 / (1 - quantile)
        times."""
        return name in self.by_class and self.by_class[name].items >= round(1 / (1 - quantile))

    def thresholds(self, quantile: float) -> Array:
        """(class,) the threshold of a second activation of each class; the overall one where a class has too
        few items."""
        return np.array(
            [
                (self.by_class[c] if self.enough(c, quantile) else self.overall).at(quantile)
                for c in self.classes
            ]
        )


def weighted_quantile(values: Array, weights: Array, level: float) -> Array:
    """(*batch) smallest of `values` (item,) with at least the share `level` of `weights` (*batch, item) at or
    below it; nan where all weights are 0."""
    order = np.argsort(values)
    mass = weights[..., order].cumsum(axis=-1)
    total = mass[..., -1:]
    at = np.minimum((mass < level * total - 1e-9).sum(axis=-1), len(values) - 1)
    return np.where(total[..., 0] > 0, values[order][at], np.nan)


def _floors(
    values: Array, masks: Mapping[Key, Array], groups: tuple[str, ...], replicates: int, seed: int
) -> dict[Key, Floor]:
    """One Floor per mask, all from the same draws of groups."""
    masks = {name: mask for name, mask in masks.items() if mask.any()}
    draws: dict[Key, list[Array]] = {name: [] for name in masks}
    for weights in bootstrap_weights(groups, replicates, seed):
        for name, mask in masks.items():
            draws[name].append(
                np.stack(
                    [weighted_quantile(values[mask], weights[:, mask], q) for q in QUANTILES.values()], axis=1
                )
            )
    floors = {}
    for name, mask in masks.items():
        low, high = map(np.atleast_1d, interval(np.concatenate(draws[name])))
        n = int(mask.sum())
        found = np.quantile(values[mask], list(QUANTILES.values()))
        floors[name] = Floor(
            n,
            float(values[mask].mean()),
            {
                q: Estimate(
                    float(found[i]),
                    float(min(low[i], found[i])),
                    float(max(high[i], found[i])),
                    n,
                    "bootstrap over groups",
                )
                for i, q in enumerate(QUANTILES)
            },
        )
    return floors


def fit_noise_floor(validation: ClassPredictions, replicates: int = REPLICATES, seed: int = 0) -> NoiseFloor:
    """Noise floors of the correctly answered single-meter items. Raises EvaluationError when there are
    none."""
    clean = np.flatnonzero(single(validation) & right(validation))
    if not len(clean):
        raise EvaluationError(
            f"no single-meter item of the split {validation.split!r} is answered right, so there is no noise "
            "floor",
            "Fit thresholds on predictions with labels, of a model that is better than chance.",
        )
    p = validation.take(clean)
    order, top = ranked(p)
    names = p.classes
    masks: dict[Key, Array] = {"": np.ones(len(p), dtype=bool)}
    masks |= {
        (names[i], names[j]): (order[:, 0] == i) & (order[:, 1] == j)
        for i in range(len(names))
        for j in range(len(names))
        if i != j
    }
    for k, c in enumerate(names):
        masks[f"second {c}"], masks[f"first {c}"] = order[:, 1] == k, order[:, 0] == k
    floors = _floors(top[:, 1], masks, p.groups, replicates, seed)
    return NoiseFloor(
        classes=names,
        split=validation.split,
        overall=floors[""],
        by_class={c: floors[f"second {c}"] for c in names if f"second {c}" in floors},
        by_predicted={c: floors[f"first {c}"] for c in names if f"first {c}" in floors},
        by_pair={name: floor for name, floor in floors.items() if isinstance(name, tuple)},
    )


def passes(p: ClassPredictions, thresholds: Array) -> Array:
    """(item,) bool: the second activation is above the threshold of its class."""
    order, top = ranked(p)
    result: Array = top[:, 1] > thresholds[order[:, 1]]
    return result


@dataclass(frozen=True)
class Detection:
    """What a threshold does: the share of clean single-meter items it flags (false alarms) and of items with
    several meters it finds."""

    false_alarms: Estimate
    found: Estimate


def detect(p: ClassPredictions, thresholds: Array) -> Detection:
    """False alarms on correctly answered single-meter items, and second meters found."""
    flagged = passes(p, thresholds).astype(np.float64)
    return Detection(
        *(share(np.where(mask, flagged, np.nan), p.groups) for mask in (single(p) & right(p), several(p)))
    )


def noise_floor(p: ClassPredictions, floor: NoiseFloor, same_items: bool, limits: Limits = LIMITS) -> Finding:
    """The floor and its two thresholds, and what they do on `p`."""
    evaluation, production = floor.thresholds(EVALUATION), floor.thresholds(PRODUCTION)
    effects = {"evaluation": detect(p, evaluation), "production": detect(p, production)}
    overall = floor.overall
    p95, p99 = overall.quantiles["p95"], overall.quantiles["p99"]
    text = (
        f"second activation {overall.mean:.2f} in the mean, P95 {p95.value:.2f} [{p95.low:.2f}, "
        f"{p95.high:.2f}] (evaluation threshold), "
        f"P99 {p99.value:.2f} [{p99.low:.2f}, {p99.high:.2f}] (production threshold), "
        f"from {count(overall.items, 'single-meter item')} answered right"
    )
    text += (
        " of these same predictions: false alarms are too low here, fit on validation."
        if same_items
        else f" of the split {floor.split!r}."
    )
    alarms, found = effects["evaluation"].false_alarms, effects["evaluation"].found
    if alarms.n and not same_items:
        text += f" At the evaluation thresholds {percent(alarms.value)} of such items are flagged"
        text += (
            f" and {percent(found.value)} of the {count(found.n, 'item')} with several meters."
            if found.n
            else "."
        )
    few = overall.items < round(1 / (1 - PRODUCTION))
    pooled = [c for c in floor.classes if not floor.enough(c, PRODUCTION)]
    if few:
        text += (
            f" {count(overall.items, 'item')} cannot tell a 99th percentile: take the production threshold "
            "as a guess."
        )
    elif len(pooled) == len(floor.classes):
        text += " No class was second often enough for a production threshold of its own."
    elif pooled:
        text += f" Too rarely second for a production threshold of their own: {', '.join(pooled)}."
    reached = [c for c, t in zip(floor.classes, evaluation, strict=True) if t >= limits.positive]
    return Finding(
        "noise_floor",
        "warning" if reached else "note" if same_items or few else "ok",
        text,
        plain(
            {
                "fitted_on": floor.split,
                "same_items": same_items,
                "overall": overall,
                "by_class": floor.by_class,
                "by_predicted": floor.by_predicted,
                "by_pair": {"+".join(pair): f for pair, f in floor.by_pair.items()},
                "thresholds": {
                    "evaluation": dict(zip(floor.classes, evaluation.tolist(), strict=True)),
                    "production": dict(zip(floor.classes, production.tolist(), strict=True)),
                    "pooled": {
                        "evaluation": [c for c in floor.classes if not floor.enough(c, EVALUATION)],
                        "production": pooled,
                    },
                },
                "effects": effects,
                "reaching": reached,
            }
        ),
    )
