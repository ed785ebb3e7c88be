"""Peaks of a curve between its rows."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def peaks(
    curve: Float[np.ndarray, " time"], threshold: float = 0.5, apart: int = 3
) -> Float[np.ndarray, " peak"]:
    """Where a curve has peaks above `threshold`, in rows with fractions: the top of a parabola through the
    highest row and its neighbours. Of peaks closer than `apart` rows the highest stays."""
    if len(curve) < 3:
        return np.zeros(0)
    padded = np.concatenate([[-np.inf], curve, [-np.inf]])
    top = np.flatnonzero((curve > threshold) & (curve >= padded[:-2]) & (curve > padded[2:]))
    kept: list[int] = []
    for at in top[np.argsort(-curve[top], kind="stable")].tolist():
        if all(abs(at - other) >= apart for other in kept):
            kept.append(at)
    found = np.array(sorted(kept), int)
    peaks: np.ndarray = found + refined(curve, found)
    return peaks


def refined(curve: Float[np.ndarray, " time"], at: np.ndarray) -> Float[np.ndarray, " peak"]:
    """How far the tops of parabolas lie from these rows, in [-0.5, 0.5]; 0 at the ends and where there is
    no top."""
    inner = (at > 0) & (at < len(curve) - 1)
    left, middle, right = (curve[np.clip(at + by, 0, len(curve) - 1)] for by in (-1, 0, 1))
    bend = left - 2 * middle + right
    with np.errstate(divide="ignore", invalid="ignore"):
        shift = 0.5 * (left - right) / bend
    result: np.ndarray = np.where(inner & (bend < 0), np.clip(shift, -0.5, 0.5), 0.0)
    return result
