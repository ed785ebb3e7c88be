"""Encoders of transformers as backbones, each on a small random checkpoint in its publisher's format."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from familyfolders import CONFIGS, EXTRACTORS, write_family
from torch import Tensor

from beatmeter.errors import BackboneError
from beatmeter.features.backbones import load_backbone
from beatmeter.features.backbones.adapters import adapter_state, attach, load_merged
from beatmeter.features.backbones.base import LayeredBackbone
from beatmeter.features.backbones.families import FAMILIES
from beatmeter.features.pooling import chunk_spec, feature_spec
from beatmeter.settings import AdapterConfig, FeatureConfig

NAMES = sorted(CONFIGS)
pytestmark = pytest.mark.filterwarnings(
    "ignore:At least one mel filter"
)  # transformers' own word on AST's published settings


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: write_family(tmp_path_factory.mktemp("families") / name, name) for name in NAMES}


@pytest.fixture(params=NAMES)
def folder(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Path:
    return folders[request.param]


def load(folder: Path) -> LayeredBackbone:
    backbone = load_backbone(str(folder))
    assert isinstance(backbone, LayeredBackbone)
    return backbone


def music(backbone: LayeredBackbone, chunks: int = 2) -> Tensor:
    samples = chunk_spec(backbone).length
    t = torch.arange(samples) / backbone.sample_rate
    tones = [
        torch.sin(2 * torch.pi * 220 * (1 + i) * t) * (0.2 + torch.exp(-8 * (t % 0.5))) for i in range(chunks)
    ]
    return 0.1 * torch.stack(tones) + 0.01 * torch.randn(
        chunks, samples, generator=torch.Generator().manual_seed(1)
    )


def states(backbone: LayeredBackbone, waves: Tensor, last: int | None = None) -> dict[int, Tensor]:
    found: dict[int, Tensor] = {}
    with torch.no_grad():
        backbone(waves, lambda k, x: found.update({k: x}), last)
    return found


def theirs(folder: Path, waves: Tensor) -> list[Tensor]:
    """Every layer's states as transformers gives them, by its own classes; the last one is
    `last_hidden_state`."""
    kind = json.loads((folder / "config.json").read_text())["model_type"]
    model = transformers.AutoModel.from_pretrained(folder).eval()
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    made = extractor(list(waves.numpy()), sampling_rate=extractor.sampling_rate, return_tensors="pt")
    with torch.no_grad():
        if kind == "clap":
            made["is_longer"] = torch.zeros_like(made["is_longer"])
            x = model.audio_model(**made).last_hidden_state
            return [x.mean(dim=2).transpose(1, 2)]
        network = model.encoder if kind == "whisper" else model
        arguments = {name: value for name, value in made.items() if name != "attention_mask"}
        output = network(**arguments, output_hidden_states=True)
    found = [*output.hidden_states[1:-1], output.last_hidden_state]
    if kind == "audio-spectrogram-transformer":
        found = [x[:, 2:].unflatten(1, (12, -1)).mean(dim=1) for x in found]
    return found


def test_every_family_of_the_table_is_here() -> None:
    assert set(CONFIGS) == set(FAMILIES)


def test_states_are_those_of_transformers(folder: Path) -> None:
    backbone = load(folder)
    waves = music(backbone)
    ours, wanted = states(backbone, waves), theirs(folder, waves)
    assert sorted(ours) == list(range(1, len(wanted) + 1)) == list(range(1, backbone.n_layers + 1))
    for k, x in ours.items():
        assert x.shape == (2, backbone.frames(waves.shape[1]), backbone.dim)
        assert torch.allclose(x, wanted[k - 1][:, : x.shape[1]], atol=1e-5), float(
            (x - wanted[k - 1][:, : x.shape[1]]).abs().max()
        )


def test_chunks_join_without_a_gap_and_states_do_not_depend_on_the_batch(folder: Path) -> None:
    backbone = load(folder)
    waves = music(backbone, 3)
    assert backbone.frames(waves.shape[1]) * backbone.hop == chunk_spec(backbone).hop
    together, again = states(backbone, waves), states(load(folder), waves)
    for i, wave in enumerate(waves):
        for k, x in states(backbone, wave[None]).items():
            assert torch.allclose(x[0], together[k][i], atol=1e-5)
    assert all(torch.equal(x, again[k]) for k, x in together.items())


def test_short_tracks_have_as_many_frames_as_they_last(folder: Path) -> None:
    backbone = load(folder)
    for samples in (backbone.sample_rate, 2 * backbone.sample_rate + 17):
        for x in states(backbone, music(backbone, 1)[:, :samples]).values():
            assert x.shape[1] == backbone.frames(samples) > 0
            assert bool(torch.isfinite(x).all())


def test_it_stops_after_the_last_wanted_layer(folder: Path) -> None:
    backbone = load(folder)
    waves = music(backbone, 1)
    whole = states(backbone, waves)
    for last in {1, backbone.n_layers}:
        part = states(backbone, waves, last)
        assert list(part) == list(range(1, last + 1))
        assert all(torch.equal(x, whole[k]) for k, x in part.items())
    with pytest.raises(BackboneError, match=f"layer {backbone.n_layers + 1} was asked of"):
        states(backbone, waves, backbone.n_layers + 1)
    if backbone.n_layers > 1:
        cut = load_backbone(str(folder), depth=1)
        assert isinstance(cut, LayeredBackbone)
        assert cut.depth == 1
        assert torch.equal(states(cut, waves, 1)[1], whole[1])


@pytest.mark.parametrize("checkpointing", ["no", "yes"])
def test_lora_changes_nothing_before_its_first_step_and_then_every_factor_learns(
    folder: Path, checkpointing: str
) -> None:
    backbone, plain = load(folder), load(folder)
    waves = music(backbone, 1)
    before = states(backbone, waves)
    config = AdapterConfig(r=2, dropout=0.0, checkpointing=checkpointing)  # type: ignore[arg-type]
    trainable = attach(backbone, config)
    assert all(torch.equal(x, before[k]) for k, x in states(backbone.eval(), waves).items())
    backbone.train()
    last: list[Tensor] = []
    backbone(waves, lambda k, x: last.append(x))
    last[-1].float().pow(3).sum().backward()
    second = [p for name, p in adapter_state(backbone).items() if name.endswith("lora_B")]
    assert second
    grads = [p.grad for p in trainable if p.shape[1] == 2]
    assert all(
        g is not None and float(g.abs().max()) > 0 for g in grads
    )  # B is zero, and A learns from the second step on
    with torch.no_grad():
        for p in trainable:
            p.add_(0.02)
    after = states(backbone.eval(), waves)
    assert not torch.allclose(after[backbone.n_layers], before[backbone.n_layers], atol=1e-4)
    load_merged(plain, config, adapter_state(backbone))
    for k, x in states(plain, waves).items():
        assert torch.allclose(x, after[k], atol=1e-4)


def test_last_layers_and_the_whole_network_train(folder: Path) -> None:
    backbone = load(folder)
    top = attach(backbone, AdapterConfig(kind="last_layers", layers=1))
    assert 0 < sum(p.numel() for p in top) < sum(p.numel() for p in backbone.parameters())
    whole = attach(load(folder), AdapterConfig(kind="full"))
    assert sum(p.numel() for p in whole) == sum(p.numel() for p in backbone.parameters())


def test_an_outline_has_the_same_spec(folder: Path) -> None:
    config = FeatureConfig(
        poolings=("stats", "frames"), frame_rate=load(folder).sample_rate / load(folder).hop
    )
    outline = load_backbone(str(folder), weights=False)
    assert feature_spec(outline, config, "float32") == feature_spec(load(folder), config, "float32")


def test_slow_frames_are_not_pooled_by_lag(folders: dict[str, Path]) -> None:
    for name in ("audio-spectrogram-transformer", "clap"):
        with pytest.raises(BackboneError, match="too slow for lag pooling"):
            feature_spec(load(folders[name]), FeatureConfig(poolings=("lag",)), "float32")


def test_every_setting_that_moves_states_moves_the_fingerprint(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    """Another head count, another epsilon, another mel floor: the weights are the same, the features are
    not."""

    def fingerprint(folder: Path) -> str:
        return feature_spec(
            load_backbone(str(folder), weights=False), FeatureConfig(poolings=("stats",)), "float32"
        ).fingerprint

    for name, file, field, value in (
        ("wavlm", "config.json", "num_attention_heads", 2),
        ("unispeech-sat", "config.json", "layer_norm_eps", 0.1),
        ("whisper", "preprocessor_config.json", "n_fft", 512),
        ("audio-spectrogram-transformer", "preprocessor_config.json", "mean", -1.0),
    ):
        other = tmp_path / f"{name}-{field}"
        other.mkdir()
        for path in folders[name].iterdir():
            (other / path.name).write_bytes(path.read_bytes())
        values = json.loads((other / file).read_text())
        (other / file).write_text(json.dumps(values | {field: value}))
        assert fingerprint(other) != fingerprint(folders[name])


def test_what_cannot_be_used_is_named(folders: dict[str, Path], tmp_path: Path) -> None:
    def copy(name: str, title: str) -> Path:
        other = tmp_path / title
        other.mkdir()
        for path in folders[name].iterdir():
            (other / path.name).write_bytes(path.read_bytes())
        return other

    half = copy("wavlm", "half")
    weights = half / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    with pytest.raises(BackboneError, match="half"):
        load(half)
    bare = copy("whisper", "bare")
    (bare / "preprocessor_config.json").unlink()
    with pytest.raises(BackboneError, match=r"no preprocessor_config.json"):
        load(bare)
    wide = copy("wavlm", "wide")
    values = json.loads((wide / "config.json").read_text())
    (wide / "config.json").write_text(json.dumps(values | {"intermediate_size": 64}))
    with pytest.raises(BackboneError, match=r"does not fit its config.json|cannot be loaded"):
        load(wide)
    text = copy("wavlm", "text")
    (text / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(BackboneError, match="no audio encoder that beatmeter knows"):
        load(text)
    with pytest.raises(BackboneError, match="normalise"):
        load_backbone(str(folders["whisper"]), normalise="yes")


def test_lacking_weights_are_named(folders: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for path in folders["data2vec-audio"].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    tensors = load_file(tmp_path / "model.safetensors")
    gone = next(name for name in tensors if name.endswith("layers.1.attention.q_proj.weight"))
    save_file(
        {name: value for name, value in tensors.items() if name != gone},
        tmp_path / "model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(BackboneError, match=r"lacks .*layers\.1\.attention\.q_proj\.weight"):
        load(tmp_path)


def test_claps_extractor_draws_nothing(folders: dict[str, Path]) -> None:
    """It calls one clip of every batch longer, at random: the same file gave other states in every call."""
    assert EXTRACTORS["clap"][1]["truncation"] == "fusion"
    backbone = load(folders["clap"])
    waves = music(backbone, 4)
    first = states(backbone, waves)[1]
    for seed in range(4):
        np.random.seed(seed)  # noqa: NPY002  # the generator that the extractor draws from
        assert torch.equal(states(backbone, waves)[1], first)
