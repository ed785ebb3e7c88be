"""Heads: standardised features of a track, by pooling, to the outputs of a task. Mix layers, then a branch
per pooling.

What a pooling says of its rows decides its branch (`branch_of`): LayerNorm -> Linear -> GELU over plain
values such as `stats`, a small dilated convolution over log time (`lag`) or over a sequence (`frames`). After
dropout a linear layer reads whatever branches there are. The layer weights are a softmax that starts uniform.

Heads are plain modules. Their dropout (`Dropout`) and noise draw from a generator that the training loop
hands out (`draw_from`): always for all tracks of an optimiser step, of which a batch takes its own. So
neither batches nor processes change what is drawn. A head that also has `mix` and `readout` (`Stackable`) can
be trained beside others of its shape in one pass, where each draws what it would draw alone.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from beatmeter.errors import ConfigError
from beatmeter.features.poolings import pooling_class
from beatmeter.features.poolings.sequences import MASK, mask_of
from beatmeter.features.portable import is_portable
from beatmeter.schema import FeatureSpec, PoolingSpec
from beatmeter.settings import HeadConfig


class _WeightedSum(torch.autograd.Function):
    """(c, layer) weights over (track, layer, value) to (track, c, value), as one product per track either
    way; the features themselves get no gradient here."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.bmm(weights.expand(len(x), -1, -1), x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return torch.bmm(grad, x.transpose(1, 2)).sum(0), None


def weighted_sum(
    weights: Float[Tensor, "c layer"], x: Float[Tensor, "track layer ..."]
) -> Float[Tensor, "track c ..."]:
    """`c` weighted sums over the layers of the same tracks."""
    flat = x.flatten(2)
    total: Callable[[Tensor, Tensor], Tensor] = _WeightedSum.apply
    plain = x.requires_grad or is_portable()
    y = torch.einsum("cl,blv->bcv", weights, flat) if plain else total(weights, flat)
    return y.reshape(*y.shape[:2], *x.shape[2:])


class LayerMix(nn.Module):
    """Weighted sum over layers, (track, layer, ...) -> (track, ...); softmax weights, uniform at the
    start."""

    def __init__(self, n_layers: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(n_layers))

    @property
    def weights(self) -> Float[Tensor, " layer"]:
        return self.logits.softmax(dim=0)

    def forward(self, x: Tensor) -> Tensor:
        return weighted_sum(self.weights[None], x)[:, 0]


class _PerHead(torch.autograd.Function):
    """What every head of a stack draws for its own values; `draws` are the heads' `Random.draw`."""

    @staticmethod
    def forward(x: Tensor, draws: Sequence[Callable[[Tensor], Tensor]]) -> Tensor:
        return draws[0](x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], x: Tensor, draws: Sequence[Callable[[Tensor], Tensor]]
    ) -> tuple[Tensor, int]:
        heads = x.detach().movedim(in_dims[0] or 0, 0)
        return torch.stack([draw(values) for draw, values in zip(draws, heads, strict=True)]), 0


class Random(nn.Module, ABC):
    """Something random in a head. It draws from `generator`, or from torch's own; for all tracks of a step
    where `rows` says which of how many `x` holds; in a stack, `stack` holds the same module of every head."""

    generator: torch.Generator | None = None
    rows: tuple[slice, int] | None = None
    stack: Sequence[Random] = ()

    @abstractmethod
    def fill(self, x: Tensor) -> Tensor:
        """Random numbers in place of those in `x`."""

    def draw(self, x: Float[Tensor, "track ..."]) -> Tensor:
        """Random numbers of the shape of `x`."""
        which, total = self.rows or (slice(None), len(x))
        return self.fill(torch.empty((total, *x.shape[1:]), dtype=x.dtype, device=x.device))[which]

    def drawn(self, x: Tensor) -> Tensor:
        """The same for one head, or for each head of a stack."""
        return cast(Tensor, _PerHead.apply(x, [m.draw for m in self.stack])) if self.stack else self.draw(x)  # type: ignore[no-untyped-call]


