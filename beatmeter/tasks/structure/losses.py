"""Losses of curves against marks that are a little early or late, on logits (track, time, name).

`shift_tolerant` (Foscarin, Schlueter and Widmer, "Beat this!", ISMIR 2024) forgives a peak that is up to
`tolerance` rows away. `dilated` widens the targets instead, as is usual; it is kept by name because it
blurs the peaks."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

FAR = -1e4  # a logit that no probability is below

Loss = Callable[[Tensor, Tensor, Tensor, Tensor, int], tuple[Tensor, Tensor]]


def widened(x: Float[Tensor, "track time name"], rows: int) -> Float[Tensor, "track time name"]:
    """The largest value within `rows` rows to either side."""
    if not rows:
        return x
    return F.max_pool1d(x.transpose(1, 2), 2 * rows + 1, 1, rows).transpose(1, 2)


def shift_tolerant(
    logits: Float[Tensor, "track time name"],
    targets: Float[Tensor, "track time name"],
    mask: Bool[Tensor, "track time name"],
    weight: Float[Tensor, " name"],
    tolerance: int,
) -> tuple[Tensor, Tensor]:
    """Sum of binary cross-entropies and how many there are, of predictions that are max-pooled over
    `tolerance` rows to either side. Rows closer than twice that to a positive, but for the positive itself,
    count for nothing; positives count `weight` times; rows outside `mask` count for nothing and lend their
    value to no other."""
    pooled = widened(logits.masked_fill(~mask, FAR), tolerance)
    counts = mask & ((targets > 0) | (widened(targets, 2 * tolerance) == 0))
    return _sum(pooled, targets, counts, weight)


def dilated(
    logits: Float[Tensor, "track time name"],
    targets: Float[Tensor, "track time name"],
    mask: Bool[Tensor, "track time name"],
    weight: Float[Tensor, " name"],
    tolerance: int,
) -> tuple[Tensor, Tensor]:
    """The same with targets that are widened by `tolerance` rows, and predictions as they are."""
    return _sum(logits, widened(targets, tolerance), mask, weight)


def _sum(logits: Tensor, targets: Tensor, counts: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    each = F.binary_cross_entropy_with_logits(logits, targets, pos_weight=weight, reduction="none")
    return torch.where(counts, each, 0.0).sum(), counts.sum()


FRAME_LOSSES: Mapping[str, Loss] = {"shift_tolerant": shift_tolerant, "dilated": dilated}
