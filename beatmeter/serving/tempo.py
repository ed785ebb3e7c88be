"""Beats a minute: from bars that were found, and of audio files beside their meter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch

from beatmeter.audio.ahead import LongAudio, decode_or_count
from beatmeter.audio.decode import stream
from beatmeter.errors import AudioError
from beatmeter.schema import Track
from beatmeter.serving.answer import Answer
from beatmeter.serving.curves import CurveModel
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


class TempoMeter:
    """The beats model that ships, for the tempo of files whose meter is known."""

    def __init__(self, device: torch.device) -> None:
        self._model = CurveModel(BEATS, device)

    def hear(self, path: Path, meter: Answer) -> float | None:
        """Beats a minute of a file, None where no beats are heard. Raises AudioError."""
        rate = self._model.sample_rate
        (audio,) = decode_or_count([path], rate, 0)
        blocks, samples = blocks_of(path, audio, rate)
        listener = self._model.listen(samples)
        for block in blocks:
            listener.push(block)
        curves = listener.finish(Track(path.name, path))
        found = find_bars(curves.values[0], curves.rate, float(curves.starts[0]), prior_of(meter))
        return tempo_of(found)
