"""How well beats are found: mir_eval's measures, one value per track.

F counts a beat as found within 70 ms; beats of the first 5 s are left out, of both sides, as is usual
(Davies, Degara and Plumbley, 2009). `any_octave` takes the best of the beats as they are, every second of
them from either, and twice as many."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

WINDOW = 0.07  # seconds
SKIPPED = 5.0  # seconds

Times = Float[np.ndarray, " beat"]


def f_measure(truth: Times, found: Times, skipped: float = SKIPPED) -> float:
    """F of `found` beats against the `truth`, seconds; nan where no beat is right."""
    from mir_eval import beat

    truth, found = (np.sort(x[x >= skipped]) for x in (truth, found))
    if not len(truth):
        return float("nan")
    return float(beat.f_measure(truth, found, WINDOW)) if len(found) else 0.0


def any_octave(truth: Times, found: Times, skipped: float = SKIPPED) -> float:
    """The best F when doubling and halving are forgiven."""
    doubled = (
        np.interp(np.arange(0, len(found) - 0.5, 0.5), np.arange(len(found)), found) if len(found) else found
    )
    return max(f_measure(truth, x, skipped) for x in (found, found[::2], found[1::2], doubled))


def continuity(truth: Times, found: Times, skipped: float = SKIPPED) -> float:
    """CMLt of Hainsworth (2004): the share of beats that go on from a right one at the right tempo; nan
    where fewer than two beats are right."""
    from mir_eval import beat

    truth, found = (np.sort(x[x >= skipped]) for x in (truth, found))
    if len(truth) < 2:
        return float("nan")
    return float(beat.continuity(truth, found)[1]) if len(found) > 1 else 0.0
