"""What a task is: which targets tracks have, which head reads the features, the loss, and what predictions are worth."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from beatmeter.heads import Head
from beatmeter.schema import FeatureSpec, Finding, Predictions, Track
from beatmeter.settings import RunConfig


class Task(ABC):
    """One thing to learn from features. Built from the run's settings; `fit_to` sees the train split once before training."""

    classes: tuple[str, ...]

    def __init__(self, config: RunConfig) -> None:
        self.config = config

    @abstractmethod
    def targets(self, tracks: Sequence[Track]) -> tuple[Float[np.ndarray, "track klass"], Int[np.ndarray, " track"]]:
        """Label weights (track, class), 0 for absent, and the index of the primary class, -1 when unlabelled."""

    @abstractmethod
    def fit_to(self, train: Sequence[Track]) -> list[Finding]:
        """Take from the train split what the loss needs (class weights); say what is worth a warning."""

    @abstractmethod
    def head(self, spec: FeatureSpec) -> Head:
        """A fresh head for these features: a mapping pooling -> (track, layer, *axes) to logits (track, class)."""

    @abstractmethod
    def loss(self, logits: Float[Tensor, "track klass"], targets: Float[Tensor, "track klass"]) -> Float[Tensor, " track"]:
        """Loss per track."""

    @abstractmethod
    def predictions(self, tracks: Sequence[Track], logits: Float[np.ndarray, "track klass"], split: str, meta: Mapping[str, Any]) -> Predictions:
        """Logits to the second waist."""

    @abstractmethod
    def figures(self, predictions: Predictions) -> dict[str, Any]:
        """What each epoch logs about the validation split: plain JSON values."""

    @abstractmethod
    def epoch_line(self, figures: Mapping[str, Any]) -> str:
        """The most important of them in words, for people."""

    @abstractmethod
    def epoch_cells(self, figures: Mapping[str, Any]) -> dict[str, str]:
        """A few of them as columns of the table of epochs: cells of the same width in every epoch, by heading."""

    legend: str  # what the headings of `epoch_cells` mean, in lines of 80 columns

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """What `fit_to` found, as JSON, so that a saved run needs no train split."""

    @abstractmethod
    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave. Raises RunError for anything else."""
