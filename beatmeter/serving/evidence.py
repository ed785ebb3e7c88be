"""By what music is told from sound without meter, beside what the head's last layer reads: how high the
log-lag autocorrelation is, and how much it stands out from its surroundings.

A beat that returns raises narrow peaks at its multiples; sounds at random times give a smooth curve, and a
sound that never changes gives a high one. Heads learn what tells meters apart, not this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

SURROUNDINGS = 15  # bins of the lag axis around each, two fifths of an octave: broader than a peak
PARTS = 4  # of the lag axis, each with figures of its own


def evidence_of(
    features: Mapping[str, Tensor], lags: Sequence[str], hidden: Float[Tensor, "item hidden"]
) -> Float[Tensor, "item value"]:
    """`hidden`, which the last layer of the head reads, and the summary of every lag pooling in `lags`; these
    features are not standardised."""
    return torch.cat([hidden, *(summarise(features[name].float()) for name in lags)], dim=1)


def summarise(rows: Float[Tensor, "item layer channel lag"]) -> Float[Tensor, "item value"]:
    """Of the mean over layers, for every channel and part of the lag axis: the mean; and of what is left
    without the running mean, the standard deviation and the maximum."""
    curves = rows.mean(dim=1)
    padded = nn.functional.pad(curves, (SURROUNDINGS // 2, SURROUNDINGS // 2), mode="replicate")
    peaks = curves - nn.functional.avg_pool1d(padded, SURROUNDINGS, stride=1)
    figures = []
    for level, rest in zip(curves.tensor_split(PARTS, dim=2), peaks.tensor_split(PARTS, dim=2), strict=True):
        figures += [level.mean(dim=2), rest.std(dim=2, correction=0), rest.amax(dim=2)]
    return torch.cat(figures, dim=1)
