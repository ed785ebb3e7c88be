"""The head over frames: standardised sequences, side by side, to outputs for every row.

Every pooling mixes its layers and is mapped to the same width; the sum goes through dilated convolutions
over time (`head.over_time = "tcn"`) or through attention between all rows (`"transformer"`), and a linear
layer gives the outputs."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from beatmeter.errors import ConfigError
from beatmeter.features.poolings import pooling_class
from beatmeter.features.poolings.sequences import mask_of
from beatmeter.schema import FeatureSpec
from beatmeter.settings import HeadConfig
from beatmeter.tasks.heads import Dropout, LayerMix

ATTENTION_HEADS = 4


class FrameHead(nn.Module):
    """Standardised sequences by pooling, each (track, time, layer, dim), to outputs (track, time, name),
    without a sigmoid. What a row gives does not depend on the padding."""

    def __init__(self, spec: FeatureSpec, config: HeadConfig, n_outputs: int, rate: float) -> None:
        super().__init__()
        self.poolings = tuple(config.poolings)
        _require_sequences(spec, self.poolings, rate)
        self.mix = nn.ModuleDict({name: LayerMix(len(spec[name].layers)) for name in self.poolings})
        self.first = nn.ModuleDict(
            {name: nn.Linear(math.prod(spec[name].shape), config.channels) for name in self.poolings}
        )
        self.dropout = Dropout(config.dropout)
        over_time = Attention if config.over_time == "transformer" else Convolutions
        self.over_time = over_time(config)
        self.norm = nn.LayerNorm(config.channels)
        self.output = nn.Linear(config.channels, n_outputs)

    def forward(self, features: Mapping[str, Tensor]) -> Float[Tensor, "track time name"]:
        """Outputs of every row; those of the padding mean nothing."""
        return self.states(features)[0]

    def states(self, features: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Outputs (track, time, name) of every row, and what they are made of, both (track, time, channel):
        what the row's surroundings say, normed, and what the row alone says."""
        mask = mask_of(features, self.poolings[0])
        assert mask is not None
        x = torch.zeros(())
        for name in self.poolings:
            rows = features[name].float()
            mixed = self.mix[name](rows.flatten(0, 1)).flatten(1).unflatten(0, rows.shape[:2])
            x = x + self.first[name](mixed)
        channels = self.dropout(torch.ones_like(x[:, 0]))  # whole channels: no draw depends on the padding
        alone = x * channels[:, None] * mask[:, :, None]
        around = self.norm(self.over_time(alone, mask))
        return self.output(nn.functional.gelu(around)), around, alone


class Pair(nn.Module):
    """Two heads that learn side by side from different first weights (co-teaching, Han et al., 2018). In
    training their outputs stand one after the other, (track, time, 2 x name); else their mean is given."""

    def __init__(self, *heads: FrameHead) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)

    def forward(self, features: Mapping[str, Tensor]) -> Float[Tensor, "track time output"]:
        said = [head(features) for head in self.heads]
        return torch.cat(said, dim=-1) if self.training else torch.stack(said).mean(dim=0)


class Convolutions(nn.Module):
    """Residual dilated convolutions over time. Padding has no part in it: norms are of single rows, and
    after every convolution it is 0 again."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        width = config.channels
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in config.dilations)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(width, width, config.kernel, padding="same", dilation=d) for d in config.dilations
        )

    def forward(
        self, x: Float[Tensor, "track time channel"], mask: Bool[Tensor, "track time"]
    ) -> Float[Tensor, "track time channel"]:
        kept = mask[:, :, None]
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            y = nn.functional.gelu(norm(x)) * kept
            x = x + convolution(y.transpose(1, 2)).transpose(1, 2) * kept
        return x


class Attention(nn.Module):
    """Pre-norm transformer layers in which every row attends to all rows of its track; places are told by
    sines."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        width = config.channels
        if width % (2 * ATTENTION_HEADS):
            raise ConfigError(
                f"head.channels = {width} cannot be shared by {ATTENTION_HEADS} attention heads",
                f"Choose a multiple of {2 * ATTENTION_HEADS}.",
            )
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width,
                ATTENTION_HEADS,
                2 * width,
                dropout=0.0,
                activation="gelu",
                batch_first=True,
                norm_first=True,
            )
            for _ in range(config.attention_layers)
        )

    def forward(
        self, x: Float[Tensor, "track time channel"], mask: Bool[Tensor, "track time"]
    ) -> Float[Tensor, "track time channel"]:
        time, width = x.shape[1:]
        pace = torch.exp(torch.arange(0, width, 2, device=x.device) * (-math.log(10_000.0) / width))
        angle = torch.arange(time, device=x.device)[:, None] * pace
        x = x + torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=~mask)
        return x


def _require_sequences(spec: FeatureSpec, poolings: tuple[str, ...], rate: float) -> None:
    """Raise ConfigError unless the features hold these poolings as sequences of `rate` Hz."""
    here = {p.name for p in spec.poolings}
    for name in poolings:
        if name not in here:
            raise ConfigError(
                f"the head reads {name}, the features hold {', '.join(sorted(here))}",
                f"--set features.poolings={','.join([*sorted(here), name])}",
            )
        if pooling_class(spec[name]).per_track:
            raise ConfigError(
                f"this task reads rows over time; the pooling {name!r} ({spec[name].kind}) is one array "
                "a track",
                f"For instance: --set features.poolings=beats=frames:2+4+6@{rate:g},mel@{rate:g} "
                "--set head.poolings=beats,mel",
            )
        own = spec.frame_rate / int(spec[name].parameters["step"])
        if abs(own - rate) > 1e-6:
            raise ConfigError(
                f"this task works at {rate:g} Hz, and the pooling {name!r} has {own:g} Hz",
                f"Write it as {name}={spec[name].kind}:LAYERS@{rate:g} in features.poolings.",
            )
