"""Losses over all pairs of an optimiser step, as sum and count.

All take unit vectors z (track, dim) and relations (track, track) of every anchor (row) to the others: 1 where
they belong together, -1 where they do not, 0 where nobody knows, as on the diagonal. Similarities are cosines
and are taken in float64: at a temperature of 0.1 the rounding of float32 would be seen in the gradient.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from beatmeter.settings import TaskConfig

Sum = tuple[Tensor, Tensor]
ALPHA, BETA, BASE = 2.0, 50.0, 0.5  # of multi-similarity, as published


def supcon(z: Float[Tensor, "track dim"], relation: Float[Tensor, "track track"], config: TaskConfig) -> Sum:
    """Supervised contrastive loss (Khosla et al. 2020, L_out): of every anchor i with positives P(i)

    - mean over p in P(i) of log(exp(z_i z_p / T) / sum over all known a of exp(z_i z_a / T))."""
    s, positive, known = _anchors(z, relation)
    s = s / config.temperature
    log_p = s - s.masked_fill(~known, -torch.inf).logsumexp(dim=1, keepdim=True)
    each = -torch.where(positive, log_p, 0.0).sum(dim=1) / positive.sum(dim=1)
    return each.sum(), torch.tensor(float(len(each)), device=z.device)


def multi_similarity(
    z: Float[Tensor, "track dim"], relation: Float[Tensor, "track track"], config: TaskConfig
) -> Sum:
    """Multi-similarity loss (Wang et al. 2019) of every anchor with positives and negatives

    log(1 + sum over p of exp(-a (s_p - c))) / a + log(1 + sum over n of exp(b (s_n - c))) / b,
    a = 2, b = 50, c = 0.5, over pairs that are not easy: negatives nearer than the farthest positive less
    the margin, positives farther than the nearest negative plus it."""
    s, positive, known = _anchors(z, relation)
    negative = known & ~positive
    with torch.no_grad():
        farthest = s.masked_fill(~positive, torch.inf).amin(dim=1, keepdim=True)
        nearest = s.masked_fill(~negative, -torch.inf).amax(dim=1, keepdim=True)
        positive = positive & (s - config.margin < nearest)
        negative = negative & (s + config.margin > farthest)
    near = _soft_count(-ALPHA * (s - BASE), positive) / ALPHA
    far = _soft_count(BETA * (s - BASE), negative) / BETA
    return (near + far).sum(), torch.tensor(float(len(s)), device=z.device)


def triplet(z: Float[Tensor, "track dim"], relation: Float[Tensor, "track track"], config: TaskConfig) -> Sum:
    """Triplet loss with semi-hard negatives (Schroff et al. 2015) of every anchor and positive

    max(0, s_n - s_p + margin): n is the nearest negative that is farther than the positive, or where all are
    nearer the farthest one. Hard negatives alone make all vectors the same."""
    s, positive, known = _anchors(z, relation)
    negative = known & ~positive
    anchor, other = torch.nonzero(positive & negative.any(dim=1, keepdim=True), as_tuple=True)
    own, rest = s[anchor, other], s[anchor]
    with torch.no_grad():
        open_ = negative[anchor]
        farther = open_ & (rest < own[:, None])
        semi = rest.masked_fill(~farther, -torch.inf)
        easiest = rest.masked_fill(~open_, torch.inf)
        at = torch.where(farther.any(dim=1), semi.argmax(dim=1), easiest.argmin(dim=1))
    losses = (rest.gather(1, at[:, None])[:, 0] - own + config.margin).clamp_min(0)
    return losses.sum(), torch.tensor(float(len(losses)), device=z.device)


LOSSES: dict[str, Callable[[Tensor, Tensor, TaskConfig], Sum]] = {
    "supcon": supcon,
    "multi_similarity": multi_similarity,
    "triplet": triplet,
}


def _anchors(z: Tensor, relation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Cosines, positives and known pairs (anchor, track) of the tracks that have a positive."""
    rows = (relation > 0).any(dim=1)
    s = z[rows].double() @ z.double().T
    return s, relation[rows] > 0, relation[rows] != 0


def _soft_count(x: Tensor, counted: Tensor) -> Tensor:
    """(anchor,) log(1 + sum over what is counted of exp(x))."""
    zero = torch.zeros(len(x), 1, dtype=x.dtype, device=x.device)
    return torch.cat([zero, x.masked_fill(~counted, -torch.inf)], dim=1).logsumexp(dim=1)
