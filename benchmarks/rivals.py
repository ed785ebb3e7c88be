"""The same rows in the ways people usually keep them, behind the questions of `beatmeter.store.ways`, to
compare their speed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from beatmeter.store.ways import FreshStore, Memcpy, Way


class AlwaysChecked(FreshStore):
    check = "always"


class NeverChecked(FreshStore):
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


RIVALS: dict[str, type[Way]] = {
    "memcpy": Memcpy,
    "memmap": Memmap,
    "h5py contiguous": H5Contiguous,
    "h5py chunked": H5Chunked,
    "zarr-python": ZarrPython,
    ".npy per track": NpyPerTrack,
}
