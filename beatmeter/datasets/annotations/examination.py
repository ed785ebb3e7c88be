"""Doubts about annotations, found without audio, and statistics over many of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Float

from beatmeter.datasets.annotations.records import Annotation, Grid, Spans

NEAR = 0.05  # seconds between a boundary and the downbeat that it stands on
_LONG, _SHORT = 1.6, 0.6  # of the beats around: a beat is missing, or one is too many


def doubts(annotation: Annotation) -> list[str]:
    """What speaks against an annotation, in words; nothing when nothing does."""
    found = []
    if annotation.grid is not None:
        found += _grid_doubts(annotation.grid)
    end = annotation.duration
    for name, part in annotation.parts.items():
        times = part.ends if isinstance(part, Spans) else part.times
        if end is not None and len(times) and times[-1] > end + 1.0:
            found.append(f"{name}: {times[-1]:.2f} s lies behind the end of the audio, {end:.2f} s")
        if len(part) and not len(part.known):
            found.append(f"{name}: nothing is known, so nothing of it can be learned")
    return found


def jumps_of_count(grid: Grid) -> Float[np.ndarray, " jump"]:
    """The beats whose place in the bar does not follow from the one before, seconds; places that are unknown
    follow from anything."""
    before, after = grid.places[:-1], grid.places[1:]
    jumps: np.ndarray = grid.times[1:][(before > 0) & (after > 1) & (after != before + 1)]
    return jumps


def _grid_doubts(grid: Grid) -> list[str]:
    found = []
    gaps = np.diff(grid.times)
    if len(gaps) > 4:
        around = np.array([np.median(gaps[max(0, i - 4) : i + 5]) for i in range(len(gaps))])
        for what, at in (("is missing", gaps > _LONG * around), ("is too many", gaps < _SHORT * around)):
            if at.any():
                first = f"near {grid.times[at.argmax()]:.2f} s ({int(at.sum())} places)"
                found.append(f"grid: perhaps a beat {what} {first}")
    if jumps := len(jumps_of_count(grid)):
        found.append(f"grid: the place in the bar jumps {jumps} times")
    if len(grid) and grid.places.any() and not (grid.places == 1).any():
        found.append("grid: there is no downbeat")
    return found


def statistics(annotations: Iterable[Annotation]) -> dict[str, Any]:
    """Counts over annotations as plain JSON: parts, tiers, seconds known, beats in a bar, tempo, lengths of
    sections in bars, boundaries within 50 ms of a downbeat, kinds of events, flags."""
    parts, tiers, bars, lengths, kinds, flags = (Counter[Any]() for _ in range(6))
    known: Counter[str] = Counter()
    tempos: list[float] = []
    near = boundaries = count = 0
    for annotation in annotations:
        count += 1
        for name, part in annotation.parts.items():
            parts[name] += 1
            tiers[part.provenance.tier] += 1
            flags.update(part.provenance.flags)
            known[name] += float((part.known[:, 1] - part.known[:, 0]).sum())  # type: ignore[assignment]
        grid, sections = annotation.grid, annotation.sections
        if grid is not None and len(grid) > 1:
            bars[grid.bar] += 1
            tempos.append(grid.tempo)
        if annotation.events is not None:
            kinds.update(annotation.events.kinds)
        if sections is not None and grid is not None and len(grid.downbeats) > 1 and len(sections):
            edges = sections.boundaries
            distance = np.abs(edges[:, None] - grid.downbeats).min(axis=1)
            near, boundaries = near + int((distance <= NEAR).sum()), boundaries + len(edges)
            at = np.searchsorted(grid.downbeats, [sections.starts + NEAR, sections.ends - NEAR])
            lengths.update((at[1] - at[0] + 1).tolist())
    return {
        "tracks": count,
        "parts": dict(parts),
        "tiers": {str(tier): n for tier, n in sorted(tiers.items())},
        "seconds known": {name: round(seconds, 3) for name, seconds in known.items()},
        "beats in a bar": {str(bar): n for bar, n in bars.most_common()},
        "tempo": [round(float(q), 1) for q in np.percentile(tempos, [0, 50, 100])] if tempos else [],
        "sections by bars": {str(bar): n for bar, n in lengths.most_common()},
        "boundaries on a downbeat": round(near / boundaries, 3) if boundaries else None,
        "events": dict(kinds.most_common()),
        "flags": dict(flags.most_common()),
    }
