"""The portable arithmetic gives what the fast code gives, and a table with one wrong number does not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from beatmeter.features import portable, portable_tempo
from beatmeter.features.autocorrelation import STILL, autocorrelation, moving
from beatmeter.features.backbones import embedded
from beatmeter.features.backbones.spectral import SpectralBackbone
from beatmeter.features.channels import Channels, ProjectionChannels, SpectralChannels
from beatmeter.features.lag import LagPooling
from beatmeter.features.portable import band_power, fourier_tables, lower_median
from beatmeter.features.rhythm import RhythmPooling
from beatmeter.features.straightening import _COST, REACH, _best_path, tempo_curve

CLOSE = 2e-5  # of log magnitudes of music and of the states of a transformer


def noisy(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def layers(backbone: torch.nn.Module, waves: torch.Tensor) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    with torch.inference_mode():
        backbone(waves, lambda _, states: found.append(states.clone()))
    return found


@pytest.fixture(scope="module")
def spectral() -> SpectralBackbone:
    return SpectralBackbone()


@pytest.mark.parametrize(("size", "hop"), [(16, 4), (512, 320), (1024, 320), (4096, 320)])
def test_two_products_are_a_fourier_transform(size: int, hop: int) -> None:
    x = noisy(2, size + 4 * hop + 3)
    windows = x.unfold(1, size, hop) * torch.hann_window(size)
    wanted = torch.fft.rfft(windows.double()).abs().square()
    found = band_power(x, torch.eye(size // 2 + 1), hop, windows.shape[1])
    assert torch.allclose(found.double(), wanted, rtol=1e-4, atol=1e-4 * size)
    top = size // 5
    low = torch.eye(size // 2 + 1)[:, : top + 1]
    assert torch.allclose(band_power(x, low, hop, windows.shape[1], top), found[:, :, : top + 1], atol=1e-4)


def test_a_transform_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="3000"):
        fourier_tables(3000, 320, 1500)


@settings(max_examples=20)
@given(st.integers(2, 300), st.integers(1, 170), st.sampled_from([(1, 1, 1), (1, 2, 3), (4,), (2, 2, 1)]))
def test_products_give_the_autocorrelation_of_the_fft(n: int, longest: int, groups: tuple[int, ...]) -> None:
    z = noisy(2, n, sum(groups), seed=n)
    wanted = autocorrelation(z, longest, groups)
    found = portable.autocorrelation(portable.moving(z, STILL), longest, groups, 4.0, 1e-19)
    assert found.shape == wanted.shape
    assert torch.allclose(found, wanted, atol=2e-5)


def test_channels_that_never_change_give_zero() -> None:
    assert not portable.autocorrelation(torch.zeros(1, 200, 3), 100, (1, 2), 4.0, 1e-19).any()


@pytest.mark.parametrize("value", [5.7, 0.0, -3e4])
def test_what_changes_by_rounding_alone_does_not_change(value: float) -> None:
    """As a mean of a thousand equal numbers is not always that number, and a logarithm not the same in
    every lane of a processor."""
    z = torch.full((1, 999, 3), value)
    z[0, ::7, 1] = torch.nextafter(z[0, ::7, 1], torch.tensor(torch.inf))
    z[0, :, 2] += 1e-3 * noisy(999) * max(1.0, abs(value))
    for kept in (moving(z), portable.moving(z, STILL)):
        assert not kept[..., :2].any() or value == 0.0
        assert torch.allclose(kept[..., 2], z[..., 2] - z[..., 2].mean(), atol=1e-5 * max(1.0, abs(value)))


def test_digital_silence_is_the_same_everywhere(spectral: SpectralBackbone) -> None:
    pooling = spectral.lag_pooling()
    (states,) = layers(spectral, torch.zeros(1, 120_080))
    wanted = pooling(states)
    assert isinstance(pooling, LagPooling)
    assert not wanted.any()
    assert not pooling.of_runs([states[0]]).any()
    with portable.portable():
        (other,) = layers(spectral, torch.zeros(1, 120_080))
        assert not pooling(other).any()


@pytest.mark.parametrize("size", [1, 2, 5, 128])
def test_the_lower_median_is_torchs(size: int) -> None:
    x = noisy(4, size, seed=size)
    assert torch.equal(lower_median(x), x.median(dim=-1, keepdim=True).values)


@pytest.mark.parametrize("samples", [24_000, 24_319, 60_123, 120_000, 120_080])
def test_spectra_are_the_same(spectral: SpectralBackbone, samples: int) -> None:
    waves = 0.1 * noisy(2, samples)
    waves[1] *= torch.linspace(0, 1, samples).square() * torch.sin(torch.arange(samples) * 0.05)
    (wanted,) = layers(spectral, waves)
    with portable.portable():
        (found,) = layers(spectral, waves)
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() < CLOSE


def test_a_wrong_number_in_a_table_is_heard(
    spectral: SpectralBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    waves = 0.1 * noisy(1, 24_000)
    (wanted,) = layers(spectral, waves)
    right = fourier_tables
    wrong = right(1024, 320, 512).second.clone()
    wrong[3, 5, 7] += 0.1

    def spoilt(size: int, hop: int, top: int) -> portable.Fourier:
        tables = right(size, hop, top)
        return replace(tables, second=wrong) if size == 1024 else tables

    monkeypatch.setattr(portable, "fourier_tables", spoilt)
    with portable.portable():
        (found,) = layers(spectral, waves)
    assert (found - wanted).abs().max() > 100 * CLOSE


@pytest.mark.parametrize("samples", [24_000, 120_080])
def test_a_transformer_gives_the_same_states(samples: int) -> None:
    hubert = embedded.load(depth=2)
    waves = torch.cat([0.1 * noisy(1, samples), torch.zeros(1, samples)])
    hubert.n_layers = 2
    wanted = layers(hubert, waves)
    with portable.portable():
        found = layers(hubert, waves)
    for a, b in zip(found, wanted, strict=True):
        assert (a - b).abs().max() < CLOSE * b.abs().max()


@pytest.mark.parametrize("channels", [SpectralChannels(8, 12, 75, 1, 6, 5), ProjectionChannels(20, width=8)])
@pytest.mark.parametrize("first", [0, 31])
@pytest.mark.parametrize("frames", [9, 80, 400])
def test_channels_are_the_same(channels: Channels, first: int, frames: int) -> None:
    states = noisy(2, frames, 20, seed=frames)
    wanted = channels(states, first)
    with portable.portable():
        found = channels(states, first)
    assert torch.allclose(found, wanted, atol=1e-5)


def test_nothing_is_portable_unless_asked() -> None:
    assert not portable.is_portable()
    with portable.portable():
        assert portable.is_portable()
        with portable.portable():
            pass
        assert portable.is_portable()
    assert not portable.is_portable()


def bending(seconds: float) -> torch.Tensor:
    """States (2, frame, 128) of pulses whose tempo bends, in a little noise."""
    n = round(75 * seconds)
    at = torch.cumsum(36 * torch.exp(0.2 * torch.sin(torch.arange(80.0) / 5)), 0).long()
    pulses = torch.zeros(n)
    pulses[at[at < n]] = 1
    return pulses[:, None] * noisy(2, 1, 128) + 0.05 * noisy(2, n, 128, seed=1)


@pytest.mark.parametrize("seconds", [1.3, 3.0, 3.8, 4.0, 12.0, 31.7])
def test_straightened_time_is_the_same_where_it_bends_and_where_too_little_is_heard(seconds: float) -> None:
    lag = embedded.load(weights=False, name="embedded-hard").lag_pooling(14.0)
    states = bending(seconds)
    pooling = RhythmPooling(lag)
    onsets = lag.channels(states[:1])[0][:, -64:]
    wanted, rows = tempo_curve(onsets, 75.0), pooling(states)
    with portable.portable():
        found, portable_rows = tempo_curve(onsets, 75.0), pooling(states)
    assert torch.allclose(found, wanted, atol=1e-6)
    assert bool(wanted.any()) <= (seconds >= 4), "fewer than four windows say nothing"
    assert bool(wanted.abs().max() > 0.05) == (seconds > 10)
    assert torch.allclose(portable_rows, rows, atol=CLOSE)


@given(st.integers(2, 40), st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_the_walk_through_shifts_is_the_best_of_all(windows: int, seed: int) -> None:
    scores = 0.01 * noisy(windows, 2 * REACH + 1, seed=seed).double()
    found = portable_tempo.viterbi(scores, torch.from_numpy(_COST)) - REACH
    assert found.tolist() == _best_path(scores.numpy()).tolist()
    inside = (torch.arange(windows) < max(1, windows - 3)).float()
    middle = portable_tempo.middle(found, inside, REACH)
    assert int(middle) == int(np.median(found.numpy()[inside.numpy() > 0]))
