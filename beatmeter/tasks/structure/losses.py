"""Losses of curves against marks that are a little early or late, on logits (track, time, name), row by row.

`shift_tolerant` (Foscarin, Schlueter and Widmer, "Beat this!", ISMIR 2024) forgives a peak that is up to
`tolerance` rows away. `dilated` widens the targets instead, as is usual; it is kept by name because it
blurs the peaks.

Marks may also be wrong. `trusted` leaves out the rows that a model finds hardest to believe, so many as
marks are thought to be wrong (small-loss selection); which model is asked is the task's choice."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

FAR = -1e4  # a logit that no probability is below

# logits, targets, mask, weight of positives, tolerance (rows), smoothing -> losses, and which of them count
Loss = Callable[[Tensor, Tensor, Tensor, Tensor, int, float], tuple[Tensor, Tensor]]


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
    smoothing: float = 0.0,
) -> tuple[Float[Tensor, "track time name"], Bool[Tensor, "track time name"]]:
    """Binary cross-entropies of predictions that are max-pooled over `tolerance` rows to either side, and
    which of them count. Rows closer than twice that to a positive, but for the positive itself, count for
    nothing; positives count `weight` times; rows outside `mask` count for nothing and lend their value to
    no other. Targets keep `smoothing` away from 0 and 1."""
    pooled = widened(logits.masked_fill(~mask, FAR), tolerance)
    counts = mask & ((targets > 0) | (widened(targets, 2 * tolerance) == 0))
    return _each(pooled, targets, weight, smoothing), counts


def dilated(
    logits: Float[Tensor, "track time name"],
    targets: Float[Tensor, "track time name"],
    mask: Bool[Tensor, "track time name"],
    weight: Float[Tensor, " name"],
    tolerance: int,
    smoothing: float = 0.0,
) -> tuple[Float[Tensor, "track time name"], Bool[Tensor, "track time name"]]:
    """The same with targets that are widened by `tolerance` rows, and predictions as they are."""
    return _each(logits, widened(targets, tolerance), weight, smoothing), mask


def _each(logits: Tensor, targets: Tensor, weight: Tensor, smoothing: float) -> Tensor:
    soft = targets + smoothing * (1 - 2 * targets)
    each = F.binary_cross_entropy_with_logits(logits, soft, reduction="none")
    return each * (1 + (weight - 1) * targets)


def trusted(
    losses: Float[Tensor, "track time name"],
    targets: Float[Tensor, "track time name"],
    counts: Bool[Tensor, "track time name"],
    share: float,
    around: int = 0,
) -> Bool[Tensor, "track time name"]:
    """Which rows count when a `share` of the marks is thought to be wrong: in every track, without that
    share of the positives, those with the largest losses, and without as many negatives, times the
    `around` rows on either side of a mark that was left out and theirs. No track depends on another."""
    positive = counts & (targets > 0)
    wrong = (share * positive.sum(dim=1)).round().long()  # (track, name)
    kept = torch.zeros_like(counts)
    for rows, n in ((positive, wrong), (counts & ~positive, wrong * (2 * around + 1))):
        order = torch.where(rows, losses.detach(), -torch.inf).argsort(dim=1, descending=True, stable=True)
        rank = torch.empty_like(order)
        places = torch.arange(order.shape[1], device=order.device)[None, :, None].expand_as(order)
        rank.scatter_(1, order, places)
        kept |= rows & (rank >= n[:, None])
    return kept


def added(losses: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """The sum of the losses that count, and how many they are."""
    return torch.where(counts, losses, 0.0).sum(), counts.sum()


FRAME_LOSSES: Mapping[str, Loss] = {"shift_tolerant": shift_tolerant, "dilated": dilated}
