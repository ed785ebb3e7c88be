"""Files to batches: decoded ahead in processes, cut into chunks and windows, batched by equal length, a long
file streamed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from beatmeter.audio.ahead import LongAudio, decode_or_count
from beatmeter.audio.chunking import Cutter, Layout
from beatmeter.audio.decode import stream
from beatmeter.audio.identity import Stamp, require_unchanged
from beatmeter.errors import AudioError
from beatmeter.features.pooling import window_chunks
from beatmeter.features.poolings import Arrangement
from beatmeter.schema import ChunkSpec, FeatureSpec, Track

_LENGTHS = 4  # chunk lengths that wait for company at a time: every short file may have its own


@dataclass(frozen=True, eq=False)
class Source:
    """A track on its way: `windows` is how many windows it has."""

    key: str
    track: Track
    layout: Layout
    windows: int


@dataclass(frozen=True)
class Unit:
    """One window of a track: the chunks that go through the backbone together."""

    source: Source
    number: int
    chunks: np.ndarray  # (chunk, sample)
    arrangement: Arrangement


@dataclass(frozen=True)
class Batch:
    """Units whose chunks have one length."""

    units: tuple[Unit, ...]

    @property
    def chunks(self) -> int:
        """How many chunks it holds."""
        return sum(len(u.chunks) for u in self.units)

    def halves(self) -> tuple[Batch, Batch]:
        """The same units in two batches."""
        middle = len(self.units) // 2
        return Batch(self.units[:middle]), Batch(self.units[middle:])


@dataclass(frozen=True)
class Unusable:
    """A track that has no features, and why."""

    key: str
    track: Track
    error: AudioError


class Feed:
    """`batches` of the tracks `todo`. `stamps` are those of their files, by track id, from before their keys
    were computed: a file that changed since would give features under a foreign key. `waited` counts seconds
    spent waiting for audio."""

    def __init__(
        self,
        todo: Sequence[tuple[str, Track]],
        spec: FeatureSpec,
        jobs: int,
        limit: Callable[[], int],
        stop: threading.Event,
        stamps: Mapping[str, Stamp | None],
    ) -> None:
        self.todo, self.spec, self.jobs, self.limit, self.stop, self.stamps = (
            todo,
            spec,
            jobs,
            limit,
            stop,
            stamps,
        )
        self.window = window_chunks(spec)
        self.waited = 0.0

    def batches(self) -> Iterator[Batch | Unusable]:
        """Batches of at most `limit()` chunks (one window at least). Once `stop` is set no further track is
        begun, and a track that is still being read is given up."""
        waiting: dict[int, list[Unit]] = {}
        for item in self._units():
            if isinstance(item, Unusable):
                yield item
                continue
            group = waiting.setdefault(item.chunks.shape[1], [])
            if group and sum(len(u.chunks) for u in group) + len(item.chunks) > self.limit():
                yield Batch(tuple(group))
                group.clear()
            group.append(item)
            if len(waiting) > _LENGTHS:
                yield Batch(tuple(waiting.pop(next(iter(waiting)))))
        for group in waiting.values():
            if group:
                yield Batch(tuple(group))

    def _units(self) -> Iterator[Unit | Unusable]:
        waves = decode_or_count(
            [track.path for _, track in self.todo],
            self.spec.chunk.sample_rate,
            jobs=self.jobs,
            stop=self.stop,
        )
        with closing(waves):
            for key, track in self.todo:
                if self.stop.is_set():
                    return
                began = time.monotonic()
                wave = next(waves, None)
                self.waited += time.monotonic() - began
                if wave is None:  # stopped
                    return
                try:
                    self._require_unchanged(track)
                    if isinstance(wave, AudioError):
                        raise wave
                    yield from self._cut(key, track, wave)
                except AudioError as error:
                    yield Unusable(key, track, error)

    def _cut(self, key: str, track: Track, wave: np.ndarray | LongAudio) -> Iterator[Unit]:
        long = isinstance(wave, LongAudio)
        layout = Layout.of(wave.samples if isinstance(wave, LongAudio) else len(wave), self.spec)
        windows = layout.windows(self.window)
        source = Source(key, track, layout, len(windows))
        blocks = (
            _slide(stream(track.path, layout.sample_rate), layout, self.spec.chunk)
            if isinstance(wave, LongAudio)
            else _slices(wave, layout)
        )
        for number, window in enumerate(windows):
            if long and self.stop.is_set():
                return
            first, last = window.chunks
            chunks = np.stack([next(blocks) for _ in range(first, last)])
            if long and number + 1 == len(windows):
                self._require_unchanged(track)
            yield Unit(source, number, chunks, Arrangement.of_window(layout, window))

    def _require_unchanged(self, track: Track) -> None:
        if track.id in self.stamps:
            require_unchanged(track.path, self.stamps[track.id])


def _slices(wave: np.ndarray, layout: Layout) -> Iterator[np.ndarray]:
    return (wave[s : s + layout.length] for s in layout.starts)


def _slide(blocks: Iterator[np.ndarray], layout: Layout, chunk: ChunkSpec) -> Iterator[np.ndarray]:
    """The chunks of a long file without holding it."""
    cutter = Cutter(chunk, layout.samples)
    for block in blocks:
        yield from cutter.push(block)
    yield from cutter.finish()
