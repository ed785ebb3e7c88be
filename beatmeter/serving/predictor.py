"""Answers for audio files and arrays by a trained model: whole tracks, and windows that slide over them."""

from __future__ import annotations

import itertools
import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from beatmeter.audio.ahead import LongAudio, decode_or_count
from beatmeter.audio.decode import from_array, stream
from beatmeter.errors import AudioError, BeatmeterError, RunError
from beatmeter.evaluation.calibration import Calibration
from beatmeter.evaluation.runs import RunFolder
from beatmeter.evaluation.timeline import HOP, WINDOW, windows
from beatmeter.features.listening import WindowListener
from beatmeter.runtime.lanes import in_lanes, lanes_for
from beatmeter.runtime.paths import StrPath, as_paths
from beatmeter.serving.answer import Answer
from beatmeter.serving.column_answer import ColumnJudge, judge_of
from beatmeter.serving.judge import Judge
from beatmeter.serving.models import EnsembleFolder, find_model
from beatmeter.serving.scoring import EnsembleScorer, RunScorer, Scorer, WholeTrack, listening_groups

BLOCK = 30.0  # seconds of a file that are read at a time
Seconds = Callable[[float], object]


class Windows:
    """Audio that comes in blocks, mono at `sample_rate`, and answers for windows that slide over it: every
    chunk is encoded once.

    Times are seconds from the first block on. Answers can be had of windows between `begin` and `covered`.
    """

    def __init__(self, predictor: Predictor) -> None:
        self._predictor, self._scorer, self.sample_rate = (
            predictor,
            predictor.scorer,
            predictor.scorer.sample_rate,
        )
        self._listeners = [WindowListener(group, device) for group, device in listening_groups(self._scorer)]

    @property
    def begin(self) -> float:
        """From where on states are held."""
        return max(x.begin for x in self._listeners)

    @property
    def covered(self) -> float:
        """How far the audio is encoded: a chunk behind what was pushed at most, until `finish`."""
        return min(x.covered for x in self._listeners)

    def push(self, block: Float[np.ndarray, " sample"], skip: bool = False) -> None:
        """The next samples. With `skip` the chunks that they complete are left out, and what is held begins
        after them."""
        with torch.inference_mode():
            for listener in self._listeners:
                listener.push(block, skip)

    def finish(self) -> None:
        """There is no more: encode what is left. Raises AudioError when all of it is too short to be
        heard."""
        with torch.inference_mode():
            for listener in self._listeners:
                listener.finish()

    def answers(self, times: Float[np.ndarray, "window 2"]) -> list[Answer]:
        """An answer for every window."""
        if not len(times):
            return []
        with torch.inference_mode():
            features = {
                name: found
                for listener in self._listeners
                for name, found in listener.features(times).items()
            }
            found = {name: member.score_each(features[name]) for name, member in self._scorer.members.items()}
        joined = [
            self._scorer.join({name: scored[i] for name, scored in found.items()}) for i in range(len(times))
        ]
        return [
            self._predictor.judge(self._predictor.classes, s, float(b - a))
            for s, (a, b) in zip(joined, times, strict=True)
        ]

    def forget(self, before: float) -> None:
        """No window that begins earlier will be asked for: let go of its states."""
        for listener in self._listeners:
            listener.forget(before)


