"""How alike the bars of a track are: self-similarity of mel bands, chroma and pitches. Pairs of bars are
compared when they are asked for, so that memory grows with a track and not with its square."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float

from beatmeter.audio.barwise import MEL_HZ, PITCH_HZ, FrameFeatures, bar_means

MEL_PARTS, PITCH_PARTS, RISE_PARTS = 8, 4, 4  # parts of a bar
RISE_BANDS = (0, 5, 15, 25)  # first mel band of each of the bands in which rises are summed up
STRIP = 128  # bars that are compared with all others at a time
BINS = 4096  # of distances, on the way to their median
Matrix = Float[np.ndarray, "bar bar"]


@dataclass(frozen=True)
class BarFeatures:
    """What every bar sounds like, (bar, part, band): log mel bands, chroma, pitches, and how much the frames
    of four bands rise (log10 of amplitude a frame). edges: (bar + 1,) seconds."""

    edges: Float[np.ndarray, " edge"]
    mel: Float[np.ndarray, "bar part mel"]
    chroma: Float[np.ndarray, "bar part 12"]
    pitch: Float[np.ndarray, "bar part pitch"]
    rise: Float[np.ndarray, "bar part 4"]

    def __len__(self) -> int:
        return len(self.mel)


def bar_features(frames: FrameFeatures, edges: Float[np.ndarray, " edge"]) -> BarFeatures:
    """The frames of a track by bars. edges: seconds at which bars begin, and at which the last one ends."""
    pitch = bar_means(frames.pitch, PITCH_HZ, edges, PITCH_PARTS)
    loud = np.maximum(0.0, pitch - np.median(pitch, axis=-1, keepdims=True))  # what stands out of each moment
    chroma = loud.reshape(*loud.shape[:2], -1, 12).sum(axis=2)
    rises = np.diff(frames.mel, axis=0, prepend=frames.mel[:1])
    np.maximum(0.0, rises, out=rises)
    rises = np.add.reduceat(rises, RISE_BANDS, axis=1) / np.diff([*RISE_BANDS, rises.shape[1]])
    rise = bar_means(rises, MEL_HZ, edges, RISE_PARTS)
    return BarFeatures(edges, bar_means(frames.mel, MEL_HZ, edges, MEL_PARTS), chroma, loud, rise)


class Alike(Protocol):
    """Similarity of every two bars: `len(alike)` bars, and blocks of rows and columns, `alike[a:b, c:d]`. A
    matrix is one; what a view holds grows with the bars and not with their pairs."""

    def __len__(self) -> int: ...

    def __getitem__(self, at: tuple[slice, slice], /) -> Matrix: ...


def similarities(bars: BarFeatures) -> dict[str, Alike]:
    """Similarity of every two bars in [-1, 1], by view: `mel` and `chroma` and `pitch` compare the course
    of a bar, `timbre` its mean spectrum with its level, `rhythm` where energy rises."""
    mel = bars.mel
    rise = (
        np.maximum(0.0, np.diff(mel, axis=1, prepend=mel[:, :1]))
        .reshape(len(bars), MEL_PARTS, -1, 8)
        .mean(axis=3)
    )
    return {
        "mel": Cosines.of(mel),
        "chroma": Cosines.of(bars.chroma),
        "pitch": Cosines.of(bars.pitch),
        "timbre": Nearness.of(mel.mean(axis=1)),
        "rhythm": Cosines.of(rise),
    }


def alike_bars(bars: BarFeatures) -> Alike:
    """One similarity of bars: what is played, and how it sounds."""
    return Mean((Cosines.of(bars.chroma), Cosines.of(bars.mel)))


def strips(count: int) -> Iterator[tuple[int, int]]:
    """First and last (exclusive) of the bars that are compared with all others at a time."""
    return ((first, min(first + STRIP, count)) for first in range(0, count, STRIP))


@dataclass(frozen=True)
class Cosines:
    """Cosines of bars around the mean bar of the track; bars that equal it are like one another and nothing
    else."""

    unit: Float[np.ndarray, "bar value"]

    @classmethod
    def of(cls, x: Float[np.ndarray, "bar ..."]) -> Cosines:
        """Of what the bars sound like."""
        flat = x.reshape(len(x), -1)
        flat = flat - flat.mean(axis=0)
        norm = np.linalg.norm(flat, axis=1, keepdims=True)
        even = norm <= 1e-6
        unit = np.where(even, 0.0, flat / np.maximum(norm, 1e-6))
        return cls(np.concatenate([unit, even], axis=1))

    def __len__(self) -> int:
        return len(self.unit)

    def __getitem__(self, at: tuple[slice, slice], /) -> Matrix:
        result: Matrix = self.unit[at[0]] @ self.unit[at[1]].T
        return result


@dataclass(frozen=True)
class Nearness:
    """2 exp(-d / median d) - 1 of Euclidean distances d."""

    x: Float[np.ndarray, "bar band"]
    typical: float  # the median, 1 where it is 0

    @classmethod
    def of(cls, x: Float[np.ndarray, "bar band"]) -> Nearness:
        """Of the mean spectra of bars."""
        return cls(x, _median_distance(x) or 1.0)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, at: tuple[slice, slice], /) -> Matrix:
        result: Matrix = 2 * np.exp(-_distances(self.x[at[0]], self.x[at[1]]) / self.typical) - 1
        return result


@dataclass(frozen=True)
class Mean:
    """The mean of views."""

    views: tuple[Alike, ...]

    def __len__(self) -> int:
        return len(self.views[0])

    def __getitem__(self, at: tuple[slice, slice], /) -> Matrix:
        result: Matrix = np.mean([view[at] for view in self.views], axis=0)
        return result


def _distances(x: Float[np.ndarray, "row band"], y: Float[np.ndarray, "bar band"]) -> Matrix:
    squares = (x * x).sum(axis=1)[:, None] + (y * y).sum(axis=1)[None, :]
    result: Matrix = np.sqrt(np.maximum(0.0, squares - 2 * x @ y.T))
    return result


def _median_distance(x: Float[np.ndarray, "bar band"]) -> float:
    """The median over all pairs of bars, a bar and itself included: which bin of a histogram it falls into,
    then its place among the distances in there."""
    count = len(x)
    scale = BINS / max(2 * float(np.sqrt((x * x).sum(axis=1).max())), 1e-9)  # no two are farther apart
    counts = np.zeros(BINS + 1, dtype=np.int64)
    for first, last in strips(count):
        bins = (_distances(x[first:last], x) * scale).astype(np.int64)
        counts += np.bincount(bins.ravel(), minlength=BINS + 1)
    middle = np.array([(count * count - 1) // 2, count * count // 2])  # of the sorted distances
    low, high = np.searchsorted(np.cumsum(counts), middle, side="right").tolist()
    inside = []
    for first, last in strips(count):
        apart = _distances(x[first:last], x)
        bins = (apart * scale).astype(np.int64)
        inside.append(apart[(bins >= low) & (bins <= high)])
    ranked = np.sort(np.concatenate(inside))
    return float(ranked[middle - int(counts[:low].sum())].mean())
