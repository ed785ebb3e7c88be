"""What all tasks on frames share: marks of tracks become targets of rows, outputs of rows become curves."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from beatmeter.datasets import Dataset, open_dataset
from beatmeter.datasets.annotations import Annotation, find_annotation
from beatmeter.errors import RunError
from beatmeter.features.poolings.sequences import row_centres
from beatmeter.runtime.artifacts import require
from beatmeter.schema import KNOWN, Curves, FeatureSpec, MarkList, Track
from beatmeter.schema.records import items_of
from beatmeter.settings import DataConfig, RunConfig
from beatmeter.tasks.base import FrameOutputs, Output, State, Targets, Task, Truth
from beatmeter.tasks.structure.head import FrameHead, Pair
from beatmeter.tasks.structure.losses import FRAME_LOSSES, added, trusted


class FrameTask(Task):
    """Curves at `output.rate` Hz, learned from marks. A subclass says what its outputs are called (`named`),
    which marks each is of (`marks_of`), and how far a peak may be away (`tolerance`, seconds). `rate` (Hz)
    is its own where none is given: tasks that share an encoder have one rate."""

    tolerance: float
    own_rate: ClassVar[float]

    def __init__(self, config: RunConfig, rate: float | None = None) -> None:
        super().__init__(config)
        self.output = Output("multilabel", self.named(), "frame", rate or self.own_rate)
        self._truth: dict[str, MarkList] = {}  # by track id: annotations are read once

    @abstractmethod
    def named(self) -> tuple[str, ...]:
        """The names of its outputs."""

    def open(self, data: DataConfig) -> Dataset:
        return open_dataset(data.path, data, self.config.task.meters, labelled=False)

    @abstractmethod
    def marks_of(self, annotation: Annotation) -> MarkList:
        """The marks of an annotation that this task is about, with where they are known; none where it says
        nothing."""

    @abstractmethod
    def positives(self, truth: MarkList) -> tuple[Float[np.ndarray, " mark"], ...]:
        """The times at which each output should rise, seconds."""

    def known(self, truth: MarkList) -> tuple[Float[np.ndarray, "interval 2"], ...]:
        """Where each output can be judged, seconds: the truth says so under its name."""
        return tuple(truth.known(name) for name in self.output.names)

    def marks(self, track: Track) -> MarkList:
        """What is known of a track of a dataset; nothing of audio that belongs to none."""
        if track.split is None:
            return MarkList()
        if track.id not in self._truth:
            annotation = find_annotation(track)
            self._truth[track.id] = MarkList() if annotation is None else self.marks_of(annotation)
        return self._truth[track.id]

    def usable(self, track: Track) -> str | None:
        return None if any(map(len, self.known(self.marks(track)))) else self.missing

    missing: str  # why a track cannot be used

    def targets(self, tracks: Sequence[Track]) -> Targets:
        """How many marks of each output a track has per row, and whether anything is known of it."""
        marks = [self.marks(track) for track in tracks]
        rate = self.output.rate or 1.0
        rows = np.array([[np.diff(spans).sum() * rate for spans in self.known(m)] for m in marks])
        values = np.array([[len(times) for times in self.positives(m)] for m in marks]) / np.maximum(
            rows, 1.0
        )
        known = rows > 0
        shape = (len(tracks), len(self.output.names))
        return Targets(values.reshape(shape), known.reshape(shape))

    def truth(self, tracks: Sequence[Track], device: torch.device) -> Truth:
        return FrameTruth(self, [self.marks(track) for track in tracks], device)

    def rows(
        self, truth: MarkList, times: Float[np.ndarray, " time"]
    ) -> tuple[Float[np.ndarray, "time name"], Bool[np.ndarray, "time name"]]:
        """Targets and mask of rows with these centres: 1 in the row next to a mark, if there is one within
        its length."""
        values = np.zeros((len(times), len(self.output.names)), np.float32)
        half = 0.5 / (self.output.rate or 1.0) + 1e-6
        for k, at in enumerate(self.positives(truth)):
            if len(times) and len(at):
                nearest = _nearest(times, at)
                values[nearest[np.abs(times[nearest] - at) <= half], k] = 1.0
        mask = np.zeros(values.shape, bool)
        for k, spans in enumerate(self.known(truth)):
            for start, end in spans:
                mask[:, k] |= (times >= start) & (times <= end)
        return values, mask

    def study(self, train: Sequence[Track]) -> State:
        """Weights of positives: rows without a mark for each row with one, at most `task.weight_cap`."""
        found = self.targets(train)
        share = found.values.sum(axis=0) / np.maximum(found.mask.sum(axis=0), 1)
        weight = np.ones(len(share))
        if self.config.task.weighting == "balanced":
            weight = np.clip((1 - share) / np.maximum(share, 1e-9), 1.0, self.config.task.weight_cap)
        return {"weight": weight.tolist(), "share": share.tolist()}

    def check_state(self, state: Any) -> None:
        require(state, {"weight": [float], "share": [float]}, "the state of the task")
        if len(state["weight"]) != len(self.output.names):
            n = len(self.output.names)
            raise RunError(f"the state of the task has {len(state['weight'])} weights for {n} outputs")

    def head(self, spec: FeatureSpec) -> nn.Module:
        config, names, rate = self.config.head, len(self.output.names), self.output.rate or 1.0
        if self.config.task.doubt == "co_teaching":
            return Pair(FrameHead(spec, config, names, rate), FrameHead(spec, config, names, rate))
        return FrameHead(spec, config, names, rate)

    def loss(
        self,
        outputs: Float[Tensor, "track *time name"],
        targets: Float[Tensor, "track *time name"],
        mask: Bool[Tensor, "track *time name"],
        state: State,
    ) -> tuple[Tensor, Tensor]:
        """Sum over rows and outputs that count, see `beatmeter.tasks.structure.losses`. With `task.doubt` the
        rows that are hardest to believe count for nothing: for the model itself (`small_loss`), or, of two
        models that learn side by side, for the other one (`co_teaching`)."""
        targets = targets.to(outputs.dtype)
        said = members(outputs, len(self.output.names))
        pairs = [self.row_losses(one, targets, mask, state) for one in said]
        total, count = outputs.new_zeros(()), outputs.new_zeros(())
        for k, (losses, counts) in enumerate(pairs):
            if self.config.task.doubt != "none":
                doubter = pairs[(k + 1) % len(pairs)][0]
                counts = trusted(doubter, targets, counts, self.config.task.doubted, self.reach)
            one, n = added(losses, counts)
            total, count = total + one / len(pairs), count + n / len(pairs)
        return total, count

    @property
    def reach(self) -> int:
        """How many rows a peak may be away."""
        return round(self.tolerance * (self.output.rate or 1.0))

    def row_losses(
        self,
        outputs: Float[Tensor, "track time name"],
        targets: Float[Tensor, "track time name"],
        mask: Bool[Tensor, "track time name"],
        state: State,
    ) -> tuple[Float[Tensor, "track time name"], Bool[Tensor, "track time name"]]:
        """The loss of every row and output, and which of them count."""
        weight = torch.as_tensor(state["weight"], dtype=outputs.dtype, device=outputs.device)
        t = self.config.task
        return FRAME_LOSSES[t.frame_loss](outputs, targets, mask, weight, self.reach, t.frame_smoothing)

    def probabilities(self, logits: Float[np.ndarray, "time name"]) -> Float[np.ndarray, "time name"]:
        """What outputs mean: a probability each, on its own."""
        found: np.ndarray = 0.5 * (1 + np.tanh(0.5 * logits))
        return found

    def decode(
        self,
        outputs: FrameOutputs,
        tracks: Sequence[Track],
        split: str = "",
        meta: Mapping[str, Any] | None = None,
    ) -> Curves:
        """Probabilities on a regular grid of `output.rate` Hz."""
        rate = self.output.rate or 1.0
        found = [_regular(v, t, rate) for v, t in zip(outputs.values, outputs.times, strict=True)]
        return Curves(
            names=self.output.names,
            rate=rate,
            starts=np.array([start for start, _ in found], float),
            values=tuple(self.probabilities(logits.astype(float)) for _, logits in found),
            truth=tuple(self.marks(track) for track in tracks),
            **items_of(tracks, split, meta={**(meta or {}), "task": self.config.task.name}),
        )


def members(outputs: Float[Tensor, "... output"], names: int) -> list[Float[Tensor, "... name"]]:
    """The outputs of each of the models that learn side by side: of one, in co-teaching of two."""
    return [outputs[..., at : at + names] for at in range(0, outputs.shape[-1], names)]


def _nearest(times: Float[np.ndarray, " time"], at: Float[np.ndarray, " mark"]) -> Int[np.ndarray, " mark"]:
    if len(times) == 1:
        return np.zeros(len(at), int)
    right = np.clip(np.searchsorted(times, at), 1, len(times) - 1)
    found: np.ndarray = np.where(at - times[right - 1] <= times[right] - at, right - 1, right)
    return found


def _regular(
    values: Float[np.ndarray, "time name"], times: Float[np.ndarray, " time"], rate: float
) -> tuple[float, Float[np.ndarray, "row name"]]:
    """Where the rows of a regular grid begin, and the values on it: rows of the last chunk may lie between
    its points."""
    if not len(times):
        return 0.0, values
    grid = times[0] + np.arange(round((times[-1] - times[0]) * rate) + 1) / rate
    if len(grid) == len(times) and np.allclose(grid, times, atol=1e-3):
        return float(times[0]), values
    return float(times[0]), np.stack([np.interp(grid, times, column) for column in values.T], axis=1)


@dataclass
class FrameTruth:
    """Targets of rows, made for every batch from the times of its rows: crops and shifts move those."""

    task: FrameTask
    marks: Sequence[MarkList]
    device: torch.device

    def of(self, at: Int[Tensor, " track"], features: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        centres = row_centres(features, self.task.clock)
        n = len(self.task.output.names)
        longest = max(map(len, centres))
        values = torch.zeros((len(centres), longest, n))
        mask = torch.zeros((len(centres), longest, n), dtype=torch.bool)
        for row, (i, times) in enumerate(zip(at.tolist(), centres, strict=True)):
            found = self.task.rows(self.marks[i], times.astype(float))
            values[row, : len(times)], mask[row, : len(times)] = map(torch.from_numpy, found)
        return values.to(self.device), mask.to(self.device)


def known_spans(kind: str, intervals: Float[np.ndarray, "interval 2"]) -> MarkList:
    """Where the marks of a kind are known, as marks."""
    intervals = np.asarray(intervals, float).reshape(-1, 2)
    return MarkList.spans(KNOWN, intervals[:, 0], intervals[:, 1], [kind] * len(intervals))
