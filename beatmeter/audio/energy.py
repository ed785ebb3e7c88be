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
_BANDS = 36  # of the flux, equally wide in octaves
_AROUND = 0.5  # seconds on either side that an onset is compared with
_APART = 0.05  # seconds between onsets at least
_FAINTEST = 0.15  # rise of the log spectrum: what steady noise hardly reaches


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
        return np.clip(scaled, 1, 10)


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
        self._squares = _Steps(sample_rate // _STEPS, sample_rate // _STEPS)
        self._spectra = _Steps(sample_rate // _STEPS, 2 * round(sample_rate * 2048 / 24_000))
        self._fast = _Steps(sample_rate // _FLUX, 2 * round(sample_rate * 512 / 24_000))
        self._power: list[np.ndarray] = []
        self._levels: list[np.ndarray] = []
        self._flux: list[np.ndarray] = []
        self._last = np.zeros((0, 0))
        self._edges = _band_edges(sample_rate, self._fast.window)

    def push(self, block: Float[np.ndarray, " sample"]) -> None:
        """The next samples, in [-1, 1]. Raises AudioError for samples that are not finite."""
        if not np.isfinite(block).all():
            raise AudioError("the audio holds samples that are not finite", kind="damaged")
        for start in range(0, len(block), 10 * self.sample_rate):
            self._push(np.asarray(block[start : start + 10 * self.sample_rate], float))

    def _push(self, block: np.ndarray) -> None:
        weighted, self._state = sosfilt(self._sections, block, zi=self._state)
        self._take(self._squares.push(weighted), self._spectra.push(block), self._fast.push(block))

    def _take(self, squares: _Cut, spectra: _Cut, fast: _Cut) -> None:
        if len(squares.windows):
            self._power.append(np.mean(squares.windows**2, axis=1))
        if len(spectra.windows):
            self._levels.append(_levels(spectra, self.sample_rate))
        if len(fast.windows):
            logs = _log_bands(fast, self._edges)
            before = self._last if self._last.size else np.repeat(logs[:1], 2, axis=0)
            joined = np.concatenate([before, logs])
            self._flux.append(np.maximum(joined[2:] - joined[:-2], 0).mean(axis=1))
            self._last = joined[-2:]

    def finish(self) -> Energy:
        """The energy of all that was pushed. Raises AudioError (kind short) for less than a tenth of a
        second."""
        self._take(self._squares.finish(), self._spectra.finish(), self._fast.finish())
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
        flux = np.concatenate(self._flux)
        every = _FLUX // round(RATE)
        return Energy(
            loudness(momentary),
            loudness(short_term),
            integrated_loudness(power),
            bass,
            mid,
            high,
            _windows(flux, every, frames, 0, every),
            _windows(_onsets(flux), every, frames, _FLUX - every // 2, _FLUX + every // 2) * _FLUX,
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


@dataclass(frozen=True)
class _Cut:
    """Windows of samples (window, sample), zero where there is no audio, and how many samples at the left and
    right ends of each are such zeros."""

    windows: np.ndarray
    left: np.ndarray
    right: np.ndarray


class _Steps:
    """Cuts a stream into windows around steps of equal length; only what the next window needs is held."""

    def __init__(self, step: int, window: int) -> None:
        self.step, self.window = step, window
        self._before = (window - step) // 2  # zeros in front of the audio
        self._held = np.zeros(self._before)
        self._first, self._samples = 0, 0

    def push(self, block: np.ndarray) -> _Cut:
        self._samples += len(block)
        self._held = np.concatenate([self._held, block])
        return self._cut(max(0, (len(self._held) - self.window) // self.step + 1))

    def finish(self) -> _Cut:
        """The windows of the whole steps that are left, with zeros behind the audio."""
        count = max(0, self._samples // self.step - self._first)
        lacking = (count - 1) * self.step + self.window - len(self._held)
        self._held = np.concatenate([self._held, np.zeros(max(0, lacking if count else 0))])
        return self._cut(count)

    def _cut(self, count: int) -> _Cut:
        if not count:
            return _Cut(np.zeros((0, self.window)), np.zeros(0, int), np.zeros(0, int))
        windows = np.lib.stride_tricks.sliding_window_view(self._held, self.window)
        starts = (self._first + np.arange(count)) * self.step - self._before
        cut = _Cut(
            windows[: count * self.step : self.step][:count],
            np.clip(-starts, 0, None),
            np.clip(starts + self.window - self._samples, 0, None),
        )
        self._held = self._held[count * self.step :]
        self._first += count
        return cut


def _levels(cut: _Cut, sample_rate: int) -> np.ndarray:
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


def _band_edges(sample_rate: int, window: int) -> np.ndarray:
    """First bins of the bands of the flux, 30 Hz to half the sample rate."""
    frequencies = np.geomspace(30.0, 0.45 * sample_rate, _BANDS + 1)
    return np.unique(np.round(frequencies * window / sample_rate).astype(int))


def _log_bands(cut: _Cut, edges: np.ndarray) -> np.ndarray:
    """log(1 + 1000 x amplitude) in the bands of the flux, (window, band)."""
    n = cut.windows.shape[1]
    hann = np.hanning(n + 1)[:-1]
    spectrum = np.abs(np.fft.rfft(cut.windows * hann)) ** 2
    bands = np.add.reduceat(spectrum, edges, axis=1)[:, :-1]
    logs: np.ndarray = np.log1p(1000 * np.sqrt(bands) / hann.sum())
    return logs


def _onsets(flux: np.ndarray) -> np.ndarray:
    """1 at the peaks of the flux, 0 elsewhere: the largest within _APART, and above the mean around it by a
    fifth of what the strongest onsets of the track rise."""
    from scipy.ndimage import maximum_filter1d, uniform_filter1d

    strong = np.percentile(flux, 99) if len(flux) else 0.0
    mean = uniform_filter1d(flux, 2 * round(_AROUND * _FLUX) + 1, mode="nearest")
    largest = maximum_filter1d(flux, 2 * round(_APART * _FLUX) - 1, mode="nearest")
    peaks = (flux == largest) & (flux > mean + max(strong / 5, _FAINTEST))
    first: np.ndarray = peaks & ~np.concatenate([[False], peaks[:-1]])
    return first.astype(float)


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