class Predictor:
    """A trained model, ready for new audio. `Predictor.load(Path("runs/NAME"))`, or `Predictor.load()` for
    the one that ships."""

    def __init__(self, scorer: Scorer, judge: Judge) -> None:
        self.scorer, self.judge, self.classes, self.about = scorer, judge, scorer.classes, scorer.about

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(iter(self.scorer.members.values())).encoder.device

    @classmethod
    def load(
        cls,
        model: StrPath | None = None,
        device: torch.device | None = None,
        priors: Mapping[str, float] | None = None,
        abstain: float = 0.0,
    ) -> Predictor:
        """A run folder, the folder of an ensemble, or the name of a model that ships (None: the best), with
        its calibration when it has one.

        `priors` are the chances that a piece has a meter, by class; with `abstain` = 0.2 the least sure fifth
        (as on validation) is marked as not sure. Raises RunError or FingerprintError when the parts do not
        fit together.
        """
        device, folder = device or torch.device("cpu"), find_model(model)
        scorer = (
            EnsembleScorer(EnsembleFolder(folder), device)
            if EnsembleFolder(folder).exists()
            else RunScorer(folder, device)
        )
        file = RunFolder(folder).calibration
        calibration = Calibration.load(file) if os.path.lexists(file) else None
        if calibration is not None and calibration.classes != scorer.classes:
            raise RunError(
                f"{file} is of the classes {', '.join(calibration.classes)}, the model knows "
                f"{', '.join(scorer.classes)}",
                f"Make it anew: beatmeter calibrate {folder}",
            )
        tasks = {member.task.config.task.name: member.task for member in scorer.members.values()}
        if len(tasks) > 1 or (len(scorer.members) > 1 and "meter" not in tasks):
            raise RunError(
                f"the members of {folder} learn {', '.join(sorted(tasks))}",
                "An ensemble joins runs of the task meter.",
            )
        (task,) = tasks.values()
        return cls(scorer, judge_of(task, calibration, priors, abstain))

    @property
    def column(self) -> ColumnJudge | None:
        """How a model over a column answers; None for meter."""
        return self.judge if isinstance(self.judge, ColumnJudge) else None

    def require_meter(self, what: str) -> None:
        """Raise RunError unless the model hears meter, which `what` needs."""
        if self.column is not None:
            raise RunError(
                f"{what} needs a model of meter, and this one answers: {', '.join(self.classes[:6])}",
                "Use `beatmeter predict`.",
            )

    @property
    def note(self) -> str | None:
        """What this model cannot say for want of a calibration, in one sentence; None when nothing lacks."""
        if self.judge.calibration is not None and self.judge.calibration.presence is not None:
            return None
        return (
            "no answer of this model is called sure, and it hears a meter in everything: run `beatmeter "
            "calibrate` on it"
        )

    @property
    def statement(self) -> str:
        """What "sure" means by the calibration of this model."""
        calibration = self.judge.calibration
        if self.note or calibration is None or calibration.sure is None:
            return "no answer of this model"
        sure = calibration.sure
        return (
            f"on validation {100 * sure.coverage:.0f} % of answers, {100 * sure.accuracy:.0f} % of them right"
        )

    @property
    def thresholds(self) -> Float[np.ndarray, " klass"] | None:
        """From what score on a second meter of each class counts; None without a calibration."""
        return self.judge.calibration.threshold("production") if self.judge.calibration else None

    def predict(self, wave: Float[np.ndarray, ...], sample_rate: int) -> Answer:
        """The answer for an array: mono (sample,) or (sample, channel), any rate. At least 1 s. Raises
        AudioError."""
        return self._answer(from_array(wave, sample_rate, self.scorer.sample_rate))

    def predict_files(
        self, paths: StrPath | Iterable[StrPath], jobs: int = 0, progress: Seconds = lambda seconds: None
    ) -> Iterator[tuple[Path, Answer | BeatmeterError]]:
        """An answer or the reason why there is none, for each file in order; memory does not grow with the
        length of a file. `progress(seconds)`: so much more audio has been heard."""
        paths, rate = as_paths(paths), self.scorer.sample_rate
        told = threading.Lock()

        def heard(seconds: float) -> None:
            with told:
                progress(seconds)

        def answer(
            item: tuple[Path, np.ndarray | LongAudio | AudioError], over: Callable[[], bool]
        ) -> tuple[Path, Answer | BeatmeterError]:
            path, audio = item
            try:
                if isinstance(audio, AudioError):
                    raise audio
                if isinstance(audio, LongAudio):
                    blocks = itertools.takewhile(lambda _: not over(), stream(path, rate, BLOCK))
                    return path, self.predict_blocks(blocks, audio.samples, heard)
                return path, self.predict_blocks([audio], len(audio), heard)
            except AudioError as error:
                return path, error

        waves = zip(paths, decode_or_count(paths, rate, jobs), strict=True)
        yield from in_lanes(answer, waves, lanes_for(len(paths), self.device))

    def predict_blocks(
        self,
        blocks: Iterable[Float[np.ndarray, " sample"]],
        samples: int,
        progress: Seconds = lambda seconds: None,
    ) -> Answer:
        """The answer for audio that comes in blocks, mono at the model's rate, `samples` in all. Raises
        AudioError when there are more or fewer."""
        track, rate = WholeTrack(self.scorer, samples), self.scorer.sample_rate
        for block in blocks:
            track.push(block)
            progress(len(block) / rate)
        return self.judge(self.classes, track.finish(), samples / rate)

    def windows(self) -> Windows:
        """Answers for windows of audio that is pushed in blocks."""
        return Windows(self)

    def hear(
        self,
        path: StrPath,
        window: float = WINDOW,
        hop: float = HOP,
        progress: Seconds = lambda seconds: None,
    ) -> tuple[Float[np.ndarray, "window 2"], list[Answer]]:
        """Start and end (seconds) of every window of a file, see `timeline.windows`, and the answer for it.

        Chunks lie where they lie in the whole file, and windows are runs of their frames: each chunk is
        encoded once, and memory does not grow with the length of the file. `progress(seconds)`: so much more
        audio has been heard. Raises AudioError.
        """
        rate, samples = self.scorer.sample_rate, 0
        heard, answers = self.windows(), list[Answer]()
        windows(window, window, hop)  # refuses what leaves gaps before anything is read
        for block in stream(path, rate, BLOCK):
            heard.push(block)
            samples += len(block)
            first = len(answers)
            ready = 1 + math.floor((heard.covered - window) / hop + 1e-9) if heard.covered >= window else 0
            starts = hop * np.arange(first, ready)
            answers += heard.answers(np.column_stack([starts, starts + window]))
            heard.forget(
                min(hop * len(answers), heard.covered - window)
            )  # the last window may begin before the next one of the others
            progress(len(block) / rate)
        heard.finish()
        times = windows(samples / rate, window, hop)
        return times, answers + heard.answers(times[len(answers) :])

    def _answer(self, wave: Float[np.ndarray, " sample"]) -> Answer:
        return self.judge(self.classes, self.scorer.hear(wave), len(wave) / self.scorer.sample_rate)
