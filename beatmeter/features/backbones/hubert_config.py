"""The settings of a HuBERT encoder, read from a checkpoint's `config.json`; what this encoder does not do is
refused."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from beatmeter.errors import BackboneError

MOST_CONVOLUTIONS = 64
DROPOUTS = ("hidden_dropout", "activation_dropout", "attention_dropout", "feat_proj_dropout")
LARGEST = {
    "hidden_size": 16_384,
    "num_hidden_layers": 1000,
    "num_attention_heads": 4096,
    "intermediate_size": 131_072,
    "num_conv_pos_embeddings": 65_536,
    "num_conv_pos_embedding_groups": 16_384,
    "conv_dim": 16_384,
    "conv_stride": 10_000,
    "conv_kernel": 10_000,
}
FAMILY = (
    "hubert",
    "mert_model",
    "wav2vec2",
)  # architectures that are this encoder when nothing below is switched on

# field -> (values that change nothing, what another value would mean)
REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "feature_extractor_cqt": ((None, False), "adds a constant-Q transform to the front end"),
    "deepnorm": ((None, False), "scales the residuals in the way of DeepNet"),
    "conv_pos_batch_norm": ((None, False), "puts a batch norm before the positional convolution"),
    "add_adapter": ((None, False), "adds convolutions after the encoder"),
    "adapter_attn_dim": ((None,), "adds adapter layers to the attention"),
    "hidden_act": ((None, "gelu"), "uses another activation than gelu"),
    "feat_extract_activation": ((None, "gelu"), "uses another activation than gelu in the front end"),
}


@dataclass(frozen=True)
class HubertConfig:
    """Names and defaults are those of the hub's `config.json`; sizes of conv layers are (layer,) tuples.

    Dropouts act in training mode only. Layer drop and the masking of pre-training are not here: they are
    never done.
    """

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_dropout: float = 0.1
    activation_dropout: float = 0.1
    attention_dropout: float = 0.1
    feat_proj_dropout: float = 0.0
    feat_proj_layer_norm: bool = True
    layer_norm_eps: float = 1e-5
    feat_extract_norm: str = "group"
    conv_dim: tuple[int, ...] = (512,) * 7
    conv_stride: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
    conv_kernel: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    conv_bias: bool = False
    num_conv_pos_embeddings: int = 128
    num_conv_pos_embedding_groups: int = 16
    do_stable_layer_norm: bool = False  # True: pre-LN, as in the 330M; False: post-LN, as in the 95M

    @classmethod
    def from_json(cls, values: Mapping[str, Any], where: str) -> HubertConfig:
        """The config of a checkpoint. `where` names the file in errors; BackboneError for what this encoder
        cannot be."""
        kind = values.get("model_type", "hubert")
        if kind not in FAMILY:
            raise BackboneError(
                f"{where}: model_type {kind!r} is another architecture", f"Supported: {', '.join(FAMILY)}."
            )
        for name, (harmless, meaning) in REFUSED.items():
            if values.get(name) not in harmless:
                raise BackboneError(
                    f"{where}: {name} = {values[name]!r} {meaning}, which is not supported",
                    "Use a checkpoint without it.",
                )
        known: dict[str, Any] = {}
        for field in fields(cls):
            if field.name in values:
                known[field.name] = _checked(values[field.name], field.default, f"{where}: {field.name}")
        config = replace(cls(), **known)
        config._check(where)
        return config

    def _check(self, where: str) -> None:
        problems = {
            "hidden_size must be a multiple of num_attention_heads": self.hidden_size
            % max(1, self.num_attention_heads),
            "hidden_size must be a multiple of num_conv_pos_embedding_groups": self.hidden_size
            % max(1, self.num_conv_pos_embedding_groups),
            "conv_dim, conv_stride and conv_kernel must have the same length, at least 2": not len(
                self.conv_dim
            )
            == len(self.conv_stride)
            == len(self.conv_kernel)
            > 1,
            "feat_extract_norm must be 'group' or 'layer'": self.feat_extract_norm not in ("group", "layer"),
            "sizes must be above zero": min(
                self.hidden_size,
                self.num_hidden_layers,
                self.num_attention_heads,
                self.intermediate_size,
                self.num_conv_pos_embeddings,
                self.num_conv_pos_embedding_groups,
                *self.conv_dim,
                *self.conv_stride,
                *self.conv_kernel,
            )
            < 1,
            f"conv_dim has {len(self.conv_dim)} layers, more than {MOST_CONVOLUTIONS}": len(self.conv_dim)
            > MOST_CONVOLUTIONS,
            "layer_norm_eps must be above 0 and at most 1": not 0 < self.layer_norm_eps <= 1,
        }
        problems |= {
            f"{name} = {getattr(self, name)} must be in [0, 1)": not 0 <= getattr(self, name) < 1
            for name in DROPOUTS
        }
        for name, limit in LARGEST.items():  # before anything is allocated
            value = getattr(self, name)
            size = max(value, default=0) if isinstance(value, tuple) else value
            problems[f"{name} is {size}, more than {limit}"] = size > limit
        for text, broken in problems.items():
            if broken:
                raise BackboneError(f"{where}: {text}")

    def deciding(self) -> dict[str, Any]:
        """The settings that decide the states in evaluation mode, by name: all but the dropouts."""
        return {name: value for name, value in asdict(self).items() if not name.endswith("dropout")}

    @property
    def hop(self) -> int:
        """Samples between frames."""
        return math.prod(self.conv_stride)

    @property
    def span(self) -> int:
        """Samples that one frame sees: the receptive field of the conv stack."""
        seen, step = 1, 1
        for kernel, stride in zip(self.conv_kernel, self.conv_stride, strict=True):
            seen += (kernel - 1) * step
            step *= stride
        return seen


def _checked(value: Any, default: Any, where: str) -> Any:
    """`value` when it has the type of `default` (integers serve as floats, lists of integers as tuples)."""
    if isinstance(default, tuple):
        if isinstance(value, list | tuple) and all(type(item) is int for item in value):
            return tuple(value)
    elif isinstance(default, float):
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    elif type(value) is type(default):
        return value
    raise BackboneError(
        f"{where} = {value!r} is not of the type of {default!r}",
        "The checkpoint's config.json is damaged or of another kind.",
    )
