"""Fit on validation, kept as JSON beside a run: calibrated probabilities, thresholds of a second meter, when
to abstain."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from beatmeter.errors import EvaluationError, nearest
from beatmeter.evaluation.calibration.folds import out_of_fold
from beatmeter.evaluation.calibration.logistic import expit
from beatmeter.evaluation.calibration.maps import KINDS, ScoreMap, apply_maps, fit_maps, logit
from beatmeter.evaluation.calibration.pairs import Pairs
from beatmeter.evaluation.calibration.presence import Presence
from beatmeter.evaluation.calibration.selective import SelectiveRow, selective_table
from beatmeter.evaluation.diagnostics import EVALUATION, PRODUCTION, fit_noise_floor, plain
from beatmeter.evaluation.metrics import group_index, log_loss_per_class, require_labels
from beatmeter.evaluation.metrics.checks import Array
from beatmeter.runtime.artifacts import named, read_json, require, write_json
from beatmeter.runtime.paths import StrPath, as_path
from beatmeter.schema import ClassPredictions

FORMAT = 1
AGAIN = "Run `beatmeter calibrate` again."
FEWEST = 10  # items with a class, and without, that Platt's line or an isotonic curve needs
SHAPE = {
    "classes": [str],
    "maps": {"*": {"kind": str}},
    "thresholds": {"production": {}, "*": {"*": float}},
    "prevalence": {"*": float},
    "selective": [{"*": float}],
    "log_loss": {"*": {"*": float}},
    "fitted_on": {},
    "?sure": {"*": float},
    "?presence": {"weights": [float], "intercept": float, "about": {}},
    "?pairs": {"threshold": float, "alarms": float, "caught": float, "singles": int, "doubles": int},
}
THRESHOLDS = ("evaluation", "production", "best_f1")
SURE = 0.95  # an answer is called sure where this share of such answers was right on validation
WITNESSES = 30  # answers that such a share takes


@dataclass(frozen=True)
class Calibration:
    """What validation taught about scores: a map per class, `thresholds[name]` (class,), the share of items
    that have each class (`prevalence`), what abstaining brings, and where it was fitted.

    `sure` is the row of `selective` from which answers are called sure: the one of highest coverage with at
    least 95 % right of 30 answers or more; None where there is none. `presence` tells music from sound
    without meter, `pairs` one meter from two; None where that was not fitted.

    `evaluation` and `production` are the 95th and 99th percentile of the noise floor of calibrated scores;
    `best_f1` is where the F1 of the class is highest. `log_loss[kind]` (class,) is the cross-validated log
    loss that decided.
    """

    classes: tuple[str, ...]
    maps: tuple[ScoreMap, ...]
    thresholds: Mapping[str, tuple[float, ...]]
    prevalence: tuple[float, ...]
    selective: tuple[SelectiveRow, ...]
    log_loss: Mapping[str, tuple[float, ...]]
    fitted_on: Mapping[str, Any]
    sure: SelectiveRow | None = None
    presence: Presence | None = None
    pairs: Pairs | None = None

    @classmethod
    def fit(
        cls,
        validation: ClassPredictions,
        kind: str = "auto",
        folds: int = 5,
        seed: int = 0,
        sure_on: Array | None = None,
    ) -> Calibration:
        """Choose the kind of map per class by cross-validated log loss over groups, then fit it on all of
        `validation`.

        The simplest kind within one standard error of the best is taken, so noise does not buy an isotonic
        curve. Thresholds and the abstention table come from the out-of-fold probabilities, `sure` from those
        of the items `sure_on` (item,) bool, by default all. Raises EvaluationError when there are too few
        labelled groups, or for an unknown kind.
        """
        if kind not in ("auto", *KINDS):
            raise EvaluationError(f"there is no calibration {kind!r}", nearest(kind, ("auto", *KINDS)))
        require_labels(validation)
        labelled: Array = np.any(validation.targets > 0, axis=1)
        p = validation.take(labelled)
        present: Array = p.targets > 0
        scores = p.scores.astype(np.float64)
        tried = KINDS if kind == "auto" else (kind,)
        outside = {name: out_of_fold(p, folds, seed, partial(_fitted, name)) for name in tried}
        chosen = [
            _choose({name: _losses(outside[name][:, k], present[:, k]) for name in tried}, p.groups)
            for k in range(len(p.classes))
        ]
        fitted = {name: fit_maps(scores, present, name, FEWEST) for name in tried}
        honest = dataclasses.replace(
            p, scores=np.stack([outside[name][:, k] for k, name in enumerate(chosen)], axis=1)
        )
        floor = fit_noise_floor(honest, replicates=1)
        rows = tuple(selective_table(honest))
        judged = honest if sure_on is None else honest.take(sure_on[labelled])
        return cls(
            classes=p.classes,
            maps=tuple(fitted[name][k] for k, name in enumerate(chosen)),
            thresholds={
                "evaluation": tuple(floor.thresholds(EVALUATION).tolist()),
                "production": tuple(floor.thresholds(PRODUCTION).tolist()),
                "best_f1": tuple(best_f1(honest.scores[:, k], present[:, k]) for k in range(len(p.classes))),
            },
            prevalence=tuple(((present.sum(axis=0) + 1) / (len(p) + 2)).tolist()),
            selective=rows,
            log_loss={name: tuple(log_loss_per_class(s, p.targets).tolist()) for name, s in outside.items()},
            fitted_on={
                "split": p.split,
                "items": len(p),
                "groups": len(set(p.groups)),
                "kind": kind,
                "chosen": dict(zip(p.classes, chosen, strict=True)),
            },
            sure=_sure(
                rows if sure_on is None else selective_table(judged), int((judged.primary >= 0).sum())
            ),
        )

    def __call__(self, scores: Array, priors: Mapping[str, float] | None = None) -> Array:
        """(item, class) scores to calibrated probabilities, under other `priors` when they are given.

        A prior is the chance that a piece has this meter at all, whatever else it has; classes that are not
        named keep their share in validation. Odds are multiplied by the ratio of new to old prior odds
        (Saerens et al., 2002, per class).
        """
        calibrated = apply_maps(self.maps, scores)
        if not priors:
            return calibrated
        self.require_priors(priors)
        old = np.array(self.prevalence)
        new = np.array([priors.get(c, v) for c, v in zip(self.classes, self.prevalence, strict=True)])
        result: Array = expit(logit(calibrated) + logit(new) - logit(old))
        return result

    def require_priors(self, priors: Mapping[str, float]) -> None:
        """Raises EvaluationError unless `priors` are chances of classes that there are."""
        unknown = [c for c in priors if c not in self.classes]
        if unknown:
            raise EvaluationError(
                f"there is no class {unknown[0]!r} to have a prior", nearest(unknown[0], self.classes)
            )
        wrong = [c for c, v in priors.items() if not 0 < v < 1]
        if wrong:
            raise EvaluationError(
                f"the prior of {wrong[0]} is {priors[wrong[0]]}, it must be between 0 and 1",
                "It is the chance that a piece has this meter.",
            )

    def require_classes(self, classes: Sequence[str]) -> None:
        """Raise EvaluationError unless these are the classes of the calibration, in any order."""
        if set(classes) != set(self.classes):
            raise EvaluationError(
                f"the calibration knows the classes {', '.join(self.classes)}, the predictions "
                f"{', '.join(classes)}",
                "Calibrate this model on its own validation split.",
            )

    def apply(
        self, predictions: ClassPredictions, priors: Mapping[str, float] | None = None
    ) -> ClassPredictions:
        """Predictions with calibrated scores; classes must be those of the calibration, in any order."""
        self.require_classes(predictions.classes)
        at = [self.classes.index(c) for c in predictions.classes]
        scores = self(predictions.scores[:, np.argsort(at)], priors)[:, at]
        return dataclasses.replace(
            predictions, scores=scores, meta={**predictions.meta, "calibrated": dict(self.fitted_on)}
        )

    def threshold(self, name: str) -> Array:
        """(class,) one of THRESHOLDS."""
        if name not in self.thresholds:
            raise EvaluationError(f"there is no threshold {name!r}", nearest(name, self.thresholds))
        return np.array(self.thresholds[name])

    def second_meter(self, calibrated: Array, threshold: str = "production") -> Array:
        """(item,) index of the second class where its calibrated score is above its threshold, else -1:
        polyrhythm."""
        order = np.argsort(-calibrated, axis=1, kind="stable")[:, :2]
        second = np.take_along_axis(calibrated, order, axis=1)[:, 1]
        result: Array = np.where(second > self.threshold(threshold)[order[:, 1]], order[:, 1], -1)
        return result

    def confident_above(self, coverage: float | None = None, accuracy: float | None = None) -> float:
        """The score of the answer above which to answer: so that a share `coverage` of items is answered, or
        so that the answered ones are right with at least `accuracy`, as it was on validation."""
        if (coverage is None) == (accuracy is None):
            raise EvaluationError("abstaining takes either a coverage or an accuracy")
        wanted = coverage if coverage is not None else accuracy
        if wanted is None or not 0 < wanted <= 1:
            raise EvaluationError(f"a share of {wanted} is not between 0 and 1")
        rows = self.selective  # from full coverage downwards
        if coverage is not None:
            return min(rows, key=lambda r: abs(r.coverage - coverage)).threshold
        reached = [r for r in rows if r.accuracy >= (accuracy or 0.0)]
        if not reached:
            best = max(rows, key=lambda r: r.accuracy)
            raise EvaluationError(
                f"no threshold reached an accuracy of {accuracy:g} on validation",
                f"The best was {best.accuracy:.3f}, answering {best.coverage:.0%} of the items.",
            )
        return reached[0].threshold

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `from_json` is the inverse."""

        def named(values: Iterable[Any]) -> dict[str, Any]:
            return dict(zip(self.classes, values, strict=True))

        return {
            "format": FORMAT,
            "classes": list(self.classes),
            "maps": named([{"kind": m.kind, **plain(m.parameters)} for m in self.maps]),
            "thresholds": {name: named(values) for name, values in self.thresholds.items()},
            "prevalence": named(self.prevalence),
            "selective": plain(self.selective),
            "log_loss": {name: named(values) for name, values in self.log_loss.items()},
            "fitted_on": plain(self.fitted_on),
            **({"sure": plain(self.sure)} if self.sure else {}),
            **({"presence": plain(self.presence)} if self.presence else {}),
            **({"pairs": plain(self.pairs)} if self.pairs else {}),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Calibration:
        """Raises EvaluationError for what is not a calibration of this format."""
        if value.get("format") != FORMAT:
            raise EvaluationError(
                f"this is not a calibration of format {FORMAT}, but {value.get('format')!r}",
                "Run `beatmeter calibrate` again.",
            )
        require(value, SHAPE, "the calibration", EvaluationError, AGAIN)
        try:
            classes = tuple(value["classes"])

            def in_order(named: Mapping[str, Any]) -> tuple[Any, ...]:
                return tuple(named[c] for c in classes)

            maps = [dict(m) for m in in_order(value["maps"])]
            return cls(
                classes=classes,
                maps=tuple(ScoreMap(m.pop("kind"), m) for m in maps),
                thresholds={name: in_order(named) for name, named in value["thresholds"].items()},
                prevalence=in_order(value["prevalence"]),
                selective=tuple(SelectiveRow(**row) for row in value["selective"]),
                log_loss={name: in_order(named) for name, named in value["log_loss"].items()},
                fitted_on=value["fitted_on"],
                sure=SelectiveRow(**value["sure"]) if "sure" in value else None,
                presence=Presence(**{**value["presence"], "weights": tuple(value["presence"]["weights"])})
                if "presence" in value
                else None,
                pairs=Pairs(**value["pairs"]) if "pairs" in value else None,
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise EvaluationError(
                f"the calibration lacks or misnames {error}", "Run `beatmeter calibrate` again."
            ) from None

    def save(self, path: StrPath) -> None:
        """Write `path` whole."""
        write_json(as_path(path), self.to_json())

    @classmethod
    def load(cls, path: StrPath) -> Calibration:
        """Read what `save` wrote."""
        path = as_path(path)
        if not os.path.lexists(path):
            raise EvaluationError(f"there is no calibration {path}", "Make it with `beatmeter calibrate`.")
        value = read_json(path, EvaluationError, AGAIN)
        with named(path, EvaluationError):
            return cls.from_json(value)


def best_f1(scores: Array, present: Array) -> float:
    """The threshold of the highest F1, half-way between two scores; of equal ones the one nearest 0.5.

    0.5 for a class that does not occur, or that never scores above 0.
    """
    order = np.argsort(-scores, kind="stable")
    s = scores[order]
    ends = np.flatnonzero((np.diff(s, append=-1.0) < 0) & (s > 0))  # last item of every run of equal scores
    if not present.any() or not len(ends):
        return 0.5
    f1 = 2 * present[order].cumsum()[ends] / (ends + 1 + present.sum())
    below = np.append(s, 0.0)[ends + 1]
    candidates = ((s[ends] + below) / 2)[f1 >= f1.max() - 1e-12]
    return float(candidates[np.abs(candidates - 0.5).argmin()])


def _fitted(kind: str, scores: Array, present: Array) -> Callable[[Array], Array]:
    return partial(apply_maps, fit_maps(scores, present, kind, FEWEST))


def _losses(scores: Array, present: Array) -> Array:
    """(item,) log loss in nats."""
    z = logit(scores)
    result: Array = np.logaddexp(0, np.where(present, -z, z))
    return result


def _sure(rows: Sequence[SelectiveRow], items: int) -> SelectiveRow | None:
    """The first row, from all of so many items down to the surest, of which enough are right."""
    return next((r for r in rows if r.accuracy >= SURE and r.coverage * items >= WITNESSES), None)


def _choose(losses: Mapping[str, Array], groups: Sequence[str]) -> str:
    """The first kind, simplest first, whose loss is not more than one standard error above the best; the
    error is that of the difference, over groups."""
    best = min(losses, key=lambda name: float(losses[name].mean()))
    member = group_index(groups)
    for name in (k for k in KINDS if k in losses):
        difference = losses[name] - losses[best]
        sums = np.bincount(member, weights=difference - difference.mean())
        error = np.sqrt(np.square(sums).sum()) / len(difference)
        if difference.mean() <= error:
            return name
    return best
