"""From scores to calibrated probabilities, one class at a time: nothing, temperature, Platt's line, or an
isotonic curve.

Each is fitted by maximum likelihood on presence of the class and kept as plain numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from beatmeter.errors import EvaluationError
from beatmeter.evaluation.calibration.logistic import expit, fit_logistic
from beatmeter.evaluation.metrics.checks import Array

EDGE = 1e-7  # scores are kept this far from 0 and 1 before the logit
SLOPES = (1e-3, 1e3)  # of a temperature, 1 / T
KINDS = ("none", "temperature", "platt", "isotonic")  # simplest first


def logit(p: Array) -> Array:
    """log(p / (1 - p)), with p kept 1e-7 away from 0 and 1."""
    p = np.clip(p.astype(np.float64), EDGE, 1 - EDGE)
    result: Array = np.log(p) - np.log1p(-p)
    return result


@dataclass(frozen=True)
class ScoreMap:
    """How the scores of one class become probabilities. `kind` is one of KINDS, `parameters` its numbers:
    `slope` (temperature: 1 / T), `slope` and `intercept` (platt), `at` and `value` (isotonic, joined by
    straight lines)."""

    kind: str
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        wanted = {
            "none": set(),
            "temperature": {"slope"},
            "platt": {"slope", "intercept"},
            "isotonic": {"at", "value"},
        }
        if self.kind not in wanted or set(self.parameters) != wanted[self.kind]:
            raise EvaluationError(
                f"a calibration of the kind {self.kind!r} with {sorted(self.parameters)} is not known",
                f"Kinds: {', '.join(KINDS)}.",
            )
        curve = self.kind == "isotonic"
        for name, numbers in self.parameters.items():
            numbers = numbers if curve and isinstance(numbers, list) else [numbers]
            if not numbers or not all(
                isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x) for x in numbers
            ):
                raise EvaluationError(
                    f"the {name} of a calibration of the kind {self.kind!r} must be finite numbers"
                )
        if curve and len(self.parameters["at"]) != len(self.parameters["value"]):
            raise EvaluationError("the curve of a calibration has points without a value")

    def __call__(self, scores: Array) -> Array:
        """(item,) scores to (item,) probabilities."""
        if self.kind == "none":
            return scores
        if self.kind == "isotonic":
            curve: Array = np.interp(scores, self.parameters["at"], self.parameters["value"])
            return curve
        line: Array = expit(self.parameters["slope"] * logit(scores) + self.parameters.get("intercept", 0.0))
        return line


def fit_temperature(scores: Array, present: Array) -> ScoreMap:
    """One slope 1 / T on the logits of any shape, minimising log loss (Guo et al., ICML 2017). The likelihood
    is convex in the slope, so its derivative is bisected."""
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
    """Slope and intercept on the logit with Platt's soft targets (Platt 1999; Lin, Lin and Weng 2007). None
    when the slope is not above 0: such scores say the opposite of what they should."""
    y = present.astype(bool)
    positives, negatives = int(y.sum()), int((~y).sum())
    targets = np.where(y, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    z = logit(scores)
    start = np.array([0.0, np.log((positives + 1) / (negatives + 1))])
    slope, intercept = fit_logistic(
        np.column_stack([z, np.ones_like(z)]), targets, np.full(2, 1e-10), start=start
    ).tolist()
    return ScoreMap("platt", {"slope": slope, "intercept": intercept}) if slope > 0 else None


def fit_isotonic(scores: Array, present: Array) -> ScoreMap:
    """The non-decreasing curve of least squares through the outcomes (scikit-learn: IsotonicRegression), kept
    half an item away from 0 and 1 so that no answer is called impossible."""
    from sklearn.isotonic import IsotonicRegression

    fitted = IsotonicRegression().fit(scores.astype(np.float64), present.astype(np.float64))
    edge = 0.5 / (len(scores) + 1)
    values = np.clip(fitted.y_thresholds_, edge, 1 - edge)
    return ScoreMap("isotonic", {"at": fitted.X_thresholds_.tolist(), "value": values.tolist()})


def fit_maps(scores: Array, present: Array, kind: str, fewest: int) -> list[ScoreMap]:
    """One map of this kind per class, from (item, class) scores and presence.

    A temperature is shared by all classes. Platt and isotonic need `fewest` items with the class and without;
    where they are lacking, or Platt's slope is not above 0, the shared temperature stands in.
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
