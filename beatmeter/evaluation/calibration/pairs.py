"""From which probability on two meters are said to sound at once: the threshold of a stated share of false
alarms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ALARMS = 0.05  # share of music in one meter in which a second one may be named
WITNESSES = 20  # items in one meter that such a share takes


@dataclass(frozen=True)
class Pairs:
    """A second meter is named where two are at least as probable as `threshold`: in a share `alarms` of the
    `singles` items in one meter, and of `caught` of the `doubles` in two, as it was on validation."""

    threshold: float
    alarms: float
    caught: float
    singles: int
    doubles: int

    @classmethod
    def fit(cls, chances: Sequence[float], doubled: Sequence[bool]) -> Pairs | None:
        """From how probable a model found two meters in every item, and whether there were two. The lowest
        threshold with at most `ALARMS` of the items in one meter above it; None for too few of either."""
        values, two = np.asarray(chances, float), np.asarray(doubled, bool)
        ones = np.sort(values[~two])[::-1]
        if len(ones) < WITNESSES or not two.any():
            return None
        highest_refused = ones[int(ALARMS * len(ones))]
        above = values[values > highest_refused]
        threshold = float(above.min()) if len(above) else float(np.nextafter(highest_refused, np.inf))
        return cls(
            threshold,
            float((ones >= threshold).mean()),
            float((values[two] >= threshold).mean()),
            len(ones),
            int(two.sum()),
        )
