"""From scores to calibrated probabilities, one class at a time: nothing, temperature, Platt's line, or an isotonic curve.

Each is fitted by maximum likelihood on presence of the class and kept as plain numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from beatmeter.errors import EvaluationError
from beatmeter.evaluation.metrics.checks import Array

EDGE = 1e-7  # scores are kept this far from 0 and 1 before the logit
SLOPES = (1e-3, 1e3)  # of a temperature, 1 / T
KINDS = ("none", "temperature", "platt", "isotonic")  # simplest first


def logit(p: Array) -> Array:
    """log(p / (1 - p)), with p kept 1e-7 away from 0 and 1."""
    p = np.clip(p.astype(np.float64), EDGE, 1 - EDGE)
    result: Array = np.log(p) - np.log1p(-p)
    return result


def expit(z: Array) -> Array:
    """1 / (1 + exp(-z)), without overflow."""
    e = np.exp(-np.abs(z))
    result: Array = np.where(z >= 0, 1.0, e) / (1 + e)
    return result


@dataclass(frozen=True)
class ScoreMap:
    """How the scores of one class become probabilities. `kind` is one of KINDS, `parameters` its numbers:
    `slope` (temperature: 1 / T), `slope` and `intercept` (platt), `at` and `value` (isotonic, joined by straight lines)."""

    kind: str
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        wanted = {"none": set(), "temperature": {"slope"}, "platt": {"slope", "intercept"}, "isotonic": {"at", "value"}}
        if self.kind not in wanted or set(self.parameters) != wanted[self.kind]:
            raise EvaluationError(
                f"a calibration of the kind {self.kind!r} with {sorted(self.parameters)} is not known", f"Kinds: {', '.join(KINDS)}."
            )
        curve = self.kind == "isotonic"
        for name, numbers in self.parameters.items():
            numbers = numbers if curve and isinstance(numbers, list) else [numbers]
            if not numbers or not all(isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x) for x in numbers):
                raise EvaluationError(f"the {name} of a calibration of the kind {self.kind!r} must be finite numbers")
        if curve and len(self.parameters["at"]) != len(self.parameters["value"]):
            raise EvaluationError("the curve of a calibration has points without a value")

    def __call__(self, scores: Array) -> Array:
        """(item,) scores to (item,) probabilities."""
        if self.kind == "none":
            return scores
        if self.kind == "isotonic":
            curve: Array = np.interp(scores, self.parameters["at"], self.parameters["value"])
            return curve
        return expit(self.parameters["slope"] * logit(scores) + self.parameters.get("intercept", 0.0))


def fit_temperature(scores: Array, present: Array) -> ScoreMap:
    """One slope 1 / T on the logits of any shape, minimising log loss (Guo et al., ICML 2017). The likelihood is convex in the
    slope, so its derivative is bisected."""
    z, y = logit(scores).ravel(), present.ravel().astype(np.float64)
    low, high = np.log(SLOPES[0]), np.log(SLOPES[1])
    for _ in range(60):
        middle = (low + high) / 2
        if (z * (expit(np.exp(middle) * z) - y)).sum() < 0:
            low = middle
        else:
            high = middle
    return ScoreMap("temperature", {"slope": float(np.exp((low + high) / 2))})


def fit_platt(scores: Array, present: Array) -> ScoreMap | None:
    """Slope and intercept on the logit with Platt's soft targets (Platt 1999; Lin, Lin and Weng 2007), by Newton's method with
    backtracking. None when the slope is not above 0: such scores say the opposite of what they should."""
    z, y = logit(scores), present.astype(bool)
    positives, negatives = int(y.sum()), int((~y).sum())
    t = np.where(y, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    design = np.column_stack([z, np.ones_like(z)])

    def loss(w: Array) -> float:
        u = design @ w
        return float((np.logaddexp(0, u) - t * u).sum())

    w = np.array([0.0, np.log((positives + 1) / (negatives + 1))])
    for _ in range(100):
        p = expit(design @ w)
        gradient = design.T @ (p - t)
        hessian = design.T @ (design * (p * (1 - p))[:, None]) + 1e-10 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        size, here = 1.0, loss(w)
        while size > 1e-10 and loss(w - size * step) > here - 1e-4 * size * float(gradient @ step):
            size /= 2
        w = w - size * step
        if np.abs(size * step).max() < 1e-10:
            break
    return ScoreMap("platt", {"slope": float(w[0]), "intercept": float(w[1])}) if w[0] > 0 else None


def fit_isotonic(scores: Array, present: Array) -> ScoreMap:
    """The non-decreasing curve of least squares through the outcomes (pool adjacent violators; scikit-learn:
    IsotonicRegression), kept half an item away from 0 and 1 so that no answer is called impossible."""
    at, inverse = np.unique(scores.astype(np.float64), return_inverse=True)
    weight = np.bincount(inverse).astype(np.float64)
    value = np.bincount(inverse, weights=present.astype(np.float64)) / weight
    blocks: list[list[float]] = []  # mean, weight, number of points
    for v, w in zip(value, weight, strict=True):
        blocks.append([v, w, 1])
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            v2, w2, n2 = blocks.pop()
            v1, w1, n1 = blocks[-1]
            blocks[-1] = [(v1 * w1 + v2 * w2) / (w1 + w2), w1 + w2, n1 + n2]
    fitted = np.repeat([b[0] for b in blocks], [int(b[2]) for b in blocks])
    edge = 0.5 / (len(scores) + 1)
    kept = _corners(fitted)
    return ScoreMap("isotonic", {"at": at[kept].tolist(), "value": np.clip(fitted[kept], edge, 1 - edge).tolist()})


def _corners(values: Array) -> Array:
    """Positions of the points that a curve of straight pieces needs: both ends of every flat stretch."""
    change = np.diff(values) != 0
    result: Array = np.concatenate([[True], change]) | np.concatenate([change, [True]])
    return result


def fit_maps(scores: Array, present: Array, kind: str, fewest: int) -> list[ScoreMap]:
    """One map of this kind per class, from (item, class) scores and presence.

    A temperature is shared by all classes. Platt and isotonic need `fewest` items with the class and without; where
    they are lacking, or Platt's slope is not above 0, the shared temperature stands in.
    """
    if kind == "none":
        return [ScoreMap("none")] * scores.shape[1]
    shared = fit_temperature(scores, present)
    maps: list[ScoreMap] = []
    for k in range(scores.shape[1]):
        y = present[:, k]
        enough = min(int(y.sum()), int((~y).sum())) >= fewest
        own = None
        if enough and kind == "platt":
            own = fit_platt(scores[:, k], y)
        elif enough and kind == "isotonic":
            own = fit_isotonic(scores[:, k], y)
        maps.append(own or shared)
    return maps


def apply_maps(maps: Sequence[ScoreMap], scores: Array) -> Array:
    """(item, class) scores through one map per class."""
    return np.stack([m(scores[:, k]) for k, m in enumerate(maps)], axis=1)
