"""This model as one voice in another program's ensemble: time signatures with scores, and a weight that
starts at 0."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from beatmeter.errors import EvaluationError

Signature = tuple[int, int]  # numerator, denominator

# Which time signatures a class stands for, with the share of its score that each gets. A class is a
# numerator: these are the usual denominators. 6/8 counts as 3 and 12/8 as 4 in the labels, so they take part
# of those.
SIGNATURES: Mapping[str, Mapping[Signature, float]] = {
    "3": {(3, 4): 0.75, (6, 8): 0.25},
    "4": {(4, 4): 0.9, (12, 8): 0.1},
    "5": {(5, 4): 0.5, (5, 8): 0.5},
    "7": {(7, 4): 0.25, (7, 8): 0.75},
    "9": {(9, 8): 1.0},
    "11": {(11, 8): 1.0},
}


@dataclass(frozen=True)
class MeterSignal:
    """Scores by time signature for an outside ensemble.

    `classify(wave, sample_rate)` gives a probability per class, as `Predictor.predict(...)` does; `weight` is
    0 until the gate has been passed (`beatmeter gate`), so joining changes nothing at first. `signatures`
    says what each class stands for.
    """

    classify: Callable[[Float[np.ndarray, "*sample"], int], Mapping[str, float]]
    weight: float = 0.0
    name: str = "beatmeter"
    signatures: Mapping[str, Mapping[Signature, float]] = field(default_factory=lambda: SIGNATURES)

    def __post_init__(self) -> None:
        if not self.weight >= 0:
            raise EvaluationError(f"the weight of {self.name} is {self.weight}, it must not be negative")

    def scores(self, wave: Float[np.ndarray, "*sample"], sample_rate: int) -> dict[Signature, float]:
        """Every time signature with its share, adding up to 1. `wave` is (sample,) or (sample, channel)."""
        return signature_scores(self.classify(wave, sample_rate), self.signatures)

    def weighted(self, wave: Float[np.ndarray, "*sample"], sample_rate: int) -> dict[Signature, float]:
        """`scores` times the weight; nothing is computed at weight 0."""
        return {s: self.weight * v for s, v in self.scores(wave, sample_rate).items()} if self.weight else {}


def signature_scores(
    probabilities: Mapping[str, float], signatures: Mapping[str, Mapping[Signature, float]] = SIGNATURES
) -> dict[Signature, float]:
    """Class probabilities to shares of time signatures, adding up to 1, highest first. Raises EvaluationError
    for a class that has no signatures."""
    unknown = [c for c in probabilities if c not in signatures]
    if unknown:
        raise EvaluationError(
            f"the class {unknown[0]!r} has no time signatures",
            f"Known: {', '.join(signatures)}. Give `signatures` for the others.",
        )
    total = sum(probabilities.values())
    if not total > 0:
        raise EvaluationError(f"the probabilities {dict(probabilities)} add up to nothing")
    found: dict[Signature, float] = {}
    for c, p in probabilities.items():
        whole = sum(signatures[c].values())
        for signature, part in signatures[c].items():
            found[signature] = found.get(signature, 0.0) + p / total * part / whole
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def signal_of(predictor: Any, weight: float = 0.0) -> MeterSignal:
    """A MeterSignal of anything with `predict(wave, sample_rate)` whose answer has `classes` and `scores`,
    such as a Predictor."""

    def classify(wave: Float[np.ndarray, "*sample"], sample_rate: int) -> Mapping[str, float]:
        answer = predictor.predict(wave, sample_rate)
        return dict(zip(answer.classes, map(float, answer.scores), strict=True))

    return MeterSignal(classify, weight)
