"""Heads: the features of a track, by pooling, to one logit per class. Standardise, mix layers, then a branch per pooling.

The branch over `stats` is LayerNorm -> Linear -> GELU -> Dropout, the one over `lag` a small dilated convolution; a
linear layer reads whatever branches there are. The layer weights are a softmax that starts uniform.

What chance does in training (`Chance`) is drawn outside and handed in, for all tracks of an optimiser step at once. So
it does not matter whether a step is computed in one batch or several, by one process or many, for one head or many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from beatmeter.errors import ConfigError
from beatmeter.schema import FeatureSpec, PoolingSpec
from beatmeter.settings import HeadConfig


class Standardise(nn.Module):
    """Subtract the train split's mean and divide by its deviation, so that layers of different scale mix fairly.

    Over `stats` every (layer, pool, dim) has its own; over `lag` every (layer, channel), shared by all lags, because a
    tempo change must stay a shift. Until `fit` it changes nothing.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, pooling: PoolingSpec) -> None:
        super().__init__()
        shape = pooling.row_shape if pooling.kind != "lag" else (*pooling.row_shape[:-1], 1)
        self.shared = pooling.kind == "lag"
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("scale", torch.ones(shape))

    def fit(self, batches: Iterable[Tensor]) -> None:
        """Take mean and deviation over `batches` of (track, layer, *axes)."""
        moments = Moments(self)
        for batch in batches:
            moments.add(batch)
        moments.give()

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) * self.scale


class Moments:
    """Mean and variance of what passes by, for one Standardise; in float64, and never all of it in memory.

    Parts are joined by the formula of Chan, Golub and LeVeque (1979), so large means cost no digits.
    """

    def __init__(self, module: Standardise) -> None:
        self.module, self.count = module, 0
        self.mean = torch.zeros(module.mean.shape, dtype=torch.float64)
        self.square = torch.zeros_like(self.mean)  # sum of squared distances from the mean

    @torch.no_grad()
    def add(self, batch: Float[Tensor, "track layer ..."]) -> None:
        """Some more tracks."""
        axes = (0, batch.ndim - 1) if self.module.shared else (0,)
        variance, mean = torch.var_mean(batch.float(), dim=axes, correction=0, keepdim=True)
        count = batch.shape[0] * (batch.shape[-1] if self.module.shared else 1)
        self.join(count, mean[0].cpu().double(), variance[0].cpu().double() * count)

    def join(self, count: int, mean: Tensor, square: Tensor) -> None:
        """What another process has seen: how many values, their mean, the sum of squared distances from it."""
        if count:
            both = self.count + count
            shift = mean - self.mean
            self.mean = self.mean + shift * (count / both)
            self.square = self.square + square + shift.square() * (self.count * count / both)
            self.count = both

    def exchange(self, gather: Callable[[Any], list[Any]]) -> None:
        """Join what all processes have seen; `gather` gives the values of all, in the same order everywhere."""
        first, *rest = gather((self.count, self.mean, self.square))
        self.count, self.mean, self.square = first
        for other in rest:
            self.join(*other)

    @torch.no_grad()
    def give(self) -> None:
        """Set the module. What never changes is left at its scale."""
        deviation = (self.square / max(self.count, 1)).sqrt()
        constant = deviation <= 1e-6 * self.mean.abs().clamp_min(1e-6)
        self.module.mean.copy_(self.mean)
        self.module.scale.copy_(torch.where(constant, torch.ones_like(deviation), 1 / deviation.clamp_min(1e-12)))


@dataclass(frozen=True)
class Chance:
    """What chance decides for some tracks, drawn by `Head.draw`; None where nothing is to be changed.

    `masks` (track, *units) of what drops out, 0 or 1 / (1 - p), one per dropout; `shifts` (track,) along the log-lag axis in
    bins; `noise` (track, *axes) by pooling, in deviations of the standardised features of one layer.
    """

    masks: tuple[Tensor | None, ...]
    shifts: Tensor | None
    noise: Mapping[str, Tensor]

    def rows(self, which: slice) -> Chance:
        """The same for some of the tracks."""
        return Chance(
            tuple(None if m is None else m[which] for m in self.masks),
            None if self.shifts is None else self.shifts[which],
            {name: x[which] for name, x in self.noise.items()},
        )


Drop = tuple[float, tuple[int, ...]]  # of one dropout: its probability, and the shape of what it acts on


