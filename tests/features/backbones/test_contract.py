"""What every backbone keeps. A new one joins by one line in `BACKBONES`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import hubfolders
import numpy as np
import pytest
import torch
from torch import Tensor

from beatmeter.audio.chunking import Layout
from beatmeter.errors import BackboneError
from beatmeter.features.backbones import NAMES, load_backbone
from beatmeter.features.backbones.adapters import attach
from beatmeter.features.backbones.base import Backbone
from beatmeter.features.backbones.hubert import Hubert
from beatmeter.features.pooling import chunk_spec, feature_spec
from beatmeter.settings import (
    EMBEDDED,
    EMBEDDED_HARD,
    MERT_95M,
    MERT_330M,
    SPECTRAL,
    UNTRAINED,
    AdapterConfig,
    FeatureConfig,
)

# what stands for the two published checkpoints, whose weights are not here: small ones of their architecture
BACKBONES: dict[str, Callable[[Path], str]] = {
    MERT_330M: lambda folder: str(hubfolders.write_hub_folder(folder, pre_norm=True)),
    MERT_95M: lambda folder: str(hubfolders.write_hub_folder(folder, pre_norm=False)),
    EMBEDDED: lambda folder: EMBEDDED,
    EMBEDDED_HARD: lambda folder: EMBEDDED_HARD,
    UNTRAINED: lambda folder: UNTRAINED,
    SPECTRAL: lambda folder: SPECTRAL,
}


@pytest.fixture(params=sorted(BACKBONES))
def name(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return BACKBONES[request.param](tmp_path / "checkpoint")


@pytest.fixture
def backbone(name: str) -> Backbone:
    return load_backbone(name)


def states(backbone: Backbone, waves: Tensor, last: int | None = None) -> dict[int, Tensor]:
    found: dict[int, Tensor] = {}
    with torch.no_grad():
        backbone(waves, lambda k, x: found.update({k: x}), last)
    return found


def music(chunks: int, samples: int, rate: int = 24_000) -> Tensor:
    """Clicks at 2 Hz over a chord, a little different in every chunk."""
    t = torch.arange(samples) / rate
    chord = torch.stack([torch.sin(2 * torch.pi * f * t) for f in (220.0, 277.2, 329.6)]).sum(0)
    clicks = torch.exp(-30 * (t % 0.5)) * torch.sin(2 * torch.pi * 1_000 * t)
    return torch.stack(
        [0.1 * chord * (1 + i) + clicks + 0.01 * torch.sin((3 + i) * t) for i in range(chunks)]
    )


def test_every_name_is_here() -> None:
    assert set(BACKBONES) == set(NAMES)


def test_attributes(backbone: Backbone) -> None:
    assert backbone.sample_rate > 0
    assert 0 < backbone.hop <= backbone.span
    assert backbone.n_layers >= 1
    assert backbone.dim >= 1
    identity = backbone.identity
    assert identity.name
    assert identity.revision
    assert identity.licence
    assert len(identity.weights) == 64
    int(identity.weights, 16)
    assert not backbone.training
    assert not any(p.requires_grad for p in backbone.parameters())


def test_shapes_frames_and_layer_numbers(backbone: Backbone) -> None:
    for samples in (
        backbone.span,
        backbone.span + backbone.hop - 1,
        backbone.sample_rate,
        chunk_spec(backbone).length,
    ):
        found = states(backbone, music(2, samples))
        assert list(found) == list(range(1, backbone.n_layers + 1))
        for x in found.values():
            assert x.shape == (2, backbone.frames(samples), backbone.dim)
            assert x.dtype == torch.float32
            assert bool(torch.isfinite(x).all())
    assert (
        backbone.frames(chunk_spec(backbone).length) * backbone.hop == chunk_spec(backbone).hop
    )  # chunks join without drift


def test_frames_lie_where_chunking_says(backbone: Backbone) -> None:
    """A click changes most the frames whose centres are nearest to it: times of frames are the backbone's,
    too."""
    spec = feature_spec(backbone, FeatureConfig(poolings=("stats",)), "float32")
    at = 1.51
    quiet = 1e-3 * torch.randn(1, 3 * backbone.sample_rate, generator=torch.Generator().manual_seed(0))
    loud = quiet.clone()
    loud[0, int(at * backbone.sample_rate)] += 1.0
    if spec.normalise:  # else the click changes the level of the whole chunk
        backbone.normalise = False
    with torch.no_grad():  # attention is free to look anywhere: what comes before it has a place
        first = backbone.embed if isinstance(backbone, Hubert) else lambda waves: states(backbone, waves)[1]
        change = (first(loud) - first(quiet))[0].norm(dim=1).numpy()
    times = Layout.of(quiet.shape[1], spec).frame_times()[0]
    assert len(times) == len(change)
    centre = float((times * change**4).sum() / (change**4).sum())
    assert abs(centre - at) < 2.5 * backbone.hop / backbone.sample_rate


def test_deterministic_and_blind_to_the_rest_of_the_batch(name: str, backbone: Backbone) -> None:
    waves = music(3, 30_000)
    first, second, again = (
        states(backbone, waves),
        states(backbone, waves),
        states(load_backbone(name), waves),
    )
    alone = [states(backbone, wave[None]) for wave in waves]
    for k, x in first.items():
        assert torch.equal(x, second[k])
        assert torch.equal(x, again[k])
        assert torch.allclose(x, torch.cat([a[k] for a in alone]), atol=1e-4 * float(x.abs().max()))


def test_stops_after_the_last_wanted_layer(backbone: Backbone) -> None:
    waves = music(1, 24_000)
    whole = states(backbone, waves)
    for last in {1, (backbone.n_layers + 1) // 2, backbone.n_layers}:
        part = states(backbone, waves, last)
        assert list(part) == list(range(1, last + 1))
        assert all(torch.equal(part[k], whole[k]) for k in part)
    if backbone.resumes:
        assert list(states(backbone, waves, 0)) == [0], "what the first layer takes"
    for last in (*(() if backbone.resumes else (0,)), backbone.n_layers + 1):
        with pytest.raises(BackboneError, match=f"layer {last} was asked of"):
            states(backbone, waves, last)


def test_wrong_shapes_are_refused(backbone: Backbone) -> None:
    for waves in (torch.zeros(24_000), torch.zeros(1, backbone.span - 1)):
        with pytest.raises(BackboneError, match=r"expected \(chunk, sample\)"):
            states(backbone, waves)


def test_silence_gives_finite_states(backbone: Backbone) -> None:
    assert all(bool(torch.isfinite(x).all()) for x in states(backbone, torch.zeros(1, 24_000)).values())


def test_lag_pooling_fits_the_states(backbone: Backbone) -> None:
    pooling = backbone.lag_pooling()
    assert not any(p.requires_grad for p in pooling.parameters())
    x = states(backbone, music(2, chunk_spec(backbone).length))[1]
    joined = x.flatten(0, 1)[None]
    assert pooling(joined).shape == (1, pooling.n_channels, pooling.n_lags)
    assert backbone.lag_pooling().settings == pooling.settings
    spec = feature_spec(backbone, FeatureConfig(poolings=("stats", "lag"), layers="1"), "float32")
    assert spec["lag"].shape == (pooling.n_channels, pooling.n_lags)


def test_an_outline_has_the_same_spec(name: str, backbone: Backbone) -> None:
    config = FeatureConfig(poolings=("stats", "lag"))
    assert feature_spec(load_backbone(name, weights=False), config, "float32") == feature_spec(
        backbone, config, "float32"
    )


def test_lora_changes_nothing_before_its_first_step(backbone: Backbone) -> None:
    waves = music(2, 24_000)
    before = states(backbone, waves)
    if not any(True for _ in backbone.parameters()):
        with pytest.raises(BackboneError, match="no weights to adapt"):
            attach(backbone, AdapterConfig())
        return
    trainable = attach(backbone, AdapterConfig(r=2))
    assert trainable
    assert all(torch.equal(x, before[k]) for k, x in states(backbone.eval(), waves).items())


def test_fingerprints_tell_backbones_apart(tmp_path: Path) -> None:
    config = FeatureConfig(poolings=("stats",), layers="1")
    prints = {
        feature_spec(load_backbone(make(tmp_path / key.replace("/", "-"))), config, "float32").fingerprint
        for key, make in BACKBONES.items()
    }
    assert len(prints) == len(BACKBONES)
    assert np.all([len(p) == 64 for p in prints])
