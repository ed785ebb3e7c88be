"""Baselines for any model of meter: the most frequent class, and mean tempograms under a linear model."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from beatmeter.audio.decode import load
from beatmeter.errors import AudioError, DataError
from beatmeter.runtime.parallel import Crash, ordered
from beatmeter.runtime.progress import Tick, untold
from beatmeter.schema import ClassPredictions, Track, label_table

RATE = 22_050  # Hz


class Baseline(ABC):
    """A classifier without features of its own in the store. `fit` sees the train split alone."""

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)

    @abstractmethod
    def fit(self, train: Sequence[Track], jobs: int = 1, tick: Tick = untold) -> None:
        """Learn from labelled tracks; of a track with two labels, the heavier counts."""

    @abstractmethod
    def scores(
        self, tracks: Sequence[Track], jobs: int = 1, tick: Tick = untold
    ) -> Float[np.ndarray, "track klass"]:
        """A probability per class, adding up to 1."""

    def predictions(
        self, tracks: Sequence[Track], split: str, jobs: int = 1, tick: Tick = untold
    ) -> ClassPredictions:
        """Predictions of labelled tracks."""
        return ClassPredictions.of_tracks(tracks, self.classes, self.scores(tracks, jobs, tick), split)


class Majority(Baseline):
    """Every class as often as in training, so the most frequent one is the answer."""

    def fit(self, train: Sequence[Track], jobs: int = 1, tick: Tick = untold) -> None:
        self.shares = np.bincount(label_table(train, self.classes)[1], minlength=len(self.classes)) / len(
            train
        )

    def scores(
        self, tracks: Sequence[Track], jobs: int = 1, tick: Tick = untold
    ) -> Float[np.ndarray, "track klass"]:
        return np.tile(self.shares, (len(tracks), 1))


class Tempogram(Baseline):
    """Mean and standard deviation over time of the autocorrelation tempogram (Grosche, Mueller & Kurth 2010,
    by librosa) under multinomial logistic regression; the strength of its ridge is chosen by folds of groups
    inside training."""

    def fit(self, train: Sequence[Track], jobs: int = 1, tick: Tick = untold) -> None:
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import GridSearchCV, GroupKFold
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        groups = [t.group for t in train]
        if len(set(groups)) < 3:
            raise DataError(
                "the tempogram baseline chooses by 3 folds of groups; the train split has "
                f"{len(set(groups))} groups",
                "Use more tracks.",
            )
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        self.model = GridSearchCV(
            model,
            {"logisticregression__C": [1e-4, 1e-3, 1e-2, 1e-1]},
            cv=GroupKFold(3),
            scoring="balanced_accuracy",
        )
        self.model.fit(_tempograms(train, jobs, tick), label_table(train, self.classes)[1], groups=groups)

    def scores(
        self, tracks: Sequence[Track], jobs: int = 1, tick: Tick = untold
    ) -> Float[np.ndarray, "track klass"]:
        found = np.zeros((len(tracks), len(self.classes)))
        found[:, self.model.classes_] = self.model.predict_proba(_tempograms(tracks, jobs, tick))
        return found


BASELINES: dict[str, type[Baseline]] = {"majority": Majority, "tempogram": Tempogram}


def _tempograms(tracks: Sequence[Track], jobs: int, tick: Tick) -> Float[np.ndarray, "track feature"]:
    rows = []
    for track, row in zip(tracks, ordered(_tempogram, [t.path for t in tracks], jobs), strict=True):
        if isinstance(row, Crash | str):
            raise DataError(
                f"no tempogram of {track.id}: {'the decoder crashed' if isinstance(row, Crash) else row}",
                "See `beatmeter data check`.",
            )
        rows.append(row)
        tick(1)
    return np.stack(rows)


def _tempogram(path: Path) -> np.ndarray | str:
    """(2 x lag,) of one file, or why there is none."""
    from librosa.feature import tempogram as tempogram_of
    from librosa.onset import onset_strength

    try:
        wave = load(path, RATE)
    except AudioError as error:
        return str(error)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        envelope = onset_strength(y=wave, sr=RATE)
        tempogram = tempogram_of(onset_envelope=envelope, sr=RATE)
    return np.concatenate([tempogram.mean(axis=1), tempogram.std(axis=1)]).astype(np.float32)
