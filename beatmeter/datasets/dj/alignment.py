"""Does a grid fit the audio? One offset for a whole track, where the onsets are strongest at the beats.

Programs decode MP3 files with different delays, so that a grid made in one is up to 26 ms late or early in
another.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from beatmeter.audio.decode import SAMPLE_RATE, stream
from beatmeter.audio.onsets import OnsetMeter

RATE, WINDOW = 400, 256  # envelope values a second; samples of a window (11 ms)
REACH = 0.1  # seconds that an offset is looked for on either side
LARGEST = 0.06  # seconds: a grid that is further away is not of this file
SMALLEST = (
    0.018  # seconds: an exact grid looks up to this late where onsets are slow (a piano), so it is only noted
)
_CLEAR = 1.15  # strength of the envelope at the beats against elsewhere
_AGREE = 0.02  # seconds within which every third beat must say the same
_FEWEST = 12  # beats


@dataclass(frozen=True)
class Offset:
    """`seconds` to add to a grid; `clear` says whether the onsets of this track can tell."""

    seconds: float
    clear: bool


def envelope_of(path: Path) -> tuple[Float[np.ndarray, " step"], float]:
    """The onset envelope of a file at RATE, and its length in seconds. Raises AudioError."""
    meter = OnsetMeter(SAMPLE_RATE, RATE, WINDOW)
    samples = 0
    for block in stream(path):
        meter.push(block)
        samples += len(block)
    return meter.finish(), samples / SAMPLE_RATE


def estimate_offset(envelope: Float[np.ndarray, " step"], beats: Float[np.ndarray, " beat"]) -> Offset:
    """Where within REACH the envelope is strongest at the beats (s), by a parabola through the best three
    values."""
    beats = beats[(beats > REACH) & (beats < len(envelope) / RATE - REACH)]
    if len(beats) < _FEWEST:
        return Offset(0.0, False)
    lags = np.arange(-round(REACH * RATE), round(REACH * RATE) + 1) / RATE
    middles = (np.arange(len(envelope)) + 0.5) / RATE
    strength = np.interp(beats[:, None] + lags, middles, envelope)
    best = [_peak(strength[third::3].mean(axis=0), lags) for third in range(3)]
    mean = strength.mean(axis=0)
    clear = mean.max() > _CLEAR * mean.mean() and max(best) - min(best) < _AGREE
    return Offset(_peak(mean, lags), bool(clear))


def _peak(curve: np.ndarray, lags: np.ndarray) -> float:
    i = int(curve.argmax())
    if 0 < i < len(curve) - 1:
        left, middle, right = curve[i - 1 : i + 2]
        bend = left - 2 * middle + right
        return float(lags[i] + (0.5 * (left - right) / bend if bend < 0 else 0.0) / RATE)
    return float(lags[i])
