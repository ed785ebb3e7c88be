"""beatmeter hears musical meter: features from a music transformer, a store for them, light heads, honest
diagnostics.

    import beatmeter

    beatmeter.predict("song.mp3").meter          # the model that ships
    model = beatmeter.load("runs/first")         # or the name of a shipped model
    model.predict(samples, sample_rate=44_100)
    beatmeter.structure("song.mp3").downbeats    # tempo, beats, sections
    beatmeter.pipeline()("song.mp3")             # [{"label": "7", "score": 0.98}, ...]
    beatmeter.MeterFeatures().fit_transform(files)   # a scikit-learn transformer

Importing this loads nothing heavy; torch comes with the first model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from importlib import import_module
from os import PathLike
from typing import TYPE_CHECKING, Any, overload

if TYPE_CHECKING:
    import numpy as np

    from beatmeter.errors import BeatmeterError as BeatmeterError
    from beatmeter.runtime.paths import StrPath
    from beatmeter.serving.answer import Answer as Answer
    from beatmeter.serving.meter_features import MeterFeatures as MeterFeatures
    from beatmeter.serving.pipeline import MeterPipeline
    from beatmeter.serving.predictor import Predictor as Predictor
    from beatmeter.serving.tempo import BeatsMeter

from beatmeter.runtime.cores import wait_passively

__version__ = "0.1.0"
_LATER = {
    "Answer": "beatmeter.serving.answer",
    "BeatmeterError": "beatmeter.errors",
    "MeterFeatures": "beatmeter.serving.meter_features",
    "Predictor": "beatmeter.serving.predictor",
}
__all__ = [
    "Answer",
    "BeatmeterError",
    "MeterFeatures",
    "Predictor",
    "__version__",
    "load",
    "pipeline",
    "predict",
    "structure",
]

wait_passively()  # before anything of ours loads torch


def load(
    model: StrPath | None = None,
    *,
    device: str = "auto",
    priors: Mapping[str, float] | None = None,
    abstain: float = 0.0,
) -> Predictor:
    """A model that answers: a run folder, the folder of an ensemble, or the name of a model that ships; None
    is the best that ships.

    `device` is auto, cpu or cuda; `priors` and `abstain` are those of `Predictor.load`. Raises
    BeatmeterError.
    """
    from beatmeter.runtime.device import choose_device
    from beatmeter.serving.predictor import Predictor

    return Predictor.load(model, choose_device(device), priors, abstain)


@overload
def predict(audio: StrPath, *, model: StrPath | Predictor | None = None) -> Answer: ...  # type: ignore[overload-overlap]
@overload
def predict(audio: np.ndarray, sample_rate: int, *, model: StrPath | Predictor | None = None) -> Answer: ...
@overload
def predict(audio: Iterable[StrPath], *, model: StrPath | Predictor | None = None) -> list[Answer]: ...


def predict(
    audio: Any, sample_rate: int | None = None, *, model: StrPath | Predictor | None = None
) -> Answer | list[Answer]:
    """The answer for one audio file, for several (a list in the same order), or for samples: (sample,) or
    (sample, channel) at `sample_rate` Hz. Where bars are additive the grouping is told if it is sure, as the
    command does.

    `model` is what `load` takes, or what it gave: load once to ask often. Raises BeatmeterError, for several
    files with the first that cannot be used; `Predictor.predict_files` goes on after it.
    """
    from beatmeter.errors import AudioError, ConfigError
    from beatmeter.runtime.paths import as_paths
    from beatmeter.serving.judge import may_be_grouped
    from beatmeter.serving.predictor import Predictor

    samples = hasattr(audio, "__array__")
    if samples and sample_rate is None:
        raise AudioError(
            "audio as an array needs its sample rate",
            "For instance: beatmeter.predict(samples, sample_rate=44_100).",
        )
    if not samples and sample_rate is not None:
        raise ConfigError(
            "a sample rate belongs to an array of samples",
            "Files know their own: leave it out, or give a NumPy array.",
        )
    paths = [] if samples else as_paths(audio)
    predictor = model if isinstance(model, Predictor) else load(model)

    @cache
    def beats() -> BeatsMeter:
        from beatmeter.serving.tempo import BeatsMeter  # much is loaded for it

        return BeatsMeter(predictor.device)

    if sample_rate is not None:
        answer = predictor.predict(audio, sample_rate)
        grouped = may_be_grouped(answer)
        return beats().complete_samples(audio, sample_rate, answer) if grouped else answer
    answers: list[Answer] = []
    for path, found in predictor.predict_files(paths):
        if isinstance(found, Exception):
            raise found
        answers.append(beats().complete(path, found) if may_be_grouped(found) else found)
    return answers[0] if isinstance(audio, str | PathLike) else answers


def pipeline(model: StrPath | Predictor | None = None, *, device: str = "auto") -> MeterPipeline:
    """A model that is called as the pipelines of transformers are: `pipeline()("song.mp3")` is a list of
    dictionaries of label and score, the answer first. `model` is what `load` takes, or what it gave. Raises
    BeatmeterError."""
    from beatmeter.serving.pipeline import MeterPipeline
    from beatmeter.serving.predictor import Predictor

    return MeterPipeline(model if isinstance(model, Predictor) else load(model, device=device))


def structure(
    audio: StrPath | Iterable[StrPath], *, model: StrPath | None = None, device: str = "auto"
) -> Any:
    """The `Structure` of one audio file (tempo, meter, beats, sections, energy), or a list of them for
    several.

    `model` is a run of the task beats, None the one that ships. Raises BeatmeterError, for several files
    with the first that cannot be used."""
    from beatmeter.runtime.device import choose_device
    from beatmeter.runtime.paths import as_paths
    from beatmeter.serving.structure import StructureDetector

    found = []
    for _, answer in StructureDetector.load(model, choose_device(device)).hear_files(as_paths(audio)):
        if isinstance(answer, Exception):
            raise answer
        found.append(answer)
    return found[0] if isinstance(audio, str | PathLike) else found


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(import_module(_LATER[name]), name)
    raise AttributeError(f"module 'beatmeter' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
