"""Beats a minute from bars that were found; and what the beats model that ships hears beside a meter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from beatmeter.audio.ahead import LongAudio, decode_or_count
from beatmeter.audio.decode import from_array, stream
from beatmeter.errors import AudioError
from beatmeter.schema import Track
from beatmeter.serving.answer import Answer
from beatmeter.serving.curves import MIDDLE, CurveModel
from beatmeter.serving.grouping import with_grouping
from beatmeter.serving.judge import may_be_grouped
from beatmeter.serving.models import SHIPPED
from beatmeter.tasks.structure.decoding import Beats, find_bars
from beatmeter.tasks.structure.decoding.patterns import MUSIC

BEATS = SHIPPED / "beats"
BLOCK = 30.0  # seconds of a file that are read at a time
DOUBT = 0.02  # probability that a meter keeps which the meter model has not heard


def tempo_of(beats: Beats) -> float | None:
    """Beats a minute: the median over bars, None where there are fewer than two beats."""
    downbeats = beats.times[beats.places == 1]
    if len(downbeats) > 2:
        per_bar = np.diff(np.flatnonzero(beats.places == 1))
        return float(np.median(60 * per_bar / np.diff(downbeats)))
    return 60 / float(np.median(np.diff(beats.times))) if len(beats.times) > 1 else None


def prior_of(meter: Answer) -> Mapping[str, float]:
    """Probabilities of the kinds of bars: what the meter model says, where it hears a meter, weighed by how
    frequent meters are in music."""
    if meter.meter is None:
        return MUSIC
    scores = np.maximum(meter.scores / max(float(meter.scores.sum()), 1e-9), DOUBT)
    return {
        name: float(s) * np.sqrt(MUSIC.get(name, 0.0)) for name, s in zip(meter.classes, scores, strict=True)
    }


def blocks_of(
    path: Path, audio: np.ndarray | LongAudio | AudioError, rate: int
) -> tuple[Iterator[np.ndarray], int]:
    """A track block by block, and its number of samples; a long one is read again. Raises the AudioError
    that stands for a file."""
    if isinstance(audio, AudioError):
        raise audio
    if isinstance(audio, LongAudio):
        return stream(path, rate, BLOCK), audio.samples
    size = round(BLOCK * rate)
    return (audio[at : at + size] for at in range(0, len(audio), size)), len(audio)


class BeatsMeter:
    """The beats model that ships, for what a file's meter leaves open: its tempo, and how the pulses of its
    bars are grouped. It is loaded when it is needed first, and hears nothing where nothing is asked."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    @cached_property
    def _model(self) -> CurveModel:
        return CurveModel(BEATS, self._device)

    def complete(self, path: Path, answer: Answer, tempo: bool = False) -> Answer:
        """The answer for a file with a grouping where it is sure, and with beats a minute where `tempo` asks
        for them. Raises AudioError."""
        if not (tempo or may_be_grouped(answer)):
            return answer
        (audio,) = decode_or_count([path], self._model.sample_rate, 0)
        blocks, samples = blocks_of(path, audio, self._model.sample_rate)
        return self._complete(path, blocks, samples, answer, tempo)

    def complete_samples(
        self, wave: Float[np.ndarray, ...], sample_rate: int, answer: Answer, tempo: bool = False
    ) -> Answer:
        """The same for an array: mono (sample,) or (sample, channel), any rate. Raises AudioError."""
        if not (tempo or may_be_grouped(answer)):
            return answer
        audio = from_array(wave, sample_rate, self._model.sample_rate)
        return self._complete(Path("samples"), iter([audio]), len(audio), answer, tempo)

    def _complete(
        self, path: Path, blocks: Iterator[np.ndarray], samples: int, answer: Answer, tempo: bool
    ) -> Answer:
        grouped, rate = may_be_grouped(answer), self._model.sample_rate
        if not tempo:
            blocks, samples = middle(blocks, samples, round(MIDDLE * rate))
        listener = self._model.listen(samples, states=grouped)
        for block in blocks:
            listener.push(block)
        curves = listener.finish(Track(path.name, path))
        if grouped:
            answer = with_grouping(answer, curves, listener)
        if tempo:
            found = find_bars(curves.values[0], curves.rate, float(curves.starts[0]), prior_of(answer))
            answer = replace(answer, tempo=tempo_of(found))
        return answer


def middle(blocks: Iterable[np.ndarray], samples: int, longest: int) -> tuple[Iterator[np.ndarray], int]:
    """The middle of a track that comes in blocks, at most so many samples of it, and how many these are."""
    begin = max(0, samples - longest) // 2
    end = min(samples, begin + longest)

    def inside() -> Iterator[np.ndarray]:
        at = 0
        for block in blocks:
            part = block[max(0, begin - at) : max(0, end - at)]
            at += len(block)
            if len(part):
                yield part
            if at >= end:
                return

    return inside(), end - begin
