"""The same rows in the ways people usually keep them, behind the questions of `beatmeter.store.ways`, to
compare their speed: a memory map, HDF5, zarr-python, one .npy per track, LMDB where it is installed."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from beatmeter.store.ways import FreshStore, Way


class AlwaysChecked(FreshStore):
    """The store, its checksums compared at every read."""

    check = "always"


class NeverChecked(FreshStore):
    """The store, its checksums left alone."""

    check = "never"


class Indexed(Way):
    """Ways that are one array in which a slice is a read: it gives an array in memory."""

    array: Any

    def scan(self) -> np.ndarray:
        return np.asarray(self.array[:])

    def batch(self, chosen: Sequence[int]) -> np.ndarray:
        edges = self.sample.offsets
        return np.concatenate([self.array[edges[i] : edges[i + 1]] for i in chosen])

    def layer(self, at: int) -> np.ndarray:
        return np.asarray(self.array[:, at : at + 1])


class Memmap(Indexed):
    """A slice of it is not in memory yet: it is copied."""

    def write(self) -> None:
        self.sample.values.tofile(self.folder / "flat")

    def open(self) -> None:
        self.array = None  # lets go of the mapping before the next
        self.array = np.memmap(
            self.folder / "flat", self.sample.values.dtype, "r", shape=self.sample.values.shape
        )

    def scan(self) -> np.ndarray:
        return np.array(self.array)

    def layer(self, at: int) -> np.ndarray:
        return np.array(self.array[:, at : at + 1])

    def batch(self, chosen: Sequence[int]) -> np.ndarray:
        edges, out, at = self.sample.offsets, self.sample.empty(chosen), 0
        for i in chosen:
            part = self.array[edges[i] : edges[i + 1]]
            out[at : at + len(part)] = part
            at += len(part)
        return out


class H5Contiguous(Indexed):
    """One array that lies together."""

    chunks: tuple[int, ...] | None = None
    file: Any = None

    def write(self) -> None:
        import h5py

        with h5py.File(self.folder / "f.h5", "w") as file:
            file.create_dataset("values", data=self.sample.values, chunks=self.chunks)

    def open(self) -> None:
        import h5py

        if self.file is not None:
            self.file.close()
        self.file = h5py.File(self.folder / "f.h5", "r")
        self.array = self.file["values"]


class H5Chunked(H5Contiguous):
    """Eight rows a chunk."""

    def write(self) -> None:
        self.chunks = (min(8, len(self.sample.values)), *self.sample.values.shape[1:])
        super().write()


class ZarrPython(Indexed):
    """64 rows a chunk, not compressed: the best that this library does here."""

    def write(self) -> None:
        import zarr

        values = self.sample.values
        array = zarr.create_array(
            self.folder / "z",
            shape=values.shape,
            chunks=(64, *values.shape[1:]),
            dtype=values.dtype,
            compressors=None,
        )
        array[:] = values

    def open(self) -> None:
        import zarr

        self.array = zarr.open_array(self.folder / "z", mode="r")


class NpyPerTrack(Way):
    """One file a track."""

    def write(self) -> None:
        for i in range(len(self.sample)):
            np.save(self._path(i), self.sample.of_track(i))

    def open(self) -> None:
        pass

    def _path(self, track: int) -> Path:
        return self.folder / f"{self.sample.keys[track]}.npy"

    def scan(self) -> np.ndarray:
        return self.batch(range(len(self.sample)))

    def batch(self, chosen: Sequence[int]) -> np.ndarray:
        return np.concatenate([np.load(self._path(i)) for i in chosen])

    def layer(self, at: int) -> np.ndarray:
        return np.concatenate(
            [np.load(self._path(i), mmap_mode="r")[:, at : at + 1] for i in range(len(self.sample))]
        )


class Lmdb(Way):
    """One key a track, in a memory-mapped tree."""

    environment: Any = None

    def write(self) -> None:
        import lmdb

        room = 2 * self.sample.values.nbytes + (64 << 20)
        with lmdb.open(str(self.folder), map_size=room) as made, made.begin(write=True) as transaction:
            for i, key in enumerate(self.sample.keys):
                transaction.put(key.encode(), np.ascontiguousarray(self.sample.of_track(i)).data)

    def open(self) -> None:
        import lmdb

        if self.environment is not None:
            self.environment.close()
        self.environment = lmdb.open(str(self.folder), readonly=True, lock=False)

    def scan(self) -> np.ndarray:
        return self._read(range(len(self.sample)), slice(None))

    def batch(self, chosen: Sequence[int]) -> np.ndarray:
        return self._read(chosen, slice(None))

    def layer(self, at: int) -> np.ndarray:
        return self._read(range(len(self.sample)), slice(at, at + 1))

    def _read(self, chosen: Sequence[int], layers: slice) -> np.ndarray:
        values, at = self.sample.values, 0
        out = np.empty((self.sample.rows_of(chosen), *values[:1, layers].shape[1:]), values.dtype)
        with self.environment.begin(buffers=True) as transaction:
            for i in chosen:
                flat = np.frombuffer(transaction.get(self.sample.keys[i].encode()), values.dtype)
                rows = flat.reshape(-1, *values.shape[1:])[:, layers]
                out[at : at + len(rows)] = rows
                at += len(rows)
        return out


RIVALS: dict[str, type[Way]] = {
    "memmap": Memmap,
    "h5py contiguous": H5Contiguous,
    "h5py chunked": H5Chunked,
    "zarr-python": ZarrPython,
    ".npy per track": NpyPerTrack,
    "LMDB": Lmdb,
}
NEEDS = {"LMDB": "lmdb"}  # packages that need not be there


def installed() -> dict[str, type[Way]]:
    """The rivals whose packages are installed."""
    return {name: kind for name, kind in RIVALS.items() if name not in NEEDS or find_spec(NEEDS[name])}
