"""A track with clicks on its beats, to hear whether they are right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from beatmeter.audio.decode import SAMPLE_RATE, stream
from beatmeter.runtime.atomic import writing
from beatmeter.serving.structure import Structure

LENGTH = 0.04  # seconds of a click
HERTZ = {True: 1760.0, False: 1175.0}  # of downbeats and of other beats


def click(downbeat: bool) -> np.ndarray:
    """A short decaying tone at SAMPLE_RATE, higher for a downbeat."""
    t = np.arange(round(LENGTH * SAMPLE_RATE)) / SAMPLE_RATE
    sound: np.ndarray = (0.5 * np.sin(2 * np.pi * HERTZ[downbeat] * t) * np.exp(-90 * t)).astype(np.float32)
    return sound


def write_clicks(structure: Structure, path: Path) -> None:
    """Write the music at half its level with a click on every beat: mono WAV, read and written block by
    block. Raises AudioError when the track cannot be read, WriteError when the file cannot be written."""
    sounds = {place: click(place) for place in (True, False)}
    starts = np.rint(structure.beats.times * SAMPLE_RATE).astype(int)
    first = 0
    with writing(path), soundfile.SoundFile(path, "w", SAMPLE_RATE, 1, "PCM_16", format="WAV") as file:
        for block in stream(structure.path, SAMPLE_RATE, 30.0):
            mixed = 0.5 * block.astype(np.float32)
            for at, place in zip(starts, structure.beats.places, strict=True):
                sound = sounds[bool(place == 1)]
                a, b = max(at, first), min(at + len(sound), first + len(block))
                if a < b:
                    mixed[a - first : b - first] += sound[a - at : b - at]
            file.write(np.clip(mixed, -1, 1))
            first += len(block)
