"""Rows of a store read by it and by plain means, behind three questions: everything, a batch of tracks, one
layer of everything.

Each is answered with an array in memory of its own. Plain means are the floor below which no store comes:
copies from memory to memory for what lies in memory, one file read in large pieces for what does not.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from beatmeter.audio.chunking import Layout, rows
from beatmeter.schema import Features, FeatureSpec, Pooled
from beatmeter.store import workers
from beatmeter.store.gather import Check
from beatmeter.store.reader import Snapshot
from beatmeter.store.store import Store

CAN_DROP = hasattr(os, "posix_fadvise")  # whether files can be put out of memory, for cold reads
_COMMIT = 64  # tracks
_SCAN = 16 << 20  # bytes of a pread
_PIECE = 64  # rows copied at a time


@dataclass(frozen=True)
class Sample:
    """Some tracks of one pooling in memory: `values` (row, layer, *axes), the rows of the i-th track between
    `offsets`."""

    spec: FeatureSpec  # of this one pooling
    keys: Sequence[str]
    samples: np.ndarray  # (track,) lengths
    values: np.ndarray
    offsets: np.ndarray  # (track + 1,)

    @classmethod
    def made(cls, spec: FeatureSpec, n: int) -> Sample:
        """`n` tracks of 3 to 9 chunks of noise."""
        rng = np.random.default_rng(0)
        lengths = rng.integers(3, 10, n) * spec.chunk.hop + spec.frame_span
        counts = [len(rows(Layout.of(int(m), spec), spec.poolings[0])[1]) for m in lengths]
        offsets = np.concatenate([[0], np.cumsum(counts)])
        values = rng.standard_normal((int(offsets[-1]), *spec.poolings[0].row_shape), np.float32).astype(
            spec.store_dtype
        )
        return cls(spec, [f"{i:064x}" for i in range(n)], lengths, values, offsets)

    @classmethod
    def of(cls, snapshot: Snapshot, pooling: str, size: int) -> Sample:
        """Tracks of a store as they lie on disk, up to about `size` bytes (at least one track)."""
        keys: list[str] = []
        total = 0
        for block in snapshot.scan(pooling):
            keys += block.keys
            total += block.values.nbytes
            if total >= size:
                break
        values, offsets = snapshot.load(keys, pooling)
        return cls(snapshot.spec.only([pooling]), keys, snapshot.lengths(keys), values, offsets)

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def pooling(self) -> str:
        return self.spec.poolings[0].name

    def rows_of(self, tracks: Iterable[int]) -> int:
        """How many rows these tracks have."""
        return int(sum(self.offsets[i + 1] - self.offsets[i] for i in tracks))

    def empty(self, chosen: Sequence[int]) -> np.ndarray:
        """Room for the rows of some tracks."""
        return np.empty((self.rows_of(chosen), *self.values.shape[1:]), self.values.dtype)

    def of_track(self, track: int) -> np.ndarray:
        """(row, layer, *axes)"""
        return self.values[self.offsets[track] : self.offsets[track + 1]]

    def features(self, track: int) -> Features:
        times, frames = rows(Layout.of(int(self.samples[track]), self.spec), self.spec.poolings[0])
        return Features(
            self.spec, int(self.samples[track]), {self.pooling: Pooled(self.of_track(track), times, frames)}
        )


class Way(ABC):
    """One way of keeping a sample and reading it, written to a folder when built."""

    def __init__(self, folder: Path, sample: Sample) -> None:
        self.folder, self.sample = folder, sample
        folder.mkdir(parents=True)
        self.write()
        self.open()

    @abstractmethod
    def write(self) -> None:
        """Put all tracks on disk."""

    @abstractmethod
    def open(self) -> None:
        """Open what was written, for reading."""

    @abstractmethod
    def scan(self) -> np.ndarray:
        """All rows (row, layer, *axes)."""

    @abstractmethod
    def batch(self, chosen: Sequence[int]) -> np.ndarray:
        """The rows of some tracks, one after the other."""

    @abstractmethod
    def layer(self, at: int) -> np.ndarray:
        """One layer of all rows (row, 1, *axes)."""

    def files(self) -> list[Path]:
        """What is read."""
        return [path for path in self.folder.rglob("*") if path.is_file()]

    def drop(self) -> None:
        """Put these files out of memory, so that the next read comes from the disk. Mappings, which keep
        pages, are let go."""
        self.open()
        for path in self.files():
            handle = os.open(path, os.O_RDONLY)
            os.fsync(handle)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)


class OwnStore(Way):
    """A store that is there already: nothing is written."""

    check: Check = "first"

    def __init__(self, where: Path, sample: Sample) -> None:
        self.folder, self.sample = where, sample
        self.open()

    def write(self) -> None:
        """Others have done that."""

    def open(self) -> None:
        self.snapshot = Store.open(self.folder).snapshot()

    def scan(self) -> np.ndarray:
        return self.snapshot.load(self.sample.keys, self.sample.pooling, check=self.check).values

    def batch(self, chosen: Sequence[int]) -> np.ndarray:
        return self.snapshot.load(
            [self.sample.keys[i] for i in chosen], self.sample.pooling, check=self.check
        ).values

    def layer(self, at: int) -> np.ndarray:
        layers = [self.sample.spec.poolings[0].layers[at]]
        return self.snapshot.load(
            self.sample.keys, self.sample.pooling, layers=layers, check=self.check
        ).values

    def files(self) -> list[Path]:
        return [self.folder / name for name in self.snapshot.files(self.sample.keys, self.sample.pooling)]


class FreshStore(OwnStore):
    """The store, checked the first time a row is read, as training does."""

    def __init__(self, folder: Path, sample: Sample) -> None:
        Way.__init__(self, folder, sample)

    def write(self) -> None:
        store = Store.create(self.folder / "store", self.sample.spec)
        for start in range(0, len(self.sample), _COMMIT):
            tracks = range(start, min(start + _COMMIT, len(self.sample)))
            store.commit([(self.sample.keys[i], self.sample.features(i)) for i in tracks])
        self.folder = store.path


class Memcpy(Way):
    """No file at all: copies from memory to memory, on as many threads as the store takes."""

    def write(self) -> None:
        """It is in memory already."""

    def open(self) -> None:
        """So it is open."""

    def scan(self) -> np.ndarray:
        return self._copied([(0, len(self.sample.values))])

    def batch(self, chosen: Sequence[int]) -> np.ndarray:
        return self._copied([(int(self.sample.offsets[i]), int(self.sample.offsets[i + 1])) for i in chosen])

    def layer(self, at: int) -> np.ndarray:
        return np.array(self.sample.values[:, at : at + 1])

    def _copied(self, spans: Sequence[tuple[int, int]]) -> np.ndarray:
        """Rows of `spans` (first, last), one after the other."""
        values = self.sample.values
        pieces, total = [], 0
        for first, last in spans:
            pieces += [(a, min(a + _PIECE, last), total + a - first) for a in range(first, last, _PIECE)]
            total += last - first
        out = np.empty((total, *values.shape[1:]), values.dtype)

        def copy(part: list[tuple[int, int, int]]) -> None:
            for a, b, at in part:
                out[at : at + b - a] = values[a:b]

        workers.share(copy, pieces, out.nbytes)
        return out


class Pread(Way):
    """The floor for cold reads: everything is announced at once, then read in large pieces or track by
    track."""

    handle = -1

    def write(self) -> None:
        self.sample.values.tofile(self.folder / "flat")

    def open(self) -> None:
        if self.handle >= 0:
            os.close(self.handle)
        self.handle = os.open(self.folder / "flat", os.O_RDONLY)

    @cached_property
    def row(self) -> int:
        """Bytes."""
        return int(self.sample.values[0].nbytes)

    def scan(self) -> np.ndarray:
        out = np.empty(self.sample.values.shape, self.sample.values.dtype)
        self._read([(0, out.nbytes)], out, _SCAN)
        return out

    def batch(self, chosen: Sequence[int]) -> np.ndarray:
        edges, out = self.sample.offsets, self.sample.empty(chosen)
        self._read([(int(edges[i]) * self.row, int(edges[i + 1] - edges[i]) * self.row) for i in chosen], out)
        return out

    def layer(self, at: int) -> np.ndarray:
        values = self.sample.values
        out = np.empty((len(values), 1, *values.shape[2:]), values.dtype)
        size = self.row // values.shape[1]
        self._read([(i * self.row + at * size, size) for i in range(len(values))], out)
        return out

    def _read(self, parts: Sequence[tuple[int, int]], out: np.ndarray, most: int = 1 << 60) -> None:
        """Parts of the file (start, length) into `out`, one after the other, at most so many bytes at a
        time."""
        for start, length in parts:
            os.posix_fadvise(self.handle, start, length, os.POSIX_FADV_WILLNEED)
        flat, at = out.reshape(-1).view(np.uint8).data, 0
        for start, length in parts:
            end = start + length
            while start < end:
                got = os.preadv(self.handle, [flat[at : at + min(most, end - start)]], start)
                start, at = start + got, at + got
