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
        self._without: set[tuple[int, str]] = set()  # shards beside which lie no checksums of layers
        self._lock = threading.Lock()
        self._most = min(max(_open_files_limit() // 6, 16), 512)

    def name(self, number: int, pooling: str) -> str:
        """The file that holds a pooling of a commit."""
        return f"segments/{self._commits[number].segment}/{self._arrays[pooling].shard}"

    def get(self, number: int, pooling: str) -> Ranges:
        """The shard of a pooling in a commit. Raises StoreError when its file is gone or has another
        length."""
        array, rows = self._arrays[pooling], self._rows(number, pooling)
        return self._opened(number, array.shard, array.size(rows))

    def layer_sums(self, number: int, pooling: str) -> Ranges | None:
        """The checksums of the layers of that shard, where they help and can be read: earlier versions wrote
        none."""
        array = self._arrays[pooling]
        if (number, pooling) in self._without:
            return None
        size = self._rows(number, pooling) * array.layer_sums_stride
        try:
            if array.has_layer_sums and not self.get(number, pooling).whole_records:
                return self._opened(number, array.layer_sums_name, size)
        except StoreError:
            pass  # whole rows tell then, or what is wrong with the shard
        self._without.add((number, pooling))
        return None

    def _rows(self, number: int, pooling: str) -> int:
        return self._commits[number].rows[self._position[pooling]]

    def _opened(self, number: int, file: str, size: int) -> Ranges:
        with self._lock:
            opened = self._open.get((number, file))
            if opened is None:
                opened = self._backend.ranges(f"segments/{self._commits[number].segment}/{file}", size)
                self._open[number, file] = opened
                if len(self._open) > self._most:
                    self._open.popitem(last=False)  # whoever still copies from it keeps it alive
            else:
                self._open.move_to_end((number, file))
            return opened


class _Run(NamedTuple):
    """Rows that lie together in a shard and in the result; `tracks` is a range of the order of the disk."""

    number: int  # of the commit
    first: int
    rows: int
    target: int
    tracks: slice


class _Announced(NamedTuple):
    """A run that is on its way: where it comes from, its stored rows, and the checksums of their layers where
    those are checked."""

    source: Ranges
    rows: Callable[[], np.ndarray]
    layer_sums: Callable[[], np.ndarray] | None


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
        self._checked_layers: np.ndarray | None = None  # (track, layer), once single layers are read
        self._lock = threading.Lock()

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
        whole = select == slice(None)
        positions = None if whole else np.arange(layout.row_shape[0])[select]
        fresh = self._fresh(at, positions, check)
        some_fresh = bool(fresh.any())
        runs, order = self._runs(at, offsets[:-1], end - begin)
        sums_of = dict[int, Ranges | None]()
        if some_fresh and not whole:
            numbers = np.unique(self._number[at[fresh]]).tolist()
            sums_of = {number: self._pool.layer_sums(number, self.name) for number in numbers}

        def span(run: _Run) -> tuple[int, int]:
            """The bytes of a row that are needed: all where only whole rows have checksums."""
            if some_fresh and sums_of.get(run.number) is None:
                return 0, layout.stride
            return begin, end

        def copy(part: list[_Run]) -> None:
            """Rows of these runs into `values`, each announced before it is copied and checked after."""
            ahead: deque[_Announced] = deque()
            announced = waiting = 0
            shard, number = None, -1
            for run in part:
                while announced < len(part) and waiting < _AHEAD:
                    other = part[announced]
                    if shard is None or other.number != number:
                        shard, number = self._pool.get(other.number, self.name), other.number
                    sums = sums_of.get(number)
                    ahead.append(
                        _Announced(
                            shard,
                            shard.fetch(other.first, other.rows, layout.stride, *span(other)),
                            None if sums is None else sums.fetch(other.first, other.rows, width, 0, width),
                        )
                    )
                    waiting += other.rows * (end - begin)
                    announced += 1
                waiting -= run.rows * (end - begin)
                source, stored_rows, stored_sums = ahead.popleft()
                copied = values[run.target : run.target + run.rows]
                tail = source.pour(run.first, layout.stride, _as_bytes(copied)) if whole else None
                if tail is None:
                    stored = stored_rows()
                    copied[...] = layout.values(stored) if whole else layout.values(stored)[:, select]
                    tail = stored[:, layout.row_bytes :]
                if not some_fresh:
                    continue
                among = order[run.tracks]
                tracks = at[among[fresh[among]]]
                if stored_sums is not None:
                    assert positions is not None
                    self._check_layers(tracks, run, source, copied, positions, stored_sums())
                elif len(tracks):
                    self._check(tracks, run, _as_bytes(copied) if whole else stored, tail)

        width = layout.layer_sums_stride
        workers.share(copy, runs, len(values) * (end - begin))
        return values, offsets

    def _fresh(self, at: np.ndarray, positions: np.ndarray | None, check: Check) -> np.ndarray:
        """Which of the tracks `at` are to be checked: (track,) bool; of these layers, or of whole rows."""
        if check != "first":
            return np.full(len(at), check == "always")
        fresh: np.ndarray = ~self._checked[at]
        if positions is not None and self._checked_layers is not None:
            fresh &= ~self._checked_layers[np.ix_(at, positions)].all(axis=1)
        return fresh

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

    def _check(self, tracks: np.ndarray, run: _Run, rows: np.ndarray, tail: np.ndarray) -> None:
        """Raise StoreError unless the rows of these tracks are what was committed: each row matches its
        checksum, and the checksums match the record's digest. `rows` (row, at least row_bytes) and
        `tail`, what follows each row on disk, are bytes of the run."""
        rows, sums = rows[:, : self.layout.row_bytes], tail[:, :4].copy().view("<u4")[:, 0]
        for track in tracks.tolist():
            mine = self._part_of(run, track)
            if digest(sums[mine]) != int(self._digests[track]) or not np.array_equal(
                checksums(rows[mine]), sums[mine]
            ):
                raise self._damaged(run, track)
            self._checked[track] = True

    def _check_layers(
        self,
        tracks: np.ndarray,
        run: _Run,
        source: Ranges,
        copied: np.ndarray,
        positions: np.ndarray,
        stored_sums: np.ndarray,
    ) -> None:
        """The same for `copied` rows of the run that have the layers at these positions: they match the
        checksums of layers, which match the record's digest together. Where those do not, they are damaged
        themselves, and whole rows tell."""
        layout = self.layout
        sums = stored_sums.copy().view("<u4")
        found, joined = layout.layer_sums(_as_bytes(copied), range(len(positions))), layout.joined(sums)
        for track in tracks.tolist():
            mine = self._part_of(run, track)
            if digest(joined[mine]) != int(self._digests[track]):
                first, count = int(self.first[track]), int(self.counts[track])
                stored = source.fetch(first, count, layout.stride, 0, layout.stride)()
                part = _Run(run.number, first, count, 0, slice(0))
                self._check(np.array([track]), part, stored, stored[:, layout.row_bytes :])
                copied[mine] = layout.values(stored)[:, positions]
            elif not np.array_equal(found[mine], sums[mine][:, positions]):
                raise self._damaged(run, track)
            else:
                self._remember(track, positions)

    def _remember(self, track: int, positions: np.ndarray) -> None:
        if self._checked_layers is None:
            with self._lock:
                if self._checked_layers is None:
                    self._checked_layers = np.zeros((len(self._checked), self.layout.row_shape[0]), bool)
        self._checked_layers[track, positions] = True

    def _part_of(self, run: _Run, track: int) -> slice:
        """Where the rows of a track lie among those of its run."""
        first = int(self.first[track]) - run.first
        return slice(first, first + int(self.counts[track]))

    def _damaged(self, run: _Run, track: int) -> StoreError:
        key, file = self._keys[track].decode("ascii"), self._pool.name(run.number, self.name)
        return StoreError(
            f"{self.name!r} rows of track {key} are damaged in {file}: checksums differ", REMEDY
        )


def _as_bytes(rows: np.ndarray) -> np.ndarray:
    """Rows that lie together as bytes (row, byte), a view."""
    return rows.reshape(len(rows), -1).view(np.uint8)
