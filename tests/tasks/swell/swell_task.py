"""A family of its own in one folder: how loud the music is at every moment, as a regression over frames.

Clips swell and fade by a sine whose rate and phase are columns of the manifest. The head reads frames of two
rates side by side. Nothing of this is known to the package: the task joins by one line in the registry.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from torch import Tensor, nn

from beatmeter.datasets import Dataset, open_dataset
from beatmeter.evaluation.report import Assessment, assess
from beatmeter.features.poolings.sequences import MASK, TIMES, row_centres
from beatmeter.runtime.artifacts import require
from beatmeter.schema import FeatureSpec, Items, Track, ValuePredictions, as_values
from beatmeter.settings import DataConfig, RunConfig
from beatmeter.tasks import FrameOutputs, Output, State, Targets, Task
from beatmeter.tasks.heads import LayerMix

RATE = 24_000
HZ = 25.0
NAME = "swell"


def swell(rate: float, phase: float, times: np.ndarray) -> np.ndarray:
    """(time,) the level of a clip at these seconds, 0 to 1."""
    return 0.5 + 0.5 * np.sin(2 * np.pi * (rate * times + phase))


def make_clips(folder: Path, clips: int, seed: int = 0) -> None:
    """Noise that swells and fades, 3 to 5 s long, and the manifest that says how."""
    random, rows = np.random.default_rng(seed), ["id,path,split,rate,phase"]
    for i in range(clips):
        seconds, rate, phase = random.uniform(3, 5), random.uniform(0.3, 0.8), random.uniform()
        times = np.arange(round(seconds * RATE)) / RATE
        wave = (0.02 + 0.2 * swell(rate, phase, times)) * random.standard_normal(len(times))
        soundfile.write(folder / f"{i}.wav", wave, RATE, subtype="PCM_16")
        split = "train" if i < clips // 2 else ("val", "test")[i % 2]
        rows.append(f"clip-{i},{i}.wav,{split},{rate},{phase}")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")


@dataclass(frozen=True)
class SwellTruth:
    """Levels at the rows of every batch, wherever crops and shifts have moved them."""

    tracks: Sequence[Track]
    clock: str
    device: torch.device

    def of(self, at: Tensor, features: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        centres = row_centres(features, self.clock)
        values = torch.zeros((len(centres), max(map(len, centres)), 1))
        mask = torch.zeros(values.shape, dtype=torch.bool)
        for row, (i, times) in enumerate(zip(at.tolist(), centres, strict=True)):
            track = self.tracks[i]
            level = swell(float(track.extra["rate"]), float(track.extra["phase"]), times)
            values[row, : len(times), 0] = torch.from_numpy(level)
            mask[row, : len(times)] = True
        return values.to(self.device), mask.to(self.device)


class SwellHead(nn.Module):
    """Every sequence is brought to the rows of the first, and a small network reads them side by side."""

    def __init__(self, spec: FeatureSpec, poolings: Sequence[str], hidden: int) -> None:
        super().__init__()
        self.poolings = tuple(poolings)
        self.mix = nn.ModuleDict({name: LayerMix(len(spec[name].layers)) for name in self.poolings})
        width = sum(spec[name].shape[0] for name in self.poolings)
        self.output = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, 1))

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        clock = features[self.poolings[0] + TIMES].mean(dim=2).nan_to_num(0.0)
        sides = []
        for name in self.poolings:
            rows = features[name].float()
            mixed = self.mix[name](rows.flatten(0, 1)).unflatten(0, rows.shape[:2])
            ends = features[name + TIMES][..., 1].nan_to_num(torch.inf).contiguous()
            last = features[name + MASK].sum(dim=1, keepdim=True) - 1
            at = torch.minimum(torch.searchsorted(ends, clock.contiguous(), right=True), last)
            sides.append(mixed.gather(1, at[..., None].expand(-1, -1, mixed.shape[2])))
        return self.output(torch.cat(sides, dim=2))


class SwellTask(Task):
    """One level a row, learned by the squared error."""

    legend = "error: mean absolute error"

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config)
        self.output = Output("value", (NAME,), resolution="frame", rate=HZ, units=("",))

    def open(self, data: DataConfig) -> Dataset:
        return open_dataset(data.path, data, self.config.task.meters, labelled=False)

    def usable(self, track: Track) -> str | None:
        return None if {"rate", "phase"} <= set(track.extra) else "nobody says how it swells"

    def targets(self, tracks: Sequence[Track]) -> Targets:
        return Targets(np.full((len(tracks), 1), 0.5), np.ones((len(tracks), 1), dtype=bool))

    def truth(self, tracks: Sequence[Track], device: torch.device) -> SwellTruth:
        return SwellTruth(tracks, self.clock, device)

    def study(self, train: Sequence[Track]) -> State:
        return {"constant": [0.5]}

    def check_state(self, state: Any) -> None:
        require(state, {"constant": [float]}, "the state of the task")

    def head(self, spec: FeatureSpec) -> nn.Module:
        return SwellHead(spec, self.config.head.poolings, self.config.head.hidden)

    def loss(self, outputs: Tensor, targets: Tensor, mask: Tensor, state: State) -> tuple[Tensor, Tensor]:
        return torch.where(mask, (outputs - targets.to(outputs.dtype)).square(), 0.0).sum(), mask.sum()

    def decode(
        self,
        outputs: FrameOutputs,
        tracks: Sequence[Track],
        split: str = "",
        meta: Mapping[str, Any] | None = None,
    ) -> ValuePredictions:
        """An item a row; what is right is known where the manifest says it."""
        at = np.repeat(np.arange(len(tracks)), [len(times) for times in outputs.times])
        times = np.concatenate(outputs.times)
        targets = np.full((len(at), 1), np.nan)
        for i, track in enumerate(tracks):
            if self.usable(track) is None:
                own = float(track.extra["rate"]), float(track.extra["phase"])
                targets[at == i, 0] = swell(*own, times[at == i])
        return ValuePredictions(
            ids=tuple(tracks[i].id for i in at),
            groups=tuple(tracks[i].group for i in at),
            sources=tuple(tracks[i].source for i in at),
            split=split,
            times=np.stack([times - 0.5 / HZ, times + 0.5 / HZ], axis=1),
            meta={**(meta or {}), "task": self.config.task.name},
            names=self.output.names,
            units=self.output.units,
            values=np.concatenate(outputs.values).astype(float),
            targets=targets,
        )

    def evaluate(self, predictions: Items, validation: Items | None = None) -> Assessment:
        return assess(predictions, validation)

    def figures(self, predictions: Items) -> dict[str, Any]:
        p = as_values(predictions)
        return {"error": float(np.abs(p.values - p.targets).mean())}

    def epoch_line(self, figures: Mapping[str, Any]) -> str:
        return f"error {figures['error']:.3f}"

    def epoch_cells(self, figures: Mapping[str, Any]) -> dict[str, str]:
        return {"error": f"{figures['error']:.3f}"}
