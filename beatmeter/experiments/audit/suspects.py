"""Which labels are suspicious: predictions of a light head that has not heard the group, and confident
learning on them.

The head is a logistic regression per class on principal components of one view of the features; view and
strength of regularisation are those with the lowest log loss out of fold. Labels are ranked by cleanlab
(Northcutt, Jiang and Chuang, JAIR 70, 2021; Thyagarajan et al., 2022, for several labels).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float
from threadpoolctl import threadpool_limits

from beatmeter.errors import DataError
from beatmeter.evaluation.calibration.folds import fold_of
from beatmeter.evaluation.metrics import Estimate, group_index, share
from beatmeter.experiments.audit.kernels import Kernel, coordinates
from beatmeter.runtime.progress import Tick, untold
from beatmeter.schema import ClassPredictions

FOLDS = 5
REPEATS = 3  # divisions into folds whose predictions are averaged
STRENGTHS = (3.0, 10.0, 30.0, 100.0)  # inverse regularisation
LEAST_GROUPS = 2  # of a class, or nothing can be learned of it out of fold
TINY = 1e-6


@dataclass(frozen=True)
class Suspects:
    """Predictions out of fold, the quality of every label (item,) in [0, 1] and which are flagged (item,).

    `accuracy` of the head against the labels as they are, `majority` what naming the most frequent class
    gets; `view` and `strength` are what was chosen. `unlearned` are classes with too few groups.
    """

    predictions: ClassPredictions
    quality: Float[np.ndarray, " item"]
    flagged: Bool[np.ndarray, " item"]
    accuracy: Estimate
    majority: float
    view: str
    strength: float
    unlearned: tuple[str, ...]

    @property
    def ranked(self) -> np.ndarray:
        """Positions of the flagged items, the most suspicious first."""
        order = np.argsort(self.quality, kind="stable")
        result: np.ndarray = order[self.flagged[order]]
        return result


def require_cleanlab() -> None:
    """Raise DataError, with the command that helps, when labels cannot be ranked here."""
    try:
        import cleanlab  # noqa: F401
    except ImportError:
        raise DataError(
            "cleanlab is not installed, and labels are ranked by it", "pip install 'beatmeter[audit]'"
        ) from None


def find_suspects(
    items: ClassPredictions, views: Mapping[str, Kernel], seed: int = 0, tick: Tick = untold
) -> Suspects:
    """Rank the labels of `items` (their scores are not looked at). `views` are kernels over the same items.

    Items all of whose classes have fewer than LEAST_GROUPS groups are not judged. `tick(1)` after each fit
    over all folds. Raises DataError when there are fewer than two classes to tell apart.
    """
    require_cleanlab()
    present = items.targets > 0
    number = group_index(items.groups)
    learned = np.array([len(np.unique(number[column])) >= LEAST_GROUPS for column in present.T])
    if learned.sum() < 2:
        raise DataError(
            f"{int(learned.sum())} classes have labels in {LEAST_GROUPS} groups or more",
            "An audit needs two classes with a few songs each.",
        )
    points = {name: coordinates(kernel) for name, kernel in views.items()}
    fold = fold_of(items, FOLDS, seed)
    tried: list[tuple[float, str, float]] = []
    scores = np.zeros(present.shape)
    with threadpool_limits(
        1
    ):  # these fits are small: threads that wait for each other take ten times as long
        for name, x in points.items():
            for strength in STRENGTHS:
                tried.append(
                    (
                        _log_loss(_out_of_fold(x, present, learned, fold, strength), present, learned),
                        name,
                        strength,
                    )
                )
                tick(1)
        _, view, strength = min(tried)
        for repeat in range(REPEATS):
            scores += (
                _out_of_fold(
                    points[view], present, learned, fold_of(items, FOLDS, seed + 1 + repeat), strength
                )
                / REPEATS
            )
            tick(1)
    judged = present[:, learned].any(axis=1)
    quality, flagged = np.ones(len(items)), np.zeros(len(items), bool)
    quality[judged], flagged[judged] = _rank(present[judged][:, learned], scores[judged][:, learned])
    right = (scores.argmax(axis=1) == items.primary).astype(float)
    counts = np.bincount(items.primary)
    return Suspects(
        replace(items, scores=scores),
        quality,
        flagged,
        share(right, items.groups),
        float(counts.max() / len(items)),
        view,
        strength,
        tuple(c for c, known in zip(items.classes, learned, strict=True) if not known),
    )


def fits(views: int) -> int:
    """How often `find_suspects` calls `tick`."""
    return views * len(STRENGTHS) + REPEATS


def _out_of_fold(
    x: np.ndarray, present: np.ndarray, learned: np.ndarray, fold: np.ndarray, strength: float
) -> np.ndarray:
    """(item, class) probabilities of every item by a head fitted on the other folds; 0 for classes that are
    not learned."""
    from sklearn.linear_model import LogisticRegression

    scores = np.zeros(present.shape)
    for k in np.unique(fold):
        inside = fold != k
        for c in np.flatnonzero(learned):
            y = present[inside, c]
            if y.all() or not y.any():
                scores[~inside, c] = (y.sum() + 0.5) / (len(y) + 1)
                continue
            head = LogisticRegression(C=strength, max_iter=1000).fit(x[inside], y)
            scores[~inside, c] = head.predict_proba(x[~inside])[:, 1]
    return scores


def _log_loss(scores: np.ndarray, present: np.ndarray, learned: np.ndarray) -> float:
    p = np.clip(scores[:, learned], TINY, 1 - TINY)
    return float(-np.where(present[:, learned], np.log(p), np.log(1 - p)).mean())


def _rank(present: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Quality (item,) and flags (item,) by cleanlab."""
    from cleanlab.multilabel_classification.filter import find_label_issues
    from cleanlab.multilabel_classification.rank import get_label_quality_scores

    labels = [np.flatnonzero(row).tolist() for row in present]
    p = np.clip(scores, TINY, 1 - TINY)
    quality = get_label_quality_scores(labels, p, method="self_confidence")
    flagged = find_label_issues(labels, p, filter_by="confident_learning", n_jobs=1)
    return np.asarray(quality, dtype=np.float64), np.asarray(flagged, dtype=bool)
