"""Answers for audio files and arrays by a trained run, of either regime."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
from beatmeter.calibration import Calibration
from beatmeter.errors import AudioError, BeatmeterError, RunError
from beatmeter.features import TrackEncoder
from beatmeter.fitting import head_tensors
from beatmeter.runs import RunFolder
from beatmeter.schema import FeatureSpec
from beatmeter.service import FeatureService
from beatmeter.tasks import TASKS


@dataclass(frozen=True)
class Answer:
    """What a model says of one piece of audio: a probability per class, and a second meter when it is above its threshold.

    `sure` is False when the answer's own probability is below the abstention threshold that was asked for.
    """

    classes: tuple[str, ...]
    scores: Float[np.ndarray, " klass"]
    seconds: float
    second: str | None = None
    sure: bool = True

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
            "sure": self.sure,
            "second": self.second,
            "scores": {name: float(s) for name, s in zip(self.classes, self.scores, strict=True)},
            "gap": self.gap,
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True)
class Judge:
    """Scores to answers: calibration when the run has one, `priors` over meters, and a share of answers to abstain from."""

    calibration: Calibration | None = None
    priors: Mapping[str, float] | None = None
    abstain: float = 0.0

    def __post_init__(self) -> None:
        if (self.priors or self.abstain) and self.calibration is None:
            raise RunError("priors and abstention need calibrated scores", "Run `beatmeter calibrate RUN` first.")

    def __call__(self, classes: tuple[str, ...], scores: Float[np.ndarray, " klass"], seconds: float) -> Answer:
        if self.calibration is None:
            return Answer(classes, scores, seconds)
        calibrated = self.calibration(scores[None], self.priors)
        second = int(self.calibration.second_meter(calibrated)[0])
        floor = self.calibration.confident_above(coverage=1 - self.abstain) if self.abstain else 0.0
        return Answer(classes, calibrated[0], seconds, classes[second] if second >= 0 else None, bool(calibrated.max() >= floor))


class Predictor:
    """A run's best epoch, ready for new audio. `Predictor.load(Path("runs/NAME"))`."""

    def __init__(self, encoder: TrackEncoder, head: torch.nn.Module, classes: tuple[str, ...], about: str, judge: Judge) -> None:
        self.encoder, self.head, self.classes, self.about, self.judge = encoder.eval(), head.eval(), classes, about, judge

    @classmethod
    def load(cls, run: Path, device: torch.device | None = None, priors: Mapping[str, float] | None = None, abstain: float = 0.0) -> Predictor:
        """Load backbone, adapter, head and calibration. Raises RunError or FingerprintError when they do not fit together.

        `priors` are the chances that a piece has a meter, by class; with `abstain` = 0.2 the least sure fifth (as on
        validation) is marked as not sure.
        """
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
        calibration = Calibration.load(folder.calibration) if folder.calibration.exists() else None
        return cls(TrackEncoder(service.backbone, spec, device), head, task.classes, service.describe(), Judge(calibration, priors, abstain))

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
        return self.judge(self.classes, torch.sigmoid(logits.double()).cpu().numpy(), len(wave) / self.encoder.spec.chunk.sample_rate)
