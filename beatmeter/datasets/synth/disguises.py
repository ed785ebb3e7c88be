"""What sounds like another meter for a moment and is none: hemiolas of one bar, triplets, cross-accents."""

from __future__ import annotations

import numpy as np

from beatmeter.datasets.synth.clip import FloatArray
from beatmeter.datasets.synth.structure import Phrase
from beatmeter.datasets.synth.timing import Layout


def with_hemiolas(
    rng: np.random.Generator, table: FloatArray, layout: Layout, phrases: list[Phrase], chance: float
) -> FloatArray:
    """A part in three whose phrases may end in a hemiola: the last two bars of 3 (or the last 6/8 bar) as
    three groups of two."""
    kept, added = np.ones(len(table), dtype=bool), []
    span = 6 if layout.pulses == 3 else layout.pulses
    if span != 6:
        return table
    for phrase in phrases:
        if phrase.bars < 2 or rng.random() >= chance:
            continue
        end = float(layout.starts[phrase.first + phrase.bars])
        start = end - span
        inside = (table[:, 0] >= start - 1e-6) & (table[:, 0] < end - 1e-6) & kept
        if not inside.any():
            continue
        source = table[inside]
        kept &= ~inside
        for step in (0, 2, 4):
            at = source[np.abs(source[:, 0] - (start + step)) < 1.01]
            for _, _, pitch, velocity in (at if len(at) else source)[:4]:
                added.append((start + step, 1.9, pitch, min(1.0, velocity * 1.15)))
    return _joined(table[kept], added)


def with_triplets(
    rng: np.random.Generator, table: FloatArray, layout: Layout, phrases: list[Phrase], chance: float
) -> FloatArray:
    """A part some of whose long notes are three even ones: triplets over one pulse or over two."""
    starts, added, kept = layout.starts, [], np.ones(len(table), dtype=bool)
    bars = np.searchsorted(starts, table[:, 0] + 1e-6, side="right") - 1
    chosen = rng.random(len(starts) + 1) < chance
    for at in np.flatnonzero(chosen[np.clip(bars, 0, len(starts))]):
        onset, length, pitch, velocity = table[at]
        span = 2.0 if length > 1.8 else 1.0 if length > 0.85 else 0.0
        if not span or onset % 1 > 1e-6:
            continue
        kept[at] = False
        added += [(onset + span * k / 3, span / 3 * 0.9, pitch + (0, 2, 0)[k], velocity) for k in range(3)]
    return _joined(table[kept], added)


def with_cross_accents(
    rng: np.random.Generator, table: FloatArray, layout: Layout, phrases: list[Phrase], chance: float
) -> FloatArray:
    """A part that for a bar now and then is loud on every third (or second) pulse, whatever the bar is."""
    table = table.copy()
    step = 2 if layout.pulses % 3 == 0 else 3
    for phrase in phrases:
        if rng.random() >= chance:
            continue
        start = float(layout.starts[phrase.first + int(rng.integers(phrase.bars))])
        inside = (table[:, 0] >= start - 1e-6) & (table[:, 0] < start + layout.pulses - 1e-6)
        loud = inside & (np.abs((table[:, 0] - start) % step) < 1e-6)
        table[inside, 3] *= 0.7
        table[loud, 3] = np.minimum(1.0, table[loud, 3] * 1.9)
    return table


def _joined(table: FloatArray, added: list[tuple[float, float, float, float]]) -> FloatArray:
    if not added:
        return table
    joined = np.concatenate([table, np.array(added, dtype=np.float64)])
    return joined[np.argsort(joined[:, 0], kind="stable")]


DISGUISES = (with_hemiolas, with_triplets, with_cross_accents)
