"""What every metric asks of its input, and the weighted sums that all of them are made of.

Metrics take item weights of shape (*batch, item), by default all ones, and return an array of shape (*batch).
A bootstrap replicate is a row of weights (how often each item was drawn), so one implementation gives the
value and its replicates.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from beatmeter.errors import EvaluationError

Array = np.ndarray[Any, np.dtype[Any]]
Value = (
    np.ndarray[Any, np.dtype[np.float64]] | np.float64
)  # (*batch); a plain float where there is no batch axis
Scores = Float[np.ndarray, "item klass"]
Targets = Float[np.ndarray, "item klass"]
Primary = Int[np.ndarray, " item"]
Weights = Float[np.ndarray, "*batch item"]


def validate(
    scores: Array, primary: Array | None = None, targets: Array | None = None, weights: Array | None = None
) -> None:
    """Check shapes and ranges: `scores` (item, class) in [0, 1], `primary` (item,) class index or -1,
    `targets` (item, class) in [0, 1], `weights` (*batch, item) not negative. Raises EvaluationError that
    names the first item at fault."""
    if scores.ndim != 2 or scores.shape[1] == 0:
        raise EvaluationError(f"scores have shape {scores.shape}, not (item, class)")
    n, c = scores.shape
    _in_range("scores", scores, 1.0, "Scores are probabilities: apply a sigmoid to logits.")
    if primary is not None:
        if primary.shape != (n,) or not np.issubdtype(primary.dtype, np.integer):
            raise EvaluationError(
                f"primary has shape {primary.shape} and type {primary.dtype}, not one class index for each "
                f"of {n} items"
            )
        bad = (primary < -1) | (primary >= c)
        if bad.any():
            raise EvaluationError(
                f"primary[{int(bad.argmax())}] = {int(primary[bad.argmax()])} is not an index of {c} classes",
                "Use -1 where there is no label.",
            )
    if targets is not None:
        if targets.shape != (n, c):
            raise EvaluationError(f"targets have shape {targets.shape}, scores {scores.shape}")
        _in_range("targets", targets, 1.0, "A target is the weight of a label, 0 where the class is absent.")
    if weights is not None:
        if weights.shape[-1:] != (n,):
            raise EvaluationError(
                f"weights have shape {weights.shape}, their last axis must be the {n} items"
            )
        _in_range("weights", weights, np.inf, "A weight says how often an item counts.")


def _in_range(name: str, values: Array, high: float, hint: str) -> None:
    bad = ~((values >= 0) & (values <= high) & np.isfinite(values))
    if bad.any():
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        raise EvaluationError(
            f"{name}[{', '.join(map(str, where))}] = {values[where]} is not in [0, {high:g}]", hint
        )


def weigh(weights: Weights | None, n: int) -> Array:
    """The weights, or ones of shape (n,)."""
    return np.ones(n) if weights is None else np.asarray(weights, dtype=np.float64)


def ratio(numerator: Any, denominator: Any) -> Array:
    """numerator / denominator as float64, nan where the denominator is 0."""
    numerator, denominator = np.broadcast_arrays(
        np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    )
    out = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=out, where=denominator > 0)
    return out


def unbox(values: Array) -> Value:
    """An array without axes as a float; any other as it is."""
    result: Value = values[()]
    return result


def mean_where(values: Array, defined: Array) -> Array:
    """Mean over the last axis of the `values` that are `defined` (bool of the same shape); nan where none
    is."""
    return ratio(np.where(defined, values, 0.0).sum(axis=-1), defined.sum(axis=-1))


def one_hot(index: Primary, n_classes: int) -> Array:
    """(item,) class indices to (item, class) of 0 and 1; -1 gives a row of zeros."""
    result: Array = (index[:, None] == np.arange(n_classes)).astype(np.float64)
    return result
