"""Answers for audio files and arrays by a trained run, of either regime."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soxr
import torch
from jaxtyping import Float

from beatmeter import checkpoints
from beatmeter.audio.ahead import decode_ahead
from beatmeter.backbones.adapters import load_merged
from beatmeter.errors import AudioError, BeatmeterError
from beatmeter.features import TrackEncoder
from beatmeter.fitting import head_tensors
from beatmeter.runs import RunFolder
from beatmeter.schema import FeatureSpec
from beatmeter.service import FeatureService
from beatmeter.tasks import TASKS


@dataclass(frozen=True)
class Answer:
    """What a model says of one piece of audio: a probability per class, the two most probable ones and their gap."""

    classes: tuple[str, ...]
    scores: Float[np.ndarray, " klass"]
    seconds: float

    @property
    def order(self) -> list[int]:
        """Class indices, most probable first."""
        return [int(i) for i in np.argsort(-self.scores, kind="stable")]

    @property
    def meter(self) -> str:
        return self.classes[self.order[0]]

    @property
    def gap(self) -> float:
        """P1 - P2."""
        first, second = self.order[:2]
        return float(self.scores[first] - self.scores[second])

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "meter": self.meter,
            "scores": {name: float(s) for name, s in zip(self.classes, self.scores, strict=True)},
            "gap": self.gap,
            "seconds": round(self.seconds, 3),
        }


class Predictor:
    """A run's best epoch, ready for new audio. `Predictor.load(Path("runs/NAME"))`."""

    def __init__(self, encoder: TrackEncoder, head: torch.nn.Module, classes: tuple[str, ...], about: str) -> None:
        self.encoder, self.head, self.classes, self.about = encoder.eval(), head.eval(), classes, about

    @classmethod
    def load(cls, run: Path, device: torch.device | None = None) -> Predictor:
        """Load backbone, adapter and head. Raises RunError or FingerprintError when they do not fit together."""
        device = device or torch.device("cpu")
        folder = RunFolder.open(run)
        config = folder.config()
        tensors, about = checkpoints.read(folder.best)
        service = FeatureService(config.features, device)
        spec = FeatureSpec.from_json(about["spec"])
        service.spec.only([p.name for p in spec.poolings]).require_same(spec, f"the run {run}")
        load_merged(service.backbone, config.adapter, {k.removeprefix("adapter."): v for k, v in tensors.items() if k.startswith("adapter.")})
        task = TASKS[config.task.name](config)
        head = task.head(spec).to(device)
        head.load_state_dict(head_tensors(tensors))
        return cls(TrackEncoder(service.backbone, spec, device), head, task.classes, service.describe())

    def predict(self, wave: Float[np.ndarray, ...], sample_rate: int) -> Answer:
        """The answer for an array: mono (sample,) or (sample, channel), any rate. At least 1 s."""
        wave = np.asarray(wave, dtype=np.float32)
        if wave.ndim == 2:
            wave = wave.mean(axis=1)
        if wave.ndim != 1 or not np.isfinite(wave).all():
            raise AudioError(f"audio of shape {wave.shape} must be (sample,) or (sample, channel), all finite")
        rate = self.encoder.spec.chunk.sample_rate
        if sample_rate != rate:
            wave = soxr.resample(wave, sample_rate, rate)
        return self._answer(wave)

    def predict_files(self, paths: Sequence[Path], jobs: int = 0) -> Iterator[tuple[Path, Answer | BeatmeterError]]:
        """An answer or the reason why there is none, for each file in order."""
        rate = self.encoder.spec.chunk.sample_rate
        for path, wave in zip(paths, decode_ahead(paths, rate, jobs=jobs), strict=True):
            try:
                if isinstance(wave, AudioError):
                    raise wave
                yield path, self._answer(wave)
            except AudioError as error:
                yield path, error

    def _answer(self, wave: Float[np.ndarray, " sample"]) -> Answer:
        with torch.inference_mode():
            logits = self.head(self.encoder([wave]))[0]
        return Answer(self.classes, torch.sigmoid(logits.double()).cpu().numpy(), len(wave) / self.encoder.spec.chunk.sample_rate)
