"""Metrics of numbers: pure numpy, per name, over the items whose target is known.

Shapes: `values` and `targets` (item, name), nan where nobody knows; `weights` (*batch, item) or None. Every
metric gives (*batch, name), nan where it is not defined, so that the bootstrap over groups is the same as for
classes.
"""

from __future__ import annotations

import numpy as np

from beatmeter.evaluation.metrics.checks import Array, weigh


def absolute_error(values: Array, targets: Array) -> Array:
    """(item, name) distances from the targets, nan where these are not known."""
    result: Array = np.abs(values - targets)
    return result


def mean_absolute_error(values: Array, targets: Array, weights: Array | None = None) -> Array:
    """Mean of `absolute_error`, in the unit of the values."""
    return _mean(absolute_error(values, targets), weigh(weights, len(values)))


def r2(values: Array, targets: Array, weights: Array | None = None) -> Array:
    """Coefficient of determination: 1 - sum (t - v)^2 / sum (t - mean of t)^2. 0 is the mean of these very
    targets, and it can be negative; nan where all targets are equal."""
    w = weigh(weights, len(values))
    known = ~np.isnan(targets)
    t = np.nan_to_num(targets)
    # about the plain mean first: the variance of shifted numbers loses no digits
    centre = t.sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    d = np.where(known, t - centre, 0.0)
    n, first, second = w @ known, w @ d, w @ np.square(d)
    residual = w @ np.where(known, np.square(t - values), 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        total = second - np.square(first) / n
        result: Array = np.where(total > 1e-12 * second, 1 - residual / total, np.nan)
    return result


def spearman(values: Array, targets: Array, weights: Array | None = None) -> Array:
    """Spearman's rank correlation, ties at their mean rank; nan where values or targets are all equal. An
    item of weight 2 is ranked as two equal items."""
    w = weigh(weights, len(values))
    columns = []
    for k in range(values.shape[1]):
        known = ~np.isnan(targets[:, k])
        columns.append(_correlation(values[known, k], targets[known, k], w[..., known]))
    return np.stack(columns, axis=-1)


def _correlation(a: Array, b: Array, w: Array) -> Array:
    n = w.sum(axis=-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        x, y = (r - (w * r).sum(axis=-1, keepdims=True) / n for r in (_ranks(a, w), _ranks(b, w)))
        spread = (w * x * x).sum(axis=-1) * (w * y * y).sum(axis=-1)
        result: Array = np.where(spread > 1e-9, (w * x * y).sum(axis=-1) / np.sqrt(spread), np.nan)
    return result


def _ranks(x: Array, w: Array) -> Array:
    """(*batch, item) mean rank of every item among items that count w times."""
    if not len(x):
        return w
    order = np.argsort(x, kind="stable")
    starts = np.flatnonzero(np.concatenate([[True], np.diff(x[order]) > 0]))  # of runs of equal values
    sizes = np.add.reduceat(w[..., order], starts, axis=-1)
    middles = sizes.cumsum(axis=-1) - sizes / 2
    run = np.empty(len(x), dtype=np.int64)
    run[order] = np.repeat(np.arange(len(starts)), np.diff([*starts, len(x)]))
    result: Array = middles[..., run]
    return result


def _mean(items: Array, w: Array) -> Array:
    known = ~np.isnan(items)
    n = w @ known
    with np.errstate(divide="ignore", invalid="ignore"):
        result: Array = np.where(n > 0, (w @ np.nan_to_num(items)) / n, np.nan)
    return result