class Dropout(Random):
    """Each value is 0 with probability `p`, the others are scaled so that the mean stays."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def fill(self, x: Tensor) -> Tensor:
        return x.bernoulli_(1 - self.p, generator=self.generator).div_(1 - self.p) if self.p else x.fill_(1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.drawn(x) if self.training and (self.p or self.stack) else x


class LayerNoise(Random):
    """Gaussian noise on mixed layers while training, as if every layer had independent noise of `size`
    standard deviations: the sum of layers by the weights w has |w| times as much."""

    def __init__(self, size: float) -> None:
        super().__init__()
        self.size = size

    def fill(self, x: Tensor) -> Tensor:
        return x.normal_(std=self.size, generator=self.generator) if self.size else x.fill_(0)

    def forward(self, mixed: Float[Tensor, "track ..."], weights: Float[Tensor, " layer"]) -> Tensor:
        noisy = self.training and (self.size or self.stack)
        return mixed + weights.square().sum().sqrt() * self.drawn(mixed) if noisy else mixed


def draw_from(
    head: nn.Module, generator: torch.Generator | None, rows: tuple[slice, int] | None = None
) -> None:
    """Let everything random in a head draw from `generator` (None: torch's own), for tracks that are `rows`
    of so many of a step."""
    for module in head.modules():
        if isinstance(module, Random):
            module.generator, module.rows = generator, rows


def draw_apart(frame: nn.Module, heads: Sequence[nn.Module]) -> None:
    """Let `frame`, which stands for many heads of its shape, draw what each of them would draw."""
    for module, *members in zip(frame.modules(), *(head.modules() for head in heads), strict=True):
        if isinstance(module, Random):
            module.stack = tuple(cast(Random, m) for m in members)


class StatsBranch(nn.Module):
    """(track, *axes), such as (track, pool, dim), -> (track, hidden): LayerNorm -> Linear -> GELU over all
    values."""

    def __init__(self, pooling: PoolingSpec, config: HeadConfig) -> None:
        super().__init__()
        size = math.prod(pooling.shape)
        self.width = config.hidden
        self.layers = nn.Sequential(nn.LayerNorm(size), nn.Linear(size, config.hidden), nn.GELU())

    def forward(self, x: Float[Tensor, "track ..."]) -> Float[Tensor, "track hidden"]:
        return self.layers(x.flatten(1))  # type: ignore[no-any-return]


class LagBranch(nn.Module):
    """(track, *channels, lag) -> (track, 2 * channels): dilated residual convolutions, then max and mean over
    lag.

    On a log-lag axis a tempo change is a shift, so what the branch hears does not depend on tempo.
    """

    def __init__(self, pooling: PoolingSpec, config: HeadConfig) -> None:
        super().__init__()
        self.width = 2 * config.channels
        channels = math.prod(pooling.shape[:-1])
        self.first = nn.Conv1d(channels, config.channels, config.kernel, padding="same")
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.GroupNorm(8 if config.channels % 8 == 0 else 1, config.channels),
                nn.GELU(),
                Dropout(config.dropout / 2),
                nn.Conv1d(config.channels, config.channels, config.kernel, padding="same", dilation=d),
            )
            for d in config.dilations
        )

    def forward(self, x: Float[Tensor, "track ... lag"]) -> Float[Tensor, "track hidden"]:
        x = self.first(x.flatten(1, -2))
        for block in self.blocks:
            x = x + block(x)
        return torch.cat([x.amax(dim=-1), x.mean(dim=-1)], dim=1)


class FramesBranch(nn.Module):
    """(track, time, *axes) and its mask (track, time) -> (track, 2 * channels): dilated residual convolutions
    over time, then max and mean over the rows of each track. Padding has no part in it: norms are of single
    rows, and after every convolution it is 0 again."""

    def __init__(self, pooling: PoolingSpec, config: HeadConfig) -> None:
        super().__init__()
        self.width = 2 * config.channels
        self.first = nn.Linear(math.prod(pooling.shape), config.channels)
        self.norms = nn.ModuleList(nn.LayerNorm(config.channels) for _ in config.dilations)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(config.channels, config.channels, config.kernel, padding="same", dilation=d)
            for d in config.dilations
        )

    def forward(
        self, x: Float[Tensor, "track time ..."], mask: Bool[Tensor, "track time"]
    ) -> Float[Tensor, "track hidden"]:
        kept = mask[:, :, None]
        x = self.first(x.flatten(2)) * kept
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            x = x + convolution((nn.functional.gelu(norm(x)) * kept).transpose(1, 2)).transpose(1, 2) * kept
        mean = x.sum(dim=1) / kept.sum(dim=1)
        return torch.cat([x.masked_fill(~kept, -torch.inf).amax(dim=1), mean], dim=1)


Branch = StatsBranch | LagBranch | FramesBranch


def branch_of(pooling: PoolingSpec, config: HeadConfig) -> Branch:
    """What reads a pooling: convolutions over its rows where they are a sequence, convolutions over its last
    axis where that is log time, all its values else."""
    kind = pooling_class(pooling)
    if not kind.per_track:
        return FramesBranch(pooling, config)
    return LagBranch(pooling, config) if kind.tempo_axis else StatsBranch(pooling, config)


class Stackable(Protocol):
    """A head that many of its shape can train beside: `mix` holds a LayerMix per pooling, `readout` does the
    rest."""

    poolings: tuple[str, ...]
    mix: nn.ModuleDict

    def readout(self, mixed: Mapping[str, Tensor]) -> Tensor: ...


class Head(nn.Module):
    """Standardised features by pooling name, each (track, layer, *axes) or a sequence, to outputs (track,
    name)."""

    def __init__(self, spec: FeatureSpec, config: HeadConfig, n_outputs: int) -> None:
        super().__init__()
        self.poolings = tuple(config.poolings)
        here = {p.name for p in spec.poolings}
        missing = [name for name in self.poolings if name not in here]
        if missing:
            raise ConfigError(
                f"the head reads {', '.join(missing)}, the features hold {', '.join(sorted(here))}",
                f"--set features.poolings={','.join([*sorted(here), *missing])}",
            )
        self.mix = nn.ModuleDict({name: LayerMix(len(spec[name].layers)) for name in self.poolings})
        self.noise = LayerNoise(config.noise)
        self.branches = nn.ModuleDict({name: branch_of(spec[name], config) for name in self.poolings})
        width = sum(cast(Branch, branch).width for branch in self.branches.values())
        self.dropout = Dropout(config.dropout)
        self.output = nn.Linear(width, n_outputs)

    def forward(self, features: Mapping[str, Tensor]) -> Float[Tensor, "track name"]:
        """Outputs, without a sigmoid."""
        return self.readout(self.mixed(features))

    def mixed(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weighted sum over layers of every pooling, (track, *axes), or (track, time, *axes) beside its
        mask."""
        mixed: dict[str, Tensor] = {}
        for name in self.poolings:
            x, mask = features[name].float(), mask_of(features, name)
            if mask is None:
                mixed[name] = self.mix[name](x)
            else:
                mixed[name], mixed[name + MASK] = (
                    self.mix[name](x.flatten(0, 1)).unflatten(0, x.shape[:2]),
                    mask,
                )
        return mixed

    def readout(self, mixed: Mapping[str, Tensor]) -> Float[Tensor, "track name"]:
        """Outputs from mixed layers."""
        return self.output(self.dropout(self._branches(mixed)))  # type: ignore[no-any-return]

    def hidden(self, features: Mapping[str, Tensor]) -> Float[Tensor, "track hidden"]:
        """What the last layer reads."""
        return self._branches(self.mixed(features))

    def _branches(self, mixed: Mapping[str, Tensor]) -> Float[Tensor, "track hidden"]:
        weights = {name: cast(LayerMix, self.mix[name]).weights for name in self.poolings}
        return torch.cat(
            [
                self.branches[name](
                    mixed[name], mixed[name + MASK]
                )  # no noise: what is drawn must not depend on the padding
                if name + MASK in mixed
                else self.branches[name](self.noise(mixed[name], weights[name]))
                for name in self.poolings
            ],
            dim=1,
        )


def layer_weights(head: nn.Module) -> dict[str, list[float]]:
    """The learned weight of every layer, by pooling; empty for a head that mixes none."""
    mix = getattr(head, "mix", {})
    return {
        name: module.weights.detach().tolist() for name, module in mix.items() if isinstance(module, LayerMix)
    }


def mix_parameters(head: nn.Module) -> list[nn.Parameter]:
    """The layer-mix logits: they want their own learning rate and no weight decay."""
    return [p for module in head.modules() if isinstance(module, LayerMix) for p in module.parameters()]


def own_parameters(head: nn.Module) -> list[nn.Parameter]:
    """All parameters but those of the layer mix."""
    mixed = {id(p) for p in mix_parameters(head)}
    return [p for p in head.parameters() if id(p) not in mixed]
