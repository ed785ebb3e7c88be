"""What a model says of one piece of audio."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from beatmeter.datasets.groupings import kind_of
from beatmeter.schema import Items

LIKELY_GROUPING = 0.5  # from which probability a grouping is said


@dataclass(frozen=True)
class Scored:
    """What a model makes of audio before it is judged: a probability per class, not calibrated, and
    `evidence` (value,), a short summary of the same features by which music is told from sound without
    meter. `groupings` are probabilities by class, and `two` that two meters sound at once, for a model that
    knows any. A model of frames says a `record`; `scores` are then the means over it."""

    scores: Float[np.ndarray, " klass"]
    evidence: Float[np.ndarray, " value"]
    groupings: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    two: float | None = None
    record: Items | None = None


@dataclass(frozen=True)
class Answer:
    """What a model says of one piece of audio: a probability per class, and a second meter when it is above
    its threshold.

    `heard` is the probability that there is a meter at all: below 0.5 `meter` is None, no meter heard; None
    where the calibration does not tell. `sure` is a statement that the calibration makes (`Calibration.sure`:
    95 % of such answers were right on validation); without one it is False, as it is when no meter is heard
    and for less than 10 s of audio. `groupings` are probabilities by class, given that class; `two` is the
    one that two meters sound at once, of a model that learned it.
    """

    classes: tuple[str, ...]
    scores: Float[np.ndarray, " klass"]
    seconds: float
    second: str | None = None
    sure: bool = False
    heard: float | None = None
    groupings: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    tempo: float | None = None
    two: float | None = None

    @property
    def grouping(self) -> str | None:
        """How the pulses of the bar are grouped ("2+2+3"), where the model knows and it is likely."""
        known = self.groupings.get(self.meter or "", {})
        best = max(known, key=lambda name: known[name], default=None)
        return best if best is not None and known[best] >= LIKELY_GROUPING else None

    @property
    def order(self) -> list[int]:
        """Class indices, most probable first."""
        return [int(i) for i in np.argsort(-self.scores, kind="stable")]

    @property
    def meter(self) -> str | None:
        """The most probable class; None when no meter is heard."""
        return self.classes[self.order[0]] if self.heard is None or self.heard >= 0.5 else None

    @property
    def gap(self) -> float:
        """P1 - P2."""
        first, second = self.order[:2]
        return float(self.scores[first] - self.scores[second])

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "meter": self.meter,
            "heard": self.heard,
            "sure": self.sure,
            "second": self.second,
            "grouping": self.grouping,
            "subdivision": None if self.grouping is None else kind_of(self.grouping),
            "scores": {name: float(s) for name, s in zip(self.classes, self.scores, strict=True)},
            "gap": self.gap,
            "seconds": round(self.seconds, 3),
            **({} if self.tempo is None else {"tempo": round(self.tempo, 2)}),
            **({} if self.two is None else {"two": round(self.two, 4)}),
        }
