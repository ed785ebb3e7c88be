"""Answers in the shape of the audio classification of transformers: called with audio, gives dictionaries of
label and score."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from os import PathLike
from typing import Any, TypedDict

import numpy as np

from beatmeter.audio.piped import spooled
from beatmeter.errors import AudioError, ConfigError
from beatmeter.serving.answer import Answer
from beatmeter.serving.predictor import Predictor

NOTHING = "no meter"
_HINT = (
    "Give a path, bytes, (samples, rate), a dictionary with 'array' and 'sampling_rate', or a list of such."
)


class Labelled(TypedDict):
    """One class, and the probability that the audio has it."""

    label: str
    score: float


class MeterPipeline:
    """A model that is called: `pipe("song.mp3")`, `pipe((samples, 44_100))`, `pipe([...])`.

    One piece of audio gives a list of dictionaries, the answer first and the other classes after it by their
    probability; a list or generator of pieces gives a list of such lists. Where the calibration tells, the
    label "no meter" is among them, first when no meter is heard. Probabilities are of each class by itself
    and need not add up to 1, as two meters may sound at once.
    """

    task = "audio-classification"

    def __init__(self, predictor: Predictor) -> None:
        """Raises RunError for a model that hears something else than meter."""
        predictor.require_meter("a pipeline")
        self.predictor = predictor

    @property
    def sampling_rate(self) -> int:
        """Hz, at which the model hears; audio of any other rate is resampled."""
        return self.predictor.scorer.sample_rate

    def __call__(self, inputs: Any, *, top_k: int | None = None) -> list[Labelled] | list[list[Labelled]]:
        """Labels and scores, at most `top_k` of them. Raises AudioError for audio that cannot be used, of
        several pieces for the first."""
        if top_k is not None and top_k < 1:
            raise ConfigError(f"top_k = {top_k} must be at least 1")
        if not _is_one(inputs):
            if isinstance(inputs, np.ndarray):
                raise AudioError("audio as an array needs its sample rate", _HINT)
            if not isinstance(inputs, Iterable):
                raise AudioError(f"a {type(inputs).__name__} is no audio", _HINT)
            return [labelled(self._answer(one))[:top_k] for one in inputs]
        return labelled(self._answer(inputs))[:top_k]

    def _answer(self, one: Any) -> Answer:
        """The answer for one piece of audio in any of its shapes."""
        if isinstance(one, Mapping):
            one = _of_mapping(one)
        if isinstance(one, tuple) and len(one) == 2:
            return self.predictor.predict(np.asarray(one[0]), one[1])
        if isinstance(one, bytes | bytearray):
            with spooled(io.BytesIO(one), "bytes of audio") as path:
                return self._of_file(path)
        if isinstance(one, str | PathLike):
            return self._of_file(one)
        raise AudioError(f"a {type(one).__name__} is no audio", _HINT)

    def _of_file(self, path: str | PathLike[str]) -> Answer:
        ((_, answer),) = self.predictor.predict_files(path)
        if isinstance(answer, Exception):
            raise answer
        return answer


def _is_one(inputs: Any) -> bool:
    """Whether this is one piece of audio, not several."""
    samples = isinstance(inputs, tuple) and len(inputs) == 2 and isinstance(inputs[1], int | np.integer)
    return samples or isinstance(inputs, str | PathLike | bytes | bytearray | Mapping)


def _of_mapping(value: Mapping[str, Any]) -> Any:
    """What a dictionary holds: samples with their rate, as in a data set of Hugging Face, or a path."""
    samples = next((value[name] for name in ("array", "raw") if value.get(name) is not None), None)
    if samples is not None:
        if value.get("sampling_rate") is None:
            raise AudioError("a dictionary with samples lacks 'sampling_rate'", _HINT)
        return samples, int(value["sampling_rate"])
    for name in ("bytes", "path"):
        if value.get(name) is not None:
            return value[name]
    raise AudioError(f"a dictionary of {', '.join(map(repr, value)) or 'nothing'} holds no audio", _HINT)


def labelled(answer: Answer) -> list[Labelled]:
    """An answer as labels with scores, the answer first."""
    found: list[Labelled] = [
        {"label": answer.classes[i], "score": float(answer.scores[i])} for i in answer.order
    ]
    if answer.heard is None:
        return found
    nothing: Labelled = {"label": NOTHING, "score": 1 - answer.heard}
    return [nothing, *found] if answer.meter is None else [*found, nothing]
