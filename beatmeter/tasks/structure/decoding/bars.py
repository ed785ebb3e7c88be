"""Beats and bars of a track of any length from its curves."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float

from beatmeter.tasks.structure.decoding.octave import paired, slower
from beatmeter.tasks.structure.decoding.patterns import Pattern, patterns
from beatmeter.tasks.structure.decoding.pointer import USUAL, Beats, PointerSettings, follow, log_odds

LONG, SHARED = 300.0, 20.0  # seconds of a track that are decoded at a time, and that neighbours share
NO_BEATS = Beats(np.zeros(0), np.zeros(0, int), np.zeros(0), "")


def find_bars(
    curves: Float[np.ndarray, "time 2"],
    rate: float,
    start: float = 0.0,
    prior: Mapping[str, float] | None = None,
    settings: PointerSettings = USUAL,
) -> Beats:
    """Beats and their places from curves (time, beat and downbeat) of probabilities at `rate` Hz, the first
    row at `start` seconds. `prior` are probabilities of the meters, by class.

    Where every second beat and downbeat is weak, the track is decoded again with beats of about twice the
    length; and where every second downbeat of bars of two beats still is, two of them are one bar."""
    if len(curves) < 2 or not (curves[:, 0] > 0).any():
        return NO_BEATS
    kinds, odds = patterns(prior), log_odds(curves)

    def decoded(settings: PointerSettings) -> Beats:
        def path(part: Float[np.ndarray, "time 2"], first: float) -> Beats:
            return _best_path(part, rate, first, kinds, settings)

        return _in_parts(curves, rate, start, path) if len(curves) > LONG * rate else path(curves, start)

    found = decoded(settings)
    twice = slower(found, odds, rate, start, settings)
    again = decoded(twice) if twice else found
    best = again if (again.places == 1).sum() > 2 else found
    return paired(best, odds, rate, start, settings.pairs) if settings.pairs else best


def _best_path(
    curves: Float[np.ndarray, "time 2"],
    rate: float,
    start: float,
    kinds: list[Pattern],
    settings: PointerSettings,
) -> Beats:
    rows, places, which = follow(curves, rate, kinds, settings)
    if not len(rows):
        return NO_BEATS
    scores = np.interp(rows, np.arange(len(curves)), curves[:, 0])
    meter = kinds[int(np.bincount(which).argmax())].meter
    return Beats(start + rows / rate, places + 1, scores, meter)


def _in_parts(
    curves: Float[np.ndarray, "time 2"], rate: float, start: float, path: Callable[[np.ndarray, float], Beats]
) -> Beats:
    """A long track part by part, so that memory does not grow with it: parts share SHARED seconds, and one
    goes on for the other in the middle of them, where the bars of the later one begin. `path` finds the beats
    of a part that begins at so many seconds."""
    size, hop = round(LONG * rate), round((LONG - SHARED) * rate)
    parts: list[Beats] = []
    for first in range(0, max(1, len(curves) - round(SHARED * rate)), hop):
        part = path(curves[first : first + size], start + first / rate)
        if parts and len(part.times) and len(parts[-1].times):
            seam = start + (first / rate) + SHARED / 2
            bars = part.times[(part.places == 1) & (part.times >= seam)]
            cut = float(bars[0]) if len(bars) and bars[0] < seam + SHARED / 2 else seam
            gap = 0.5 * float(np.median(np.diff(part.times))) if len(part.times) > 1 else 0.0
            parts[-1] = _kept(parts[-1], parts[-1].times < cut - gap)
            part = _kept(part, part.times >= cut - 1e-6)
        parts.append(part)
    times, places, scores = (
        np.concatenate([getattr(p, name) for p in parts]) for name in ("times", "places", "scores")
    )
    meters = [p.meter for p in parts for _ in range(len(p.times))]
    return Beats(times, places, scores, max(sorted(set(meters)), key=meters.count) if meters else "")


def _kept(beats: Beats, which: np.ndarray) -> Beats:
    return Beats(beats.times[which], beats.places[which], beats.scores[which], beats.meter)
