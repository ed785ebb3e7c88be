"""Losses over independent sigmoids with smoothed negatives, and what a perfectly informed model settles at
under them."""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Logits = Float[Tensor, "track klass"]
Targets = Float[Tensor, "track klass"]
Weights = Float[Tensor, " klass"]


def unbiased(logits: Logits, targets: Targets, weight: Weights, smoothing: float) -> Logits:
    """Binary cross-entropy weighted by the hard label h, per (track, class):

    L = -[ w h log p + (1 - h) (e log p + (1 - e) log(1 - p)) ]

    The weight w multiplies true positives only, so a certain negative settles at e whatever w is.
    """
    log_p, log_not = F.logsigmoid(logits), F.logsigmoid(-logits)
    return -(weight * targets * log_p + (1 - targets) * (smoothing * log_p + (1 - smoothing) * log_not))


def pos_weight(logits: Logits, targets: Targets, weight: Weights, smoothing: float) -> Logits:
    """Plain BCEWithLogitsLoss(pos_weight=w) on smoothed targets y = h (1 - e) + e. Biased: the weight
    multiplies the smoothing too, so a certain negative settles at w e / (w e + 1 - e). Kept by name so that
    this can be shown."""
    y = targets * (1 - smoothing) + smoothing
    return F.binary_cross_entropy_with_logits(logits, y, pos_weight=weight, reduction="none")


LOSSES = {"unbiased": unbiased, "pos_weight": pos_weight}


def floor_of_negative(loss: str, weight: np.ndarray, smoothing: float) -> np.ndarray:
    """The sigmoid that minimises the loss on a certain negative, per class."""
    weight = np.asarray(weight, dtype=float)
    if loss == "unbiased":
        return np.full_like(weight, smoothing)
    result: np.ndarray = weight * smoothing / (weight * smoothing + 1 - smoothing)
    return result
