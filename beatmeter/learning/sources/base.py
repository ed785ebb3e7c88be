"""What a source of features is: the questions that training, evaluation and diagnostics ask."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from torch import Tensor, nn

from beatmeter.errors import RunError
from beatmeter.features.service import Report
from beatmeter.learning.standardiser import IDENTITY, Standardiser
from beatmeter.runtime.progress import SILENT, Reporter
from beatmeter.schema import FeatureSpec, Track
from beatmeter.settings import TrainingConfig

T = TypeVar("T")


@dataclass(frozen=True)
class Batch:
    """Some tracks: their positions in the sequence that was asked for, and what `Source.features` takes."""

    index: np.ndarray
    inputs: Any


class Source(ABC):
    """Where the features of tracks come from, standardised once a `Standardiser` is given."""

    spec: FeatureSpec
    encoder: nn.Module
    standardiser: Standardiser = IDENTITY

    @abstractmethod
    def prepare(
        self, tracks: Sequence[Track], report: Report = print, progress: Reporter = SILENT
    ) -> dict[str, str]:
        """Make sure that every track can be served; the reason for each that cannot, by track id."""

    @abstractmethod
    def batches(
        self, tracks: Sequence[Track], parts: Iterable[np.ndarray], seed: tuple[int, ...] | None = None
    ) -> Iterator[Batch]:
        """One batch for each of `parts`, positions in `tracks`: untouched, or augmented by `seed`. What
        happens to a track depends on the seed and its position alone, whatever the parts are."""

    @abstractmethod
    def parameter_groups(self) -> list[dict[str, Any]]:
        """Trainable parameters before the head, as optimiser groups without learning rates."""

    @abstractmethod
    def step_size(self, training: TrainingConfig) -> int:
        """Tracks per step of the device; a step of the optimiser takes batch x accumulation tracks with every
        source."""

    def features(self, batch: Batch) -> Mapping[str, Tensor]:
        """Standardised features of a batch by pooling, each (track, layer, *axes)."""
        return self.standardiser(self.encoder(batch.inputs))

    def standardise(self, standardiser: Standardiser) -> None:
        """Serve features standardised from now on. Raises RunError when they are standardised in another way
        already."""
        if self.standardiser.means and not self.standardiser.same(standardiser):
            raise RunError(
                "these features are standardised by another train split already", "Open them once more."
            )
        self.standardiser = standardiser

    def adapter_state(self) -> dict[str, Tensor]:
        """What training changed before the head."""
        return {}

    def load_adapter_state(self, state: Mapping[str, Tensor]) -> None:
        """Put back what `adapter_state` gave."""
        if state:
            raise RunError(
                f"the checkpoint holds {len(state)} adapter tensors, these features are frozen",
                "Load it with the settings of its run.",
            )

    def provenance(self) -> dict[str, Any]:
        """What a run should record of this source, as plain JSON."""
        return {}


def in_order(n: int, size: int) -> list[np.ndarray]:
    """The positions 0 ... n - 1, `size` at a time."""
    return [np.arange(start, min(start + size, n)) for start in range(0, n, size)]


def one_ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items; while one is used, the next is made in a thread."""
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, items, None)
        while (item := waiting.result()) is not None:
            waiting = pool.submit(next, items, None)
            yield item
