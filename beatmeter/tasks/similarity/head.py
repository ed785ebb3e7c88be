"""The head of similarity: the layers of every pooling joined, then an affine map or an MLP, then length 1."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from beatmeter.errors import ConfigError
from beatmeter.features.poolings import pooling_class
from beatmeter.schema import FeatureSpec, PoolingSpec
from beatmeter.settings import HeadConfig
from beatmeter.tasks.heads import Dropout, LayerMix


class EmbeddingHead(nn.Module):
    """Standardised features by pooling, each (track, layer, *axes), to unit vectors (track, dim).

    `head.mix` joins layers: weights that are learned (softmax), their mean, one of them (`head.layer`), or
    all side by side (concat). `head.map` is affine, or an MLP: LayerNorm, Linear, GELU, Dropout, Linear.
    """

    def __init__(self, spec: FeatureSpec, config: HeadConfig, dim: int) -> None:
        """Raises ConfigError for poolings that are not there or are rows over time, and for a layer that was
        not extracted."""
        super().__init__()
        self.poolings = tuple(config.poolings)
        _require_arrays(spec, self.poolings)
        self.how = config.mix
        self.mix = nn.ModuleDict(
            {name: LayerMix(len(spec[name].layers)) for name in self.poolings if self.how == "softmax"}
        )
        self.layer = {name: _place_of(spec[name], config) for name in self.poolings if self.how == "one"}
        times = {name: len(spec[name].layers) if self.how == "concat" else 1 for name in self.poolings}
        width = sum(times[name] * math.prod(spec[name].shape) for name in self.poolings)
        self.map = (
            nn.Sequential(Dropout(config.dropout), nn.Linear(width, dim))
            if config.map == "affine"
            else nn.Sequential(
                nn.LayerNorm(width),
                nn.Linear(width, config.hidden),
                nn.GELU(),
                Dropout(config.dropout),
                nn.Linear(config.hidden, dim),
            )
        )

    def forward(self, features: Mapping[str, Tensor]) -> Float[Tensor, "track dim"]:
        """Vectors of length 1."""
        joined = torch.cat([self._joined(name, features[name].float()) for name in self.poolings], dim=1)
        z: Tensor = self.map(joined)
        return z / (z.square().sum(dim=1, keepdim=True) + 1e-12).sqrt()

    def _joined(self, name: str, x: Float[Tensor, "track layer ..."]) -> Float[Tensor, "track value"]:
        if self.how == "softmax":
            x = self.mix[name](x)
        elif self.how == "mean":
            x = x.mean(dim=1)
        elif self.how == "one":
            x = x[:, self.layer[name]]
        return x.flatten(1)


def _require_arrays(spec: FeatureSpec, poolings: tuple[str, ...]) -> None:
    here = {p.name for p in spec.poolings}
    for name in poolings:
        if name not in here:
            raise ConfigError(
                f"the head reads {name}, the features hold {', '.join(sorted(here))}",
                f"--set features.poolings={','.join([*sorted(here), name])}",
            )
        if not pooling_class(spec[name]).per_track:
            raise ConfigError(
                f"similarity reads one array a track, and the pooling {name!r} ({spec[name].kind}) is rows "
                "over time",
                "For instance: --set features.poolings=harmony --set head.poolings=harmony",
            )


def _place_of(pooling: PoolingSpec, config: HeadConfig) -> int:
    """Where `head.layer` lies among the layers of a pooling; 0 is the last."""
    if not config.layer:
        return len(pooling.layers) - 1
    if config.layer not in pooling.layers:
        raise ConfigError(
            f"head.layer = {config.layer} is none of the layers of {pooling.name!r}",
            f"It has: {', '.join(map(str, pooling.layers))}.",
        )
    return pooling.layers.index(config.layer)
