"""Lag pooling: it is an autocorrelation, it hears tempo as a shift, and gain not at all."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from beatmeter.features.autocorrelation import autocorrelation, bin_weights, lag_times
from beatmeter.features.channels import ProjectionChannels, SpectralChannels, rise
from beatmeter.features.lag import LagPooling

RATE = 75.0


def clicks(period: float, frames: int = 2250) -> Tensor:
    """(1, frame, 1): narrow bumps every `period` seconds."""
    phase = torch.arange(frames) / RATE / period
    near = (phase - phase.round()) * period
    return torch.exp(-0.5 * (near / 0.02) ** 2)[None, :, None]


def log_lag_autocorrelation(
    z: Tensor, frame_rate: float, lags: Tensor, groups: Sequence[int] | None = None
) -> Tensor:
    """Autocorrelation of each channel of z (sequence, frame, dim) at `lags` seconds, as lag pooling puts it
    together."""
    weights = bin_weights(frame_rate, lags, z.dtype)
    return autocorrelation(z, len(weights) - 1, groups) @ weights


def direct(z: Tensor, longest: int) -> Tensor:
    """The formula, term by term, for one sequence (frame, dim) as one channel."""
    z = z.double() - z.double().mean(dim=0)
    n = len(z)
    energy = (z * z).sum()
    return torch.stack(
        [(z[: n - k] * z[k:]).sum() * min(4.0, n / (n - k)) / energy for k in range(longest + 1)]
    )


def test_lag_times_are_even_in_log_time() -> None:
    times = lag_times()
    assert len(times) == 160
    assert times[0].item() == pytest.approx(0.09)
    assert times[-1].item() == pytest.approx(7.5)
    assert torch.allclose(times[1:] / times[:-1], times[1] / times[0])


def test_equals_the_direct_sum() -> None:
    z = torch.randn(3, 200, 5, generator=torch.Generator().manual_seed(0))
    fast = autocorrelation(z, 120, (2, 3))
    for row in range(3):
        assert torch.allclose(fast[row, 0].double(), direct(z[row, :, :2], 120), atol=2e-5)
        assert torch.allclose(fast[row, 1].double(), direct(z[row, :, 2:], 120), atol=2e-5)
    assert torch.allclose(fast[..., 0], torch.ones(3, 2))


@pytest.mark.parametrize("channels", [ProjectionChannels(128), SpectralChannels()])
def test_sequences_one_by_one_give_what_all_at_once_give(channels: torch.nn.Module) -> None:
    states = torch.randn(
        3,
        400,
        148 if isinstance(channels, SpectralChannels) else 128,
        generator=torch.Generator().manual_seed(0),
    )
    pooling = LagPooling(channels, RATE)  # type: ignore[arg-type]
    together = pooling(states.requires_grad_())
    assert together.requires_grad
    torch.testing.assert_close(pooling(states.detach()), together.detach(), rtol=1e-6, atol=1e-6)


def test_lags_beyond_the_sequence_and_constant_channels_are_zero() -> None:
    z = torch.cat([torch.randn(1, 50, 1), torch.ones(1, 50, 1)], dim=2)
    r = autocorrelation(z, 80)
    assert r.shape == (1, 2, 81)
    assert torch.all(r[0, 0, 50:] == 0)
    assert torch.all(r[0, 1] == 0)


def test_bins_average_and_leave_no_frame_out() -> None:
    weights = bin_weights(RATE, lag_times())
    assert torch.allclose(weights.sum(dim=0), torch.ones(160))
    inside = weights[8:560]
    assert torch.all(inside.sum(dim=1) > 0)
    centre = (weights * torch.arange(len(weights))[:, None]).sum(dim=0) / RATE
    assert torch.allclose(centre.double(), lag_times(), rtol=0.02)


def test_a_click_train_of_2_hz_peaks_at_half_a_second() -> None:
    times = lag_times()
    r = log_lag_autocorrelation(clicks(0.5), RATE, times)[0, 0]
    short = times < 0.75
    assert times[short][r[short].argmax()].item() == pytest.approx(0.5, rel=0.02)
    assert r.max() > 0.8


def test_a_change_of_tempo_is_a_shift() -> None:
    times = lag_times()
    step = torch.log(times[1] / times[0]).item()
    slow = log_lag_autocorrelation(clicks(0.8), RATE, times)[0, 0]
    fast = log_lag_autocorrelation(clicks(0.8 * torch.exp(torch.tensor(-20 * step)).item()), RATE, times)[
        0, 0
    ]
    span = slice(60, 120)
    assert torch.corrcoef(torch.stack([slow[span], fast[40:100]]))[0, 1] > 0.9
    assert torch.corrcoef(torch.stack([slow[span], fast[span]]))[0, 1] < 0.6


def test_gradients_are_right() -> None:
    z = torch.randn(
        2, 40, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True
    )
    times = lag_times(12, 0.04, 0.4)
    assert torch.autograd.gradcheck(lambda x: log_lag_autocorrelation(x, RATE, times, (1, 2)), (z,))


@pytest.mark.parametrize(
    "channels",
    [ProjectionChannels(48, n=4), SpectralChannels(mels=16, bins=32, split=12)],
    ids=["projection", "spectral"],
)
def test_poolings_train_and_describe_themselves(channels: ProjectionChannels | SpectralChannels) -> None:
    pooling = LagPooling(channels, RATE)
    assert not list(pooling.parameters())
    states = torch.randn(2, 800, 48, generator=torch.Generator().manual_seed(2), requires_grad=True)
    lags = pooling(states)
    assert lags.shape == (2, pooling.n_channels, pooling.n_lags)
    assert lags.dtype == torch.float32
    lags.square().mean().backward()
    assert states.grad is not None
    assert torch.isfinite(states.grad).all()
    assert states.grad.abs().max() > 0
    assert {"lag_version", "n_lags", "channels"} <= set(pooling.settings)


@pytest.mark.parametrize(
    "channels",
    [ProjectionChannels(48), SpectralChannels(mels=16, bins=32, split=12)],
    ids=["projection", "spectral"],
)
def test_a_batch_is_its_rows(channels: ProjectionChannels | SpectralChannels) -> None:
    pooling = LagPooling(channels, RATE)
    states = torch.randn(3, 900, 48)
    assert torch.allclose(pooling(states)[1], pooling(states[1:2])[0], atol=1e-5)


def test_spectral_channels_do_not_hear_gain() -> None:
    pooling = LagPooling(SpectralChannels(mels=16, bins=32, split=12), RATE)
    magnitude = torch.rand(1, 1125, 48)
    assert torch.allclose(pooling(magnitude.log()), pooling((magnitude * 0.01).log()), atol=1e-4)


def test_projections_do_not_hear_scale_or_one_loud_dimension() -> None:
    pooling = LagPooling(ProjectionChannels(64), RATE)
    states = torch.randn(1, 1125, 64) + 3 * clicks(0.5, 1125)
    assert torch.allclose(pooling(states), pooling(states * 50), atol=1e-3)
    loud = states.clone()
    loud[..., 7] = torch.randn(1, 1125) * 1000
    near, usual = pooling(loud)[0, -2:], pooling(states)[0, -2:]
    assert torch.corrcoef(torch.stack([near.flatten(), usual.flatten()]))[0, 1] > 0.9


def test_projection_is_orthogonal_seeded_and_pinned() -> None:
    for dim in (128, 768, 1024):
        matrix = ProjectionChannels(dim).matrix
        assert torch.allclose(matrix @ matrix.T, torch.eye(len(matrix)), atol=1e-5)
    assert (
        ProjectionChannels(128, seed=1).settings["matrix"]
        != ProjectionChannels(128, seed=2).settings["matrix"]
    )
    assert ProjectionChannels(768).settings["matrix"] == "295dc95226c32843", (
        "other numbers: raise LAG_VERSION"
    )


def test_joins_make_no_rhythm() -> None:
    """A jump every 375 frames is the one thing that repeats here; it must not be heard at 5 s."""
    times = lag_times()
    at = int((times - 5.0).abs().argmin())
    states = torch.randn(1, 2250, 48, generator=torch.Generator().manual_seed(3)) * 0.05
    states = states - (torch.arange(2250) % 375 / 375)[None, :, None]
    heard = LagPooling(SpectralChannels(mels=16, bins=32, split=12), RATE)(states)
    unaware = LagPooling(SpectralChannels(mels=16, bins=32, split=12, chunk=10**9), RATE)(states)
    rises = [0, 1, 2, 3, 4, 5, 6, 9]
    assert unaware[0, rises, at].min() > 0.06
    assert heard[0, rises, at].abs().max() < 0.02


def test_rise_keeps_length_and_sign() -> None:
    x = torch.tensor([0.0, 1.0, 3.0, 2.0, 5.0])[None, :, None]
    assert rise(x, 2).flatten().tolist() == [0, 0, 3, 1, 2]
    assert rise(x[:, :1], 2).shape == (1, 1, 1)


@pytest.mark.parametrize(
    "channels", [ProjectionChannels(96), SpectralChannels()], ids=["projection", "spectral"]
)
@pytest.mark.parametrize("frames", [2, 40, 300, 750, 1500])
def test_runs_of_a_timeline_are_pooled_as_stored_features_but_for_last_bits(
    channels: ProjectionChannels | SpectralChannels, frames: int
) -> None:
    pooling, generator = LagPooling(channels, 75.0), torch.Generator().manual_seed(frames)
    dim = channels.dim if isinstance(channels, ProjectionChannels) else channels.mels + channels.bins
    states = torch.randn(3, frames, dim, generator=generator).cumsum(dim=1)
    states[..., 0] = 100 + 300 * states[..., 0]  # one dimension far from zero and loud
    states[..., 1] = 7.0
    with torch.inference_mode():
        assert (pooling.of_runs(list(states), 5) - pooling(states, 5)).abs().max() <= 1e-5
