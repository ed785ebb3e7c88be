"""What a task is: the outputs, which targets tracks have, the head, the loss, and how outputs become answers.

A task is built from the run's settings and is not changed by training. What `study` finds in the train split
is returned as plain JSON, travels with every checkpoint, and is handed to `loss` again. Where the settings
leave the outputs open, `settled` gives the task that the train split decides, and `restored` gives the same
one from what `study` returned.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from beatmeter.schema import FeatureSpec, Finding, Items, Track
from beatmeter.settings import DataConfig, RunConfig

if TYPE_CHECKING:  # answering needs neither datasets nor reports
    from beatmeter.datasets import Dataset
    from beatmeter.evaluation.report import Assessment, Evaluation

State = Mapping[str, Any]  # what a task found in the train split, plain JSON


@dataclass(frozen=True)
class Output:
    """What a head of this task gives, as data: heads, losses and files are sized from it. `rate` (Hz) is of
    frames alone."""

    kind: Literal["multilabel", "multiclass", "value", "embedding"]
    names: tuple[str, ...]
    resolution: Literal["track", "frame"] = "track"
    rate: float | None = None
    units: tuple[str, ...] = ()


@dataclass(frozen=True)
class Targets:
    """What tracks should give: `values` (track, name), and `mask` (track, name), False where nothing is
    known."""

    values: Float[np.ndarray, "track name"]
    mask: Bool[np.ndarray, "track name"]


class Truth(Protocol):
    """What the tracks of a split should give, asked for batch by batch."""

    def of(self, at: Int[Tensor, " track"], features: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Values and mask for the outputs of the tracks at these positions, which have these features."""
        ...


class TrackTruth(NamedTuple):
    """Targets (track, name) and their mask on a device."""

    values: Tensor
    mask: Tensor

    def of(self, at: Int[Tensor, " track"], features: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        at = at.to(self.values.device)
        return self.values[at], self.mask[at]


@dataclass(frozen=True)
class FrameOutputs:
    """Outputs of frames, track by track: `values` (time, name) and `times` (time,), the centres of the rows
    in seconds."""

    values: tuple[Float[np.ndarray, "time name"], ...]
    times: tuple[Float[np.ndarray, " time"], ...]

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, part: slice) -> FrameOutputs:
        return FrameOutputs(self.values[part], self.times[part])


@dataclass(frozen=True)
class Choice:
    """A validation figure that may pick the best epoch, and which direction is better."""

    name: str
    better: Literal["higher", "lower"]


LOSS = Choice("loss", "lower")  # every task may be chosen by it


class Task(ABC):
    """One thing to learn from features.

    `separable` says that the loss of a batch is the sum over its tracks. Where it is not (pairs, triplets),
    the training loop shows the loss all tracks of an optimiser step at once, however the step is split.
    """

    separable: ClassVar[bool] = True
    selection: ClassVar[tuple[Choice, ...]] = (LOSS,)
    output: Output

    def __init__(self, config: RunConfig) -> None:
        self.config = config

    @property
    def width(self) -> int:
        """How many outputs the head gives: those of `output`, and what a task may have beside them."""
        return len(self.output.names)

    @property
    def reads(self) -> tuple[str, ...]:
        """The poolings that its head reads."""
        return self.config.head.poolings

    @property
    def clock(self) -> str:
        """The sequence at whose rows outputs of frames lie: the first that the head reads."""
        return self.reads[0]

    def open(self, data: DataConfig) -> Dataset:
        """The tracks of a dataset that have a label of this task, and why the others have none."""
        from beatmeter.datasets import open_dataset

        return open_dataset(data.path, data, self.config.task.meters)

    def settled(self, train: Sequence[Track]) -> Task:
        """The task with the outputs that these tracks decide; itself where the settings say them."""
        return self

    def restored(self, state: State) -> Task:
        """The task as it was `settled` when `study` gave this state."""
        return self

    def examples(self, train: Sequence[Track]) -> list[Track]:
        """What an epoch goes through: every track once, or as often as a task compares it with itself."""
        return list(train)

    @abstractmethod
    def usable(self, track: Track) -> str | None:
        """Why nothing can be learned from a track; None when something can."""

    @abstractmethod
    def targets(self, tracks: Sequence[Track]) -> Targets:
        """What the tracks should give. Raises DataError for a label that the task does not know."""

    def truth(self, tracks: Sequence[Track], device: torch.device) -> Truth:
        """The targets of the tracks as the training loop asks for them."""
        found = self.targets(tracks)
        values, mask = torch.from_numpy(found.values), torch.from_numpy(np.ascontiguousarray(found.mask))
        return TrackTruth(values.float().to(device), mask.to(device))

    @abstractmethod
    def study(self, train: Sequence[Track]) -> State:
        """What the loss needs of the train split (class weights, means)."""

    @abstractmethod
    def check_state(self, state: Any) -> None:
        """Raise RunError unless `state`, read from a checkpoint, is what `study` gives."""

    def remarks(self, state: State, train: Sequence[Track]) -> list[Finding]:
        """What is worth saying of the train split before training."""
        return []

    @abstractmethod
    def head(self, spec: FeatureSpec) -> nn.Module:
        """A fresh head: standardised features by pooling, each (track, layer, *axes), to outputs (track,
        name)."""

    @abstractmethod
    def loss(
        self,
        outputs: Float[Tensor, "track *time name"],
        targets: Float[Tensor, "track *time name"],
        mask: Bool[Tensor, "track *time name"],
        state: State,
    ) -> tuple[Tensor, Tensor]:
        """Sum of the losses, and how many there are; both are added up over an optimiser step before they are
        divided."""

    def sampler(
        self, train: Sequence[Track], rng: np.random.Generator, size: int
    ) -> list[Int[np.ndarray, " track"]]:
        """The optimiser steps of an epoch, `size` positions in `train` each: every track once, in a random
        order."""
        order = rng.permutation(len(train))
        return [order[start : start + size] for start in range(0, len(train), size)]

    @abstractmethod
    def decode(
        self,
        outputs: Any,
        tracks: Sequence[Track],
        split: str = "",
        meta: Mapping[str, Any] | None = None,
    ) -> Items:
        """Outputs, (track, name) or `FrameOutputs`, to predictions: the only way from a head to answers, in
        training, evaluation and prediction alike."""

    def answers(self, predictions: Items, validation: Items | None = None) -> Items:
        """What is judged and shown: the predictions themselves, or what a task on frames decodes from its
        curves, with thresholds from those of the `validation` split."""
        return predictions

    @abstractmethod
    def evaluate(self, predictions: Items, validation: Items | None = None) -> Evaluation | Assessment:
        """Metrics with intervals, and findings; thresholds come from `validation`."""

    @abstractmethod
    def figures(self, predictions: Items) -> dict[str, Any]:
        """What each epoch logs about the validation split: plain JSON values."""

    @abstractmethod
    def epoch_line(self, figures: Mapping[str, Any]) -> str:
        """The most important of them in words, for people."""

    @abstractmethod
    def epoch_cells(self, figures: Mapping[str, Any]) -> dict[str, str]:
        """A few of them as columns of the table of epochs: cells of the same width in every epoch, by
        heading."""

    legend: str  # what the headings of `epoch_cells` mean, in lines of 80 columns
