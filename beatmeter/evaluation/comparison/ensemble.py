"""Members into one: a weighted mean of probabilities, or logistic stacking of logits. Both learn from
validation alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from beatmeter.errors import EvaluationError
from beatmeter.evaluation.calibration import fold_of, logit
from beatmeter.evaluation.calibration.logistic import expit, fit_logistic
from beatmeter.evaluation.comparison.alignment import align
from beatmeter.evaluation.diagnostics import plain
from beatmeter.evaluation.metrics import (
    Difference,
    Metric,
    log_loss_per_class,
    metric,
    paired_bootstrap,
    require_labels,
)
from beatmeter.evaluation.metrics.checks import Array
from beatmeter.runtime.artifacts import read_json, require, write_json
from beatmeter.runtime.paths import StrPath, as_path
from beatmeter.schema import ClassPredictions

FORMAT = 1
AGAIN = "Run `beatmeter ensemble` again."
SHAPE = {
    "classes": [str],
    "members": [str],
    "method": str,
    "weights": {"*": float},
    "coefficients": {"*": {"*": float}},
    "fitted_on": {},
}
STEP = 0.05  # by which a weight rises
RIDGES = (1.0, 10.0, 100.0, 1000.0)  # how strongly stacking is held to the plain mean of logits
FEWEST = 10  # items with a class, and without, that stacking needs

Combine = Callable[[Sequence[Array]], Array]


@dataclass(frozen=True)
class Ensemble:
    """How members become one. `method` is "mean" (`weights` by member, adding up to 1) or "stack"
    (`coefficients[class]` with the `intercept` and one number per member, on logits)."""

    classes: tuple[str, ...]
    members: tuple[str, ...]
    method: str
    weights: Mapping[str, float]
    coefficients: Mapping[str, Mapping[str, float]]
    fitted_on: Mapping[str, Any]

    @property
    def used(self) -> tuple[str, ...]:
        """The members that have a say."""
        return tuple(name for name in self.members if self.method == "stack" or self.weights[name] > 0)

    def scores(self, members: Sequence[Array]) -> Array:
        """(item, class) combined probabilities from one array per member, in the order of `members`."""
        if self.method == "mean":
            return mean_of(members, np.array([self.weights[name] for name in self.members]))
        table = np.array(
            [[self.coefficients[c][name] for name in ("intercept", *self.members)] for c in self.classes]
        )
        return _stacked(members, table)

    def combine(
        self, members: Mapping[str, ClassPredictions], name: str = "ensemble", common: bool = False
    ) -> ClassPredictions:
        """Predictions of the ensemble on the items of its members, which are brought into one order first."""
        missing = [m for m in self.members if m not in members]
        if missing:
            raise EvaluationError(
                f"the ensemble needs the member {missing[0]!r}", f"It has: {', '.join(members)}."
            )
        aligned = align({m: members[m] for m in self.members}, common).members
        first = aligned[self.members[0]]
        if first.classes != self.classes:
            raise EvaluationError(
                f"the ensemble knows the classes {', '.join(self.classes)}, its members "
                f"{', '.join(first.classes)}"
            )
        return _named(first, self.scores([aligned[m].scores for m in self.members]), name, self)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"format": FORMAT, **plain(self)}

    def save(self, path: StrPath) -> None:
        """Write `path` whole."""
        write_json(as_path(path), self.to_json())

    @classmethod
    def load(cls, path: StrPath) -> Ensemble:
        """Read what `save` wrote."""
        path = as_path(path)
        value = read_json(path, EvaluationError, AGAIN)
        if value.get("format") != FORMAT:
            raise EvaluationError(f"{path} is of another format", AGAIN)
        require(value, SHAPE, str(path), EvaluationError, AGAIN)
        found = cls(
            tuple(value["classes"]),
            tuple(value["members"]),
            *(value[name] for name in ("method", "weights", "coefficients", "fitted_on")),
        )
        wrong = found._wrong()
        if wrong:
            raise EvaluationError(f"{path}: {wrong}", AGAIN)
        return found

    def _wrong(self) -> str:
        """What keeps the members from being joined; empty when nothing does."""
        if (
            len(set(self.classes)) < len(self.classes)
            or not self.classes
            or len(set(self.members)) < len(self.members)
            or not self.members
        ):
            return "classes and members must be distinct, and at least one"
        if self.method == "mean":
            weights = [self.weights.get(name, -1.0) for name in self.members]
            return (
                ""
                if min(weights) >= 0 and 0 < sum(weights) < math.inf
                else "every member needs a weight, none below 0 and not all 0"
            )
        if self.method != "stack":
            return f"there is no method {self.method!r}"
        needed = {"intercept", *self.members}
        return (
            ""
            if all(needed <= self.coefficients.get(c, {}).keys() for c in self.classes)
            else "a class has no coefficient for every member"
        )


@dataclass(frozen=True)
class Fitted:
    """An ensemble, its predictions of validation by fits on the other folds, which may be judged and
    calibrated, and the members' predictions of the same items."""

    ensemble: Ensemble
    validation: ClassPredictions
    members: Mapping[str, ClassPredictions]

    def best_member(self) -> str:
        """The member with the lowest log loss on validation."""
        return min(
            self.members,
            key=lambda name: float(
                log_loss_per_class(self.members[name].scores, self.members[name].targets).mean()
            ),
        )

    def gain(self, name: str = "accuracy", seed: int = 0) -> Difference:
        """What the ensemble adds to its best member on validation, in one metric, by the paired bootstrap
        over groups."""
        m, best = metric(name), self.members[self.best_member()]
        return paired_bootstrap(
            lambda w: m.value(best, w), lambda w: m.value(self.validation, w), best.groups, seed=seed
        )


