"""The gate before an ensemble: is a new member different enough from what is there, and does it bring more
than it costs?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from beatmeter.errors import EvaluationError
from beatmeter.evaluation.comparison.alignment import align
from beatmeter.evaluation.diagnostics import plain
from beatmeter.evaluation.metrics import (
    Estimate,
    bootstrap_weights,
    correct,
    interval,
    mcnemar,
    require_labels,
    share,
    sign_flip,
)
from beatmeter.evaluation.metrics.checks import Array, ratio
from beatmeter.schema import ClassPredictions

AGREEMENT = (0.65, 0.80)  # share of items on which both are right or both are wrong
RATIO = 1.5  # gains / losses


@dataclass(frozen=True)
class Gate:
    """A candidate against what is there. `gains` are items that only the candidate answers right, `losses`
    those that only the other does; `agreement` is (both right + both wrong) / n, `complementarity` gains /
    losses.

    `either` is the share that at least one of them answers right: what a perfect choice between them would
    reach.
    """

    candidate: str
    against: str
    items: int
    both_right: int
    both_wrong: int
    gains: int
    losses: int
    agreement: Estimate
    complementarity: Estimate
    candidate_accuracy: Estimate
    against_accuracy: Estimate
    either: Estimate
    mcnemar: float
    sign_flip: float
    left_out: int

    @property
    def checks(self) -> dict[str, bool]:
        """The two conditions by name."""
        return {
            "agreement": AGREEMENT[0] <= self.agreement.value <= AGREEMENT[1],
            "complementarity": self.complementarity.value > RATIO,
        }

    @property
    def passed(self) -> bool:
        """Both conditions hold."""
        return all(self.checks.values())

    @property
    def sure(self) -> bool:
        """The intervals leave no doubt about either condition, whichever way it went."""
        a, c = self.agreement, self.complementarity
        inside = a.low >= AGREEMENT[0] and a.high <= AGREEMENT[1]
        outside = a.high < AGREEMENT[0] or a.low > AGREEMENT[1]
        return (inside and c.low > RATIO) if self.passed else (outside or c.high <= RATIO)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, the verdict included."""
        return {
            **plain(self),
            "limits": {"agreement": list(AGREEMENT), "complementarity": RATIO},
            "checks": self.checks,
            "passed": self.passed,
            "sure": self.sure,
        }


def gate(
    candidate: ClassPredictions,
    against: ClassPredictions,
    names: tuple[str, str] = ("candidate", "against"),
    common: bool = False,
    replicates: int = 2000,
    seed: int = 0,
) -> Gate:
    """Measure a candidate against what is there, on the same items. Intervals are over groups.

    The interval of gains / losses is that of the bootstrap; draws without losses count as infinite. Raises
    EvaluationError when the items do not fit together or none has a label.
    """
    if names[0] == names[1]:
        raise EvaluationError(
            f"{names[0]} cannot be its own opponent", "Name another run or predictions file after --against."
        )
    aligned = align({names[0]: candidate, names[1]: against}, common)
    new, old = aligned.members[names[0]], aligned.members[names[1]]
    require_labels(new)
    labelled = np.flatnonzero(new.primary >= 0)
    new, old = new.take(labelled), old.take(labelled)
    a, b = correct(new.scores, new.primary) == 1, correct(old.scores, old.primary) == 1
    gained, lost = (a & ~b).astype(np.float64), (b & ~a).astype(np.float64)
    draws = []
    for weights in bootstrap_weights(new.groups, replicates, seed):
        g, n = weights @ gained, weights @ lost
        draws.append(np.where(n > 0, ratio(g, n), np.where(g > 0, np.inf, np.nan)))
    gains, losses = int(gained.sum()), int(lost.sum())
    low, high = _interval(np.concatenate(draws))
    value = gains / losses if losses else math.inf if gains else math.nan
    return Gate(
        names[0],
        names[1],
        len(new),
        int((a & b).sum()),
        int((~a & ~b).sum()),
        gains,
        losses,
        share((a == b).astype(np.float64), new.groups),
        Estimate(value, low, high, gains + losses, "bootstrap over groups"),
        share(a.astype(np.float64), new.groups),
        share(b.astype(np.float64), new.groups),
        share((a | b).astype(np.float64), new.groups),
        mcnemar(gains, losses),
        sign_flip(gained - lost, new.groups, seed=seed),
        max(aligned.left_out.values()),
    )


def _interval(draws: Array) -> tuple[float, float]:
    """Percentile interval of ratios, some of them infinite."""
    finite = np.where(np.isinf(draws), np.finfo(np.float64).max / 4, draws)
    low, high = (float(v) for v in interval(finite))
    large = np.finfo(np.float64).max / 1e6
    return (math.inf if low > large else low), (math.inf if high > large else high)
