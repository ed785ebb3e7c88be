"""The best path through classes that changes seldom."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int


def steadiest(scores: Float[np.ndarray, "row class"], price: float) -> Int[np.ndarray, " row"]:
    """The class of every row that makes the sum of the scores highest, where every change of class costs
    `price` (Viterbi, in time linear in rows and classes)."""
    n, classes = scores.shape
    before = np.zeros((n, classes), int)
    total = scores[0].astype(float)
    own = np.arange(classes)
    for row in range(1, n):
        best = int(total.argmax())
        stay = total >= total[best] - price
        before[row] = np.where(stay, own, best)
        total = np.where(stay, total, total[best] - price) + scores[row]
    path = np.zeros(n, int)
    path[-1] = int(total.argmax())
    for row in range(n - 1, 0, -1):
        path[row - 1] = before[row, path[row]]
    return path
