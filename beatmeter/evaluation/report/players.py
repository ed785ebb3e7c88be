"""Clips to listen to: where the audio of an item lies, and a short excerpt of it inside the page.

Excerpts are embedded, so that a page can be moved or sent and still plays: mono MP3 at the rate the models
hear, some 60 kB for 10 s. Items whose audio is not found say so.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from beatmeter.errors import BeatmeterError, DataError
from beatmeter.schema import ClassPredictions

SECONDS = 10.0
Locate = Callable[[str], Path]


@dataclass(frozen=True)
class Clip:
    """One item on a page: its id, what is to be said of it, its scores by class with the labels, and where
    its window starts (seconds; None for a whole track). `sound` is a data URI, `silent` the reason why there
    is none."""

    id: str
    text: str
    scores: Mapping[str, float]
    labels: tuple[str, ...]
    answer: str
    start: float | None = None
    sound: str = ""
    silent: str = ""


def locator(
    predictions: ClassPredictions,
    folder: Path | None = None,
    run: Path | None = None,
    report: Callable[[str], object] = lambda text: None,
) -> Locate:
    """How the audio of an id is found: under `folder`, else where the predictions' meta says, else in the
    data set of the run; `report` is told when that is gone.

    The function that is returned raises BeatmeterError when there is no such file.
    """
    told = predictions.meta.get("audio")
    known: Mapping[str, str] = told if isinstance(told, Mapping) else {}
    if folder is not None:
        from beatmeter.datasets.files import AudioFolder

        if not folder.is_dir():
            raise DataError(f"there is no audio folder {folder}")
        audio = AudioFolder(folder)
        return lambda id: audio.find(id, anywhere=True)
    tracks: Mapping[str, Path] = {}
    if run is not None and not known:
        try:
            tracks = _tracks(run)
        except BeatmeterError as error:
            report(f"no clips to listen to: {error}")

    def find(id: str) -> Path:
        path = Path(str(known[id])) if id in known else tracks.get(id)
        if path is None:
            raise DataError(
                f"it is not known where the audio of {id!r} lies", "Name its folder with --audio."
            )
        return path

    return find


def _tracks(run: Path) -> dict[str, Path]:
    """Audio by id, from the data set that the run names, wherever it is called from. Raises BeatmeterError
    when it is gone."""
    from beatmeter.datasets import open_dataset
    from beatmeter.evaluation.runs import RunFolder

    folder = RunFolder.open(run)
    config = folder.resolved()
    folder.require_data(config, "--audio DIR")
    return {
        t.id: t.path for t in open_dataset(Path(config.data.path), config.data, config.task.meters).tracks
    }


def excerpt(path: Path, start: float | None, seconds: float = SECONDS) -> str:
    """A data URI of `seconds` of audio from `start`, or from the middle of the file. Raises AudioError."""
    from beatmeter.audio.decode import SAMPLE_RATE, load
    from beatmeter.audio.encode import encode

    wave = load(path)
    length = round(seconds * SAMPLE_RATE)
    first = round(start * SAMPLE_RATE) if start is not None else max(0, (len(wave) - length) // 2)
    part = wave[first : first + length]
    peak = float(np.abs(part).max(initial=0.0))
    data = encode(part / peak * 0.9 if peak > 1 else part, SAMPLE_RATE, "MP3", "MPEG_LAYER_III")
    return "data:audio/mpeg;base64," + base64.b64encode(data).decode("ascii")


def sounding(clips: Sequence[Clip], locate: Locate | None, seconds: float = SECONDS) -> list[Clip]:
    """The clips with an excerpt of their audio each, or with the reason why there is none; as they are
    without `locate`."""
    return [_sounding(clip, locate, seconds) for clip in clips] if locate is not None else list(clips)


def _sounding(clip: Clip, locate: Locate, seconds: float) -> Clip:
    try:
        return replace(clip, sound=excerpt(locate(clip.id), clip.start, seconds))
    except BeatmeterError as error:
        return replace(clip, silent=error.what)


def clip_of(p: ClassPredictions, i: int, text: str) -> Clip:
    """Item `i` as a clip."""
    row = p.scores[i]
    return Clip(
        p.ids[i],
        text,
        dict(zip(p.classes, map(float, row), strict=True)),
        tuple(c for c, w in zip(p.classes, p.targets[i], strict=True) if w > 0),
        p.classes[int(row.argmax())],
        None if np.isnan(p.times[i, 0]) else float(p.times[i, 0]),
    )


def worst(p: ClassPredictions, most: int = 12) -> list[Clip]:
    """The clips that are most surely wrong: the score of the answer minus that of the label, highest first.
    Answers that are another of the item's labels come last."""
    answer = p.scores.argmax(axis=1)
    wrong = np.flatnonzero((p.primary >= 0) & (answer != p.primary))
    margin = p.scores[wrong, answer[wrong]] - p.scores[wrong, p.primary[wrong]]
    other = p.targets[wrong, answer[wrong]] > 0
    found = []
    for k in np.lexsort((-margin, other))[:most]:
        i = int(wrong[k])
        second = ", which is its second label" if other[k] else ""
        found.append(clip_of(p, i, f"label {p.classes[p.primary[i]]}, answer {p.classes[answer[i]]}{second}"))
    return found
