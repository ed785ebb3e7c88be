"""Heads: the features of a track, by pooling, to one logit per class. Standardise, mix layers, then a branch per pooling.

The branch over `stats` is LayerNorm -> Linear -> GELU -> Dropout, the one over `lag` a small dilated convolution; a
linear layer reads whatever branches there are. The layer weights are a softmax that starts uniform.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from beatmeter.errors import ConfigError
from beatmeter.schema import FeatureSpec, PoolingSpec
from beatmeter.settings import HeadConfig


class Standardise(nn.Module):
    """Subtract the train split's mean and divide by its deviation, so that layers of different scale mix fairly.

    Over `stats` every (layer, pool, dim) has its own; over `lag` every (layer, channel), shared by all lags, because a
    tempo change must stay a shift. Until `fit` it changes nothing. In training mode it adds Gaussian `noise`, in deviations.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, pooling: PoolingSpec, noise: float = 0.0) -> None:
        super().__init__()
        self.noise = noise
        shape = pooling.row_shape if pooling.kind != "lag" else (*pooling.row_shape[:-1], 1)
        self.shared = pooling.kind == "lag"
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("scale", torch.ones(shape))

    @torch.no_grad()
    def fit(self, batches: Iterable[Tensor]) -> None:
        """Take mean and deviation over `batches` of (track, layer, *axes), in float64."""
        count = 0
        total = torch.zeros(self.mean.shape, dtype=torch.float64)
        square = torch.zeros_like(total)
        for batch in batches:
            x = batch.double().cpu()
            axes = (0, x.ndim - 1) if self.shared else (0,)
            count += x.shape[0] * (x.shape[-1] if self.shared else 1)
            total += x.sum(dim=axes, keepdim=True)[0]
            square += x.square().sum(dim=axes, keepdim=True)[0]
        mean = total / max(count, 1)
        deviation = (square / max(count, 1) - mean**2).clamp_min(0).sqrt()
        constant = deviation <= 1e-6 * mean.abs().clamp_min(1e-6)
        self.mean.copy_(mean)
        self.scale.copy_(torch.where(constant, torch.ones_like(deviation), 1 / deviation.clamp_min(1e-12)))

    def forward(self, x: Tensor) -> Tensor:
        y = (x - self.mean) * self.scale
        return y + self.noise * torch.randn_like(y) if self.training and self.noise else y


class LayerMix(nn.Module):
    """Weighted sum over layers, (track, layer, ...) -> (track, ...); softmax weights, uniform at the start."""

    def __init__(self, n_layers: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(n_layers))

    @property
    def weights(self) -> Float[Tensor, " layer"]:
        return self.logits.softmax(dim=0)

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bl...,l->b...", x, self.weights)


class StatsBranch(nn.Module):
    """(track, pool, dim) -> (track, hidden): LayerNorm -> Linear -> GELU over the concatenated statistics."""

    def __init__(self, pooling: PoolingSpec, config: HeadConfig) -> None:
        super().__init__()
        pools, dim = pooling.shape
        self.width = config.hidden
        self.layers = nn.Sequential(nn.LayerNorm(pools * dim), nn.Linear(pools * dim, config.hidden), nn.GELU())

    def forward(self, x: Float[Tensor, "track pool dim"]) -> Float[Tensor, "track hidden"]:
        return self.layers(x.flatten(1))  # type: ignore[no-any-return]


class LagBranch(nn.Module):
    """(track, channel, lag) -> (track, 2 * channels): dilated residual convolutions, then max and mean over lag.

    On a log-lag axis a tempo change is a shift, so what the branch hears does not depend on tempo.
    """

    def __init__(self, pooling: PoolingSpec, config: HeadConfig) -> None:
        super().__init__()
        channels, _ = pooling.shape
        self.width = 2 * config.channels
        self.first = nn.Conv1d(channels, config.channels, config.kernel, padding="same")
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.GroupNorm(8 if config.channels % 8 == 0 else 1, config.channels),
                nn.GELU(),
                nn.Dropout(config.dropout / 2),
                nn.Conv1d(config.channels, config.channels, config.kernel, padding="same", dilation=d),
            )
            for d in config.dilations
        )

    def forward(self, x: Float[Tensor, "track channel lag"]) -> Float[Tensor, "track hidden"]:
        x = self.first(x)
        for block in self.blocks:
            x = x + block(x)
        return torch.cat([x.amax(dim=-1), x.mean(dim=-1)], dim=1)


BRANCHES: Mapping[str, type[StatsBranch] | type[LagBranch]] = {"stats": StatsBranch, "lag": LagBranch}


class Head(nn.Module):
    """Features by pooling name, each (track, layer, *axes), to logits (track, class)."""

    def __init__(self, spec: FeatureSpec, config: HeadConfig, n_classes: int) -> None:
        super().__init__()
        self.poolings = tuple(config.poolings)
        here = {p.name for p in spec.poolings}
        missing = [name for name in self.poolings if name not in here]
        if missing:
            raise ConfigError(
                f"the head reads {', '.join(missing)}, the features hold {', '.join(sorted(here))}",
                f"--set features.poolings={','.join([*sorted(here), *missing])}",
            )
        self.standardise = nn.ModuleDict({name: Standardise(spec[name], config.noise) for name in self.poolings})
        self.mix = nn.ModuleDict({name: LayerMix(len(spec[name].layers)) for name in self.poolings})
        self.branches = nn.ModuleDict({name: BRANCHES[spec[name].kind](spec[name], config) for name in self.poolings})
        width = sum(cast(StatsBranch | LagBranch, branch).width for branch in self.branches.values())
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(width, n_classes)

    def forward(self, features: Mapping[str, Tensor]) -> Float[Tensor, "track klass"]:
        hidden = [self.branches[name](self.mix[name](self.standardise[name](features[name].float()))) for name in self.poolings]
        return self.output(self.dropout(torch.cat(hidden, dim=1)))  # type: ignore[no-any-return]

    def layer_weights(self) -> dict[str, list[float]]:
        """The learned weight of every layer, by pooling."""
        return {name: cast(LayerMix, mix).weights.detach().tolist() for name, mix in self.mix.items()}

    def mix_parameters(self) -> list[nn.Parameter]:
        """The layer-mix logits: they want their own learning rate and no weight decay."""
        return list(self.mix.parameters())
