"""Answers for audio files and arrays by a trained run of either regime, or by several joined."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float

from beatmeter.artifacts import named
from beatmeter.audio.ahead import decode_ahead
from beatmeter.audio.decode import from_array
from beatmeter.backbones.adapters import load_merged
from beatmeter.calibration import Calibration
from beatmeter.errors import AudioError, BeatmeterError, EvaluationError, RunError
from beatmeter.features import TrackEncoder
from beatmeter.packing import EnsembleFolder, find_model
from beatmeter.paths import StrPath, as_paths
from beatmeter.restoring import restore
from beatmeter.runs import RunFolder
from beatmeter.service import FeatureService


@dataclass(frozen=True)
class Scored:
    """What a model makes of audio before it is judged: a probability per class, not calibrated, and `evidence` (value,), a
    short summary of the same features by which music is told from sound without meter."""

    scores: Float[np.ndarray, " klass"]
    evidence: Float[np.ndarray, " value"]


@dataclass(frozen=True)
class Answer:
    """What a model says of one piece of audio: a probability per class, and a second meter when it is above its threshold.

    `heard` is the probability that there is a meter at all. Below 0.5 `meter` is None: no meter heard. `sure` is a statement:
    False without a calibration that says what it means, and False when no meter is heard.
    """

    classes: tuple[str, ...]
    scores: Float[np.ndarray, " klass"]
    seconds: float
    second: str | None = None
    sure: bool = False
    heard: float = 1.0

    @property
    def order(self) -> list[int]:
        """Class indices, most probable first."""
        return [int(i) for i in np.argsort(-self.scores, kind="stable")]

    @property
    def meter(self) -> str | None:
        """The most probable class; None when no meter is heard."""
        return self.classes[self.order[0]] if self.heard >= 0.5 else None

    @property
    def gap(self) -> float:
        """P1 - P2."""
        first, second = self.order[:2]
        return float(self.scores[first] - self.scores[second])

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "meter": self.meter,
            "heard": self.heard,
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
        if not 0 <= self.abstain < 1:
            raise EvaluationError(f"a share of {self.abstain} of the answers cannot be left open", "Give one from 0 to below 1.")
        if self.priors and self.calibration:
            self.calibration.require_priors(self.priors)

    def __call__(self, classes: tuple[str, ...], scored: Scored, seconds: float) -> Answer:
        if self.calibration is None:
            return Answer(classes, scored.scores, seconds)
        calibrated = self.calibration(scored.scores[None], self.priors)
        second = int(self.calibration.second_meter(calibrated)[0])
        floor = self.calibration.confident_above(coverage=1 - self.abstain) if self.abstain else 0.0
        return Answer(classes, calibrated[0], seconds, classes[second] if second >= 0 else None, bool(calibrated.max() >= floor))


class Scorer(Protocol):
    """Anything that gives audio a score per class: one run, or several joined."""

    classes: tuple[str, ...]
    sample_rate: int
    about: str

    def hear(self, wave: Float[np.ndarray, " sample"]) -> Scored:
        """Probability per class of mono audio at `sample_rate`, before calibration, and the evidence for a meter."""
        ...


class RunScorer:
    """The best epoch of one run: backbone, adapter and head."""

    def __init__(self, run: Path, device: torch.device) -> None:
        saved = restore(run)
        config, spec, task = saved.config, saved.spec, saved.task
        service = FeatureService(config.features, device)
        service.spec.only([p.name for p in spec.poolings]).require_same(spec, f"the run {run}")
        self.head = saved.head(device)
        with named(saved.folder.best):
            load_merged(service.backbone, config.adapter, saved.adapter)
        self.encoder = TrackEncoder(service.backbone, spec, device).eval()
        self.classes, self.sample_rate, self.about = task.classes, spec.chunk.sample_rate, service.describe()

    def hear(self, wave: Float[np.ndarray, " sample"]) -> Scored:
        with torch.inference_mode():
            return self.score(self.encoder([wave]))

    def score(self, features: Mapping[str, torch.Tensor]) -> Scored:
        """What the head makes of the features of one track, (1, layer, *axes) by pooling."""
        with torch.inference_mode():
            hidden = self.head.hidden(features)
            logits = self.head.output(hidden)[0]
        return Scored(torch.sigmoid(logits.double()).cpu().numpy(), hidden[0].double().cpu().numpy())


class EnsembleScorer:
    """Runs joined by `beatmeter ensemble`; each is calibrated first if it was when the weights were fitted."""

    def __init__(self, folder: EnsembleFolder, device: torch.device) -> None:
        self.ensemble, runs = folder.ensemble(), folder.runs()
        used = [name for name in self.ensemble.members if self.ensemble.method == "stack" or self.ensemble.weights[name] > 0]
        self.members = {name: RunScorer(runs[name], device) for name in used}
        self.calibrations = {name: Calibration.load(RunFolder(runs[name]).calibration) for name in used} if folder.calibrated else {}
        first = next(iter(self.members.values()))
        self.classes, self.sample_rate = first.classes, first.sample_rate
        self.about = f"an ensemble of {', '.join(used)}"
        if len({(m.classes, m.sample_rate) for m in self.members.values()}) > 1:
            raise RunError(f"the members of {folder.path} differ in their classes or sample rates", "Join runs of the same task.")

    def hear(self, wave: Float[np.ndarray, " sample"]) -> Scored:
        return self.join({name: member.hear(wave) for name, member in self.members.items()})

    def join(self, members: Mapping[str, Scored]) -> Scored:
        """What the members say of the same audio as one; their evidence is laid end to end."""
        found = {name: s.scores[None] for name, s in members.items()}
        found = {name: self.calibrations[name](value) if name in self.calibrations else value for name, value in found.items()}
        silent = np.zeros((1, len(self.classes)))  # weight 0
        joined: np.ndarray = self.ensemble.scores([found.get(name, silent) for name in self.ensemble.members])[0]
        return Scored(joined, np.concatenate([members[name].evidence for name in self.members]))


class Predictor:
    """A trained model, ready for new audio. `Predictor.load(Path("runs/NAME"))`, or `Predictor.load()` for the one that ships."""

    def __init__(self, scorer: Scorer, judge: Judge) -> None:
        self.scorer, self.judge, self.classes, self.about = scorer, judge, scorer.classes, scorer.about

    @classmethod
    def load(
        cls, model: StrPath | None = None, device: torch.device | None = None, priors: Mapping[str, float] | None = None, abstain: float = 0.0
    ) -> Predictor:
        """A run folder, the folder of an ensemble, or the name of a model that ships (None: the best), with its calibration when it
        has one.

        `priors` are the chances that a piece has a meter, by class; with `abstain` = 0.2 the least sure fifth (as on
        validation) is marked as not sure. Raises RunError or FingerprintError when the parts do not fit together.
        """
        device, folder = device or torch.device("cpu"), find_model(model)
        scorer = EnsembleScorer(EnsembleFolder(folder), device) if EnsembleFolder(folder).exists() else RunScorer(folder, device)
        file = RunFolder(folder).calibration
        calibration = Calibration.load(file) if os.path.lexists(file) else None
        if calibration is not None and calibration.classes != scorer.classes:
            raise RunError(
                f"{file} is of the classes {', '.join(calibration.classes)}, the model knows {', '.join(scorer.classes)}",
                f"Make it anew: beatmeter calibrate {folder}",
            )
        return cls(scorer, Judge(calibration, priors, abstain))

    @property
    def thresholds(self) -> Float[np.ndarray, " klass"] | None:
        """From what score on a second meter of each class counts; None without a calibration."""
        return self.judge.calibration.threshold("production") if self.judge.calibration else None

    def predict(self, wave: Float[np.ndarray, ...], sample_rate: int) -> Answer:
        """The answer for an array: mono (sample,) or (sample, channel), any rate. At least 1 s. Raises AudioError."""
        return self._answer(from_array(wave, sample_rate, self.scorer.sample_rate))

    def predict_files(self, paths: StrPath | Iterable[StrPath], jobs: int = 0) -> Iterator[tuple[Path, Answer | BeatmeterError]]:
        """An answer or the reason why there is none, for each file in order."""
        paths = as_paths(paths)
        for path, wave in zip(paths, decode_ahead(paths, self.scorer.sample_rate, jobs=jobs), strict=True):
            try:
                if isinstance(wave, AudioError):
                    raise wave
                yield path, self._answer(wave)
            except AudioError as error:
                yield path, error

    def _answer(self, wave: Float[np.ndarray, " sample"]) -> Answer:
        return self.judge(self.classes, self.scorer.hear(wave), len(wave) / self.scorer.sample_rate)
