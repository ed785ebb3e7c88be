"""The same ragged features in our store and in the ways people usually keep them, behind three questions: everything, a
batch of tracks, one layer of everything. Each answers with arrays in memory of its own."""

from __future__ import annotations

import os
import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np
import zarr

from beatmeter.chunking import Layout, rows
from beatmeter.schema import ChunkSpec, Features, FeatureSpec, Pooled, PoolingSpec
from beatmeter.store import Store

LAYERS = 24
POOLING = PoolingSpec("stats", "stats", "chunk", tuple(range(1, LAYERS + 1)), ("pool", "dim"), (2, 1024), {"statistics": ["mean", "max"]})
SPEC = FeatureSpec("benchmark/330M", "", "", LAYERS, 1024, 320, 400, True, ChunkSpec(), (POOLING,))


class Tracks:
    """`n` tracks of 3 to 9 chunks with features of the 330M model's shape: (chunk, 24, 2, 1024) float16."""

    def __init__(self, n: int) -> None:
        rng = np.random.default_rng(0)
        self.counts = rng.integers(3, 10, n)
        self.offsets = np.concatenate([[0], np.cumsum(self.counts)])
        self.keys = [f"{i:064x}" for i in range(n)]
        self.values = rng.standard_normal((int(self.offsets[-1]), *POOLING.row_shape), np.float32).astype(np.float16)

    def __len__(self) -> int:
        return len(self.keys)

    def of(self, track: int) -> np.ndarray:
        """(chunk, layer, pool, dim)"""
        return self.values[self.offsets[track] : self.offsets[track + 1]]

    def features(self, track: int) -> Features:
        samples = int(self.counts[track]) * SPEC.chunk.hop + 80
        times, frames = rows(Layout.of(samples, SPEC), POOLING)
        return Features(SPEC, samples, {"stats": Pooled(self.of(track), times, frames)})


class Rival(ABC):
    """One way of keeping features, written to a folder when built."""

    def __init__(self, folder: Path, tracks: Tracks) -> None:
        self.folder, self.tracks = folder, tracks
        folder.mkdir()
        self.write()

    @abstractmethod
    def write(self) -> None:
        """Put all tracks on disk and open them for reading."""

    @abstractmethod
    def scan(self) -> np.ndarray:
        """All rows (row, layer, pool, dim)."""

    @abstractmethod
    def batch(self, chosen: Sequence[int]) -> np.ndarray:
        """The rows of some tracks, one after the other."""

    @abstractmethod
    def layer(self, at: int) -> np.ndarray:
        """One layer of all rows (row, 1, pool, dim)."""

    def drop(self) -> None:
        """Put this rival's files out of memory, so that the next read comes from the disk."""
        for path in self.folder.rglob("*"):
            if path.is_file():
                handle = os.open(path, os.O_RDONLY)
                os.fsync(handle)
                os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(handle)


class OurStore(Rival):
    check = "first"

    def write(self) -> None:
        store = Store.create(self.folder / "store", SPEC)
        for start in range(0, len(self.tracks), 64):
            store.commit([(self.tracks.keys[i], self.tracks.features(i)) for i in range(start, min(start + 64, len(self.tracks)))])
        self.open()

    def open(self) -> None:
        self.snapshot = Store.open(self.folder / "store").snapshot()

    def scan(self) -> np.ndarray:
        return self.snapshot.load(None, "stats", check=self.check).values  # type: ignore[arg-type]

    def batch(self, chosen: Sequence[int]) -> np.ndarray:
        return self.snapshot.load([self.tracks.keys[i] for i in chosen], "stats", check=self.check).values  # type: ignore[arg-type]

    def layer(self, at: int) -> np.ndarray:
        return self.snapshot.load(None, "stats", layers=[at + 1], check=self.check).values  # type: ignore[arg-type]

    def drop(self) -> None:
        self.open()  # lets go of the mappings, which would keep the pages
        super().drop()


class AlwaysChecked(OurStore):
    check = "always"


class NeverChecked(OurStore):
    check = "never"


class Indexed(Rival):
    """Rivals that are one array in which a slice is a read."""

    array: np.ndarray

    def scan(self) -> np.ndarray:
        return np.array(self.array[:])

    def batch(self, chosen: Sequence[int]) -> np.ndarray:
        edges = self.tracks.offsets
        return np.concatenate([self.array[edges[i] : edges[i + 1]] for i in chosen])

    def layer(self, at: int) -> np.ndarray:
        return np.array(self.array[:, at : at + 1])


