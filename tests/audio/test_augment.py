"""Augmentation varies what it says, within what it says, and the same way for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from meterfolders import music

from beatmeter.audio.augment import augment_wave, gain, noise, shift
from beatmeter.schema import ChunkSpec
from beatmeter.settings import AugmentConfig

CHUNK = ChunkSpec()
WAVE = music(1, 3.0, CHUNK.sample_rate)
NOTHING = AugmentConfig(crop=0, shift=0, noise=0, gain=0, lag_shift=0)


@given(seed=st.integers(0, 10_000), seconds=st.floats(0, 5))
def test_shift_drops_a_start_and_wraps_nothing(seed: int, seconds: float) -> None:
    result = shift(WAVE, np.random.default_rng(seed), AugmentConfig(shift=seconds), CHUNK)
    dropped = len(WAVE) - len(result)
    assert 0 <= dropped <= round(seconds * CHUNK.sample_rate)
    assert len(result) >= CHUNK.minimum
    assert np.array_equal(result, WAVE[dropped:])


def test_shift_reaches_all_of_its_range() -> None:
    rng = np.random.default_rng(0)
    dropped = [len(WAVE) - len(shift(WAVE, rng, AugmentConfig(shift=0.5), CHUNK)) for _ in range(400)]
    assert min(dropped) < 400
    assert max(dropped) > 11_600
    assert np.mean(dropped) == pytest.approx(6000, rel=0.1)
    short = WAVE[: CHUNK.minimum]
    assert len(shift(short, rng, AugmentConfig(shift=0.5), CHUNK)) == len(short)


@pytest.mark.parametrize("level", [1e-3, 0.1, 10.0])
def test_noise_is_relative_to_the_wave(level: float) -> None:
    wave = WAVE * np.float32(level)
    added = noise(wave, np.random.default_rng(0), AugmentConfig(noise=0.02)) - wave
    assert np.std(added) == pytest.approx(0.02 * np.sqrt(np.mean(wave**2)), rel=0.03)
    assert abs(np.mean(added)) < 0.03 * np.std(added)
    spectrum = np.abs(np.fft.rfft(added.astype(float))) ** 2
    assert spectrum[: len(spectrum) // 2].mean() == pytest.approx(
        spectrum[len(spectrum) // 2 :].mean(), rel=0.05
    )


@settings(max_examples=200)
@given(seed=st.integers(0, 10_000), decibels=st.floats(0.1, 40), peak=st.floats(1e-3, 4))
def test_gain_never_clips(seed: int, decibels: float, peak: float) -> None:
    wave = (WAVE / np.abs(WAVE).max() * peak).astype(np.float32)
    result = gain(wave, np.random.default_rng(seed), AugmentConfig(gain=decibels))
    factor = np.abs(result).max() / np.abs(wave).max()
    assert 10 ** (-decibels / 20) * 0.999 <= factor <= 10 ** (decibels / 20) * 1.001
    assert np.abs(result).max() <= max(1, np.abs(wave).max())
    assert np.allclose(result, wave * factor, atol=1e-6 * peak)


def test_gain_goes_both_ways() -> None:
    rng = np.random.default_rng(0)
    factors = [
        20 * np.log10(np.abs(gain(0.1 * WAVE, rng, AugmentConfig(gain=6))).max() / np.abs(0.1 * WAVE).max())
        for _ in range(300)
    ]
    assert min(factors) < -5.5
    assert max(factors) > 5.5


def test_all_together() -> None:
    wave = WAVE.copy()
    again = [augment_wave(wave, np.random.default_rng(7), AugmentConfig(), CHUNK) for _ in range(2)]
    assert np.array_equal(*again)
    assert again[0].dtype == np.float32
    assert np.array_equal(wave, WAVE)
    assert not np.array_equal(
        again[0], augment_wave(wave, np.random.default_rng(8), AugmentConfig(), CHUNK)[: len(again[0])]
    )
    assert augment_wave(wave, np.random.default_rng(7), NOTHING, CHUNK) is wave
