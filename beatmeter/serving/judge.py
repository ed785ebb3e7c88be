"""From scores to an answer: calibration, a second meter, and when an answer may be called sure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from beatmeter.datasets.groupings import ADDITIVE
from beatmeter.errors import EvaluationError, RunError
from beatmeter.evaluation.calibration import Calibration
from beatmeter.serving.answer import Answer, Scored

SHORTEST = 10.0  # seconds below which no answer is called sure: of 5 s, fewer such answers are right


@dataclass(frozen=True)
class Judge:
    """Scores to answers: calibration when the run has one, `priors` over meters, and a share of answers to
    abstain from."""

    calibration: Calibration | None = None
    priors: Mapping[str, float] | None = None
    abstain: float = 0.0

    def __post_init__(self) -> None:
        if (self.priors or self.abstain) and self.calibration is None:
            raise RunError(
                "priors and abstention need calibrated scores", "Run `beatmeter calibrate RUN` first."
            )
        if not 0 <= self.abstain < 1:
            raise EvaluationError(
                f"a share of {self.abstain} of the answers cannot be left open", "Give one from 0 to below 1."
            )
        if self.priors and self.calibration:
            self.calibration.require_priors(self.priors)

    def __call__(self, classes: tuple[str, ...], scored: Scored, seconds: float) -> Answer:
        if self.calibration is None:
            return Answer(classes, scored.scores, seconds, groupings=scored.groupings, two=scored.two)
        calibrated = self.calibration(scored.scores[None], self.priors)
        presence, sure = self.calibration.presence, self.calibration.sure
        heard = float(presence(scored.evidence[None])[0]) if presence else None
        second = -1 if heard is not None and heard < 0.5 else self._second(calibrated, scored.two)
        floor = self.calibration.confident_above(coverage=1 - self.abstain) if self.abstain else 0.0
        stated = sure is not None and heard is not None and heard >= 0.5 and seconds >= SHORTEST
        certain = stated and bool(calibrated.max() >= max(sure.threshold if sure else 1.0, floor))
        other = classes[second] if second >= 0 else None
        return Answer(
            classes, calibrated[0], seconds, other, certain, heard, scored.groupings, two=scored.two
        )

    def _second(self, calibrated: Float[np.ndarray, "1 klass"], two: float | None) -> int:
        """The class of a second meter, or -1: by how probable a model finds two at once, where it learned
        that and validation says from when on to believe it; else by the second score and its threshold."""
        assert self.calibration is not None
        pairs = self.calibration.pairs
        if two is None or pairs is None:
            return int(self.calibration.second_meter(calibrated)[0])
        return int(np.argsort(-calibrated[0], kind="stable")[1]) if two >= pairs.threshold else -1


def may_be_grouped(answer: Answer) -> bool:
    """Whether a grouping can be named: one additive meter is heard by a calibrated model that knows no
    grouping of its own, in 10 s or more."""
    heard = answer.heard is not None and answer.meter in ADDITIVE and answer.second is None
    return heard and not answer.groupings and answer.seconds >= SHORTEST
