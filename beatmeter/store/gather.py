"""Rows of many tracks out of many shards into one array: in the order of the disk, announced ahead, checked
on the way."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np

from beatmeter.errors import StoreError
from beatmeter.store import workers
from beatmeter.store.backend import Backend, Ranges
from beatmeter.store.catalog import Commit, State
from beatmeter.store.layout import ArrayLayout, StoreLayout, checksums, digest
from beatmeter.store.mapped import REMEDY

Check = Literal["first", "always", "never"]
_AHEAD = 32 << 20  # bytes announced to the system before they are copied
_RUN = (
    4 << 20
)  # bytes copied at a time, so that their checksums are computed while they are in the processor's cache


def _open_files_limit() -> int:
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return soft if soft > 0 else 1024
    return 256


class ShardPool:
    """Open shards, the most recently used ones: in a file system each costs two descriptors. Shared between
    threads."""

    def __init__(self, backend: Backend, layout: StoreLayout, commits: Mapping[int, Commit]) -> None:
        self._backend, self._arrays, self._commits = backend, layout.arrays, commits
        self._position = {name: i for i, name in enumerate(layout.arrays)}
        self._open: OrderedDict[tuple[int, str], Ranges] = OrderedDict()
        self._lock = threading.Lock()
        self._most = min(max(_open_files_limit() // 6, 16), 512)

    def name(self, number: int, pooling: str) -> str:
        """The file that holds a pooling of a commit."""
        return f"segments/{self._commits[number].segment}/{self._arrays[pooling].shard}"

    def get(self, number: int, pooling: str) -> Ranges:
        """The shard of a pooling in a commit. Raises StoreError when its file is gone or has another
        length."""
        with self._lock:
            shard = self._open.get((number, pooling))
            if shard is None:
                size = self._arrays[pooling].size(self._commits[number].rows[self._position[pooling]])
                shard = self._open[number, pooling] = self._backend.ranges(self.name(number, pooling), size)
                if len(self._open) > self._most:
                    self._open.popitem(last=False)  # whoever still copies from it keeps it alive
            else:
                self._open.move_to_end((number, pooling))
            return shard


class _Run(NamedTuple):
    """Rows that lie together in a shard and in the result; `tracks` is a range of the order of the disk."""

    number: int  # of the commit
    first: int
    rows: int
    target: int
    tracks: slice


class PoolingRows:
    """The rows of one pooling of a frozen state. Tracks are positions in the state's columns."""

    def __init__(self, pool: ShardPool, layout: ArrayLayout, position: int, state: State) -> None:
        self._pool, self.layout, self.name = pool, layout, layout.pooling.name
        columns = state.columns
        self._keys, self._number = columns.keys, columns.number
        self.first, self.counts, self._digests = (
            columns.first[:, position],
            columns.counts[:, position],
            columns.digests[:, position],
        )
        self._checked = np.zeros(len(columns), bool)

    @cached_property
    def disk_order(self) -> np.ndarray:
        """All tracks in the order in which their rows lie on disk."""
        return np.lexsort((self.first, self._number))

    def files(self, at: np.ndarray) -> list[str]:
        """Names of the files that hold the rows of these tracks."""
        return [self._pool.name(int(number), self.name) for number in np.unique(self._number[at])]

    def fill(
        self, at: np.ndarray, layers: Sequence[int] | None, out: np.ndarray | None, check: Check
    ) -> tuple[np.ndarray, np.ndarray]:
        """Values (row, layer, *axes) and offsets (track + 1,) of the tracks `at`, in that order. See
        `Snapshot.load`."""
        layout = self.layout
        offsets = np.concatenate([[0], np.cumsum(self.counts[at])])
        select, begin, end = self._select(layers)
        shape = (
            int(offsets[-1]),
            layout.row_shape[0] if layers is None else len(layers),
            *layout.row_shape[1:],
        )
        if out is None:
            out = np.empty(shape, layout.dtype)
        elif out.dtype != layout.dtype or out.shape[1:] != shape[1:] or len(out) < shape[0]:
            raise StoreError(
                f"an array of {out.dtype} {out.shape} cannot take rows of {layout.dtype} {shape}",
                "Pass one with that dtype and shape.",
            )
        values = out[: shape[0]]
        fresh = np.full(len(at), check == "always") if check != "first" else ~self._checked[at]
        some_fresh = bool(fresh.any())
        if some_fresh:  # checksums are of whole rows
            begin, end = 0, layout.stride
        runs, order = self._runs(at, offsets[:-1], end - begin)
        whole = select == slice(None)

        def copy(part: list[_Run]) -> None:
            """Rows of these runs into `values`, each announced before it is copied and checked after."""
            ahead: deque[Callable[[], np.ndarray]] = deque()
            announced = waiting = 0
            shard, number = None, -1
            for run in part:
                while announced < len(part) and waiting < _AHEAD:
                    other = part[announced]
                    if shard is None or other.number != number:
                        shard, number = self._pool.get(other.number, self.name), other.number
                    ahead.append(shard.fetch(other.first, other.rows, layout.stride, begin, end))
                    waiting += other.rows * (end - begin)
                    announced += 1
                waiting -= run.rows * (end - begin)
                stored = ahead.popleft()()
                copied = values[run.target : run.target + run.rows]
                copied[...] = layout.values(stored) if whole else layout.values(stored)[:, select]
                if some_fresh:
                    among = order[run.tracks]
                    self._check(at[among[fresh[among]]], run, stored, copied if whole else None)

        workers.share(copy, runs, len(values) * (end - begin))
        return values, offsets

    def _select(self, layers: Sequence[int] | None) -> tuple[slice | list[int], int, int]:
        """Where `layers` lie in a row: an index (a slice when they are evenly spaced: faster) and the range
        of bytes."""
        have = self.layout.pooling.layers
        if layers is None or tuple(layers) == have:
            return slice(None), 0, self.layout.row_bytes
        absent = sorted(set(layers) - set(have))
        if absent or not layers:
            raise StoreError(
                f"layers {absent or 'none'} of {self.name!r} were asked for",
                f"The store holds layers {', '.join(map(str, have))}.",
            )
        at = [have.index(layer) for layer in layers]
        layer_bytes = self.layout.row_bytes // len(have)
        step = at[1] - at[0] if len(at) > 1 else 1
        even = step > 0 and at == list(range(at[0], at[-1] + 1, step))
        return (
            slice(at[0], at[-1] + 1, step) if even else at,
            min(at) * layer_bytes,
            (max(at) + 1) * layer_bytes,
        )

    def _runs(self, at: np.ndarray, targets: np.ndarray, width: int) -> tuple[list[_Run], np.ndarray]:
        """Tracks that are neighbours both on disk and in the result, together, in the order of the disk, and
        that order. `width` is how many bytes of a row are read."""
        order = np.lexsort((self.first[at], self._number[at]))
        number, first, count, target = (
            values[order] for values in (self._number[at], self.first[at], self.counts[at], targets)
        )
        if not len(order):
            return [], order
        group = np.cumsum(count) * width // _RUN
        apart = (
            (np.diff(number) != 0)
            | (np.diff(first) != count[:-1])
            | (np.diff(target) != count[:-1])
            | (np.diff(group) != 0)
        )
        starts = np.concatenate([[0], np.flatnonzero(apart) + 1])
        stops = np.concatenate([starts[1:], [len(order)]])
        rows = np.add.reduceat(count, starts)
        which = [slice(a, b) for a, b in zip(starts.tolist(), stops.tolist(), strict=True)]
        found = zip(
            number[starts].tolist(),
            first[starts].tolist(),
            rows.tolist(),
            target[starts].tolist(),
            which,
            strict=True,
        )
        return [_Run(*run) for run in found], order

    def _check(self, tracks: np.ndarray, run: _Run, stored: np.ndarray, copied: np.ndarray | None) -> None:
        """Raise StoreError unless the rows of these tracks are what was committed: each row matches its
        checksum, and the checksums match the record's digest. `copied`, if given, are the rows of the run,
        checked in their stead."""
        rows, sums = self.layout.split(stored)
        if copied is not None:
            rows = copied.reshape(run.rows, -1).view(np.uint8)
        for track in tracks.tolist():
            mine = slice(
                int(self.first[track]) - run.first,
                int(self.first[track]) - run.first + int(self.counts[track]),
            )
            if digest(sums[mine]) != int(self._digests[track]) or not np.array_equal(
                checksums(rows[mine]), sums[mine]
            ):
                key = self._keys[track].decode("ascii")
                raise StoreError(
                    f"{self.name!r} rows of track {key} are damaged in "
                    f"{self._pool.name(run.number, self.name)}: checksums differ",
                    REMEDY,
                )
            self._checked[track] = True
