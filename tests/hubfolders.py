"""Writes small random checkpoints in the hub's folder format, as MERT and HuBERT are published:
`write_hub_folder`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from beatmeter.features.backbones.base import Identity
from beatmeter.features.backbones.hubert import Hubert
from beatmeter.features.backbones.hubert_config import HubertConfig

Weights = Literal["pytorch_model.bin", "model.safetensors", "sharded.bin", "sharded.safetensors"]
NORMS = {
    "old": ("weight_g", "weight_v"),
    "new": ("parametrizations.weight.original0", "parametrizations.weight.original1"),
}

MERT_FIELDS: dict[str, Any] = {  # what MERT's config.json holds beside HuBERT's settings
    "model_type": "mert_model",
    "architectures": ["MERTModel"],
    "feature_extractor_cqt": False,
    "deepnorm": False,
    "attention_relax": 32.0,
    "mask_time_prob": 0.075,
    "layerdrop": 0.0,
    "hidden_act": "gelu",
    "feat_extract_activation": "gelu",
    "initializer_range": 0.02,
    "vocab_size": 32,
}


def small_config(pre_norm: bool = True, **changes: Any) -> dict[str, Any]:
    """HuBERT settings of `config.json` for a network of 40 thousand parameters, MERT's strides and
    kernels."""
    config = {
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "conv_dim": [16] * 7,
        "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
        "conv_stride": [5, 2, 2, 2, 2, 2, 2],
        "conv_bias": False,
        "feat_extract_norm": "group",
        "feat_proj_layer_norm": True,
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 4,
        "do_stable_layer_norm": pre_norm,
        "layer_norm_eps": 1e-5,
        "hidden_dropout": 0.1,
        "attention_dropout": 0.1,
        "activation_dropout": 0.0,
        "feat_proj_dropout": 0.1,
    }
    return config | changes


def small_state(
    config: dict[str, Any], seed: int = 0, norm: Literal["old", "new"] = "old"
) -> dict[str, Tensor]:
    """Random tensors under the names of a published checkpoint, weight normalisation and mask embedding
    included."""
    torch.manual_seed(seed)
    model = Hubert(HubertConfig.from_json(config, "test"), Identity("", "", "", ""), 24_000, True)
    state = {name: value + 0.05 * torch.randn_like(value) for name, value in model.state_dict().items()}
    kernel = state.pop("encoder.pos_conv_embed.conv.weight")
    length, direction = NORMS[norm]
    state[f"encoder.pos_conv_embed.conv.{length}"] = kernel.norm(dim=(0, 1), keepdim=True) * (
        1 + 0.1 * torch.rand(1, 1, kernel.shape[2])
    )
    state[f"encoder.pos_conv_embed.conv.{direction}"] = kernel
    state["masked_spec_embed"] = torch.rand(config["hidden_size"])
    return state


def write_hub_folder(
    folder: Path,
    pre_norm: bool = True,
    weights: Weights = "pytorch_model.bin",
    norm: Literal["old", "new"] = "old",
    prefix: str = "",
    heads: dict[str, Tensor] | None = None,
    preprocessor: dict[str, Any] | None = None,
    seed: int = 0,
    fields: dict[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """A checkpoint in `folder`, which is created: MERT's two JSON files and weights. `preprocessor={}` leaves
    that file out.

    `prefix` and `heads` make it look like a checkpoint with a head; `fields` replace what MERT adds to
    config.json; `changes` are HuBERT settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = small_config(pre_norm, **changes)
    (folder / "config.json").write_text(json.dumps(config | (MERT_FIELDS if fields is None else fields)))
    about = (
        {"sampling_rate": 24_000, "do_normalize": True, "feature_size": 1}
        if preprocessor is None
        else preprocessor
    )
    if about:
        (folder / "preprocessor_config.json").write_text(json.dumps(about))
    state = {prefix + name: value for name, value in small_state(config, seed, norm).items()} | (heads or {})
    save_weights(folder, state, weights)
    return folder


def save_weights(folder: Path, state: dict[str, Tensor], weights: Weights = "pytorch_model.bin") -> None:
    """`state` as one file, or as two shards with their index."""
    kind = weights.rpartition(".")[2]
    if not weights.startswith("sharded"):
        _save(folder / weights, state)
        return
    stem = "model" if kind == "safetensors" else "pytorch_model"
    names = sorted(state)
    halves = {f"{stem}-0000{i + 1}-of-00002.{kind}": names[i::2] for i in range(2)}
    for file, some in halves.items():
        _save(folder / file, {name: state[name] for name in some})
    index = {"metadata": {}, "weight_map": {name: file for file, some in halves.items() for name in some}}
    (folder / f"{stem}.{kind}.index.json").write_text(json.dumps(index))


def _save(path: Path, state: dict[str, Tensor]) -> None:
    if path.suffix == ".safetensors":
        save_file({name: value.contiguous() for name, value in state.items()}, path)
    else:
        torch.save(state, path)
