"""Corrections of single beats: a beat is moved, removed or added, and its place in the bar follows from its
neighbours.

Corrections travel with a track, in `Track.extra[CORRECTED]`, from the opening of a dataset to whoever reads
its annotations.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from beatmeter.datasets.annotations.examination import jumps_of_count
from beatmeter.datasets.annotations.records import Annotation, Grid, joined
from beatmeter.datasets.decisions import KINDS
from beatmeter.errors import DataError
from beatmeter.runtime.artifacts import parse_json, to_json_line

CORRECTED = "corrected beats"  # key of Track.extra: what was corrected, file by file
FLAG = "beats corrected by a reviewer"
SAME = 0.0006  # seconds: a list of beats rounds to milliseconds
CLOSEST = 0.05  # seconds between two beats
UNSTEADY = 1.4  # how much longer or shorter than others beats around an added one may be
BEYOND = 0.5  # seconds that a corrected beat may lie outside of what is known, which then grows to it


@dataclass(frozen=True)
class Edit:
    """The beat at `time` (s) belongs at `new`, or nowhere (None); without `time` one is added at `new`.
    `where` points at the decision: `file:line`."""

    time: float | None
    new: float | None
    where: str = ""

    @property
    def kind(self) -> str:
        """moved, removed or added."""
        return "added" if self.time is None else "removed" if self.new is None else "moved"


def find_beat(grid: Grid, time: float, where: str) -> int:
    """The beat at a time. Raises DataError when there is none (any more)."""
    near = np.abs(grid.times - time)
    if not len(near) or near.min() > SAME:
        raise DataError(
            f"{where}: there is no beat at {time:.3f} s, the annotation is not the one that was reviewed",
            "Give the corrections that the review was made under before this one, or review it again.",
        )
    return int(near.argmin())


def correct(grid: Grid, edits: Sequence[Edit]) -> Grid:
    """The grid after the decisions of one review.

    A beat that is moved keeps its place in the bar, and so do the neighbours of one that is removed. One that
    is added gets its place from its neighbours, or 0 (unknown) where their count leaves no room; flags say
    so, and where the count jumps now and did not before. Raises DataError (file:line) for a beat that is not
    there, and for one that would come within CLOSEST of another, pass it, or lie where nothing is known.
    """
    old = [None if e.time is None else find_beat(grid, e.time, e.where) for e in edits]
    touched = Counter(i for i in old if i is not None)
    for edit, i in zip(edits, old, strict=True):
        if i is not None and touched[i] > 1:
            raise DataError(f"{edit.where}: the beat at {grid.times[i]:.3f} s is decided on twice")
    # rows of time, place, number of the beat before (-1: added) and of the edit (-1: none)
    gone = {i for i in old if i is not None}
    rows = [(t, p, i, -1) for i, (t, p) in enumerate(_beats(grid)) if i not in gone]
    for k, (edit, i) in enumerate(zip(edits, old, strict=True)):
        if edit.new is not None:
            rows.append((edit.new, 0 if i is None else int(grid.places[i]), -1 if i is None else i, k))
    rows.sort()
    _require_room(rows, edits)
    known = _stretched(grid, edits)
    times = np.array([t for t, *_ in rows], float)
    added = np.array([i < 0 for _, _, i, _ in rows], bool)
    places = places_between(times, np.array([p for _, p, _, _ in rows], int), added, grid)
    corrected = replace(grid, times=times, places=places, known=known)
    return replace(corrected, provenance=corrected.provenance.flagged(FLAG, *_doubts(grid, corrected, added)))


def places_between(
    times: Float[np.ndarray, " beat"], places: Int[np.ndarray, " beat"], added: np.ndarray, before: Grid
) -> Int[np.ndarray, " beat"]:
    """Places in the bar, with those of `added` beats counted from the beats around: where as many are added
    as the count lacks, one after the other, else by their distance. 0 where there is no room in the count, or
    where nobody knows how long bars are."""
    places = places.copy()
    period, bars = _period(before), _bars(before)
    old, new = np.flatnonzero(~added), np.flatnonzero(added)
    for run in np.split(new, np.flatnonzero(np.diff(new) > 1) + 1):
        left, right = old[old < run[0]] if len(run) else old[:0], old[old > run[-1]] if len(run) else old[:0]
        found: list[int] = []
        if len(left) and len(right):
            a, b = int(left[-1]), int(right[0])
            if places[a] and places[b]:
                span = float(times[b] - times[a]) / period
                bar = _bar_between(int(places[a]), int(places[b]), span, len(run), bars)
                steps = int(places[b] - places[a]) + (bar if places[b] <= places[a] else 0)
                offsets = _offsets((times[run] - times[a]) / (times[b] - times[a]), steps)
                found = [_wrapped(int(places[a]) + k, bar) for k in offsets]
        elif len(left) and bars and places[left[-1]]:
            offsets = _steps((times[run] - times[left[-1]]) / period)
            found = [_wrapped(int(places[left[-1]]) + k, bars[0]) for k in offsets]
        elif len(right) and bars and places[right[0]]:
            offsets = _steps((times[right[0]] - times[run]) / period)
            found = [(int(places[right[0]]) - k - 1) % bars[0] + 1 for k in offsets]
        if found and len(set(offsets)) == len(run):
            places[run] = found
    return places


def _period(grid: Grid) -> float:
    """Median seconds from a beat to the next one of the count."""
    gaps, steps = np.diff(grid.times), np.diff(grid.places)
    chosen = gaps[steps == 1] if (steps == 1).any() else gaps
    return float(np.median(chosen)) if len(chosen) else 1.0


def _bars(grid: Grid) -> list[int]:
    """How many beats bars have, the most frequent number first, the largest of equally frequent ones: the
    highest place between two downbeats, which a beat that is lacking inside of a bar does not change."""
    parts = np.split(grid.places, np.flatnonzero(grid.places == 1))
    counts: Counter[int] = Counter()
    for i, part in enumerate(parts):  # a bar that is cut off counts half
        counts[int(part.max(initial=0))] += 2 if 0 < i < len(parts) - 1 else 1
    del counts[0]
    return sorted(counts, key=lambda bar: (-counts[bar], -bar))


def _bar_between(p: int, q: int, span: float, lacking: int, bars: Sequence[int]) -> int:
    """The length of the bar that place `p` is in and that `q` follows after `span` beats, of which `lacking`
    are counted now; 0 where none fits."""
    fits = [bar for bar in bars if bar >= max(p, q) and bar - p + q > lacking]
    away = {bar: abs(np.log(max(span, 1e-9) / (bar - p + q))) for bar in fits}
    best = min(fits, key=lambda bar: away[bar], default=0)
    return best if best and away[best] < np.log(UNSTEADY) else 0


def _offsets(shares: np.ndarray, steps: int) -> list[int]:
    """How many beats of the count come before each time, of `steps` in all, from its share of the way; none
    where there is no room."""
    if len(shares) > steps - 1:
        return []
    if len(shares) == steps - 1:
        return list(range(1, steps))
    offsets: list[int] = np.round(steps * shares).astype(int).tolist()
    return offsets if offsets[0] > 0 and offsets[-1] < steps else []


def _steps(beats: np.ndarray) -> list[int]:
    found: list[int] = np.maximum(1, np.round(beats)).astype(int).tolist()
    return found


def _wrapped(place: int, bar: int) -> int:
    return place - bar if bar and place > bar else place


def _beats(grid: Grid) -> list[tuple[float, int]]:
    return list(zip(grid.times.tolist(), grid.places.tolist(), strict=True))


def _require_room(rows: Sequence[tuple[float, int, int, int]], edits: Sequence[Edit]) -> None:
    """Raise DataError where a decision brings two beats together or makes them change places."""
    for (t, _, _, k), (u, _, _, m) in pairwise(rows):
        edit, other = (edits[m], t) if m >= 0 else (edits[k], u)
        if u - t < CLOSEST and max(k, m) >= 0:
            what = f"{edit.where}: a beat at {edit.new:.3f} s would be {1000 * (u - t):.0f} ms from "
            raise DataError(f"{what}the one at {other:.3f} s", "Decide on one of the two alone.")
    kept = [(i, k) for *_, i, k in rows if i >= 0]
    for (i, k), (j, m) in pairwise(kept):
        if j < i:
            edit = edits[m] if m >= 0 else edits[k]
            raise DataError(
                f"{edit.where}: the beat at {edit.time:.3f} s would pass its neighbour at {edit.new:.3f} s",
                "Drop it, and add one by a line with an id and a new time alone.",
            )


def _stretched(grid: Grid, edits: Sequence[Edit]) -> Float[np.ndarray, "interval 2"]:
    """What is known, with corrected beats just outside of it: the reviewer listened there."""
    known = grid.known
    for edit in edits:
        if edit.new is None or bool(grid.is_known(np.array([edit.new]))[0]):
            continue
        gaps = np.abs(known - edit.new).ravel()
        if not len(gaps) or gaps.min() > BEYOND:
            raise DataError(
                f"{edit.where}: {edit.new:.3f} s lies outside of what the annotation knows",
                "Annotate that stretch first: `known` in its file says what was looked at.",
            )
        edge = float(known.ravel()[gaps.argmin()])
        known = joined(np.concatenate([known, [sorted((edge, edit.new))]]))
    return known


def _doubts(before: Grid, after: Grid, added: np.ndarray) -> list[str]:
    """Flags: beats whose place is unknown among beats that have one, and new jumps of the count."""
    found = []
    if before.places.any() and (after.places[added] == 0).any():
        found.append("a corrected beat has no place in the bar")
    if len(jumps_of_count(after)) > len(jumps_of_count(before)):
        found.append("the count of the bar jumps at a corrected beat")
    return found


def to_text(before: str, file: str, edits: Sequence[Edit]) -> str:
    """The value of `extra[CORRECTED]` with the decisions of one more file."""
    files = _files(before)
    rows = [[edit.time, edit.new, edit.where] for edit in edits]
    return to_json_line({"files": [*files, {"file": file, "edits": rows}]})


def with_corrections(annotation: Annotation, extra: Mapping[str, str]) -> Annotation:
    """The annotation with its beats as they were corrected. Raises DataError as `correct`."""
    files = _files(extra.get(CORRECTED, ""))
    grid = annotation.grid
    if not files or grid is None:
        return annotation
    told = []
    for file in files:
        edits = [Edit(*edit) for edit in file["edits"]]
        grid = correct(grid, edits)
        told.append(f"{file['file']}: {described(edits)}")
    return replace(annotation, grid=grid, meta={**annotation.meta, "corrections": "; ".join(told)})


def described(edits: Sequence[Edit]) -> str:
    """ "2 moved, 1 added"."""
    counts = Counter(edit.kind for edit in edits)
    return ", ".join(f"{counts[kind]} {kind}" for kind in KINDS if counts[kind])


def _files(text: str) -> list[dict[str, Any]]:
    if not text:
        return []
    files: list[dict[str, Any]] = parse_json(text, CORRECTED)["files"]
    return files