class Memmap(Indexed):
    def write(self) -> None:
        self.tracks.values.tofile(self.folder / "flat")
        self.open()

    def open(self) -> None:
        self.array = np.memmap(self.folder / "flat", np.float16, "r", shape=self.tracks.values.shape)

    def batch(self, chosen: Sequence[int]) -> np.ndarray:
        edges, counts = self.tracks.offsets, self.tracks.counts
        out = np.empty((int(counts[list(chosen)].sum()), *self.array.shape[1:]), np.float16)
        at = 0
        for i in chosen:
            out[at : at + counts[i]] = self.array[edges[i] : edges[i + 1]]
            at += counts[i]
        return out

    def drop(self) -> None:
        del self.array
        super().drop()
        self.open()


class Pread(Memmap):
    """The floor for cold reads: one announcement for the whole batch, then one large pread a track."""

    def open(self) -> None:
        super().open()
        self.handle = os.open(self.folder / "flat", os.O_RDONLY)

    def batch(self, chosen: Sequence[int]) -> np.ndarray:
        edges, counts, row = self.tracks.offsets, self.tracks.counts, self.array[0].nbytes
        for i in chosen:
            os.posix_fadvise(self.handle, int(edges[i]) * row, int(counts[i]) * row, os.POSIX_FADV_WILLNEED)
        out = np.empty((int(counts[list(chosen)].sum()), *self.array.shape[1:]), np.float16)
        at = 0
        for i in chosen:
            os.preadv(self.handle, [out[at : at + counts[i]].reshape(-1).view(np.uint8)], int(edges[i]) * row)
            at += counts[i]
        return out

    def drop(self) -> None:
        os.close(self.handle)
        super().drop()


class H5Contiguous(Indexed):
    chunks: tuple[int, ...] | None = None

    def write(self) -> None:
        with h5py.File(self.folder / "f.h5", "w") as file:
            file.create_dataset("values", data=self.tracks.values, chunks=self.chunks)
        self.array = h5py.File(self.folder / "f.h5", "r")["values"]


class H5Chunked(H5Contiguous):
    chunks = (8, *POOLING.row_shape)


class ZarrPython(Indexed):
    def write(self) -> None:
        array = zarr.create_array(
            self.folder / "z", shape=self.tracks.values.shape, chunks=(64, *POOLING.row_shape), dtype="float16", compressors=None
        )
        array[:] = self.tracks.values
        self.array = zarr.open_array(self.folder / "z", mode="r")  # type: ignore[assignment]


class NpyPerTrack(Rival):
    def write(self) -> None:
        for i, key in enumerate(self.tracks.keys):
            np.save(self.folder / f"{key}.npy", self.tracks.of(i))

    def scan(self) -> np.ndarray:
        return self.batch(range(len(self.tracks)))

    def batch(self, chosen: Sequence[int]) -> np.ndarray:
        return np.concatenate([np.load(self.folder / f"{self.tracks.keys[i]}.npy") for i in chosen])

    def layer(self, at: int) -> np.ndarray:
        return np.concatenate([np.load(self.folder / f"{key}.npy", mmap_mode="r")[:, at : at + 1] for key in self.tracks.keys])


RIVALS: dict[str, type[Rival]] = {
    "memmap": Memmap,
    "store": OurStore,
    "store, checked always": AlwaysChecked,
    "store, never checked": NeverChecked,
    "h5py contiguous": H5Contiguous,
    "h5py chunked": H5Chunked,
    "zarr-python": ZarrPython,
    ".npy per track": NpyPerTrack,
}


def in_turn(ways: Mapping[str, Callable[[], object]], rounds: int, before: Callable[[str], object] = lambda name: None) -> dict[str, list[float]]:
    """Seconds of each way, `rounds` times, all of them in every round: what disturbs one disturbs its neighbours."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            before(name)
            began = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - began)
    return seconds


def ratios(seconds: Mapping[str, list[float]], base: str) -> dict[str, float]:
    """Speed relative to `base`, more is faster: median over rounds of the paired ratios."""
    return {name: statistics.median(b / s for b, s in zip(seconds[base], times, strict=True)) for name, times in seconds.items()}


def table(title: str, seconds: Mapping[str, list[float]], base: str) -> str:
    """Median milliseconds, spread (10th to 90th percentile) and speed relative to `base`, as lines of text."""
    relative = ratios(seconds, base)
    lines = [f"\n{title}", f"  {'':24s}{'ms':>10s}{'p10 - p90':>22s}{'x ' + base:>12s}"]
    for name, times in seconds.items():
        low, high = np.percentile(times, [10, 90]) * 1e3
        lines.append(f"  {name:24s}{statistics.median(times) * 1e3:10.2f}{f'{low:.2f} - {high:.2f}':>22s}{relative[name]:12.3f}")
    return "\n".join(lines)
