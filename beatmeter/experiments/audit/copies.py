"""Clips that sound alike although they are of different groups: encoded again, louder, with noise, cut
elsewhere.

What counts as alike is decided by a null: how near the nearest neighbour of another group is, for ordinary
tracks. It is the largest of many cosines of standardised features, so, stretched by Fisher's z, it follows
Gumbel's distribution of maxima (Gumbel, "Statistics of Extremes", 1958). That is fitted to the lower and
middle quantiles over the tracks, which copies among them do not move.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from beatmeter.errors import DataError
from beatmeter.evaluation.metrics import group_index
from beatmeter.experiments.audit.kernels import Rows
from beatmeter.runtime.memory import release
from beatmeter.runtime.progress import Tick, untold
from beatmeter.schema import Track

FALSE_PAIRS = 1.0  # expected number of pairs that a dataset without copies gives
BLOCK = 4096  # tracks on a side of a square of cosines, 64 MB
LEAST_TRACKS = 30  # or there is no null
_QUANTILES = np.linspace(0.1, 0.6, 26)


@dataclass(frozen=True)
class Pair:
    """Two tracks (positions) of different groups that sound alike: cosine, and in which pooling it stands out
    most."""

    first: int
    second: int
    cosine: float
    pooling: str


def threshold(nearest: np.ndarray, false_pairs: float = FALSE_PAIRS) -> float:
    """The cosine that, without copies, `false_pairs` pairs of different groups are expected to exceed;
    `nearest` (track,) is the cosine of each track and the nearest one of another group.

    Raises DataError with fewer than LEAST_TRACKS tracks, or a single group.
    """
    n = len(nearest)
    if n < LEAST_TRACKS or not np.isfinite(nearest).all():
        groups = "one group" if n >= LEAST_TRACKS else "all"
        raise DataError(
            f"{n} tracks in {groups} are too few to say what sounds alike",
            f"At least {LEAST_TRACKS} are needed.",
        )
    z = np.arctanh(np.clip(nearest.astype(np.float64), -1 + 1e-7, 1 - 1e-7))
    width, mode = np.polyfit(_gumbel(_QUANTILES), np.quantile(z, _QUANTILES), 1)
    limit = mode + width * _gumbel(np.array(1 - 2 * false_pairs / n))  # a pair is the nearest of two tracks
    return float(min(np.tanh(limit), 1 - 1e-5))  # what is equal up to rounding is always a copy


def _gumbel(share: np.ndarray) -> np.ndarray:
    """Quantiles of the standard Gumbel distribution."""
    result: np.ndarray = -np.log(-np.log(share))
    return result


def find_copies(
    views: Mapping[str, Rows], tracks: Sequence[Track], false_pairs: float = FALSE_PAIRS, tick: Tick = untold
) -> tuple[list[Pair], dict[str, float]]:
    """Pairs of different groups above the threshold of any view, those across splits first, and the
    thresholds by view. A view is an array (track, column), in memory or mapped; cosines of its rows are made
    a square of BLOCK tracks at a time, so that memory does not grow with the square of the tracks. `tick`
    hears of shares of views.

    The expected `false_pairs` are shared among the views; a pair is reported by the view in which it exceeds
    the threshold most. Among fewer than LEAST_TRACKS tracks, or in a single group, nothing is found and there
    are no thresholds.
    """
    groups = [t.group for t in tracks]
    if len(tracks) < LEAST_TRACKS or len(set(groups)) < 2:
        return [], {}
    limits: dict[str, float] = {}
    found: dict[tuple[int, int], tuple[float, Pair]] = {}
    for name, rows in views.items():
        nearest, largest = neighbours(rows, groups, tick)
        limits[name] = threshold(nearest, false_pairs / len(views))
        for i, j, value in _pairs(rows, groups, limits[name], largest):
            surplus = float(np.arctanh(min(value, 1 - 1e-7)) - np.arctanh(limits[name]))
            if surplus > found.get((i, j), (-1.0, None))[0]:
                found[i, j] = surplus, Pair(i, j, value, name)
    pairs = [pair for _, pair in found.values()]
    return sorted(
        pairs, key=lambda p: (not crosses(tracks[p.first], tracks[p.second]), -p.cosine, p.first, p.second)
    ), limits


def neighbours(
    rows: Rows, groups: Sequence[str], tick: Tick = untold
) -> tuple[np.ndarray, Mapping[tuple[int, int], float]]:
    """(track,) cosine of each track and the nearest one of another group, -inf without any; and the largest
    cosine of every square, by where its rows and columns begin."""
    nearest = np.full(len(rows), -np.inf, np.float32)
    largest = {}
    squares = list(_squares(len(rows)))
    for a, b in squares:
        cosine = _square(rows, groups, a, b)
        largest[a, b] = float(cosine.max())
        nearest[a : a + BLOCK] = np.maximum(nearest[a : a + BLOCK], cosine.max(axis=1))
        nearest[b : b + BLOCK] = np.maximum(nearest[b : b + BLOCK], cosine.max(axis=0))
        tick(1 / len(squares))
    return nearest, largest


def _pairs(
    rows: Rows, groups: Sequence[str], limit: float, largest: Mapping[tuple[int, int], float]
) -> Iterator[tuple[int, int, float]]:
    """The pairs above a limit, from the squares that hold any."""
    for (a, b), most in largest.items():
        if most > limit:
            cosine = _square(rows, groups, a, b)
            for i, j in np.argwhere(cosine > limit).tolist():
                if a + i < b + j:
                    yield a + i, b + j, float(cosine[i, j])


def _squares(n: int) -> Iterator[tuple[int, int]]:
    """Where the squares on and above the diagonal begin."""
    return ((a, b) for a in range(0, n, BLOCK) for b in range(a, n, BLOCK))


def _square(rows: Rows, groups: Sequence[str], a: int, b: int) -> np.ndarray:
    """Cosines of tracks from `a` with those from `b`; -inf within a group, which includes a track with
    itself."""
    first, second = _units(rows[a : a + BLOCK]), _units(rows[b : b + BLOCK])
    release(rows)
    cosine: np.ndarray = np.clip(first @ second.T, -1, 1)
    number = group_index([*groups[a : a + BLOCK], *groups[b : b + BLOCK]])
    cosine[number[: len(first), None] == number[None, len(first) :]] = -np.inf
    return cosine


def _units(rows: np.ndarray) -> np.ndarray:
    length = np.sqrt(np.square(rows, dtype=np.float32).sum(axis=1, keepdims=True))
    units: np.ndarray = rows / np.maximum(length, np.float32(1e-6))
    return units


def crosses(a: Track, b: Track) -> bool:
    """Whether two tracks lie in different splits."""
    return a.split is not None and b.split is not None and a.split != b.split
