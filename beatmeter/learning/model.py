"""What is trained, as one: a source of features, the head of a task, and what both have learned."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from beatmeter.errors import RunError
from beatmeter.features.poolings.sequences import row_centres
from beatmeter.learning.restoring import head_tensors, part, require_fit
from beatmeter.learning.sources import Source, in_order
from beatmeter.learning.standardiser import Standardiser
from beatmeter.runtime.artifacts import named
from beatmeter.runtime.distributed import ALONE, Ranks
from beatmeter.schema import Items, Track
from beatmeter.tasks import FrameOutputs, State, Task


@dataclass
class Model:
    """What is trained: the source's encoder and the task's head; what the task found in the train split; by
    which processes."""

    task: Task
    state: State
    source: Source
    head: nn.Module
    ranks: Ranks = ALONE

    @property
    def device(self) -> torch.device:
        return next(self.head.parameters()).device

    def outputs(
        self, tracks: Sequence[Track], size: int, progress: Callable[[int], object] = lambda n: None
    ) -> np.ndarray | FrameOutputs:
        """Outputs (track, name), or of frames, without gradients, in evaluation mode; processes share the
        work."""
        if self.task.output.resolution == "frame":
            return self._frame_outputs(tracks, size, progress)
        found = torch.zeros((len(tracks), self.task.width), device=self.device)
        self.head.eval()
        self.source.encoder.eval()
        with torch.inference_mode():
            for batch in self.source.batches(
                tracks, in_order(len(tracks), size)[self.ranks.index :: self.ranks.count]
            ):
                found[torch.from_numpy(batch.index)] = self.head(self.source.features(batch)).float()
                progress(len(batch.index))
        self.ranks.add([found])
        result: np.ndarray = found.cpu().numpy()
        if not np.isfinite(result).all():
            raise _not_finite(tracks[int((~np.isfinite(result).all(axis=1)).argmax())], self.device)
        return result

    def _frame_outputs(
        self, tracks: Sequence[Track], size: int, progress: Callable[[int], object]
    ) -> FrameOutputs:
        own: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self.head.eval()
        self.source.encoder.eval()
        with torch.inference_mode():
            for batch in self.source.batches(
                tracks, in_order(len(tracks), size)[self.ranks.index :: self.ranks.count]
            ):
                features = self.source.features(batch)
                values = self.head(features).float().cpu().numpy()
                centres = row_centres(features, self.task.clock)
                for i, row, times in zip(batch.index, values, centres, strict=True):
                    own[int(i)] = row[: len(times)], times
                progress(len(batch.index))
        every = {i: pair for process in self.ranks.gather(own) for i, pair in process.items()}
        for i, track in enumerate(tracks):
            if not np.isfinite(every[i][0]).all():
                raise _not_finite(track, self.device)
        return FrameOutputs(*(tuple(every[i][k] for i in range(len(tracks))) for k in range(2)))

    def predict(
        self, tracks: Sequence[Track], split: str, size: int, meta: dict[str, Any] | None = None
    ) -> Items:
        """Predictions of one split."""
        return self.task.decode(self.outputs(tracks, size), tracks, split, meta)

    def tensors(self) -> dict[str, Tensor]:
        """Everything that training changed, and the standardiser."""
        head = {f"head.{name}": value for name, value in self.head.state_dict().items()}
        adapter = {f"adapter.{name}": value for name, value in self.source.adapter_state().items()}
        return head | adapter | self.source.standardiser.tensors()

    def load(self, tensors: Mapping[str, Tensor], where: Path, partly: bool = False) -> None:
        """Put back what `tensors` gave, from the checkpoint `where`; `partly` leaves the adapter as it is
        where they hold none. Raises RunError, naming `where`, for tensors of another model."""
        head, adapter = head_tensors(tensors), part(tensors, "adapter.")
        require_fit(self.head, head, where)
        self.head.load_state_dict(head)
        self.source.standardise(Standardiser.from_tensors(tensors))
        if adapter or not partly:
            with named(where):
                self.source.load_adapter_state(adapter)


def _not_finite(track: Track, device: torch.device) -> RunError:
    return RunError(
        f"the model gives values that are not finite, first for track {track.id} (on {device})",
        "Use --set features.dtype=float32.",
    )
