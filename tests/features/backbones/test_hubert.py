"""The encoder against transformers' HubertModel, which it must equal, and against itself under every shortcut
it takes."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import hubfolders
import pytest
import torch
from torch import Tensor

from beatmeter.errors import BackboneError
from beatmeter.features.backbones import frontend, load_backbone
from beatmeter.features.backbones.base import Backbone, Identity
from beatmeter.features.backbones.hubert import Hubert
from beatmeter.features.backbones.hubert_config import HubertConfig

ARCHITECTURES: list[dict[str, Any]] = [
    {"pre_norm": True},
    {"pre_norm": False},
    {"pre_norm": True, "feat_extract_norm": "layer", "conv_bias": True},
    {"pre_norm": False, "feat_extract_norm": "layer"},
    {
        "pre_norm": False,
        "conv_bias": True,
        "conv_kernel": [7, 4, 5, 3, 1, 2, 2],
        "num_conv_pos_embeddings": 15,
    },
    {
        "pre_norm": True,
        "feat_proj_layer_norm": False,
        "conv_dim": [16, 24, 8, 16],
        "conv_kernel": [10, 3, 2, 5],
        "conv_stride": [5, 4, 4, 4],
    },
]


def states(backbone: Backbone, waves: Tensor, last: int | None = None) -> list[Tensor]:
    """The states of layers 1 ... `last`."""
    found: list[Tensor] = []

    def visit(k: int, x: Tensor) -> None:
        assert k == len(found) + 1
        found.append(x)

    backbone(waves, visit, last)
    return found


def reference(folder: Path, waves: Tensor) -> list[Tensor]:
    """The same from transformers, eager attention. Its last `hidden_states` entry is before the final
    LayerNorm of a pre-LN network in some versions and after it in others; `last_hidden_state` is after it in
    all."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import HubertConfig as TheirConfig
        from transformers import HubertModel

        config = json.loads((folder / "config.json").read_text())
        for name in (
            "model_type",
            "architectures",
            *("feature_extractor_cqt", "deepnorm", "attention_relax"),
        ):
            config.pop(name, None)
        model = HubertModel(
            TheirConfig(
                **{**config, "layerdrop": 0.0, "apply_spec_augment": False}, attn_implementation="eager"
            )
        ).eval()
        model.load_state_dict(torch.load(folder / "pytorch_model.bin", weights_only=True), strict=True)
        with torch.no_grad():
            result = model(waves, output_hidden_states=True)
    return [*result.hidden_states[1:-1], result.last_hidden_state]


def difference(ours: list[Tensor], theirs: list[Tensor]) -> float:
    """Largest difference, relative to the largest value of the layer."""
    assert [x.shape for x in ours] == [x.shape for x in theirs]
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(ours, theirs, strict=True))


def normalised(waves: Tensor) -> Tensor:
    return (waves - waves.mean(1, keepdim=True)) / (waves.var(1, correction=0, keepdim=True) + 1e-7).sqrt()


@pytest.mark.parametrize("norm", ["old", "new"])
@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=str)
def test_equals_transformers(tmp_path: Path, architecture: dict[str, Any], norm: Any) -> None:
    folder = hubfolders.write_hub_folder(tmp_path / "small", norm=norm, **architecture)
    backbone = load_backbone(str(folder))
    for samples in (backbone.span, 24_000, 26_543):
        waves = 0.2 * torch.randn(2, samples, generator=torch.Generator().manual_seed(samples))
        with torch.no_grad():
            ours = states(backbone, waves)
        assert len(ours) == backbone.n_layers == 3
        assert ours[0].shape == (2, backbone.frames(samples), backbone.dim)
        assert difference(ours, reference(folder, normalised(waves))) < 1e-5


def test_gradient_path_equals_inference_path(tmp_path: Path) -> None:
    """With gradients no product is fused and no block is cut; the numbers stay."""
    waves = torch.randn(3, 60_000)
    for architecture in ARCHITECTURES[:3]:
        folder = hubfolders.write_hub_folder(tmp_path / str(architecture["pre_norm"]), **architecture)
        backbone = load_backbone(str(folder))
        with torch.no_grad():
            fast = states(backbone, waves)
        slow = states(backbone.requires_grad_(True), waves)
        assert slow[-1].requires_grad
        assert difference([x.detach() for x in slow], fast) < 1e-5


