"""Onset envelope: how much the spectrum rises, many times a second, and the peaks of it."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from beatmeter.audio.steps import Cut, Steps

_BANDS = 36  # equally wide in octaves, from 30 Hz
_AROUND = 0.5  # seconds on either side that an onset is compared with
_APART = 0.05  # seconds between onsets at least
_FAINTEST = 0.15  # rise of the log spectrum: what steady noise hardly reaches


class OnsetMeter:
    """Takes mono audio block by block and gives its onset envelope: `rate` values a second (a divisor of
    the sample rate in Hz), value k about the middle of step k. `window` (samples) sets how fine it is in
    time and frequency.

    A value is the mean over bands of the rise of log(1 + 1000 x amplitude) against two steps before.
    """

    def __init__(self, sample_rate: int, rate: int, window: int) -> None:
        self._steps = Steps(sample_rate // rate, window)
        frequencies = np.geomspace(30.0, 0.45 * sample_rate, _BANDS + 1)
        self._edges = np.unique(np.round(frequencies * window / sample_rate).astype(int))
        self._hann = np.hanning(window + 1)[:-1]
        self._last = np.zeros((0, 0))
        self._values: list[np.ndarray] = []

    def push(self, block: Float[np.ndarray, " sample"]) -> None:
        """The next samples, in [-1, 1]."""
        self._take(self._steps.push(block))

    def finish(self) -> Float[np.ndarray, " step"]:
        """The envelope of all that was pushed."""
        self._take(self._steps.finish())
        return np.concatenate([np.zeros(0), *self._values])

    def _take(self, cut: Cut) -> None:
        if not len(cut.windows):
            return
        spectrum = np.abs(np.fft.rfft(cut.windows * self._hann)) ** 2
        bands = np.add.reduceat(spectrum, self._edges, axis=1)[:, :-1]
        logs = np.log1p(1000 * np.sqrt(bands) / self._hann.sum())
        before = self._last if self._last.size else np.repeat(logs[:1], 2, axis=0)
        joined = np.concatenate([before, logs])
        self._values.append(np.maximum(joined[2:] - joined[:-2], 0).mean(axis=1))
        self._last = joined[-2:]


def pick_onsets(envelope: Float[np.ndarray, " step"], rate: int) -> Bool[np.ndarray, " step"]:
    """Where the envelope has peaks: the largest within 50 ms, and above the mean of a second around it by a
    fifth of what the strongest onsets of the track reach."""
    from scipy.ndimage import maximum_filter1d, uniform_filter1d

    strong = np.percentile(envelope, 99) if len(envelope) else 0.0
    mean = uniform_filter1d(envelope, 2 * round(_AROUND * rate) + 1, mode="nearest")
    largest = maximum_filter1d(envelope, 2 * round(_APART * rate) - 1, mode="nearest")
    peaks = (envelope == largest) & (envelope > mean + max(strong / 5, _FAINTEST))
    first: np.ndarray = peaks & ~np.concatenate([[False], peaks[:-1]])
    return first