class _WeightedSum(torch.autograd.Function):
    """(c, layer) weights over (track, layer, value) to (track, c, value), as one product per track either way; the features
    themselves get no gradient here."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.bmm(weights.expand(len(x), -1, -1), x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return torch.bmm(grad, x.transpose(1, 2)).sum(0), None


def weighted_sum(weights: Float[Tensor, "c layer"], x: Float[Tensor, "track layer ..."]) -> Float[Tensor, "track c ..."]:
    """`c` weighted sums over the layers of the same tracks."""
    flat = x.flatten(2)
    y = torch.einsum("cl,blv->bcv", weights, flat) if x.requires_grad else cast(Tensor, _WeightedSum.apply(weights, flat))  # type: ignore[no-untyped-call]
    return y.reshape(*y.shape[:2], *x.shape[2:])


def shift_lags(x: Float[Tensor, "*track channel lag"], by: Tensor) -> Float[Tensor, "*track channel lag"]:
    """Move every track `by` (*track,) bins along the log-lag axis, edges repeated: the same rhythm at another tempo."""
    n = x.shape[-1]
    at = (torch.arange(n, device=x.device) + by[..., None]).clamp(0, n - 1)
    return x.gather(-1, at[..., None, :].expand_as(x))


def add_noise(mixed: Float[Tensor, "*head track ..."], weights: Float[Tensor, "*head layer"], noise: Tensor) -> Tensor:
    """Mixed layers as if every layer had independent noise of that size: its sum by the weights w is |w| times as large."""
    size = weights.square().sum(-1).sqrt()
    return mixed + size.reshape(*size.shape, *[1] * (noise.ndim - size.ndim)) * noise


class LayerMix(nn.Module):
    """Weighted sum over layers, (track, layer, ...) -> (track, ...); softmax weights, uniform at the start."""

    def __init__(self, n_layers: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(n_layers))

    @property
    def weights(self) -> Float[Tensor, " layer"]:
        return self.logits.softmax(dim=0)

    def forward(self, x: Tensor) -> Tensor:
        return weighted_sum(self.weights[None], x)[:, 0]


class StatsBranch(nn.Module):
    """(track, pool, dim) -> (track, hidden): LayerNorm -> Linear -> GELU over the concatenated statistics."""

    def __init__(self, pooling: PoolingSpec, config: HeadConfig) -> None:
        super().__init__()
        pools, dim = pooling.shape
        self.width = config.hidden
        self.drops: tuple[Drop, ...] = ()
        self.layers = nn.Sequential(nn.LayerNorm(pools * dim), nn.Linear(pools * dim, config.hidden), nn.GELU())

    def forward(self, x: Float[Tensor, "track pool dim"], masks: Sequence[Tensor | None] | None = None) -> Float[Tensor, "track hidden"]:
        return self.layers(x.flatten(1))  # type: ignore[no-any-return]


class LagBranch(nn.Module):
    """(track, channel, lag) -> (track, 2 * channels): dilated residual convolutions, then max and mean over lag.

    On a log-lag axis a tempo change is a shift, so what the branch hears does not depend on tempo.
    """

    def __init__(self, pooling: PoolingSpec, config: HeadConfig) -> None:
        super().__init__()
        channels, lags = pooling.shape
        self.width = 2 * config.channels
        self.drops: tuple[Drop, ...] = ((config.dropout / 2, (config.channels, lags)),) * len(config.dilations)
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

    def forward(self, x: Float[Tensor, "track channel lag"], masks: Sequence[Tensor | None] | None = None) -> Float[Tensor, "track hidden"]:
        x = self.first(x)
        for i, block in enumerate(self.blocks):
            norm, activate, dropout, convolve = cast(nn.Sequential, block)
            x = x + convolve(_drop(activate(norm(x)), dropout, None if masks is None else masks[i], masks is None))
        return torch.cat([x.amax(dim=-1), x.mean(dim=-1)], dim=1)


def _drop(x: Tensor, dropout: nn.Module, mask: Tensor | None, undrawn: bool) -> Tensor:
    """`x` through the mask that was drawn for it; through the module when none was drawn."""
    if undrawn:
        return dropout(x)  # type: ignore[no-any-return]
    return x if mask is None else x * mask


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
        self.standardise = nn.ModuleDict({name: Standardise(spec[name]) for name in self.poolings})
        self.mix = nn.ModuleDict({name: LayerMix(len(spec[name].layers)) for name in self.poolings})
        self.branches = nn.ModuleDict({name: BRANCHES[spec[name].kind](spec[name], config) for name in self.poolings})
        width = sum(cast(StatsBranch | LagBranch, branch).width for branch in self.branches.values())
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(width, n_classes)
        self.drops: tuple[Drop, ...] = (*(d for n in self.poolings for d in self._branch(n).drops), (config.dropout, (width,)))
        self.shapes = {name: spec[name].shape for name in self.poolings}
        self.shifting = frozenset(name for name in self.poolings if spec[name].kind == "lag")
        self.noise = config.noise

    def _branch(self, name: str) -> StatsBranch | LagBranch:
        return cast(StatsBranch | LagBranch, self.branches[name])

    def forward(self, features: Mapping[str, Tensor], chance: Chance | None = None, standardised: bool = False) -> Float[Tensor, "track klass"]:
        """Logits. `chance` is what `draw` gave for these tracks (without it, dropout in training mode draws by itself);
        `standardised` features have been through `standardise` already."""
        mixed = {}
        for name in self.poolings:
            x = features[name].float()
            x = self.mix[name](x if standardised else self.standardise[name](x))
            if chance is not None:
                x = shift_lags(x, chance.shifts) if chance.shifts is not None and name in self.shifting else x
                x = add_noise(x, cast(LayerMix, self.mix[name]).weights, chance.noise[name]) if name in chance.noise else x
            mixed[name] = x
        return self.classify(mixed, None if chance is None else chance.masks)

    def classify(self, mixed: Mapping[str, Tensor], masks: Sequence[Tensor | None] | None = None) -> Float[Tensor, "track klass"]:
        """Logits from mixed layers, (track, *axes) by pooling."""
        hidden = self._branches(mixed, masks)
        return self.output(_drop(hidden, self.dropout, None if masks is None else masks[-1], masks is None))  # type: ignore[no-any-return]

    def hidden(self, features: Mapping[str, Tensor]) -> Float[Tensor, "track hidden"]:
        """What the last layer reads of features that are not standardised."""
        return self._branches({name: self.mix[name](self.standardise[name](features[name].float())) for name in self.poolings}, None)

    def _branches(self, mixed: Mapping[str, Tensor], masks: Sequence[Tensor | None] | None) -> Float[Tensor, "track hidden"]:
        """The hidden values of every branch, side by side."""
        hidden, first = [], 0
        for name in self.poolings:
            branch = self._branch(name)
            hidden.append(branch(mixed[name], None if masks is None else masks[first : first + len(branch.drops)]))
            first += len(branch.drops)
        return torch.cat(hidden, dim=1)

    def draw(self, tracks: int, generator: torch.Generator, lag_shift: int) -> Chance:
        """Chance for so many tracks: masks of every dropout, shifts of up to `lag_shift` bins, noise."""
        device = generator.device
        shifting = lag_shift > 0 and bool(self.shifting)
        shifts = torch.randint(-lag_shift, lag_shift + 1, (tracks,), generator=generator, device=device) if shifting else None
        masks = [
            torch.empty(tracks, *shape, device=device).bernoulli_(1 - p, generator=generator).div_(1 - p) if p else None for p, shape in self.drops
        ]
        noise = {}
        if self.noise:
            for name, shape in self.shapes.items():
                noise[name] = torch.empty(tracks, *shape, device=device).normal_(std=self.noise, generator=generator)
        return Chance(tuple(masks), shifts, noise)

    def layer_weights(self) -> dict[str, list[float]]:
        """The learned weight of every layer, by pooling."""
        return {name: cast(LayerMix, mix).weights.detach().tolist() for name, mix in self.mix.items()}

    def scales(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Mean and scale of the standardisation, by pooling."""
        modules = {name: cast(Standardise, module) for name, module in self.standardise.items()}
        return {name: (module.mean, module.scale) for name, module in modules.items()}

    def own_parameters(self) -> list[nn.Parameter]:
        """All parameters but those of the layer mix."""
        mixed = {id(p) for p in self.mix_parameters()}
        return [p for p in self.parameters() if id(p) not in mixed]

    def mix_parameters(self) -> list[nn.Parameter]:
        """The layer-mix logits: they want their own learning rate and no weight decay."""
        return list(self.mix.parameters())