def test_blocks_do_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = load_backbone(str(hubfolders.write_hub_folder(tmp_path / "small")))
    waves = torch.randn(2, 50_000)
    with torch.no_grad():
        whole = states(backbone, waves)
        for rows in (1_000_000, 777, 64):
            monkeypatch.setattr(frontend, "ROWS", rows)
            assert difference(states(backbone, waves), whole) < 1e-5


def test_a_batch_at_once_equals_chunk_by_chunk(tmp_path: Path) -> None:
    """On a GPU all chunks of a batch pass the front end together."""
    for i, architecture in enumerate(ARCHITECTURES):
        backbone = load_backbone(str(hubfolders.write_hub_folder(tmp_path / str(i), **architecture)))
        assert isinstance(backbone, Hubert)
        waves = torch.randn(3, 40_000)
        with torch.no_grad():
            assert (
                difference([backbone.feature_extractor._stack(waves)], [backbone.feature_extractor(waves)])
                < 1e-5
            )


def test_pickles_and_copies(tmp_path: Path) -> None:
    """Backbones travel to worker processes."""
    backbone = load_backbone(str(hubfolders.write_hub_folder(tmp_path / "small")))
    waves = torch.randn(1, 12_000)
    with torch.no_grad():
        for other in (pickle.loads(pickle.dumps(backbone)), copy.deepcopy(backbone)):
            assert torch.equal(states(other, waves)[-1], states(backbone, waves)[-1])


def test_gradients_equal_those_of_transformers_modules(tmp_path: Path) -> None:
    """The folded GroupNorm and the windowed products are differentiable: gradients of the plain layers, in
    float64."""
    folder = hubfolders.write_hub_folder(tmp_path / "small")
    backbone = load_backbone(str(folder))
    assert isinstance(backbone, Hubert)
    front = backbone.feature_extractor.requires_grad_(True)
    waves = torch.randn(2, 6_000)
    front(waves).square().mean().backward()
    x = waves[:, None]
    for i, layer in enumerate(front.conv_layers):
        x = torch.nn.functional.conv1d(x, layer.conv.weight, stride=layer.stride)
        x = torch.nn.functional.gelu(layer.layer_norm(x) if i == 0 else x)
    plain = torch.autograd.grad(x.square().mean(), list(front.parameters()))
    for parameter, wanted in zip(front.parameters(), plain, strict=True):
        assert parameter.grad is not None
        assert float((parameter.grad - wanted).abs().max()) < 1e-4 * float(wanted.abs().max())


@pytest.mark.parametrize("pre_norm", [True, False])
def test_stopping_early_changes_no_layer_before(tmp_path: Path, pre_norm: bool) -> None:
    folder = hubfolders.write_hub_folder(tmp_path / "small", pre_norm)
    whole, short = load_backbone(str(folder)), load_backbone(str(folder), depth=2)
    waves = torch.randn(2, 24_000)
    ran: list[int] = []
    assert isinstance(whole, Hubert)
    assert isinstance(short, Hubert)
    for k, layer in enumerate(whole.encoder.layers, 1):
        layer.register_forward_hook(lambda *_, k=k: ran.append(k))
    with torch.no_grad():
        full = states(whole, waves)
        ran.clear()
        stopped = states(whole, waves, last=2)
        assert ran == [1, 2]
        truncated = states(short, waves, last=2)
    for k in (0, 1):
        assert torch.equal(full[k], stopped[k])
        assert torch.equal(full[k], truncated[k])
    assert short.n_layers == 3
    assert short.depth == 2
    assert sum(p.numel() for p in short.parameters()) < sum(p.numel() for p in whole.parameters())
    with pytest.raises(BackboneError, match=r"layer 3 was asked of .* holds layers 1 to 2 of 3"):
        states(short, waves)


def test_a_chunk_does_not_see_its_batch(tmp_path: Path) -> None:
    for pre_norm in (True, False):
        backbone = load_backbone(str(hubfolders.write_hub_folder(tmp_path / str(pre_norm), pre_norm)))
        waves = torch.randn(5, 30_000)
        with torch.no_grad():
            together = states(backbone, waves)
            alone = [states(backbone, wave[None]) for wave in waves]
        for k, layer in enumerate(together):
            assert float((layer - torch.cat([a[k] for a in alone])).abs().max()) < 1e-5 * float(
                layer.abs().max()
            )


