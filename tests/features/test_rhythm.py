"""Rhythm pooling: a tempo that bends is straightened, what leads is told from what follows, and lags reach as
far as the settings say without moving those of earlier stores."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from beatmeter.errors import ConfigError, FingerprintError
from beatmeter.features import portable
from beatmeter.features.autocorrelation import lag_times, lags_until
from beatmeter.features.backbones import load_backbone
from beatmeter.features.channels import SpectralChannels
from beatmeter.features.lag import LagPooling
from beatmeter.features.pooling import feature_spec
from beatmeter.features.poolings import pooling_of
from beatmeter.features.rhythm import RhythmPooling
from beatmeter.features.straightening import straightened, tempo_curve
from beatmeter.settings import FeatureConfig

RATE = 75.0
CHANNELS = SpectralChannels(mels=16, bins=32, split=12, chunk=10**9)


def beats(depth: float, seconds: float = 30.0) -> np.ndarray:
    """Times of beats of half a second whose tempo goes up and down by `depth` (log) every ten seconds."""
    times, at = [], 0.2
    while at < seconds:
        times.append(at)
        at += 0.5 * float(np.exp(depth * np.sin(2 * np.pi * at / 10)))
    return np.array(times)


def magnitudes(times: np.ndarray, every: int = 1, low_lead: float = 0.0) -> Tensor:
    """Log spectra (1, frame, 48) with an onset at each time: high bands at all of them, low ones at every
    `every`-th, `low_lead` beats earlier."""
    n = 2250
    x = np.full((n, 48), 0.02)
    x += 0.002 * np.random.default_rng(0).random((n, 48))
    step = float(np.median(np.diff(times)))
    for number, time in enumerate(times):
        for bands, shift in ((slice(8, 16), 0.0), (slice(0, 4), low_lead * step)):
            at = round((time - shift) * RATE)
            if (bands.start or number % every == 0) and 0 <= at < n:
                decay = np.exp(-np.arange(min(20, n - at)) / 4)
                x[at : at + 20, bands] += decay[:, None]
    return torch.from_numpy(np.log(x))[None].float()


def test_a_bent_tempo_is_followed_and_straightened() -> None:
    times = beats(0.25)
    onsets = CHANNELS(magnitudes(times))[0][:, -16:]
    curve = tempo_curve(onsets, RATE)
    inside = (times > 3) & (times < 27)
    true = np.log(np.diff(times)[inside[:-1]])
    found = curve.numpy()[(times[:-1][inside[:-1]] * RATE).astype(int)]
    assert np.corrcoef(true, found)[0, 1] > 0.9
    pulses = torch.zeros(2250, 1)
    pulses[(torch.from_numpy(times) * RATE).long()] = 1
    even = straightened(pulses, curve)[:, 0].numpy()
    at = np.flatnonzero(even > 0.3)
    gaps = np.diff(at[np.diff(at, prepend=-9) > 5])
    before = np.diff(times)
    assert np.std(np.log(gaps)) < 0.5 * np.std(np.log(before))


def test_straightened_rows_have_the_peaks_that_plain_ones_lose() -> None:
    pooling = RhythmPooling(LagPooling(CHANNELS, RATE))
    lags = lag_times()
    bar = int((lags - 2.0).abs().argmin())

    def height(row: Tensor) -> float:
        return float(row[bar - 3 : bar + 4].max() - row[bar - 12 : bar + 13].median())

    bent = pooling(magnitudes(beats(0.2), every=4))[0]
    even = pooling(magnitudes(beats(0.0), every=4))[0]
    n = pooling.lag.n_channels
    assert height(bent[n]) > 2 * max(0.0, height(bent[0]))
    assert torch.allclose(even[n], even[0], atol=0.1)


def test_an_even_tempo_stays_and_too_little_audio_gives_none() -> None:
    onsets = CHANNELS(magnitudes(beats(0.0)))[0][:, -16:]
    assert tempo_curve(onsets, RATE).abs().max() <= 0.013
    assert tempo_curve(onsets[:300], RATE).abs().max() == 0
    z = torch.randn(200, 3)
    assert torch.allclose(straightened(z, torch.zeros(200)), z, atol=1e-4)


@pytest.mark.parametrize("frames", [1, 2, 3, 80])
def test_a_window_of_a_few_frames_has_rows(frames: int) -> None:
    for name in ("spectral", "embedded"):
        backbone = load_backbone(name, weights=False)
        pooling = RhythmPooling(backbone.lag_pooling())
        rows = pooling(torch.randn(2, frames, backbone.dim))
        assert rows.shape == (2, pooling.n_channels, pooling.lag.n_lags)
        assert bool(rows.isfinite().all())


def test_what_never_changes_has_no_rhythm_on_any_path() -> None:
    pooling = RhythmPooling(load_backbone("embedded", weights=False).lag_pooling())
    still = torch.randn(2, 1, 128).expand(2, 1500, 128).clone()
    assert float(pooling(still).abs().max()) == 0
    assert float(pooling.lag.of_runs([*still]).abs().max()) == 0
    with portable.portable():
        assert float(pooling(still).abs().max()) == 0
    assert float(pooling(still.requires_grad_()).detach().abs().max()) == 0


def test_crossed_channels_tell_what_leads() -> None:
    """Low onsets a tenth of a beat before the high ones: the cross-correlation is higher forwards."""
    pooling = RhythmPooling(LagPooling(CHANNELS, RATE))
    row = pooling(magnitudes(beats(0.0), low_lead=0.4))[0]
    forwards, backwards = row[2 * pooling.lag.n_channels], row[2 * pooling.lag.n_channels + 1]
    lags = lag_times()
    near, far = (int((lags - seconds).abs().argmin()) for seconds in (0.2, 0.3))
    assert forwards[near] > forwards[far] + 0.1
    assert backwards[far] > backwards[near] + 0.1
    assert row.abs().max() < 4.01


def test_lags_reach_as_far_as_they_say_and_keep_their_density() -> None:
    assert lags_until(7.5) == 160
    short, long = lag_times(), lag_times(lags_until(14.0), longest=14.0)
    assert long[-1].item() == pytest.approx(14.0)
    assert (long[1] / long[0]).item() == pytest.approx((short[1] / short[0]).item(), rel=1e-3)


@pytest.mark.parametrize("kind", ["lag", "rhythm"])
@pytest.mark.parametrize("name", ["spectral", "embedded"])
def test_another_longest_lag_is_another_store_and_earlier_ones_are_read(name: str, kind: str) -> None:
    backbone = load_backbone(name, weights=False)
    usual, far = (
        feature_spec(backbone, FeatureConfig(backbone=name, poolings=(kind,), longest_lag=s), "float32")
        for s in (7.5, 14.0)
    )
    assert usual.poolings[0].shape[1] == 160
    assert far.poolings[0].shape[1] == 182
    assert usual.fingerprint != far.fingerprint
    assert pooling_of(usual.poolings[0], backbone) is not None
    assert pooling_of(far.poolings[0], backbone) is not None
    parameters = {**far.poolings[0].parameters, "n_lags": 183}
    with pytest.raises(FingerprintError, match=f"{kind} pooling"):
        pooling_of(dataclasses.replace(far.poolings[0], parameters=parameters), backbone)


def test_settings_say_which_lags_are_possible() -> None:
    with pytest.raises(ConfigError, match="1 to 30"):
        FeatureConfig(longest_lag=40.0)
