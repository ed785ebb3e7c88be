"""Logistic regression on soft targets and weighted items, by Newton's method: what Platt's line, stacking and
presence are fitted by.

scikit-learn's takes whole classes only: soft targets would enter twice, and its solvers stop earlier.
"""

from __future__ import annotations

import numpy as np

from beatmeter.evaluation.metrics.checks import Array

MOST = 100  # steps; a handful is usual
NEAR = 1e-10  # of the coefficients: the last step


def expit(u: Array) -> Array:
    """1 / (1 + exp(-u)), any shape. SciPy has the same, and takes a fifth of a second to load; an answer
    needs nothing else of it."""
    with np.errstate(over="ignore"):
        result: Array = 1 / (1 + np.exp(-u))
    return result


def fit_logistic(
    design: Array,
    targets: Array,
    penalty: Array,
    *,
    weight: Array | float = 1.0,
    centre: Array | float = 0.0,
    start: Array | None = None,
) -> Array:
    """(column,) coefficients w that minimise the log loss of `design` (item, column) w against `targets`
    (item,) in [0, 1], items weighted by `weight`, plus half of `penalty` (column,) times the squared distance
    from `centre`.

    The loss is convex, so Newton's method with backtracking finds the one minimum; `start` (default:
    `centre`) only saves steps.
    """
    centre = np.broadcast_to(np.asarray(centre, dtype=np.float64), penalty.shape)
    w: Array = np.array(centre if start is None else start, dtype=np.float64)

    def loss(w: Array) -> float:
        u = design @ w
        return float(
            (weight * (np.logaddexp(0, u) - targets * u)).sum() + (penalty * (w - centre) ** 2).sum() / 2
        )

    for _ in range(MOST):
        p = expit(design @ w)
        gradient = design.T @ (weight * (p - targets)) + penalty * (w - centre)
        step = np.linalg.solve(
            design.T @ (design * (weight * p * (1 - p))[:, None]) + np.diag(penalty), gradient
        )
        size, here = 1.0, loss(w)
        while size > NEAR and loss(w - size * step) > here - 1e-4 * size * float(gradient @ step):
            size /= 2
        w = w - size * step
        if np.abs(size * step).max() < NEAR:
            break
    return w
