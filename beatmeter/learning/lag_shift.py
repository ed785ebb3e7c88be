"""The augmentation of lag rows: a random shift along the log-lag axis, which is the same rhythm at another
tempo."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from beatmeter.features.poolings import pooling_class
from beatmeter.schema import FeatureSpec

STREAM = 4  # of the epoch's random numbers, beside those of other augmentations


def draw_shifts(tracks: int, seed: tuple[int, ...], most: int) -> Int[np.ndarray, " track"] | None:
    """A shift of up to `most` bins either way for every track of an epoch, whatever the batches are; None
    when `most` is 0."""
    return np.random.default_rng((*seed, STREAM)).integers(-most, most + 1, tracks) if most else None


def shift_lags(
    x: Float[Tensor, "track ... lag"], by: Int[np.ndarray, " track"]
) -> Float[Tensor, "track ... lag"]:
    """Every track moved by its number of bins, edges repeated."""
    n = x.shape[-1]
    at = (torch.arange(n) + torch.from_numpy(by)[:, None]).clamp(0, n - 1).to(x.device)
    return x.gather(-1, at.view(len(x), *[1] * (x.ndim - 2), n).expand_as(x))


def shifted(
    features: Mapping[str, Tensor], spec: FeatureSpec, by: Int[np.ndarray, " track"] | None
) -> Mapping[str, Tensor]:
    """Features by pooling, the lag poolings among them shifted."""
    if by is None:
        return features
    moved = {p.name for p in spec.poolings if pooling_class(p).tempo_axis}
    return {name: shift_lags(x, by) if name in moved else x for name, x in features.items()}
