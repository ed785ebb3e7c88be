"""Energy as a regression over stored frames: what the signal says of bass, middle, treble and loudness, as
a head hears it from features.

`beatmeter.audio.energy` measures the same without learning, and is what `beatmeter structure` shows. This
task is for asking how much of it features hold, and for features of audio that is not there any more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from beatmeter.audio.energy import NAMES, measure_energy
from beatmeter.datasets import Dataset, open_dataset
from beatmeter.errors import AudioError, RunError
from beatmeter.evaluation.metrics.values import mean_absolute_error, r2
from beatmeter.evaluation.report import Assessment, assess
from beatmeter.features.poolings.sequences import row_centres
from beatmeter.runtime.artifacts import require
from beatmeter.schema import FeatureSpec, Items, Track, ValuePredictions, as_values
from beatmeter.settings import DataConfig, RunConfig
from beatmeter.tasks.base import LOSS, Choice, FrameOutputs, Output, State, Targets, Task
from beatmeter.tasks.structure.head import FrameHead

RATE = 5.0  # Hz
MIDDLE = 5.5  # of the scale of 1 to 10


@dataclass(frozen=True)
class EnergyTruth:
    """Levels at the rows of every batch, wherever crops and shifts have moved them."""

    task: EnergyTask
    tracks: Sequence[Track]
    device: torch.device

    def of(self, at: Int[Tensor, " track"], features: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        centres = row_centres(features, self.task.clock)
        values = torch.zeros((len(centres), max(map(len, centres)), len(NAMES)))
        mask = torch.zeros(values.shape, dtype=torch.bool)
        for row, (i, times) in enumerate(zip(at.tolist(), centres, strict=True)):
            levels = self.task.levels(self.tracks[i], times)
            values[row, : len(times)] = torch.from_numpy(levels)
            mask[row, : len(times)] = True
        return values.to(self.device), mask.to(self.device)


class EnergyTask(Task):
    """Bass, mid, high and overall on a scale of 1 to 10 within the track, five times a second."""

    legend = "error: mean absolute error of the scale of 1 to 10; R2: share of the variance explained"
    selection: ClassVar[tuple[Choice, ...]] = (Choice("error", "lower"), Choice("r2", "higher"), LOSS)

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config)
        self.output = Output("value", NAMES, "frame", RATE, ("of 10",) * len(NAMES))
        self._curves: dict[str, tuple[np.ndarray, np.ndarray] | str] = {}  # by track id: measured once

    def open(self, data: DataConfig) -> Dataset:
        return open_dataset(data.path, data, self.config.task.meters, labelled=False)

    def _measured(self, track: Track) -> tuple[np.ndarray, np.ndarray] | str:
        """Times (frame,) and levels (frame, 4) of a track, or why there are none."""
        if track.id not in self._curves:
            try:
                energy = measure_energy(track.path)
                levels = np.stack([energy.scale(name) for name in NAMES], axis=1)
                self._curves[track.id] = energy.times, levels.astype(np.float32)
            except AudioError as error:
                self._curves[track.id] = f"its energy cannot be measured: {error}"
        return self._curves[track.id]

    def levels(self, track: Track, times: Float[np.ndarray, " time"]) -> Float[np.ndarray, "time 4"]:
        """What the signal says at these seconds; nan where the audio cannot be read."""
        found = self._measured(track)
        if isinstance(found, str):
            return np.full((len(times), len(NAMES)), np.nan)
        at, levels = found
        return np.stack([np.interp(times, at, column) for column in levels.T], axis=1)

    def usable(self, track: Track) -> str | None:
        found = self._measured(track)
        return found if isinstance(found, str) else None

    def targets(self, tracks: Sequence[Track]) -> Targets:
        """Means over each track."""
        found = [self._measured(track) for track in tracks]
        values = np.array(
            [np.full(len(NAMES), np.nan) if isinstance(f, str) else f[1].mean(axis=0) for f in found]
        ).reshape(len(tracks), len(NAMES))
        return Targets(np.nan_to_num(values), ~np.isnan(values))

    def truth(self, tracks: Sequence[Track], device: torch.device) -> EnergyTruth:
        return EnergyTruth(self, tracks, device)

    def study(self, train: Sequence[Track]) -> State:
        """Means and deviations of the train split, over all frames."""
        found = [f[1] for f in map(self._measured, train) if not isinstance(f, str)]
        every = np.concatenate([np.zeros((0, len(NAMES))), *found])
        if not len(every):
            return {"constant": [5.5] * len(NAMES), "deviation": [1.0] * len(NAMES)}
        return {
            "constant": every.mean(axis=0).tolist(),
            "deviation": np.maximum(every.std(axis=0), 0.1).tolist(),
        }

    def check_state(self, state: Any) -> None:
        require(state, {"constant": [float], "deviation": [float]}, "the state of the task")
        if not len(state["constant"]) == len(state["deviation"]) == len(NAMES):
            raise RunError(f"the state of the task is not one of {len(NAMES)} levels")

    def head(self, spec: FeatureSpec) -> nn.Module:
        return FrameHead(spec, self.config.head, len(NAMES), RATE)

    def loss(
        self,
        outputs: Float[Tensor, "track time name"],
        targets: Float[Tensor, "track time name"],
        mask: Bool[Tensor, "track time name"],
        state: State,
    ) -> tuple[Tensor, Tensor]:
        """Huber loss, or the squared error, in deviations of the train split."""
        middle, spread = outputs.new_tensor(state["constant"]), outputs.new_tensor(state["deviation"])
        each = nn.functional.huber_loss if self.config.task.error == "huber" else nn.functional.mse_loss
        said, right = outputs + MIDDLE, targets.to(outputs.dtype)  # a head that says 0 is in the middle
        losses = each((said - middle) / spread, (right - middle) / spread, reduction="none")
        return torch.where(mask, losses, 0.0).sum(), mask.sum()

    def decode(
        self,
        outputs: FrameOutputs,
        tracks: Sequence[Track],
        split: str = "",
        meta: Mapping[str, Any] | None = None,
    ) -> ValuePredictions:
        """An item a row; what is right is known of the tracks of a dataset."""
        of = [track for track, times in zip(tracks, outputs.times, strict=True) for _ in times]
        times = np.concatenate([np.zeros(0), *outputs.times])
        right = [
            np.full((len(times), len(NAMES)), np.nan) if track.split is None else self.levels(track, times)
            for track, times in zip(tracks, outputs.times, strict=True)
        ]
        return ValuePredictions(
            ids=tuple(track.id for track in of),
            groups=tuple(track.group for track in of),
            sources=tuple(track.source for track in of),
            split=split,
            times=np.stack([times - 0.5 / RATE, times + 0.5 / RATE], axis=1),
            meta={**(meta or {}), "task": self.config.task.name},
            names=self.output.names,
            units=self.output.units,
            values=np.clip(np.concatenate(outputs.values).astype(float) + MIDDLE, 1.0, 10.0),
            targets=np.concatenate(right),
        )

    def evaluate(self, predictions: Items, validation: Items | None = None) -> Assessment:
        return assess(predictions, validation)

    def figures(self, predictions: Items) -> dict[str, Any]:
        p = as_values(predictions)
        explained = r2(p.values, p.targets)
        return {
            "error": float(np.nanmean(mean_absolute_error(p.values, p.targets))),
            "r2": float(np.nanmean(explained)) if not np.isnan(explained).all() else 0.0,
        }

    def epoch_line(self, figures: Mapping[str, Any]) -> str:
        return f"error {figures['error']:.2f} of 10, R2 {figures['r2']:.3f}"

    def epoch_cells(self, figures: Mapping[str, Any]) -> dict[str, str]:
        return {"error": f"{figures['error']:.3f}", "R2": f"{figures['r2']:+.3f}"}
