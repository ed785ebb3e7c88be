"""What training varies in a wave: where the chunk grid lies, noise, level. Each is a function of (wave, rng,
settings)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32

from beatmeter.schema import ChunkSpec
from beatmeter.settings import AugmentConfig


def shift(
    wave: Float32[np.ndarray, " sample"], rng: np.random.Generator, settings: AugmentConfig, chunk: ChunkSpec
) -> Float32[np.ndarray, " rest"]:
    """The wave without a random start of up to `settings.shift` seconds: the chunk grid falls elsewhere in
    the music.

    Nothing wraps around and nothing is padded; at least `chunk.minimum` samples are left.
    """
    most = min(round(settings.shift * chunk.sample_rate), len(wave) - chunk.minimum)
    return wave[int(rng.integers(0, most + 1)) :] if most > 0 else wave


def noise(
    wave: Float32[np.ndarray, " sample"], rng: np.random.Generator, settings: AugmentConfig
) -> Float32[np.ndarray, " sample"]:
    """The wave plus white Gaussian noise whose rms is `settings.noise` times the wave's own."""
    if settings.noise == 0:
        return wave
    rms = np.sqrt(np.mean(np.square(wave, dtype=np.float64)))
    result: np.ndarray = wave + np.float32(settings.noise * rms) * rng.standard_normal(
        len(wave), dtype=np.float32
    )
    return result


def gain(
    wave: Float32[np.ndarray, " sample"], rng: np.random.Generator, settings: AugmentConfig
) -> Float32[np.ndarray, " sample"]:
    """The wave at a level changed by up to `settings.gain` dB either way, never raised past full scale."""
    if settings.gain == 0:
        return wave
    factor = 10 ** (rng.uniform(-settings.gain, settings.gain) / 20)
    peak = float(np.abs(wave).max(initial=0.0))
    if peak * factor > 1:
        factor = min(factor, max((1 - 1e-6) / peak, 1.0))  # a wave that is already past it keeps its level
    result: np.ndarray = wave * np.float32(factor)
    return result


def augment_wave(
    wave: Float32[np.ndarray, " sample"], rng: np.random.Generator, settings: AugmentConfig, chunk: ChunkSpec
) -> Float32[np.ndarray, " rest"]:
    """Shift, then noise, then gain."""
    return gain(noise(shift(wave, rng, settings, chunk), rng, settings), rng, settings)
