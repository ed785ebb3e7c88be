"""The portable arithmetic gives what the fast code gives, and a table with one wrong number does not."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from beatmeter.features import portable
from beatmeter.features.backbones import embedded
from beatmeter.features.backbones.spectral import SpectralBackbone
from beatmeter.features.lag import Channels, ProjectionChannels, SpectralChannels, autocorrelation
from beatmeter.features.portable import fourier_tables, lower_median, power, power_order, windows_of

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


@pytest.mark.parametrize("size", [16, 1024, 4096])
def test_two_products_are_a_fourier_transform(size: int) -> None:
    x = noisy(3, size)
    wanted = torch.fft.rfft(x.double()).abs().square()
    at = power_order(size)
    kept = at <= size // 2
    found = torch.zeros_like(wanted)
    found[:, at[kept]] = power(x)[:, kept].double()
    assert sorted(at[kept].tolist()) == list(range(size // 2 + 1))
    assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-4 * size)


def test_a_transform_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="2048"):
        fourier_tables(2048)


@settings(max_examples=20)
@given(st.integers(1, 40), st.sampled_from([(1024, 320), (16, 5), (6, 6), (4, 7)]), st.integers(0, 30))
def test_windows_of_blocks_are_those_of_unfold(count: int, sizes: tuple[int, int], more: int) -> None:
    size, hop = sizes
    x = noisy(2, size + (count - 1) * hop + more)
    assert torch.equal(windows_of(x, size, hop, count), x.unfold(1, size, hop)[:, :count])


@settings(max_examples=20)
@given(st.integers(2, 300), st.integers(1, 170), st.sampled_from([(1, 1, 1), (1, 2, 3), (4,), (2, 2, 1)]))
def test_products_give_the_autocorrelation_of_the_fft(n: int, longest: int, groups: tuple[int, ...]) -> None:
    z = noisy(2, n, sum(groups), seed=n)
    wanted = autocorrelation(z, longest, groups)
    found = portable.autocorrelation(z, longest, groups, 4.0, 1e-19)
    assert found.shape == wanted.shape
    assert torch.allclose(found, wanted, atol=2e-5)


def test_channels_that_never_change_give_zero() -> None:
    assert not portable.autocorrelation(torch.zeros(1, 200, 3), 100, (1, 2), 4.0, 1e-19).any()


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
    tables = [table.clone() for table in fourier_tables(1024)]
    tables[1][3, 5] += 0.1
    monkeypatch.setattr(
        portable, "fourier_tables", lambda size: tables if size == 1024 else fourier_tables(size)
    )
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
