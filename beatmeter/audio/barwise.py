"""What a bar sounds like: mel bands, pitches and level of frames, and their means over parts of bars.

Nothing here is normalised per chunk: a quiet bar stays quiet beside a loud one. Waves come in blocks of any
length, so that long files need little memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Float, Float32
from scipy import fft

from beatmeter.audio.decode import SAMPLE_RATE
from beatmeter.errors import AudioError

MEL_HZ, PITCH_HZ = 20, 10  # frames a second
MELS = 40
LOWEST, HIGHEST = 36, 96  # MIDI numbers of the pitches, C2 to B6
STRETCH = 1024  # parts of bars whose frames are summed at a time
_MEL_WINDOW, _PITCH_WINDOW = 2048, 8192
_FLOOR = 1e-5  # of the rms of a frame; full scale is 1


@dataclass(frozen=True)
class FrameFeatures:
    """Frames of one track; frame k is centred at k / rate seconds.

    mel: (time, 40) log10 of mel-band amplitudes at MEL_HZ. pitch: (time, 60) log10 of semitone amplitudes
    at PITCH_HZ, C2 first.
    seconds: length of the audio.
    """

    mel: Float32[np.ndarray, "time mel"]
    pitch: Float32[np.ndarray, "time pitch"]
    seconds: float


def frame_features(blocks: Iterable[Float32[np.ndarray, " sample"]]) -> FrameFeatures:
    """Frames of a wave of 24 kHz that comes in blocks. Raises AudioError for a wave without samples or with
    values that are no numbers."""
    mel = _Frames(_MEL_WINDOW, SAMPLE_RATE // MEL_HZ, _mel_bank())
    pitch = _Frames(_PITCH_WINDOW, SAMPLE_RATE // PITCH_HZ, _pitch_bank())
    samples = 0
    for block in blocks:
        if not np.isfinite(block).all():
            raise AudioError("the audio holds values that are no numbers", kind="damaged")
        samples += len(block)
        mel.add(block)
        pitch.add(block)
    if not samples:
        raise AudioError("there is no audio", kind="empty")
    return FrameFeatures(mel.finish(), pitch.finish(), samples / SAMPLE_RATE)


class _Frames:
    """Log amplitudes in the bands of a bank, of centred frames of a wave that comes in blocks."""

    def __init__(self, window: int, hop: int, bank: Float32[np.ndarray, "bin band"]) -> None:
        self.window, self.hop, self.bank = window, hop, bank
        self.taper = np.hanning(window + 1)[:-1].astype(np.float32) * np.float32(2 / window)
        self.rest = np.zeros(window // 2, dtype=np.float32)
        self.rows: list[Float32[np.ndarray, "time band"]] = []

    def add(self, block: Float32[np.ndarray, " sample"]) -> None:
        wave = np.concatenate([self.rest, block])
        count = max(0, (len(wave) - self.window) // self.hop + 1)
        for start in range(0, count, 256):
            stop = min(count, start + 256)
            frames = np.lib.stride_tricks.sliding_window_view(wave, self.window)[
                start * self.hop : (stop - 1) * self.hop + 1 : self.hop
            ]
            amplitude = np.abs(fft.rfft(frames * self.taper, axis=1)).astype(np.float32)
            self.rows.append(np.log10(np.maximum(amplitude @ self.bank, _FLOOR)))
        self.rest = wave[count * self.hop :]

    def finish(self) -> Float32[np.ndarray, "time band"]:
        self.add(np.zeros(self.window // 2, dtype=np.float32))
        return np.concatenate(self.rows) if self.rows else np.zeros((0, self.bank.shape[1]), dtype=np.float32)


@cache
def _mel_bank() -> Float32[np.ndarray, "bin mel"]:
    """Triangles evenly spaced in mel (2595 log10(1 + f / 700)) from 30 Hz to 11 kHz; each sums to 1."""
    hertz = np.fft.rfftfreq(_MEL_WINDOW, 1 / SAMPLE_RATE)
    low, high = (2595 * np.log10(1 + f / 700) for f in (30.0, 11_000.0))
    edges = 700 * (10 ** (np.linspace(low, high, MELS + 2) / 2595) - 1)
    rise = (hertz[:, None] - edges[None, :-2]) / np.diff(edges)[None, :-1]
    fall = (edges[None, 2:] - hertz[:, None]) / np.diff(edges)[None, 1:]
    bank = np.maximum(0.0, np.minimum(rise, fall))
    bank[:, bank.sum(axis=0) == 0] = 1e-9
    result: Float32[np.ndarray, "bin band"] = (bank / bank.sum(axis=0)).astype(np.float32)
    return result


@cache
def _pitch_bank() -> Float32[np.ndarray, "bin pitch"]:
    """A Gaussian of half a semitone around every pitch, one bin wide at least; each sums to 1."""
    hertz = np.fft.rfftfreq(_PITCH_WINDOW, 1 / SAMPLE_RATE)
    centres = 440.0 * 2 ** ((np.arange(LOWEST, HIGHEST) - 69) / 12)
    width = np.maximum(centres * (2 ** (0.35 / 12) - 1), 0.7 * hertz[1])
    bank = np.exp(-0.5 * ((hertz[:, None] - centres[None, :]) / width[None, :]) ** 2)
    result: Float32[np.ndarray, "bin band"] = (bank / bank.sum(axis=0)).astype(np.float32)
    return result


def bar_means(
    frames: Float[np.ndarray, "time band"], rate: float, edges: Float[np.ndarray, " edge"], parts: int
) -> Float[np.ndarray, "bar part band"]:
    """Means of frames over `parts` equal parts of every bar. edges: (bar + 1,) seconds at which bars begin
    and the last one ends.

    Frames stand for 1 / rate seconds around them and are shared between parts in proportion; beyond the
    frames the nearest counts.
    """
    if not len(frames):
        raise AudioError("the audio is too short for a frame", kind="short")
    grid = np.concatenate(
        [np.linspace(a, b, parts, endpoint=False) for a, b in itertools.pairwise(edges)] + [edges[-1:]]
    )
    means = [
        _means_between(frames, rate, grid[first : first + STRETCH + 1])
        for first in range(0, len(grid) - 1, STRETCH)
    ]
    result: Float[np.ndarray, "bar part band"] = np.concatenate(means).reshape(-1, parts, frames.shape[1])
    return result


def _means_between(
    frames: Float[np.ndarray, "time band"], rate: float, grid: Float[np.ndarray, " edge"]
) -> Float[np.ndarray, "part band"]:
    """Means of frames between one time and the next."""
    at = np.clip(grid * rate + 0.5, 0, len(frames))
    whole = np.minimum(at.astype(int), len(frames) - 1)
    begin, end = whole[0], whole[-1] + 1
    sums = np.zeros((end - begin + 1, frames.shape[1]))
    np.cumsum(frames[begin:end], axis=0, dtype=np.float64, out=sums[1:])
    total = sums[whole - begin] + (at - whole)[:, None] * frames[whole]
    length = np.diff(at)
    means = np.diff(total, axis=0) / np.maximum(length, 1e-9)[:, None]
    nearest = frames[np.clip(np.round((grid[:-1] + grid[1:]) / 2 * rate).astype(int), 0, len(frames) - 1)]
    found: np.ndarray = np.where((length > 1e-3)[:, None], means, nearest)
    return found
