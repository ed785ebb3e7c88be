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
    where it is not known how long bars are."""
    places = places.copy()
    bar = before.bar
    period = float(np.median(np.diff(before.times))) if len(before) > 1 else 0.0
    old = np.flatnonzero(~added)
    for run in np.split(np.flatnonzero(added), np.flatnonzero(np.diff(np.flatnonzero(added)) > 1) + 1):
        if not len(run):
            continue
        left, right = old[old < run[0]], old[old > run[-1]]
        a = int(left[-1]) if len(left) and places[left[-1]] else None
        b = int(right[0]) if len(right) and places[right[0]] else None
        if a is not None and b is not None:
            p, q = int(places[a]), int(places[b])
            steps = q - p if q > p else bar - p + q if p <= bar else 0  # beats from one to the other
            offsets = _offsets(times[run], times[a], times[b], steps)
            found = [_wrapped(p + k, bar if q <= p else 0) for k in offsets]
        elif a is not None and not len(right) and bar and period:
            offsets = np.maximum(1, np.round((times[run] - times[a]) / period)).astype(int).tolist()
            found = [_wrapped(int(places[a]) + k, bar) for k in offsets]
        elif b is not None and not len(left) and bar and period:
            offsets = np.maximum(1, np.round((times[b] - times[run]) / period)).astype(int).tolist()
            found = [(int(places[b]) - k - 1) % bar + 1 for k in offsets]
        else:
            found, offsets = [], []
        if len(found) == len(run) == len(set(offsets)):
            places[run] = found
    return places


def _offsets(times: np.ndarray, start: float, end: float, steps: int) -> list[int]:
    """How many beats after `start` each time lies, of `steps` to `end`; nothing where there is no room."""
    if len(times) > steps - 1:
        return []
    if len(times) == steps - 1:
        return list(range(1, steps))
    offsets: list[int] = np.round(steps * (times - start) / (end - start)).astype(int).tolist()
    return offsets if offsets[0] > 0 and offsets[-1] < steps else []


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
