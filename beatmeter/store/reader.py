"""Reading: a frozen snapshot of the store, rows by byte offset, checked against their checksums."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from beatmeter.audio.chunking import Layout, rows
from beatmeter.errors import StoreError
from beatmeter.schema import Features, Pooled, sha256_json
from beatmeter.store.backend import Backend
from beatmeter.store.catalog import State
from beatmeter.store.gather import Check, PoolingRows, ShardPool
from beatmeter.store.index import Columns, Keys
from beatmeter.store.layout import StoreLayout
from beatmeter.store.mapped import REMEDY


class MissingTracksError(StoreError):
    """Tracks that were asked for and are not in the snapshot: `keys`."""

    def __init__(self, keys: Sequence[str], where: str) -> None:
        self.keys = tuple(keys)
        more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
        super().__init__(
            f"track {keys[0]}{more} not in the snapshot of {where}",
            "Extract them first: `beatmeter extract DATASET`.",
        )


class Ragged(NamedTuple):
    """Rows of several tracks: those of the i-th are `values[offsets[i]:offsets[i + 1]]`."""

    values: np.ndarray  # (row, layer, *axes)
    offsets: np.ndarray  # (track + 1,)


class Block(NamedTuple):
    """Some tracks of a scan: their keys, and their rows as in `Ragged`."""

    keys: list[str]
    values: np.ndarray
    offsets: np.ndarray


class Snapshot:
    """The store as it was at one moment. Later commits do not show; safe to share between threads and to
    pickle.

    `id` names the contents: lengths, row counts and checksums of every track, whichever segments they lie in,
    so two stores with the same features have the same id and compaction does not change it. Training runs log
    it.

    Rows are checked against their checksums. `check="first"` does so the first time this snapshot reads a
    track, "always" each time, "never" not at all.
    """

    def __init__(self, backend: Backend, layout: StoreLayout, state: State) -> None:
        self.backend, self.spec = backend, layout.spec
        self._layout, self._state = layout, state
        self._columns: Columns = state.columns
        pool = ShardPool(backend, layout, state.commits)
        self._poolings = {
            name: PoolingRows(pool, array, i, state) for i, (name, array) in enumerate(layout.arrays.items())
        }

    def __getstate__(self) -> dict[str, Any]:
        return {"backend": self.backend, "layout": self._layout, "state": self._state}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    @cached_property
    def id(self) -> str:
        """32 hex digits."""
        return sha256_json([self._layout.fingerprint, self._columns.identity])[:32]

    @property
    def keys(self) -> Keys:
        """Track keys, sorted."""
        return Keys(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def __contains__(self, key: object) -> bool:
        return key in self.keys

    def samples(self, key: str) -> int:
        """Length of a track in samples at the chunks' sample rate."""
        return int(self._columns.samples[self._find([key])[0]])

    def lengths(self, keys: Sequence[str] | None = None) -> np.ndarray:
        """Lengths (track,) in samples; of all tracks, sorted by key, by default."""
        return self._columns.samples.copy() if keys is None else self._columns.samples[self._find(keys)]

    def row_counts(self, keys: Sequence[str] | None, pooling: str) -> np.ndarray:
        """How many rows each track (default: all, sorted by key) has in a pooling, (track,)."""
        counts = self._rows(pooling).counts
        return counts.copy() if keys is None else counts[self._find(keys)]

    def read(self, key: str, check: Check = "first") -> Features:
        """Everything of one track. Times and frame counts follow from its length. Raises MissingTracksError,
        StoreError."""
        samples = self.samples(key)
        layout = Layout.of(samples, self.spec)
        pooled = {}
        for p in self.spec.poolings:
            values, _ = self.load([key], p.name, check=check)
            times, frames = rows(layout, p)
            if len(times) != len(values):
                raise StoreError(
                    f"track {key} has {len(values)} rows of {p.name!r}, its {samples} samples give "
                    f"{len(times)}",
                    REMEDY,
                )
            pooled[p.name] = Pooled(values, times, frames)
        return Features(self.spec, samples, pooled)

    def load(
        self,
        keys: Sequence[str] | None,
        pooling: str,
        layers: Sequence[int] | None = None,
        out: np.ndarray | None = None,
        check: Check = "first",
    ) -> Ragged:
        """Rows of many tracks (default: all, sorted by key) in the order of `keys`, in the store's dtype.

        `layers` are the 1-based layer numbers to read, in that order; default all. `out`, if given, is filled
        and its beginning returned: shape (at least all rows, layer, *axes). Raises MissingTracksError,
        StoreError.
        """
        return Ragged(
            *self._rows(pooling).fill(
                np.arange(len(self)) if keys is None else self._find(keys), layers, out, check
            )
        )

    def scan(
        self,
        pooling: str,
        layers: Sequence[int] | None = None,
        block_bytes: int = 16 << 20,
        check: Check = "first",
    ) -> Iterator[Block]:
        """All tracks once, in the order in which they lie on disk, in blocks of about `block_bytes`: flat
        memory."""
        rows = self._rows(pooling)
        order = rows.disk_order
        width = (
            rows.layout.row_bytes
            if layers is None
            else rows.layout.row_bytes * len(layers) // rows.layout.row_shape[0]
        )
        counts = rows.counts[order]
        group = (np.cumsum(counts) - counts) * width // block_bytes
        for at in np.split(order, np.flatnonzero(np.diff(group)) + 1):
            if len(at):
                yield Block(
                    [k.decode("ascii") for k in self._columns.keys[at].tolist()],
                    *rows.fill(at, layers, None, check),
                )

    def files(self, keys: Sequence[str], pooling: str) -> list[str]:
        """Names, below the store, of the files in which the rows of these tracks lie."""
        return self._rows(pooling).files(self._find(keys))

    def _rows(self, pooling: str) -> PoolingRows:
        self.spec[pooling]  # raises with the names there are
        return self._poolings[pooling]

    def _find(self, keys: Sequence[str]) -> np.ndarray:
        at = self._columns.find(keys)
        if len(at) and at.min() < 0:
            raise MissingTracksError([k for k, i in zip(keys, at, strict=True) if i < 0], self.backend.where)
        return at
