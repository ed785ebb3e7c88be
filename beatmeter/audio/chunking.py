"""Where chunks, frames and windows lie in time: the one place that decides it, for extraction, training and
labels.

A track of `n` samples becomes chunks (`ChunkSpec`), each chunk becomes frames (a convolution of `span`
samples every `hop`), consecutive chunks join into windows. All of it follows from `n` and the spec, so stores
keep only `n`.

A frame near the edge of a chunk has heard less of its surroundings than one in the middle, and a head hears
that (seams). Where chunks overlap, each frame of the track is taken from the chunk in which it lies further
from an edge.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

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
        last = samples - spec.length
        starts.append(last - last % spec.grid if spec.grid else last)
    return starts


def frame_count(samples: int, hop: int, span: int) -> int:
    """Frames of a chunk of `samples`: floor((samples - span) / hop) + 1, as a stack of convolutions without
    padding gives."""
    return max(0, (samples - span) // hop + 1)


def edge_of(row: int, step: float) -> int:
    """The frame at which a row of `step` frames begins."""
    return math.floor(row * step + 0.5)


def row_edges(frames: int, step: float) -> list[int]:
    """Where rows of `step` frames, which need not be whole, begin and end in a run of `frames`: 0, `step`,
    2 `step`, ..., rounded."""
    inside = (edge_of(row, step) for row in itertools.count())
    return [*itertools.takewhile(lambda edge: edge < frames, inside), frames]


class Kept(NamedTuple):
    """Which frames of a chunk the joined track takes: `first` to `last`, half-open. `position` is where the
    chunk's first frame lies on the grid of the track's frames; chunks that do not overlap have a grid of
    their own, from 0. `ends` says that no other chunk goes on before this one is over."""

    position: int
    first: int
    last: int
    ends: bool = True

    def edges(self, step: float) -> list[int]:
        """Where the rows of `step` frames, which need not be whole, that the chunk gives begin and end, in
        its frames. They lie where those of `row_edges` lie on the grid; the last one of a chunk that `ends`
        may be shorter."""
        first, after = (int((self.position + at) // step) for at in (self.first, self.last))
        inside = [edge_of(row, step) - self.position for row in range(first, after + 1 + self.ends)]
        return [*(edge for edge in inside if edge < self.last), self.last] if self.ends else inside


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
    `frames` per chunk. `overlapping`: chunks share frames, of which each gives its middle."""

    samples: int
    starts: tuple[int, ...]
    length: int
    frames: int
    hop: int
    span: int
    sample_rate: int
    overlapping: bool = False

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
            spec.chunk.grid > 0,
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

    @cached_property
    def kept(self) -> tuple[Kept, ...]:
        """Per chunk, the frames that the joined track takes of it: all that the chunk before does not cover,
        or where chunks overlap those that lie further from its edges than from those of its neighbours. The
        outer edges of a track stay."""
        if not self.overlapping:
            return tuple(Kept(0, skip, self.frames) for skip in self.skips)
        at = [start // self.hop for start in self.starts]
        seams = [(here + before + self.frames) // 2 for before, here in itertools.pairwise(at)]
        edges = [0, *seams, at[-1] + self.frames]
        last = len(at) - 1
        return tuple(Kept(g, edges[i] - g, edges[i + 1] - g, i == last) for i, g in enumerate(at))

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
        # no chunk begins earlier, should the audio end here
        last = self.samples - spec.length - max(0, spec.grid - 1)
        self._buffer = self._buffer[max(0, min(start, last) - begin) :].copy()  # a view would hold all of it
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
        first = starts[-1] - (self.samples - len(self._buffer))
        return [self._buffer[first : first + min(self.samples, self.spec.length)]]

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


class FrameRows(Rows):
    """One row every `step` of the frames that are kept of each chunk."""

    def count(self, layout: Layout, parameters: Mapping[str, Any]) -> int:
        return sum(len(kept.edges(float(parameters["step"]))) - 1 for kept in layout.kept)

    def of(self, layout: Layout, parameters: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        step, rate = float(parameters["step"]), layout.sample_rate
        edges = [
            (start, a, z)
            for start, kept in zip(layout.starts, layout.kept, strict=True)
            for a, z in itertools.pairwise(kept.edges(step))
        ]
        times = (
            np.array([[start + a * layout.hop, start + z * layout.hop] for start, a, z in edges], dtype=float)
            / rate
        )
        return times, np.array([z - a for _, a, z in edges])


UNITS: Mapping[Unit, Rows] = {"chunk": ChunkRows(), "window": WindowRows(), "frame": FrameRows()}


def row_count(layout: Layout, pooling: PoolingSpec) -> int:
    """How many rows this pooling gives for a track with this layout: `len(rows(...)[1])`, without making
    them."""
    return UNITS[pooling.unit].count(layout, pooling.parameters)


def rows(layout: Layout, pooling: PoolingSpec) -> tuple[np.ndarray, np.ndarray]:
    """`times` (row, 2) in seconds and `frames` (row,) of the rows that `pooling` gives for a track with this
    layout. A row begins where its first frame does and ends where the first frame of the next one begins."""
    return UNITS[pooling.unit].of(layout, pooling.parameters)


def row_spans(times: Float[np.ndarray, "row 2"], spec: FeatureSpec) -> Float[np.ndarray, "row 2"]:
    """Rows, as `rows` gives them, around the centre of what their frames see: the time that labels are given
    to and that answers are placed at. A frame sees `frame_span` samples and the next one begins `frame_hop`
    later, so that is half of the difference after the middle between two beginnings."""
    return times + (spec.frame_span - spec.frame_hop) / 2 / spec.chunk.sample_rate
