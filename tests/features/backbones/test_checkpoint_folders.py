"""Folders in the hub's format: every form that loads gives the same network, everything else is refused by
name."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import hubfolders
import pytest
import torch

from beatmeter.errors import BackboneError
from beatmeter.features.backbones import embedded, load_backbone
from beatmeter.features.backbones.checkpoint import write_folder
from beatmeter.features.backbones.hubert import Hubert
from beatmeter.features.backbones.hubert_config import REFUSED, HubertConfig


def last_layer(folder: Path, **arguments: Any) -> torch.Tensor:
    """The deepest states of half a second of noise."""
    found: list[torch.Tensor] = []
    backbone = load_backbone(str(folder), **arguments)
    with torch.no_grad():
        backbone(
            torch.randn(1, 12_000, generator=torch.Generator().manual_seed(1)), lambda _, x: found.append(x)
        )
    return found[-1]


def set_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    "weights", ["pytorch_model.bin", "model.safetensors", "sharded.bin", "sharded.safetensors"]
)
def test_every_kind_of_weight_file(tmp_path: Path, weights: Any) -> None:
    plain = last_layer(hubfolders.write_hub_folder(tmp_path / "plain"))
    assert torch.equal(plain, last_layer(hubfolders.write_hub_folder(tmp_path / "other", weights=weights)))


def test_checkpoints_with_a_head_and_old_pickles(tmp_path: Path) -> None:
    heads = {
        "lm_head.weight": torch.zeros(4, 32),
        "lm_head.bias": torch.zeros(4),
        "project_hid.weight": torch.zeros(2, 32),
    }
    plain = last_layer(hubfolders.write_hub_folder(tmp_path / "plain"))
    assert torch.equal(
        plain, last_layer(hubfolders.write_hub_folder(tmp_path / "ctc", prefix="hubert.", heads=heads))
    )
    assert torch.equal(
        plain,
        last_layer(
            hubfolders.write_hub_folder(
                tmp_path / "wav2vec2", prefix="wav2vec2.", fields={"model_type": "wav2vec2"}
            )
        ),
    )
    old = hubfolders.write_hub_folder(tmp_path / "old")
    torch.save(
        torch.load(old / "pytorch_model.bin", weights_only=True),
        old / "pytorch_model.bin",
        _use_new_zipfile_serialization=False,
    )
    assert torch.equal(plain, last_layer(old))
    half = hubfolders.write_hub_folder(tmp_path / "half")
    hubfolders.save_weights(
        half, {n: v.half() for n, v in torch.load(half / "pytorch_model.bin", weights_only=True).items()}
    )
    assert last_layer(half).dtype == torch.float32


def test_identity_and_settings(tmp_path: Path) -> None:
    folder = hubfolders.write_hub_folder(tmp_path / "mine")
    backbone = load_backbone(str(folder))
    digest = hashlib.sha256((folder / "pytorch_model.bin").read_bytes()).hexdigest()
    assert (backbone.identity.name, backbone.identity.revision, backbone.identity.weights) == (
        "mine",
        "local",
        digest,
    )
    assert backbone.identity.licence == "CC-BY-NC-4.0"
    assert backbone.identity.trained
    assert (backbone.sample_rate, backbone.hop, backbone.span, backbone.n_layers, backbone.dim) == (
        24_000,
        320,
        400,
        3,
        32,
    )
    assert not any(p.requires_grad for p in backbone.parameters())
    assert not backbone.training

    speech = hubfolders.write_hub_folder(
        tmp_path / "speech",
        fields={"model_type": "hubert"},
        preprocessor={"sampling_rate": 16_000, "do_normalize": False},
    )
    other = load_backbone(str(speech))
    assert (other.sample_rate, other.normalise, other.identity.licence) == (
        16_000,
        False,
        "see the checkpoint's model card",
    )

    bare = hubfolders.write_hub_folder(tmp_path / "bare", preprocessor={})
    with pytest.raises(BackboneError, match="does not say its sample rate"):
        load_backbone(str(bare))
    set_json(bare / "config.json", sample_rate=24_000)
    assert load_backbone(str(bare)).normalise


def test_outline_knows_everything_but_the_weights(tmp_path: Path) -> None:
    folder = hubfolders.write_hub_folder(tmp_path / "mine")
    outline, whole = load_backbone(str(folder), weights=False), load_backbone(str(folder))
    for name in ("identity", "sample_rate", "hop", "span", "dim", "n_layers", "normalise"):
        assert getattr(outline, name) == getattr(whole, name)
    assert outline.lag_pooling().settings == whole.lag_pooling().settings
    assert {p.device.type for p in outline.parameters()} == {"meta"}


@pytest.mark.parametrize("field", sorted(REFUSED))
def test_settings_that_change_the_network_are_refused(tmp_path: Path, field: str) -> None:
    folder = hubfolders.write_hub_folder(tmp_path / "small")
    value = {"adapter_attn_dim": 16, "hidden_act": "relu", "feat_extract_activation": "relu"}.get(field, True)
    set_json(folder / "config.json", **{field: value})
    with pytest.raises(BackboneError, match=f"config.json: {field} = {value!r} .* not supported"):
        load_backbone(str(folder))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "bert"}, "model_type 'bert' is no audio encoder"),
        ({"hidden_size": 30}, "hidden_size must be a multiple of num_attention_heads"),
        ({"num_conv_pos_embedding_groups": 5}, "multiple of num_conv_pos_embedding_groups"),
        ({"conv_stride": [5, 2]}, "must have the same length"),
        ({"num_hidden_layers": 0}, "sizes must be above zero"),
        ({"feat_extract_norm": "batch"}, "feat_extract_norm must be 'group' or 'layer'"),
        ({"hidden_size": "768"}, "hidden_size = '768' is not of the type of 768"),
        ({"conv_bias": 1}, "conv_bias = 1 is not of the type of False"),
    ],
)
def test_impossible_settings(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    folder = hubfolders.write_hub_folder(tmp_path / "small")
    set_json(folder / "config.json", **changes)
    with pytest.raises(BackboneError, match=said.replace("'", ".")):
        load_backbone(str(folder))


def test_missing_unknown_and_misshapen_tensors(tmp_path: Path) -> None:
    folder = hubfolders.write_hub_folder(tmp_path / "small")
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    name = "encoder.layers.2.attention.q_proj.weight"
    cases = {
        "lacks encoder.layers.2.attention.q_proj.weight": {n: v for n, v in state.items() if n != name},
        "lacks encoder.pos_conv_embed.conv.weight": {
            n: v for n, v in state.items() if not n.endswith("weight_g")
        },
        "holds tensors of another network: encoder.layers.3.attention.q_proj.weight": state
        | {"encoder.layers.3.attention.q_proj.weight": state[name]},
        r"does not fit its config.json: .*q_proj.weight \(32, 31\) for \(32, 32\)": state
        | {name: state[name][:, :31]},
        "lacks encoder.pos_conv_embed.conv.weight\\. ": state
        | {"encoder.pos_conv_embed.conv.weight_g": torch.ones(32, 1, 1)},
        f"not finite in {name}": state | {name: state[name] * float("nan")},
    }
    for said, broken in cases.items():
        hubfolders.save_weights(folder, broken)
        with pytest.raises(BackboneError, match=said):
            load_backbone(str(folder))
    hubfolders.save_weights(folder, {n: v for n, v in state.items() if "encoder.layers.2." not in n})
    with pytest.raises(
        BackboneError, match=r"lacks encoder.layers.2.* and 13 more"
    ):  # even when those layers are not wanted
        load_backbone(str(folder), depth=1)


class Evil:
    """What a pickle can do: run a command when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_wants_to_run_code_is_refused(tmp_path: Path, zipped: bool) -> None:
    folder = hubfolders.write_hub_folder(tmp_path / "small")
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    torch.save(
        state | {"extra": Evil(tmp_path / "ran")},
        folder / "pytorch_model.bin",
        _use_new_zipfile_serialization=zipped,
    )
    with pytest.raises(
        BackboneError,
        match=(
            r"pytorch_model.bin holds more than tensors and was refused: loading it could run code .*system"
        ),
    ):
        load_backbone(str(folder))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("weights", ["pytorch_model.bin", "model.safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_truncated_files(tmp_path: Path, weights: Any, share: float) -> None:
    folder = hubfolders.write_hub_folder(tmp_path / "small", weights=weights)
    data = (folder / weights).read_bytes()
    (folder / weights).write_bytes(data[: int(share * len(data))])
    with pytest.raises(
        BackboneError, match=f"{weights} (cannot be read as weights|is not a whole safetensors file)"
    ):
        load_backbone(str(folder))


def test_folders_that_are_not_checkpoints(tmp_path: Path) -> None:
    folder = hubfolders.write_hub_folder(tmp_path / "small")
    torch.save({"model": {"a": torch.zeros(1)}}, folder / "pytorch_model.bin")
    with pytest.raises(BackboneError, match="is not a state dict of tensors by name"):
        load_backbone(str(folder))
    (folder / "pytorch_model.bin").rename(folder / "small_fairseq.pt")
    with pytest.raises(BackboneError, match=r"has no weights.*\*_fairseq.pt\) are not read"):
        load_backbone(str(folder))
    (folder / "config.json").write_text("{")
    with pytest.raises(BackboneError, match=r"config.json is not valid JSON"):
        load_backbone(str(folder))
    (folder / "config.json").unlink()
    with pytest.raises(BackboneError, match=r"has no config.json"):
        load_backbone(str(folder))
    sharded = hubfolders.write_hub_folder(tmp_path / "sharded", weights="sharded.bin")
    (sharded / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(BackboneError, match=r"lacks pytorch_model-00002-of-00002.bin"):
        load_backbone(str(sharded))
    index = sharded / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../../outside.bin"}}))
    with pytest.raises(BackboneError, match="has no weight_map of file names"):
        load_backbone(str(sharded))


def test_what_we_write_is_read_by_us_and_by_transformers(tmp_path: Path) -> None:
    model = embedded.fresh(3)
    write_folder(model, tmp_path / "out")
    found: list[torch.Tensor] = []
    waves = torch.randn(1, 12_000, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        model.eval()(waves, lambda _, x: found.append(x))
    ours = last_layer(tmp_path / "out")
    assert float((ours - found[-1]).abs().max()) < 1e-5
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import HubertModel
        from transformers.utils import logging

        logging.set_verbosity_error()
        theirs = HubertModel.from_pretrained(tmp_path / "out", attn_implementation="eager").eval()
        normal = (waves - waves.mean()) / (waves.var(correction=0) + 1e-7).sqrt()
        with torch.no_grad():
            reference = theirs(normal).last_hidden_state
    assert float((ours - reference).abs().max()) < 2e-5


def test_config_defaults_are_the_hubs(tmp_path: Path) -> None:
    assert HubertConfig.from_json({}, "nothing") == HubertConfig()
    assert (HubertConfig().hop, HubertConfig().span) == (320, 400)


def test_names() -> None:
    for name, said in {
        "MERT-v1-330M": "unknown backbone 'MERT-v1-330M'. Did you mean 'm-a-p/MERT-v1-330M'",
        "spectrum": "unknown backbone 'spectrum'",
        "./nowhere": "there is no folder './nowhere'",
        "/nowhere/at/all": "there is no folder",
    }.items():
        with pytest.raises(BackboneError, match=said):
            load_backbone(name)
    with pytest.raises(BackboneError, match="float32 or bfloat16, not in float16"):
        load_backbone("embedded", dtype="float16")
    with pytest.raises(BackboneError, match="embedded has no revisions"):
        load_backbone("embedded", revision="abc")


def test_importing_the_package_imports_no_torch() -> None:
    code = "import sys, beatmeter.features.backbones; print('torch' in sys.modules)"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "False"
    )


def test_depth_must_exist() -> None:
    with pytest.raises(BackboneError, match="layer 9 was asked of embedded, which holds layers 1 to 6"):
        load_backbone("embedded", depth=9)
    short = load_backbone("embedded", depth=2)
    assert isinstance(short, Hubert)
    assert short.depth == 2
