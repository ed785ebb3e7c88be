"""Standardising features by the train split, so that layers of different scale mix fairly.

A `Standardiser` is a value: it is fitted once, on the train tracks without augmentation, and never changes.
The source of features applies it; heads see standardised features only. It travels with the checkpoint as
`standardise.<pooling>.<tensor>`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from beatmeter.features.poolings import pooling_class
from beatmeter.features.poolings.sequences import MASK, TIMES, mask_of
from beatmeter.schema import FeatureSpec, PoolingSpec

PREFIXES = (
    "standardise.",
    "head.standardise.",
)  # of its tensors in a checkpoint: today's, and that of checkpoints before it


@dataclass(frozen=True)
class Standardiser:
    """By pooling: the mean to subtract and the scale to multiply with, each (layer, *axes) with axes of
    length 1 where all values share them. A pooling that is not named is left as it is."""

    means: Mapping[str, Tensor]
    scales: Mapping[str, Tensor]

    def __call__(self, features: Mapping[str, Float[Tensor, "track layer ..."]]) -> dict[str, Tensor]:
        """Standardised features by pooling, float32."""
        found: dict[str, Tensor] = {}
        for name, x in features.items():
            mask = mask_of(features, name)
            if name.endswith((MASK, TIMES)):
                found[name] = x
            elif mask is None:
                found[name] = self.apply(name, x.float())
            else:  # the padding of sequences stays 0
                found[name] = self.apply(name, x.float()) * mask.reshape(*mask.shape, *[1] * (x.ndim - 2))
        return found

    def apply(self, pooling: str, values: Float[Tensor, "track layer ..."], in_place: bool = False) -> Tensor:
        """The standardised values of one pooling."""
        if pooling not in self.means:
            return values
        mean, scale = self.means[pooling].to(values.device), self.scales[pooling].to(values.device)
        return values.sub_(mean).mul_(scale) if in_place else (values - mean) * scale

    def tensors(self) -> dict[str, Tensor]:
        """As a checkpoint keeps them."""
        parts = (("mean", self.means), ("scale", self.scales))
        return {
            f"{PREFIXES[0]}{name}.{part}": value for part, values in parts for name, value in values.items()
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Standardiser:
        """What `tensors` gave, among the other tensors of a checkpoint; empty where there are none."""
        found: dict[str, dict[str, Tensor]] = {"mean": {}, "scale": {}}
        for key, value in tensors.items():
            for prefix in PREFIXES:
                if key.startswith(prefix):
                    name, _, part = key.removeprefix(prefix).rpartition(".")
                    found[part][name] = value
        return cls(found["mean"], found["scale"])

    def led_by(self, known: Standardiser) -> Standardiser:
        """The same, but for the first channels of poolings over lag, which `known` standardises."""
        parts = ((self.means, known.means), (self.scales, known.scales))
        means, scales = (
            {
                n: torch.cat([first[n], v[:, first[n].shape[1] :]], 1) if n in first else v
                for n, v in own.items()
            }
            for own, first in parts
        )
        return Standardiser(means, scales)

    def same(self, other: Standardiser) -> bool:
        """Whether both change features in the same way."""
        mine, theirs = self.tensors(), other.tensors()
        return mine.keys() == theirs.keys() and all(
            torch.equal(value, theirs[key]) for key, value in mine.items()
        )


IDENTITY = Standardiser({}, {})


class Moments:
    """Running mean and variance of one pooling over batches, in float64; nothing but the sums is kept.

    Parts are joined by the formula of Chan, Golub and LeVeque (1979), so large means cost no digits. Over
    `stats` every (layer, pool, dim) has its own; over `lag` every (layer, channel), shared by all lags,
    because a tempo change must stay a shift.
    """

    def __init__(self, pooling: PoolingSpec) -> None:
        self.shared = pooling_class(pooling).tempo_axis
        shape = (*pooling.row_shape[:-1], 1) if self.shared else pooling.row_shape
        self.count = 0
        self.mean = torch.zeros(shape, dtype=torch.float64)
        self.square = torch.zeros_like(self.mean)  # sum of squared distances from the mean

    @torch.no_grad()
    def add(self, batch: Float[Tensor, "track layer ..."]) -> None:
        """Some more tracks."""
        axes = (0, batch.ndim - 1) if self.shared else (0,)
        variance, mean = torch.var_mean(batch.float(), dim=axes, correction=0, keepdim=True)
        count = batch.shape[0] * (batch.shape[-1] if self.shared else 1)
        self.join(count, mean[0].cpu().double(), variance[0].cpu().double() * count)

    def join(self, count: int, mean: Tensor, square: Tensor) -> None:
        """What another process has seen: how many values, their mean, the sum of squared distances from
        it."""
        if count:
            both = self.count + count
            shift = mean - self.mean
            self.mean = self.mean + shift * (count / both)
            self.square = self.square + square + shift.square() * (self.count * count / both)
            self.count = both

    def exchange(self, gather: Callable[[Any], list[Any]]) -> None:
        """Join what all processes have seen; `gather` gives the values of all, in the same order
        everywhere."""
        first, *rest = gather((self.count, self.mean, self.square))
        self.count, self.mean, self.square = first
        for other in rest:
            self.join(*other)

    def scale(self) -> Tensor:
        """1 / standard deviation, float32; 1 for what never changes."""
        deviation = (self.square / max(self.count, 1)).sqrt()
        constant = deviation <= 1e-6 * self.mean.abs().clamp_min(1e-6)
        return torch.where(constant, torch.ones_like(deviation), 1 / deviation.clamp_min(1e-12)).float()


def standardiser_of(moments: Mapping[str, Moments]) -> Standardiser:
    """The standardiser of features with these moments, by pooling."""
    return Standardiser(
        {n: m.mean.float() for n, m in moments.items()}, {n: m.scale() for n, m in moments.items()}
    )


def moments_of(spec: FeatureSpec) -> dict[str, Moments]:
    """Empty moments for every pooling that a head may read."""
    return {p.name: Moments(p) for p in spec.poolings}
