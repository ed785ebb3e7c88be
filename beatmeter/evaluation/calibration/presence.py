"""Whether there is a meter at all: a logistic regression on what the head's last layer reads and on figures
of the lag features, music against meterless sounds.

Fitted beside the calibration of a run, with the threshold where a small share of validation music is refused
by fits that do not know it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from beatmeter.errors import EvaluationError
from beatmeter.evaluation.calibration.logistic import expit, fit_logistic
from beatmeter.evaluation.metrics import group_index
from beatmeter.evaluation.metrics.checks import Array

REFUSED = 0.025  # share of validation music that may be refused
# on weights of standardised evidence: as much as so many items of weight 1 that say nothing
RIDGES = (10.0, 30.0, 100.0, 300.0, 1000.0)
FEWEST = 10  # pieces of music, and sounds


@dataclass(frozen=True)
class Presence:
    """Log odds of a meter are `weights` (value,) times the evidence, plus `intercept`; `about` says where
    they come from.

    Odds of 1 are the threshold: below, no meter is heard. So a probability from here has no more meaning than
    the balance of errors at the threshold: 2.5 % of ordinary validation music is refused.
    """

    weights: tuple[float, ...]
    intercept: float
    about: Mapping[str, Any]

    def __post_init__(self) -> None:
        if not self.weights or not np.isfinite([*self.weights, self.intercept]).all():
            raise EvaluationError(
                "the weights that tell meter from none are not all numbers",
                "Run `beatmeter calibrate` again.",
            )

    def __call__(self, evidence: Array) -> Array:
        """(item, value) evidence to (item,) probabilities that a meter is heard. Raises EvaluationError for
        evidence of another length."""
        if evidence.shape[-1] != len(self.weights):
            raise EvaluationError(
                f"the calibration tells meter from none by {len(self.weights)} values, this model gives "
                f"{evidence.shape[-1]}",
                "Run `beatmeter calibrate` again.",
            )
        result: Array = expit(evidence @ np.array(self.weights) + self.intercept)
        return result

    @classmethod
    def fit(
        cls,
        music: Array,
        groups: Sequence[str],
        sounds: Array,
        kinds: Sequence[str],
        folds: int = 5,
        ordinary: Array | None = None,
    ) -> Presence:
        """From evidence (item, value) of music and of sounds without meter.

        The threshold is set by fits that know other music only, and by the music that is `ordinary` (item,)
        bool: all, unless something else is said. `about` tells of each kind of sound how much of it
        is refused by a fit that knows no sound of that kind; of `RIDGES` the one is taken with which that is
        most, the mean over kinds. Raises EvaluationError for too little of either.
        """
        if min(len(set(groups)), len(sounds)) < FEWEST:
            raise EvaluationError(
                f"{len(set(groups))} pieces of music and {len(sounds)} sounds are too few to tell meter from "
                "none",
                f"It takes {FEWEST} of both: use a validation split with more songs, or leave this out with "
                "--sounds 0.",
            )
        evidence = np.concatenate([music, sounds]).astype(np.float64)
        present = np.arange(len(evidence)) < len(music)
        of_music, of_kind = (
            np.append(group_index(groups) % folds, np.full(len(sounds), -1)),
            np.append(np.full(len(music), -1), group_index(kinds)),
        )
        judged = np.ones(len(music), bool) if ordinary is None else ordinary

        def held_out(ridge: float) -> tuple[Array, float]:
            """Log odds by fits that know other music, or other kinds of sounds, and their threshold."""
            outside = np.empty(len(evidence))
            for part in (of_music, of_kind):
                for k in range(int(part.max()) + 1):
                    weights, intercept = _logistic(evidence[part != k], present[part != k], ridge)
                    outside[part == k] = evidence[part == k] @ weights + intercept
            return outside, float(np.quantile(outside[present][judged], REFUSED))

        def refused(outside: Array, threshold: float) -> dict[str, float]:
            below = outside[~present] < threshold
            return {kind: float(below[np.array(kinds) == kind].mean()) for kind in dict.fromkeys(kinds)}

        found = {ridge: held_out(ridge) for ridge in RIDGES}
        ridge = max(RIDGES, key=lambda r: float(np.mean(list(refused(*found[r]).values()))))
        outside, threshold = found[ridge]
        weights, intercept = _logistic(evidence, present, ridge)

        def told(among: Array) -> dict[str, Any]:
            return {
                "items": int(among.sum()),
                "groups": len({group for group, used in zip(groups, among, strict=True) if used}),
                "refused": float((outside[present][among] < threshold).mean()),
            }

        about = {
            "music": told(judged),
            **({} if judged.all() else {"other music": told(~judged)}),
            "sounds": {"items": len(sounds), "refused": refused(outside, threshold)},
            "ridge": ridge,
        }
        return cls(tuple(weights.tolist()), intercept - threshold, about)

    @classmethod
    def join(cls, parts: Mapping[str, Presence], shares: Mapping[str, float]) -> Presence:
        """For evidence laid end to end in the order of `parts`: the mean of their log odds, weighted by
        `shares`."""
        total = sum(shares[name] for name in parts)
        weights = [w * shares[name] / total for name, part in parts.items() for w in part.weights]
        intercept = sum(part.intercept * shares[name] / total for name, part in parts.items())
        return cls(tuple(weights), intercept, {"members": list(parts)})


def _logistic(evidence: Array, present: Array, ridge: float) -> tuple[Array, float]:
    """Weights and intercept of a logistic regression in which both sides count alike, with a ridge on
    standardised values."""
    mean, scale = evidence.mean(axis=0), evidence.std(axis=0)
    scale = np.where(scale > 1e-9, scale, 1.0)
    design = np.column_stack([(evidence - mean) / scale, np.ones(len(evidence))])
    weight = np.where(present, 0.5 / present.mean(), 0.5 / (1 - present.mean()))
    w = fit_logistic(design, present, np.append(np.full(design.shape[1] - 1, ridge), 1e-6), weight=weight)
    return w[:-1] / scale, float(w[-1] - (w[:-1] * mean / scale).sum())