def mean_of(members: Sequence[Array], weights: Array) -> Array:
    """Weighted mean of probabilities; weights need not add up to 1."""
    result: Array = np.tensordot(weights / weights.sum(), np.stack(members), axes=1)
    return result


def fit_mean(
    validation: Mapping[str, ClassPredictions],
    weights: Mapping[str, float] | None = None,
    criterion: str = "log_loss",
    name: str = "ensemble",
    folds: int = 5,
    seed: int = 0,
    common: bool = False,
) -> Fitted:
    """A weighted mean of probabilities.

    The first member starts with weight 1 and all others with 0. Then the weight whose rise by 0.05 helps
    `criterion` on validation most rises, until none helps. `weights` given by hand are taken as they are.
    """
    members = _aligned(validation, common)
    names, first = tuple(members), next(iter(members.values()))
    chosen = metric(criterion)
    stack = [p.scores for p in members.values()]
    if weights is not None:
        given = _check_weights(weights, names)
        outside = mean_of(stack, given)
    else:

        def fit(inside: Array) -> Combine:
            w = tune([p.take(np.flatnonzero(inside)) for p in members.values()], chosen)
            return lambda parts: mean_of(parts, w)

        given = tune(list(members.values()), chosen)
        outside = _outside(first, stack, folds, seed, fit)
    shares = given / given.sum()
    about = {**_about(first), "criterion": "given" if weights is not None else criterion}
    ensemble = Ensemble(
        first.classes, names, "mean", dict(zip(names, shares.tolist(), strict=True)), {}, about
    )
    return Fitted(ensemble, _named(first, outside, name, ensemble), members)


def tune(members: Sequence[ClassPredictions], criterion: Metric) -> Array:
    """(member,) weights from 1, 0, 0, ... upward, by steps of 0.05, while the criterion gets better; the best
    single step each time."""
    sign = -1.0 if criterion.better == "lower" else 1.0
    stack = [p.scores for p in members]

    def value(w: Array) -> float:
        return sign * float(
            criterion.value(replace(members[0], scores=np.clip(mean_of(stack, w), 0, 1)), None)
        )

    weights = np.zeros(len(members))
    weights[0] = 1.0
    best = value(weights)
    for _ in range(int(10 / STEP)):
        steps = weights + STEP * np.eye(len(members))
        values = [value(w) for w in steps]
        top = int(np.argmax(values))
        if not values[top] > best + 1e-9:
            break
        weights, best = steps[top], values[top]
    return weights


