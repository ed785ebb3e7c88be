"""Which layers cannot be told from the best: paired tests over groups against the best layer, corrected for
their number."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from beatmeter.evaluation.metrics.intervals import bootstrap_weights
from beatmeter.evaluation.metrics.significance import Difference, holm

LEVEL = 0.05
REPLICATES = 2000


def best_set(
    errors: Float[np.ndarray, "item layer"], groups: Sequence[str], seed: int = 0
) -> tuple[int, tuple[int, ...]]:
    """The layer with the smallest mean error, and all that are not surely worse than it: differences of every
    other layer to it on the same draws of groups (paired bootstrap), by Holm over the layers at LEVEL. A
    layer is a winner only when it is alone in the set."""
    best = int(errors.mean(axis=0).argmin())
    surplus = errors - errors[:, [best]]
    others = [k for k in range(errors.shape[1]) if k != best]
    if not others:
        return best, (best,)
    draws = np.concatenate(
        [w @ surplus / w.sum(axis=1, keepdims=True) for w in bootstrap_weights(groups, REPLICATES, seed)]
    )
    tests = [Difference.of(float(surplus[:, k].mean()), draws[:, k]).p for k in others]
    kept = [k for k, p in zip(others, holm(tests), strict=True) if not p < LEVEL]
    return best, tuple(sorted([best, *kept]))
