"""A backbone that learned beats brings along what tells them, and rhythm pooling follows the tempo by it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from beatmeter.errors import BackboneError
from beatmeter.features.activations import FILE, BeatActivations
from beatmeter.features.backbones import load_backbone
from beatmeter.features.backbones.checkpoint import write_folder
from beatmeter.features.backbones.embedded import fresh
from beatmeter.features.pooling import feature_spec
from beatmeter.features.rhythm import RhythmPooling
from beatmeter.features.straightening import tempo_curve
from beatmeter.schema import FeatureSpec
from beatmeter.settings import FeatureConfig


def activations(dim: int = 128, seed: int = 0) -> BeatActivations:
    torch.manual_seed(seed)
    return BeatActivations(nn.LayerNorm(dim), nn.Linear(dim, 4))


def curve_of(backbone: str, layers: str = "all") -> object:
    config = FeatureConfig(backbone=backbone, poolings=("rhythm",), layers=layers)
    spec = feature_spec(load_backbone(backbone, weights=False), config, "float32")
    return spec.poolings[0].parameters["curve"]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    own = activations()
    own.write(tmp_path / FILE)
    read = BeatActivations.read(tmp_path / FILE, 128)
    states = torch.randn(50, 128)
    found = read(states)
    assert torch.equal(found, own(states))
    assert found.shape == (50, 4)
    assert float(found[:, :2].std(correction=0)) == pytest.approx(1.0, abs=1e-4)
    assert torch.allclose(found[:, 2:].norm(dim=1), torch.tensor(0.5))
    assert read.digest == own.digest != activations(seed=1).digest
    assert not any(p.requires_grad for p in read.parameters())


def test_a_damaged_file_and_one_of_another_backbone_are_named(tmp_path: Path) -> None:
    activations(64).write(tmp_path / FILE)
    with pytest.raises(BackboneError, match=f"{FILE} holds no activations of beats .* 128"):
        BeatActivations.read(tmp_path / FILE, 128)
    (tmp_path / FILE).write_bytes((tmp_path / FILE).read_bytes()[:-9])
    with pytest.raises(BackboneError, match=f"{FILE} is not a whole"):
        BeatActivations.read(tmp_path / FILE, 64)
    broken = activations()
    with torch.no_grad():
        broken.linear.bias[0] = torch.nan
    broken.write(tmp_path / FILE)
    with pytest.raises(BackboneError, match=FILE):
        BeatActivations.read(tmp_path / FILE, 128)


def test_the_curve_is_of_beats_where_the_last_layer_is_read_and_somebody_learned_them(
    tmp_path: Path,
) -> None:
    write_folder(fresh(0), tmp_path / "deaf")
    write_folder(fresh(0), tmp_path / "hears", beats=activations())
    assert load_backbone(str(tmp_path / "deaf")).beat_activations() is None
    assert curve_of(str(tmp_path / "deaf")) == "onsets of layer 1"
    assert curve_of(str(tmp_path / "hears")) == activations().digest
    assert curve_of(str(tmp_path / "hears"), "2-5") == "onsets of layer 2"
    assert curve_of("spectral") == "onsets of layer 1"
    assert curve_of("embedded-hard") == load_backbone("embedded-hard").beat_activations().digest  # type: ignore[union-attr]


def test_all_layers_are_straightened_by_the_beats_of_the_last() -> None:
    """Beats in the last layer whose period bends, and an even tempo below it: straightened by the beats, the
    lower layer is the one that bends."""
    n, rate = 2250, 75.0
    at = torch.cumsum(38 * torch.exp(0.25 * torch.sin(torch.arange(70.0) / 6)), 0).long()
    bent, even = torch.zeros(n), torch.zeros(n)
    bent[at[at < n]], even[::38] = 1, 1

    class First(nn.Module):
        def forward(self, states: torch.Tensor) -> torch.Tensor:
            return states[..., :2]

    backbone = load_backbone("embedded-hard", weights=False)
    pooling = RhythmPooling(backbone.lag_pooling(7.5), First())  # type: ignore[arg-type]
    noise = 0.01 * torch.randn(2, n, 128, generator=torch.Generator().manual_seed(0))
    states = noise + torch.stack([even, bent])[..., None]
    assert float(tempo_curve(states[1, :, :2], rate).abs().max()) > 0.1
    rows = pooling(states)
    channels = pooling.lag.n_channels
    whole = channels - 2  # all dimensions as one vector
    peaks = rows[..., 100:].amax(-1)  # lags of a second and more
    assert peaks[1, channels + whole] > 1.5 * peaks[1, whole]
    assert peaks[0, channels + whole] < 0.8 * peaks[0, whole]


def test_rows_of_more_layers_do_not_stand_for_those_that_another_layer_straightened(tmp_path: Path) -> None:
    write_folder(fresh(0), tmp_path / "deaf")
    backbone = load_backbone(str(tmp_path / "deaf"), weights=False)

    def spec(layers: str) -> FeatureSpec:
        config = FeatureConfig(backbone=str(tmp_path / "deaf"), poolings=("rhythm",), layers=layers)
        return feature_spec(backbone, config, "float32")

    assert not spec("1-5").covers(spec("3-5"))
    assert spec("1-5").covers(spec("1,3"))


def test_a_folder_that_is_written_again_keeps_no_beats_of_other_weights(tmp_path: Path) -> None:
    write_folder(fresh(0), tmp_path, beats=activations())
    write_folder(fresh(1), tmp_path)
    assert load_backbone(str(tmp_path)).beat_activations() is None
