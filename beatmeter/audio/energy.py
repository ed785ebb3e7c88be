"""How loud music is over time: BS.1770 loudness, level in bass, middle and treble, spectral flux and
onsets, five times a second.

Signal processing, nothing learned. Audio is pushed block by block; what is kept of it is a few numbers for
each tenth of a second, so a long file needs no more memory than a short one.

Loudness follows ITU-R BS.1770-5 for one channel: K-weighting, mean squares of 400 ms (momentary) and 3 s
(short-term), and an integrated value of the 400 ms blocks above the gates at -70 LUFS and 10 LU below their
mean. A mono sine of 997 Hz at -20 dBFS peak has -23.0 LUFS.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
from jaxtyping import Float
from scipy.signal import sosfilt

from beatmeter.audio.decode import SAMPLE_RATE, stream
from beatmeter.audio.onsets import OnsetMeter, pick_onsets
from beatmeter.audio.steps import Cut, Steps
from beatmeter.errors import AudioError

RATE = 5.0  # frames a second: frame k is about the audio from k / 5 to (k + 1) / 5 s
BASS, TREBLE = 150.0, 4000.0  # Hz: bass below the one, high above the other, mid between
GATE, RELATIVE_GATE = -70.0, -10.0  # LUFS, LU: BS.1770's gates
FLOOR = -120.0  # dB: silence, below any recording
SMALLEST_RANGE = 6.0  # dB that the scale of 1 to 10 spans at least: an even track is even
Name = Literal["bass", "mid", "high", "overall"]
NAMES: tuple[Name, ...] = ("bass", "mid", "high", "overall")

_STEPS = 10  # steps a second: 100 ms, the hop of BS.1770's gating blocks
_FLUX = 100  # flux frames a second


def k_weighting(sample_rate: int) -> Float[np.ndarray, "section 6"]:
    """BS.1770's shelf and high-pass as second-order sections at a sample rate (Hz).

    The standard gives coefficients for 48 kHz; these are the analogue filters behind them (values of
    libebur128), which the bilinear transform turns into the standard's at 48 kHz.
    """
    k, q = np.tan(np.pi * 1681.974450955533 / sample_rate), 0.7071752369554196
    high = 10 ** (3.999843853973347 / 20)
    middle = high**0.4996667741545416
    scale = 1 + k / q + k * k
    shelf = [high + middle * k / q + k * k, 2 * (k * k - high), high - middle * k / q + k * k]
    poles = [scale, 2 * (k * k - 1), 1 - k / q + k * k]
    k, q = np.tan(np.pi * 38.13547087602444 / sample_rate), 0.5003270373238773
    scale_2 = 1 + k / q + k * k
    second = [1.0, -2.0, 1.0, 1.0, 2 * (k * k - 1) / scale_2, (1 - k / q + k * k) / scale_2]
    return np.array([[*(b / scale for b in shelf), *(a / scale for a in poles)], second])


def decibels(power: Float[np.ndarray, " frame"]) -> Float[np.ndarray, " frame"]:
    """10 log10 of a power, at least FLOOR."""
    level: np.ndarray = 10 * np.log10(np.maximum(power, 10 ** (FLOOR / 10)))
    return level


def loudness(power: Float[np.ndarray, " frame"]) -> Float[np.ndarray, " frame"]:
    """LUFS of K-weighted mean squares (BS.1770-5, equation 2)."""
    return np.maximum(decibels(power) - 0.691, FLOOR)


@dataclass(frozen=True)
class Energy:
    """Curves at RATE, one value a frame: `momentary` and `short_term` loudness (LUFS), `bass`, `mid` and
    `high` (dB, mean square of a full-scale square wave is 0), `flux` (rise of the log spectrum, no unit)
    and `onsets` (a second, over 2 s around a frame). `integrated` is the gated loudness of the whole
    (LUFS), -inf when all of it is below the gate; `power` (frame,) is the K-weighted mean square of each
    frame alone.
    """

    momentary: Float[np.ndarray, " frame"]
    short_term: Float[np.ndarray, " frame"]
    integrated: float
    bass: Float[np.ndarray, " frame"]
    mid: Float[np.ndarray, " frame"]
    high: Float[np.ndarray, " frame"]
    flux: Float[np.ndarray, " frame"]
    onsets: Float[np.ndarray, " frame"]
    power: Float[np.ndarray, " frame"]

    def __len__(self) -> int:
        return len(self.momentary)

    @property
    def times(self) -> Float[np.ndarray, " frame"]:
        """The middle of every frame, seconds."""
        middles: np.ndarray = (np.arange(len(self)) + 0.5) / RATE
        return middles

    def scale(self, name: Name) -> Float[np.ndarray, " frame"]:
        """A curve on a scale of 1 to 10 within the track, over 3 s around a frame: 10 is the 95th
        percentile, 1 the 5th, or SMALLEST_RANGE below the 95th where the track is more even than that."""
        return self._scaled(name, decibels(_mean_around(self._power(name), 7)))

    def of_spans(
        self, starts: Float[np.ndarray, " span"], ends: Float[np.ndarray, " span"]
    ) -> Float[np.ndarray, "span 4"]:
        """Energy of sections in bass, mid, high and overall on the scale of 1 to 10: their mean power, by the
        anchors of `scale`; nan for a section in which no frame has its middle."""
        levels = np.full((len(starts), len(NAMES)), np.nan)
        for row, (start, end) in enumerate(zip(starts, ends, strict=True)):
            inside = (self.times >= start) & (self.times < end)
            for column, name in enumerate(NAMES if inside.any() else ()):
                mean = self._power(name)[inside].mean(keepdims=True)
                levels[row, column] = self._scaled(name, decibels(mean))[0]
        return levels

    def _power(self, name: Name) -> np.ndarray:
        if name == "overall":
            return self.power
        power: np.ndarray = 10 ** (getattr(self, name) / 10)
        return power

    def _scaled(self, name: Name, level: np.ndarray) -> np.ndarray:
        smooth = decibels(_mean_around(self._power(name), 7))
        heard = smooth[smooth > GATE]
        if not len(heard):
            return np.ones(len(level))
        low, high = np.percentile(heard, [5, 95])
        scaled: np.ndarray = 10 - 9 * (high - level) / max(high - low, SMALLEST_RANGE)
        return cast(np.ndarray, np.clip(scaled, 1, 10))


class EnergyMeter:
    """Takes mono audio block by block, whatever their length, and gives its Energy."""

    def __init__(self, sample_rate: int = SAMPLE_RATE) -> None:
        if sample_rate % _FLUX or sample_rate < 2 * TREBLE:
            raise AudioError(
                f"energy cannot be measured at {sample_rate} Hz",
                f"Resample to {SAMPLE_RATE} Hz, or to another multiple of {_FLUX} above {2 * TREBLE:.0f}.",
            )
        self.sample_rate = sample_rate
        self._sections = k_weighting(sample_rate)
        self._state = np.zeros((len(self._sections), 2))
        self._squares = Steps(sample_rate // _STEPS, sample_rate // _STEPS)
        self._spectra = Steps(sample_rate // _STEPS, 2 * round(sample_rate * 2048 / 24_000))
        self._onsets = OnsetMeter(sample_rate, _FLUX, 2 * round(sample_rate * 512 / 24_000))
        self._power: list[np.ndarray] = []
        self._levels: list[np.ndarray] = []

    def push(self, block: Float[np.ndarray, " sample"]) -> None:
        """The next samples, in [-1, 1]. Raises AudioError for samples that are not finite."""
        if not np.isfinite(block).all():
            raise AudioError("the audio holds samples that are not finite", kind="damaged")
        for start in range(0, len(block), 10 * self.sample_rate):
            self._push(np.asarray(block[start : start + 10 * self.sample_rate], float))

    def _push(self, block: np.ndarray) -> None:
        weighted, self._state = sosfilt(self._sections, block, zi=self._state)
        self._take(self._squares.push(weighted), self._spectra.push(block))
        self._onsets.push(block)

    def _take(self, squares: Cut, spectra: Cut) -> None:
        if len(squares.windows):
            self._power.append(np.mean(squares.windows**2, axis=1))
        if len(spectra.windows):
            self._levels.append(_levels(spectra, self.sample_rate))

    def finish(self) -> Energy:
        """The energy of all that was pushed. Raises AudioError (kind short) for less than a tenth of a
        second."""
        self._take(self._squares.finish(), self._spectra.finish())
        if not self._power:
            raise AudioError("less than a tenth of a second of audio has no energy to measure", kind="short")
        power, levels = np.concatenate(self._power), np.concatenate(self._levels)
        steps = _STEPS // round(RATE)
        frames = -(-len(power) // steps)
        # frame k are the steps 2 k and 2 k + 1: 400 ms and 3 s around it begin one and 14 steps before
        momentary = _windows(power, steps, frames, 1, 3)
        short_term = _windows(power, steps, frames, 14, 16)
        alone = [_windows(column, steps, frames, 0, 2) for column in (power, *levels.T)]
        bass, mid, high = (decibels(column) for column in alone[1:])
        flux = self._onsets.finish()
        every = _FLUX // round(RATE)
        return Energy(
            loudness(momentary),
            loudness(short_term),
            integrated_loudness(power),
            bass,
            mid,
            high,
            _windows(flux, every, frames, 0, every),
            _windows(
                pick_onsets(flux, _FLUX).astype(float), every, frames, _FLUX - every // 2, _FLUX + every // 2
            )
            * _FLUX,
            alone[0],
        )


def measure_energy(path: str | os.PathLike[str]) -> Energy:
    """The energy of an audio file, mixed to mono. Raises AudioError when it cannot be used."""
    meter = EnergyMeter()
    for block in stream(path):
        meter.push(block)
    return meter.finish()


def integrated_loudness(steps: Float[np.ndarray, " step"]) -> float:
    """Gated loudness (LUFS) of K-weighted mean squares of 100 ms each; -inf when nothing passes the gate."""
    if len(steps) < 4:
        steps = np.full(4, steps.mean())
    blocks = np.lib.stride_tricks.sliding_window_view(steps, 4).mean(axis=1)
    for gate in (GATE, None):
        level = float(loudness(blocks.mean(keepdims=True))[0]) + RELATIVE_GATE if gate is None else gate
        blocks = blocks[loudness(blocks) > level]
        if not len(blocks):
            return -np.inf
    return float(loudness(blocks.mean(keepdims=True))[0])


def _levels(cut: Cut, sample_rate: int) -> np.ndarray:
    """Mean squares (window, 3) in bass, mid and high, by Parseval's theorem on Hann windows; where a window
    reaches beyond the audio, of the part that is inside."""
    n = cut.windows.shape[1]
    hann = np.hanning(n + 1)[:-1]
    spectrum = np.abs(np.fft.rfft(cut.windows * hann)) ** 2
    spectrum[:, 1:-1] *= 2
    edges = np.searchsorted(np.fft.rfftfreq(n, 1 / sample_rate), [0.0, BASS, TREBLE])
    bands = np.add.reduceat(spectrum, edges, axis=1)
    weight = np.concatenate([[0.0], np.cumsum(hann**2)])
    inside = weight[n - cut.right] - weight[cut.left]
    return cast(np.ndarray, bands / (n * inside[:, None]))


def _windows(values: np.ndarray, step: int, count: int, before: int, after: int) -> np.ndarray:
    """Means of `values` from `before` values before to `after` behind the first one of each of `count`
    steps; at the ends, of those that are there."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    starts = np.clip(np.arange(count) * step - before, 0, len(values) - 1)
    ends = np.clip(np.arange(count) * step + after, starts + 1, len(values))
    means: np.ndarray = np.maximum(total[ends] - total[starts], 0) / (ends - starts)
    return means


def _mean_around(values: np.ndarray, reach: int) -> np.ndarray:
    return _windows(values, 1, len(values), reach, reach + 1)
