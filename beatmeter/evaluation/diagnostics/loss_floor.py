"""What the loss itself adds: with smoothed negatives and a weight on positives, a certain negative does not
settle at e."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from beatmeter.errors import EvaluationError
from beatmeter.evaluation.diagnostics.limits import LIMITS, Limits, plain
from beatmeter.schema import Finding


def negative_floor(weight: int | float, smoothing: int | float) -> float:
    """Where binary cross-entropy with `pos_weight` = w puts a certain negative of target e: w e / (w e + 1 -
    e).

    It minimises -[w e log q + (1 - e) log(1 - q)] over q.
    """
    if not weight > 0 or not 0 <= smoothing < 1:
        raise EvaluationError(f"weight {weight} must be above 0 and smoothing {smoothing} in [0, 1)")
    return weight * smoothing / (weight * smoothing + 1 - smoothing)


def floor_warning(classes: Sequence[str], floors: Sequence[float], limits: Limits = LIMITS) -> Finding:
    """Whether the output of a certain negative, one per class, reaches a threshold that decisions are made
    at."""
    table = dict(zip(classes, map(float, floors), strict=True))
    reaching = {c: f for c, f in table.items() if f >= limits.active}
    if not reaching:
        text = (
            f"a certain negative settles at {max(table.values()):.2f} at most, below every decision "
            "threshold."
        )
        return Finding("loss_floor", "ok", text, plain({"floors": table, "reaching": {}}))
    named = ", ".join(f"{c} at {f:.2f}" for c, f in reaching.items())
    reached = [c for c, f in reaching.items() if f >= limits.positive]
    text = (
        f"by the loss alone a certain negative settles at or above {limits.active:g} for: {named}. "
        "Co-occurrence and noise floor measure the loss there"
        + (f", and {', '.join(reached)} would be predicted for everything" if reached else "")
        + ". Use the unbiased loss, less smoothing or a lower weight."
    )
    return Finding("loss_floor", "warning", text, plain({"floors": table, "reaching": reaching}))


def floor_from_meta(
    classes: Sequence[str], meta: Mapping[str, Any], limits: Limits = LIMITS
) -> Finding | None:
    """`floor_warning` of predictions that say how they were trained: `meta["loss"]` with `smoothing` and
    `weights` of plain weighted cross-entropy (one per class), or the `floors` themselves. None when they do
    not say."""
    loss = meta.get("loss")
    if not isinstance(loss, Mapping):
        return None
    try:
        if "floors" in loss:
            return floor_warning(classes, [float(f) for f in loss["floors"]], limits)
        if "weights" in loss and "smoothing" in loss:
            return floor_warning(
                classes, [negative_floor(float(w), float(loss["smoothing"])) for w in loss["weights"]], limits
            )
    except (TypeError, ValueError) as error:
        raise EvaluationError(
            f"meta['loss'] = {loss!r} cannot be read: {error}",
            "Give `floors`, or `smoothing` and `weights`, one number per class.",
        ) from None
    return None
