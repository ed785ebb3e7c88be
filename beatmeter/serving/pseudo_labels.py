"""Pseudo-labels: beats that a model hears, known only where it is sure of them, for another one to learn from
(D.-H. Lee, "Pseudo-Label", 2013; Xie et al., "Self-training with Noisy Student", 2020)."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from jaxtyping import Float

from beatmeter.datasets.annotations import Grid, Provenance, within
from beatmeter.schema import Curves
from beatmeter.tasks.structure.decoding import Beats

BARS = 4  # that follow each other, at least
SURE = 0.8


def bar_confidence(curves: Curves, beats: Beats) -> Float[np.ndarray, " bar"]:
    """Of every bar between two downbeats of one track: the mean of the probabilities of its beats and of its
    downbeat, each the highest of three rows."""
    values, start = curves.values[0], float(curves.starts[0])
    rows = np.round((beats.times - start) * curves.rate).astype(int)
    near = np.clip(rows[:, None] + np.arange(-1, 2), 0, max(0, len(values) - 1))
    beat, downbeat = values[near].max(axis=1).T if len(values) else np.zeros((2, len(rows)))
    first = np.flatnonzero(beats.places == 1)
    return np.array([(beat[a:b].sum() + downbeat[a]) / (b - a + 1) for a, b in pairwise(first)])


def pseudo_grid(curves: Curves, beats: Beats, source: str, sure: float = SURE) -> Grid | None:
    """The beats of a track as tier 3, known in stretches of BARS bars or more of which each has a confidence
    of `sure` or more; None where there is no such stretch."""
    confidence, downbeats = bar_confidence(curves, beats), beats.times[beats.places == 1]
    edges = np.flatnonzero(np.diff(np.concatenate([[0], confidence >= sure, [0]]).astype(int)))
    runs = [(a, b) for a, b in edges.reshape(-1, 2) if b - a >= BARS]
    if not runs:
        return None
    # The downbeat after the last bar is known too; the next stretch begins later.
    half = 0.5 * min(float(np.diff(beats.times).min()), 1 / curves.rate)
    known = np.array([[downbeats[a] - half, downbeats[b] + half] for a, b in runs])
    known[:, 0] = np.maximum(known[:, 0], 0.0)
    mean = float(np.concatenate([confidence[a:b] for a, b in runs]).mean())
    by = Provenance(source, tier=3, confidence=round(min(1.0, mean), 3))
    kept = within(beats.times, known)
    return Grid(beats.times[kept], beats.places[kept], known=known, provenance=by)