def fit_stack(
    validation: Mapping[str, ClassPredictions],
    name: str = "ensemble",
    folds: int = 5,
    seed: int = 0,
    common: bool = False,
) -> Fitted:
    """Logistic stacking: per class, a weighted sum of the members' logits for that class and an intercept.

    Weights are held towards the plain mean of logits by a ridge, whose strength is chosen by cross-validated
    log loss over groups. A class with fewer than ten items with it or without it keeps the plain mean.
    """
    members = _aligned(validation, common)
    names, first = tuple(members), next(iter(members.values()))
    stack = [p.scores for p in members.values()]
    present: Array = first.targets > 0

    def fit_with(ridge: float) -> Callable[[Array], Combine]:
        def fit(inside: Array) -> Combine:
            table = _fit_table([s[inside] for s in stack], present[inside], ridge)
            return lambda parts: _stacked(parts, table)

        return fit

    tried = {ridge: _outside(first, stack, folds, seed, fit_with(ridge)) for ridge in RIDGES}
    losses = {
        ridge: float(log_loss_per_class(scores, first.targets).mean()) for ridge, scores in tried.items()
    }
    ridge = min(RIDGES, key=lambda r: losses[r])
    table = _fit_table(stack, present, ridge)
    coefficients = {
        c: dict(zip(("intercept", *names), row.tolist(), strict=True))
        for c, row in zip(first.classes, table, strict=True)
    }
    ensemble = Ensemble(
        first.classes,
        names,
        "stack",
        {},
        coefficients,
        {**_about(first), "ridge": ridge, "log_loss": {f"{r:g}": v for r, v in losses.items()}},
    )
    return Fitted(ensemble, _named(first, tried[ridge], name, ensemble), members)


def fit_weights(z: Array, present: Array, ridge: float) -> Array:
    """(1 + member,) intercept and weights that minimise log loss + ridge / 2 |weights - 1 / members|^2. `z`
    (item, member) are logits."""
    n, m = z.shape
    centre, penalty = np.array([0.0, *[1 / m] * m]), np.array([1e-6, *[ridge] * m])
    return fit_logistic(np.column_stack([np.ones(n), z]), present, penalty, centre=centre)


def _fit_table(stack: Sequence[Array], present: Array, ridge: float) -> Array:
    """(class, 1 + member) coefficients."""
    z = np.stack([logit(s) for s in stack], axis=-1)
    plain_mean = np.array([0.0, *[1 / len(stack)] * len(stack)])
    rows = []
    for k in range(present.shape[1]):
        y = present[:, k]
        enough = min(int(y.sum()), int((~y).sum())) >= FEWEST
        rows.append(fit_weights(z[:, k], y.astype(np.float64), ridge) if enough else plain_mean)
    return np.stack(rows)


def _stacked(members: Sequence[Array], table: Array) -> Array:
    z = np.stack([logit(s) for s in members], axis=-1)
    result: Array = expit(table[:, 0] + np.einsum("ikm,km->ik", z, table[:, 1:]))
    return result


def _aligned(validation: Mapping[str, ClassPredictions], common: bool) -> dict[str, ClassPredictions]:
    if len(validation) < 2:
        raise EvaluationError(
            "an ensemble needs two members at least", "Name another run or predictions file."
        )
    members = align(validation, common).members
    first = next(iter(members.values()))
    require_labels(first)
    labelled = np.flatnonzero(first.primary >= 0)
    return {name: p.take(labelled) for name, p in members.items()}


def _outside(
    p: ClassPredictions, stack: Sequence[Array], folds: int, seed: int, fit: Callable[[Array], Combine]
) -> Array:
    """(item, class) scores of every item by a fit that has not seen its fold."""
    fold = fold_of(p, folds, seed)
    out = np.empty(p.scores.shape)
    for k in np.unique(fold):
        inside: Array = fold != k
        out[~inside] = fit(inside)([s[~inside] for s in stack])
    return out


def _check_weights(weights: Mapping[str, float], names: tuple[str, ...]) -> Array:
    unknown = [n for n in weights if n not in names]
    if unknown or any(not np.isfinite(w) or w < 0 for w in weights.values()) or sum(weights.values()) <= 0:
        what = (
            f"there is no member {unknown[0]!r}"
            if unknown
            else f"weights must not be negative, and not all 0: {dict(weights)}"
        )
        raise EvaluationError(what, f"Members: {', '.join(names)}; those without a weight get 0.")
    return np.array([weights.get(n, 0.0) for n in names])


def _about(p: ClassPredictions) -> dict[str, Any]:
    return {"split": p.split, "items": len(p), "groups": len(set(p.groups))}


def _named(p: ClassPredictions, scores: Array, name: str, ensemble: Ensemble) -> ClassPredictions:
    """`p` with other scores and with meta that says what it is; what was only true of the first member is
    gone."""
    kept = {key: p.meta[key] for key in ("audio", "corrections") if key in p.meta}
    meta = {"run": name, "ensemble": {"members": list(ensemble.members), "method": ensemble.method}, **kept}
    return replace(p, scores=np.clip(scores, 0.0, 1.0), meta=meta)
