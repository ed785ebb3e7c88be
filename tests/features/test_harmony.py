"""Harmony: another key turns the pitch classes, another tempo moves the row, gain changes nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from beatmeter.audio.chunking import Layout, row_edges
from beatmeter.errors import ConfigError, FingerprintError
from beatmeter.features.backbones import load_backbone
from beatmeter.features.harmony import ProjectedClasses, SpectralClasses, averaged, modulations, periods
from beatmeter.features.pooling import Encoder, feature_spec, window_chunks
from beatmeter.features.poolings import Arrangement
from beatmeter.settings import FeatureConfig

RATE = 24_000
PIECE = (
    (0, 4, 7),
    (5, 9, 12),
    (7, 11, 14),
    (0, 4, 7),
    (9, 12, 16),
    (2, 5, 9),
    (7, 11, 17),
    (4, 7, 12),
    (5, 8, 12),
    (0, 3, 7),
)


def played(transpose: int = 0, beat: float = 0.6, seconds: float = 20.0, gain: float = 0.1) -> np.ndarray:
    """Chords of three tones with four harmonics, one a beat, in a loop."""
    t = np.arange(round(seconds * RATE)) / RATE
    wave = np.zeros(len(t))
    for number in range(math.ceil(seconds / beat)):
        now = (t >= number * beat) & (t < (number + 1) * beat)
        for pitch in PIECE[number % len(PIECE)]:
            hertz = 220 * 2 ** ((pitch + transpose) / 12)
            for harmonic in (1, 2, 3, 4):
                wave[now] += np.sin(2 * np.pi * hertz * harmonic * t[now]) / harmonic
    return (gain * wave / np.abs(wave).max()).astype(np.float32)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    model = load_backbone("spectral")
    return Encoder(
        model,
        feature_spec(model, FeatureConfig(backbone="spectral", poolings=("harmony", "chroma")), "float32"),
    ).eval()


def features(encoder: Encoder, wave: np.ndarray) -> dict[str, Tensor]:
    layout = Layout.of(len(wave), encoder.spec)
    chunks = torch.from_numpy(np.stack([wave[s : s + layout.length] for s in layout.starts]))
    with torch.inference_mode():
        return {
            name: x[:, 0]
            for name, x in encoder(chunks, Arrangement.of(layout, window_chunks(encoder.spec))).items()
        }


def likeness(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


def test_another_key_turns_the_pitch_classes_and_leaves_harmony_alone(encoder: Encoder) -> None:
    here, there = features(encoder, played()), features(encoder, played(transpose=3))
    assert likeness(here["chroma"].roll(3, dims=-1), there["chroma"]) > 0.9
    assert likeness(here["chroma"], there["chroma"]) < 0.5
    assert likeness(here["harmony"], there["harmony"]) > 0.97


def test_gain_changes_nothing(encoder: Encoder) -> None:
    loud, soft = features(encoder, played()), features(encoder, played(gain=0.01))
    assert torch.allclose(loud["harmony"], soft["harmony"], atol=2e-3)
    assert torch.allclose(loud["chroma"], soft["chroma"], atol=2e-2)


def test_the_first_channel_is_c(encoder: Encoder) -> None:
    """A4 and its octaves are channel 9."""
    wave = sum(np.sin(2 * np.pi * hertz * np.arange(RATE * 6) / RATE) for hertz in (220, 440, 880)) * 0.1
    assert set(features(encoder, wave.astype(np.float32))["chroma"].argmax(dim=1).tolist()) == {9}


def test_another_tempo_moves_the_row_along_its_periods(encoder: Encoder) -> None:
    bins = 8
    ratio = float((periods()[1] / periods()[0]) ** bins)
    quick, slow = (
        features(encoder, played(beat=beat, seconds=40))["harmony"][0] for beat in (0.8, 0.8 * ratio)
    )
    assert likeness(quick[:, :-bins], slow[:, bins:]) > 0.9
    assert likeness(quick, slow) < 0.6


def test_modulations_are_the_sum_of_the_formula() -> None:
    rows = torch.rand(1, 60, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = modulations(rows.float())[0].double()
    pitch = torch.fft.fft(rows[0] - rows[0].mean(dim=0), dim=1)
    powers = torch.empty(12, 32, dtype=torch.float64)
    for j, period in enumerate(periods().tolist()):
        taps = min(60, round(min(24, max(8, 2 * period)) * 4))
        at = torch.arange(taps)
        hann = 0.5 - 0.5 * torch.cos(2 * math.pi * (at + 0.5) / taps)
        wave = hann / hann.sum() * torch.exp(-2j * math.pi * at / (4 * period))
        sums = torch.stack([(pitch[t : t + taps] * wave[:, None]).sum(dim=0) for t in range(60 - taps + 1)])
        powers[:, j] = sums.abs().square().mean(dim=0)
    torch.testing.assert_close(found, (powers / powers.sum()).sqrt(), rtol=1e-3, atol=1e-5)


def test_music_that_never_changes_has_no_modulation_and_a_row_has_length_one() -> None:
    assert torch.all(modulations(torch.ones(2, 80, 12)) == 0)
    assert modulations(torch.rand(1, 80, 12)).square().sum().item() == pytest.approx(1, abs=1e-3)


def test_a_batch_is_its_rows_and_gradients_come_back() -> None:
    x = torch.rand(3, 50, 12, generator=torch.Generator().manual_seed(1), requires_grad=True)
    together = modulations(x)
    torch.testing.assert_close(together[1], modulations(x[1:2])[0])
    together.square().sum(dim=2).std().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    assert x.grad.abs().max() > 0


@pytest.mark.parametrize(
    "classes", [SpectralClasses(3), ProjectedClasses(128)], ids=["spectral", "projection"]
)
def test_classes_are_not_negative_and_of_length_one(classes: SpectralClasses | ProjectedClasses) -> None:
    found = classes(torch.randn(2, 30, 128, generator=torch.Generator().manual_seed(2)))
    assert found.shape == (2, 30, 12)
    assert found.min() >= 0
    assert torch.allclose(found.norm(dim=2), torch.ones(2, 30), atol=1e-3)
    assert not list(classes.parameters())


def test_rows_need_no_whole_number_of_frames() -> None:
    assert row_edges(375, 18.75)[:4] == [0, 19, 38, 56]
    assert len(row_edges(375, 18.75)) == 21
    assert row_edges(19, 18.75) == [0, 19]
    assert row_edges(7, 3) == [0, 3, 6, 7]
    x = torch.rand(1, 375, 12)
    torch.testing.assert_close(averaged(x, row_edges(x.shape[1], 18.75))[0, 1], x[0, 19:38].mean(dim=0))


def test_a_rate_that_does_not_fit_and_features_of_another_version_are_refused(encoder: Encoder) -> None:
    backbone = load_backbone("spectral")
    with pytest.raises(ConfigError, match="'chroma'"):
        feature_spec(backbone, FeatureConfig(backbone="spectral", poolings=("chroma@0.3",)), "float32")
    spec = feature_spec(
        load_backbone("embedded"),
        FeatureConfig(backbone="embedded", poolings=("harmony",), layers="1"),
        "float32",
    )
    with pytest.raises(FingerprintError, match="harmony"):
        Encoder(backbone, spec)
