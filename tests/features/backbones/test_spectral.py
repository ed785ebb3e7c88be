"""The spectral backbone: its filters are the usual ones, its frames lie where they should, its chunks join
without a seam."""

from __future__ import annotations

import subprocess
import sys

import librosa
import numpy as np
import pytest
import torch
from torch import Tensor

from beatmeter.datasets.synth import render
from beatmeter.errors import BackboneError
from beatmeter.features.autocorrelation import lag_times
from beatmeter.features.backbones.spectral import SpectralBackbone, constant_q_matrix, log_mel, mel_matrix

CHUNK, HOP = 120_080, 120_000


@pytest.fixture(scope="module")
def backbone() -> SpectralBackbone:
    return SpectralBackbone()


def states(backbone: SpectralBackbone, waves: Tensor) -> Tensor:
    seen: list[Tensor] = []
    backbone(waves, lambda layer, values: seen.append(values))
    assert len(seen) == 1
    return seen[0]


def chunks(audio: Tensor) -> Tensor:
    return audio.unfold(0, CHUNK, HOP)


def test_mel_filters_are_librosas() -> None:
    ours = mel_matrix(24000, 1024, 64, 30.0, 11500.0).numpy()
    theirs = librosa.filters.mel(sr=24000, n_fft=1024, n_mels=64, fmin=30.0, fmax=11500.0)
    assert np.allclose(ours, theirs, atol=1e-6)


def test_constant_q_filters_peak_at_their_semitone() -> None:
    matrix = constant_q_matrix(24000, 4096, 84)
    hertz = 55.0 * 2 ** (torch.arange(84) / 12)
    assert torch.all((matrix.argmax(dim=1) * 24000 / 4096 - hertz).abs() < 3)
    assert torch.allclose(matrix.square().sum(dim=1), torch.ones(84), atol=1e-5)


def test_shapes_and_frames(backbone: SpectralBackbone) -> None:
    got = states(backbone, torch.randn(2, CHUNK) * 0.1)
    assert got.shape == (2, 375, backbone.dim)
    assert backbone.frames(CHUNK) == 375
    assert torch.isfinite(states(backbone, torch.zeros(1, CHUNK))).all()


@pytest.mark.parametrize("samples", [24_000, 4_200, 4_000, 400])
def test_short_chunks_keep_their_frames(backbone: SpectralBackbone, samples: int) -> None:
    got = states(backbone, torch.randn(1, samples))
    assert got.shape[1] == backbone.frames(samples)
    assert torch.isfinite(got).all()


def test_a_frame_sees_what_lies_around_its_centre(backbone: SpectralBackbone) -> None:
    wave = torch.zeros(1, CHUNK)
    wave[0, 100 * 320 + 200] = 1.0
    got = states(backbone, wave)[0]
    assert got[:, 20].argmax().item() == 100
    assert abs(got[:, 100].argmax().item() - 100) <= 1


def test_a_sine_lights_its_bin_and_gain_is_an_offset(backbone: SpectralBackbone) -> None:
    time = torch.arange(CHUNK) / 24000
    sine = torch.sin(2 * torch.pi * 440 * time)[None]
    got = states(backbone, sine)[0, 187]
    assert got[64:].argmax().item() == 36
    assert torch.allclose(
        states(backbone, sine * 0.1)[0, 187][64 + 36], got[64 + 36] + np.log(0.1), atol=1e-3
    )


def test_log_mel_is_the_first_part(backbone: SpectralBackbone) -> None:
    waves = torch.randn(1, CHUNK) * 0.1
    assert torch.equal(log_mel(waves, 24000), states(backbone, waves)[..., :64])


def test_joined_chunks_equal_the_whole_away_from_the_joins(backbone: SpectralBackbone) -> None:
    audio = torch.from_numpy(render(5, seconds=15.01).audio)
    joined = states(backbone, chunks(audio)).flatten(0, 1)
    whole = states(backbone, audio[None])[0][: len(joined)]
    inner = [frame for frame in range(len(joined)) if 6 <= frame % 375 < 369]
    assert torch.allclose(joined[inner], whole[inner], atol=1e-3)


@pytest.mark.parametrize("sound", ["sine", "noise", "music"])
def test_joins_make_no_rhythm_of_five_seconds(backbone: SpectralBackbone, sound: str) -> None:
    """Chunked and whole analysis must agree at the lag of 5 s, where the joins would show."""
    n = 6 * HOP + 80
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(n, generator=generator)
    if sound == "sine":
        audio = 0.3 * torch.sin(2 * torch.pi * 441.7 * torch.arange(n) / 24000) + 1e-4 * noise
    elif sound == "noise":
        audio = 0.1 * noise
    else:
        audio = torch.from_numpy(render(22, seconds=n / 24000 + 0.001).audio[:n])
    pooling = backbone.lag_pooling()
    joined = pooling(states(backbone, chunks(audio)).flatten(0, 1)[None])[0]
    whole = pooling(states(backbone, audio[None]))[0]
    at = int((lag_times() - 5.0).abs().argmin())
    assert (joined - whole)[:, at - 1 : at + 2].abs().max() < 0.03


def test_gain_and_a_noise_floor_change_little(backbone: SpectralBackbone) -> None:
    clip = torch.from_numpy(render(8, seconds=20.02).audio)
    pooling = backbone.lag_pooling()
    usual = pooling(states(backbone, chunks(clip)).flatten(0, 1)[None])
    quiet = pooling(states(backbone, chunks(clip * 0.05)).flatten(0, 1)[None])
    noisy = clip + clip.std() * 0.01 * torch.randn(len(clip), generator=torch.Generator().manual_seed(1))
    hissing = pooling(states(backbone, chunks(noisy)).flatten(0, 1)[None])
    assert (usual - quiet).abs().max() < 0.02
    assert (usual - hissing).abs().mean() < 0.03


def test_wrong_layers_and_shapes_are_refused(backbone: SpectralBackbone) -> None:
    with pytest.raises(BackboneError, match="one layer"):
        backbone(torch.randn(1, CHUNK), lambda layer, values: None, last=2)
    with pytest.raises(BackboneError, match="expected"):
        backbone(torch.randn(1, 100), lambda layer, values: None)


def test_identity_is_stable_and_imports_are_light(backbone: SpectralBackbone) -> None:
    assert backbone.identity == SpectralBackbone().identity
    code = (
        "import sys, beatmeter.features.backbones.spectral; print(sorted({'transformers', 'librosa', "
        "'scipy'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert out.strip() == "[]"
