"""Where chunks, frames and windows lie in time: the one place that decides it, for extraction, training and
labels.

A track of `n` samples becomes chunks (`ChunkSpec`), each chunk becomes frames (a convolution of `span`
samples every `hop`), consecutive chunks join into windows. All of it follows from `n` and the spec, so stores
keep only `n`.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from beatmeter.errors import AudioError
from beatmeter.schema import ChunkSpec, FeatureSpec, PoolingSpec, Unit

CHUNKING_VERSION = 1  # part of every fingerprint: raise it when chunks, frames or windows of any track move


def chunk_starts(samples: int, spec: ChunkSpec) -> list[int]:
    """First sample of every chunk of a track of `samples` samples. Raises AudioError below `spec.minimum`."""
    if samples < spec.minimum:
        raise AudioError(
            f"only {samples / spec.sample_rate:.2f} s of audio; at least {spec.minimum / spec.sample_rate:g} "
            "s are needed",
            "Leave this file out or use a longer one.",
        )
    if samples <= spec.length:
        return [0]
    starts = list(range(0, samples - spec.length + 1, spec.hop))
    if samples - (starts[-1] + spec.length) > spec.tail_min:
        starts.append(samples - spec.length)
    return starts


def frame_count(samples: int, hop: int, span: int) -> int:
    """Frames of a chunk of `samples`: floor((samples - span) / hop) + 1, as a stack of convolutions without
    padding gives."""
    return max(0, (samples - span) // hop + 1)


@dataclass(frozen=True)
class Window:
    """Consecutive chunks joined into one sequence of frames.

    `chunks` is a half-open range of chunk numbers; `skip[i]` is how many leading frames of the i-th of them
    are dropped because the chunk before covers them already (only the last chunk, aligned to the end,
    overlaps much).
    """

    chunks: tuple[int, int]
    skip: tuple[int, ...]

    def shifted(self, by: int) -> Window:
        """The same window with its chunks numbered from another zero."""
        return Window((self.chunks[0] + by, self.chunks[1] + by), self.skip)


@dataclass(frozen=True)
class Layout:
    """Chunks and frames of one track: `starts` (chunk,) in samples, `length` of every chunk in samples,
    `frames` per chunk."""

    samples: int
    starts: tuple[int, ...]
    length: int
    frames: int
    hop: int
    span: int
    sample_rate: int

    @classmethod
    def of(cls, samples: int, spec: FeatureSpec) -> Layout:
        starts = chunk_starts(samples, spec.chunk)
        length = min(samples, spec.chunk.length)
        return cls(
            samples,
            tuple(starts),
            length,
            frame_count(length, spec.frame_hop, spec.frame_span),
            spec.frame_hop,
            spec.frame_span,
            spec.chunk.sample_rate,
        )

    def windows(self, chunks_per_window: int) -> list[Window]:
        """Windows of at least `chunks_per_window` chunks (fewer only when the track has fewer): floor(n / w)
        windows that share the chunks as evenly as they can, so that no chunk is computed twice and no window
        is much shorter."""
        n = len(self.starts)
        count = max(1, n // chunks_per_window)
        edges = [i * n // count for i in range(count + 1)]
        return [self.window(a, b) for a, b in itertools.pairwise(edges)]

    @cached_property
    def skips(self) -> tuple[int, ...]:
        """Per chunk, how many leading frames the chunk before covers already."""
        over = [
            before + self.frames * self.hop - here
            for before, here in zip(self.starts, self.starts[1:], strict=False)
        ]
        return (0, *(max(0, round(o / self.hop)) for o in over))

    def window(self, first: int, last: int) -> Window:
        """The window that joins the chunks `first` to `last - 1`."""
        return Window((first, last), (0, *self.skips[first + 1 : last]))

    def frame_times(self) -> np.ndarray:
        """Centre of every frame, seconds, shape (chunk, frame)."""
        offset = np.arange(self.frames) * self.hop + self.span / 2
        result: np.ndarray = (np.asarray(self.starts)[:, None] + offset[None, :]) / self.sample_rate
        return result


class Cutter:
    """Audio that comes in blocks, cut into the chunks of `chunk_starts`, without holding more of it than a
    chunk and a block.

    `samples` is how many came so far. Where it is known how many will come (`expected`), others are an
    AudioError.
    """

    def __init__(self, spec: ChunkSpec, expected: int | None = None) -> None:
        self.spec, self.expected, self.samples = spec, expected, 0
        self._buffer = np.empty(0, dtype=np.float32)
        self._cut = 0  # chunks given out

    def push(self, block: np.ndarray) -> list[np.ndarray]:
        """The chunks (sample,) of `spec.length` that this block (sample,) completes."""
        spec, begin = self.spec, self.samples - len(self._buffer)
        self._buffer = np.concatenate([self._buffer, block]) if len(self._buffer) else block
        self.samples += len(block)
        if self.expected is not None and self.samples > self.expected:
            raise self._changed()
        done = []
        while (start := self._cut * spec.hop) + spec.length <= self.samples:
            done.append(self._buffer[start - begin : start - begin + spec.length])
            self._cut += 1
        self._buffer = self._buffer[
            max(0, min(start, self.samples - spec.length) - begin) :
        ].copy()  # a view would hold all of it
        return done

    def finish(self) -> list[np.ndarray]:
        """The chunk that the end of the audio completes, if there is one. Raises AudioError below
        `spec.minimum` samples."""
        if self.expected is not None and self.samples != self.expected:
            raise self._changed()
        starts = chunk_starts(self.samples, self.spec)
        if len(starts) == self._cut:
            return []
        self._cut += 1
        return [self._buffer[starts[-1] - (self.samples - len(self._buffer)) :]]

    def _changed(self) -> AudioError:
        return AudioError(
            "the file changed while it was read", "Run again when nothing writes it any more.", "changed"
        )


class Rows(ABC):
    """Where the rows of poolings of one unit lie; `parameters` are a pooling's."""

    @abstractmethod
    def count(self, layout: Layout, parameters: Mapping[str, Any]) -> int:
        """How many rows a track with this layout has, without making them."""

    @abstractmethod
    def of(self, layout: Layout, parameters: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """`times` (row, 2) in seconds and `frames` (row,)."""


class ChunkRows(Rows):
    """One row a chunk."""

    def count(self, layout: Layout, parameters: Mapping[str, Any]) -> int:
        return len(layout.starts)

    def of(self, layout: Layout, parameters: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        starts = np.asarray(layout.starts)
        times = np.stack([starts, starts + layout.length], axis=1) / layout.sample_rate
        return times, np.full(len(starts), layout.frames)


class WindowRows(Rows):
    """One row a window of `window` joined chunks."""

    def count(self, layout: Layout, parameters: Mapping[str, Any]) -> int:
        return max(1, len(layout.starts) // int(parameters["window"]))

    def of(self, layout: Layout, parameters: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        starts, windows = layout.starts, layout.windows(int(parameters["window"]))
        times = (
            np.array([[starts[w.chunks[0]], starts[w.chunks[1] - 1] + layout.length] for w in windows])
            / layout.sample_rate
        )
        return times, np.array(
            [(b - a) * layout.frames - sum(w.skip) for w in windows for a, b in [w.chunks]]
        )


def row_edges(frames: int, step: float) -> list[int]:
    """Where rows of `step` frames, which need not be whole, begin and end in a run of `frames`: 0, `step`,
    2 `step`, ..., rounded."""
    inside = (math.floor(i * step + 0.5) for i in itertools.count())
    return [*itertools.takewhile(lambda edge: edge < frames, inside), frames]


class FrameRows(Rows):
    """One row every `step` frames inside each chunk; those that the chunk before covers are left out."""

    def count(self, layout: Layout, parameters: Mapping[str, Any]) -> int:
        step = float(parameters["step"])
        bins = len(row_edges(layout.frames, step)) - 1
        return sum(bins - int(skip // step) for skip in layout.skips)

    def of(self, layout: Layout, parameters: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        step, rate = float(parameters["step"]), layout.sample_rate
        pairs = list(itertools.pairwise(row_edges(layout.frames, step)))
        at = [
            (start, b)
            for start, skip in zip(layout.starts, layout.skips, strict=True)
            for b in range(int(skip // step), len(pairs))
        ]
        edges = [pairs[b] for _, b in at]
        times = (
            np.array(
                [
                    [start + a * layout.hop, start + z * layout.hop]
                    for (start, _), (a, z) in zip(at, edges, strict=True)
                ],
                dtype=float,
            )
            / rate
        )
        return times, np.array([z - a for a, z in edges])


UNITS: Mapping[Unit, Rows] = {"chunk": ChunkRows(), "window": WindowRows(), "frame": FrameRows()}


def row_count(layout: Layout, pooling: PoolingSpec) -> int:
    """How many rows this pooling gives for a track with this layout: `len(rows(...)[1])`, without making
    them."""
    return UNITS[pooling.unit].count(layout, pooling.parameters)


def rows(layout: Layout, pooling: PoolingSpec) -> tuple[np.ndarray, np.ndarray]:
    """`times` (row, 2) in seconds and `frames` (row,) of the rows that `pooling` gives for a track with this
    layout."""
    return UNITS[pooling.unit].of(layout, pooling.parameters)
