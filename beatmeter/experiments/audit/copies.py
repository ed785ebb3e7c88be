"""Clips that sound alike although they are of different groups: encoded again, louder, with noise, cut
elsewhere.

What counts as alike is decided by a null: how near the nearest neighbour of another group is, for ordinary
tracks. It is the largest of many cosines of standardised features, so, stretched by Fisher's z, it follows
Gumbel's distribution of maxima (Gumbel, "Statistics of Extremes", 1958). That is fitted to the lower and
middle quantiles over the tracks, which copies among them do not move.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from beatmeter.errors import DataError
from beatmeter.evaluation.metrics import group_index
from beatmeter.experiments.audit.kernels import Kernel, cosines
from beatmeter.schema import Track

FALSE_PAIRS = 1.0  # expected number of pairs that a dataset without copies gives
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


def threshold(cosine: Kernel, groups: Sequence[str], false_pairs: float = FALSE_PAIRS) -> float:
    """The cosine that, without copies, `false_pairs` pairs of different groups are expected to exceed.

    Raises DataError with fewer than LEAST_TRACKS tracks, or a single group.
    """
    nearest = _across(cosine, groups).max(axis=1)
    n = len(nearest)
    if n < LEAST_TRACKS or not np.isfinite(nearest).all():
        raise DataError(
            f"{n} tracks in {len(set(groups))} groups are too few to say what sounds alike",
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
    views: Mapping[str, Kernel], tracks: Sequence[Track], false_pairs: float = FALSE_PAIRS
) -> tuple[list[Pair], dict[str, float]]:
    """Pairs of different groups above the threshold of any view, those across splits first, and the
    thresholds by view.

    The expected `false_pairs` are shared among the views; a pair is reported by the view in which it exceeds
    the threshold most. Among fewer than LEAST_TRACKS tracks, or in a single group, nothing is found and there
    are no thresholds.
    """
    groups = [t.group for t in tracks]
    if len(tracks) < LEAST_TRACKS or len(set(groups)) < 2:
        return [], {}
    limits: dict[str, float] = {}
    found: dict[tuple[int, int], tuple[float, Pair]] = {}
    for name, kernel in views.items():
        cosine = cosines(kernel)
        limits[name] = threshold(cosine, groups, false_pairs / len(views))
        over = np.argwhere(np.triu(_across(cosine, groups) > limits[name], 1))
        for i, j in over.tolist():
            value = float(cosine[i, j])
            surplus = float(np.arctanh(min(value, 1 - 1e-7)) - np.arctanh(limits[name]))
            if surplus > found.get((i, j), (-1.0, None))[0]:
                found[i, j] = surplus, Pair(i, j, value, name)
    pairs = [pair for _, pair in found.values()]
    return sorted(
        pairs, key=lambda p: (not crosses(tracks[p.first], tracks[p.second]), -p.cosine, p.first, p.second)
    ), limits


def crosses(a: Track, b: Track) -> bool:
    """Whether two tracks lie in different splits."""
    return a.split is not None and b.split is not None and a.split != b.split


def _across(cosine: Kernel, groups: Sequence[str]) -> Kernel:
    """The cosines of pairs of different groups, -inf elsewhere."""
    number = group_index(groups)
    result: np.ndarray = np.where(number[:, None] != number[None, :], cosine, np.float32(-np.inf))
    return result
