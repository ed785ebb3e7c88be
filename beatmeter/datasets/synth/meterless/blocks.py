"""Parts of sounds without meter: coloured noise, levels that swell, sounds scattered at random times."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import fft

FloatArray = npt.NDArray[np.float64]


def coloured(
    rng: np.random.Generator, n: int, rate: int, slope: float, band: tuple[float, float]
) -> FloatArray:
    """Gaussian noise of standard deviation 1 with `slope` dB per octave, limited to `band` Hz."""
    size = fft.next_fast_len(max(n, 64), real=True)
    spectrum = fft.rfft(rng.standard_normal(size))
    hertz = np.maximum(np.arange(len(spectrum)) * rate / size, 10.0)
    spectrum *= (
        hertz ** (slope / 6.02) / np.sqrt(1 + (band[0] / hertz) ** 8) / np.sqrt(1 + (hertz / band[1]) ** 8)
    )
    sound: FloatArray = fft.irfft(spectrum, size)[:n]
    return sound / max(1e-12, float(sound.std()))


def swell(rng: np.random.Generator, n: int, rate: int, seconds: float, depth: float) -> FloatArray:
    """(sample,) levels between 1 - depth and 1 through random points, `seconds` apart in the mean."""
    gaps = rng.uniform(0.5, 1.5, int(n / rate / seconds * 2) + 4) * seconds
    at = np.cumsum(gaps) - gaps[0] - rng.uniform(0, seconds)
    return 1 - depth * np.interp(np.arange(n) / rate, at, rng.random(len(at)))


def scatter(
    rng: np.random.Generator, n: int, rate: int, density: float, make: Callable[[], FloatArray]
) -> FloatArray:
    """Sounds at the times of a Poisson process of `density` a second; at least one."""
    sound = np.zeros(n)
    for time in rng.uniform(0, n, max(1, int(rng.poisson(density * n / rate)))):
        add_at(sound, make(), int(time))
    return sound


def add_at(sound: FloatArray, part: FloatArray, at: int) -> None:
    """Add a part that begins at sample `at`, what lies outside left out."""
    start, end = max(0, at), min(len(sound), at + len(part))
    if end > start:
        sound[start:end] += part[start - at : end - at]


def fade(sound: npt.NDArray[np.float32], samples: int) -> FloatArray:
    """The sound with its last `samples` samples faded out."""
    faded = sound.astype(np.float64)
    samples = min(samples, len(faded))
    faded[len(faded) - samples :] *= np.linspace(1, 0, samples)
    return faded