def test_input_normalisation(tmp_path: Path) -> None:
    folder = hubfolders.write_hub_folder(tmp_path / "small")
    raw = load_backbone(str(folder), normalise="no")
    own = load_backbone(str(folder))
    waves = 0.01 * torch.randn(2, 24_000) + 0.3
    with torch.no_grad():
        assert difference(states(own, waves), states(raw, normalised(waves))) < 1e-5
        assert difference(states(own, waves), states(own, 7 * waves - 1)) < 1e-3  # blind to gain and offset
        assert difference(states(raw, waves), states(raw, normalised(waves))) > 1e-2
        silent = states(own, torch.zeros(1, 24_000))
    assert all(bool(torch.isfinite(x).all()) for x in silent)
    assert (raw.normalise, own.normalise) == (False, True)


@pytest.mark.parametrize("pre_norm", [True, False])
def test_bfloat16_stays_near(tmp_path: Path, pre_norm: bool) -> None:
    folder = hubfolders.write_hub_folder(tmp_path / "small", pre_norm)
    waves = torch.randn(2, 24_000)
    with torch.no_grad():
        exact = states(load_backbone(str(folder)), waves)
        rough = states(load_backbone(str(folder), dtype="bfloat16"), waves)
        moved = states(load_backbone(str(folder)).to(torch.bfloat16), waves)
    for a, b, c in zip(exact, rough, moved, strict=True):
        assert b.dtype == torch.bfloat16
        assert torch.equal(b, c)
        assert float((a - b.float()).norm() / a.norm()) < 0.03


def test_dropouts_act_in_training_only(tmp_path: Path) -> None:
    backbone = load_backbone(str(hubfolders.write_hub_folder(tmp_path / "small")))
    waves = torch.randn(1, 24_000)
    with torch.no_grad():
        assert torch.equal(states(backbone, waves)[-1], states(backbone, waves)[-1])
        backbone.train()
        first, second = states(backbone, waves), states(backbone, waves)
    assert len(first) == 3  # no layer is ever dropped
    assert not torch.equal(first[-1], second[-1])


def test_wrong_waves_are_refused(tmp_path: Path) -> None:
    backbone = load_backbone(str(hubfolders.write_hub_folder(tmp_path / "small")))
    for waves in (torch.zeros(24_000), torch.zeros(1, 1, 24_000), torch.zeros(2, backbone.span - 1)):
        with pytest.raises(BackboneError, match="expected \\(chunk, sample\\) with at least 400 samples"):
            states(backbone, waves)


@pytest.mark.parametrize(
    ("size", "sizes", "parameters"),
    [("95M", (768, 12, 12, 3072, False), 94_371_712), ("330M", (1024, 24, 16, 4096, True), 315_428_992)],
)
def test_published_sizes(size: str, sizes: tuple[int, int, int, int, bool], parameters: int) -> None:
    """Parameter counts of the published checkpoints, which store the positional kernel in two parts and a
    mask embedding."""
    names = (
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "do_stable_layer_norm",
    )
    config = HubertConfig.from_json(dict(zip(names, sizes, strict=True)), size)
    with torch.device("meta"):
        model = Hubert(config, Identity(size, "", "", ""), 24_000, True)
    assert (
        sum(p.numel() for p in model.parameters()) + config.num_conv_pos_embeddings + config.hidden_size
        == parameters
    )
    assert (model.hop, model.span, model.frames(120_000), model.frames(120_080)) == (320, 400, 374, 375)


def test_neither_transformers_nor_peft_is_imported_to_extract(tmp_path: Path) -> None:
    folder = hubfolders.write_hub_folder(tmp_path / "small")
    code = (
        "import sys, torch; from beatmeter.features.backbones import load_backbone\n"
        f"b = load_backbone({str(folder)!r}); b(torch.randn(1, 24000), lambda k, x: None)\n"
        "print([m for m in ('transformers', 'peft', 'huggingface_hub', 'librosa', 'scipy') if m in "
        "sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
