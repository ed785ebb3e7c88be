"""One shard file, mapped and read by byte offset. Lengths are compared before every use, so a truncated file is an error."""

from __future__ import annotations

import mmap
import os
import weakref
from pathlib import Path

import numpy as np

from beatmeter.errors import StoreError, shown
from beatmeter.store.layout import ArrayLayout, checksums, digest

REMEDY = "Run `beatmeter cache verify --full` to see what is damaged and `beatmeter cache repair` to keep the rest."
_WILL_NEED = getattr(mmap, "MADV_WILLNEED", None)
_SMALL = 1 << 20  # bytes of which one tells whether all are in memory
_NO_WAIT = getattr(os, "RWF_NOWAIT", None)


class Shard:
    """`rows` (row, layer, *axes) is a read-only view of the file; nothing is read before it is used."""

    def __init__(self, path: Path, layout: ArrayLayout, rows: int) -> None:
        self.path, self.layout, self.expected = path, layout, layout.size(rows)
        try:
            self._handle = os.open(path, os.O_RDONLY)
        except OSError as error:
            gone = isinstance(error, FileNotFoundError)
            hint = "It may have been replaced and collected since this snapshot was taken: open the store again." if gone else REMEDY
            raise StoreError(f"{shown(path)} cannot be opened: {error.strerror}", hint) from error
        weakref.finalize(self, os.close, self._handle)
        self._require_size(os.fstat(self._handle).st_size)
        self._map = mmap.mmap(self._handle, 0, access=mmap.ACCESS_READ)
        self._stored = np.ndarray((rows, layout.stride), np.uint8, self._map)
        self.rows = self._stored[:, : layout.row_bytes].view(layout.dtype).reshape(rows, *layout.row_shape)
        self._byte = bytearray(1)

    def _require_size(self, size: int) -> None:
        if size != self.expected:
            raise StoreError(f"{shown(self.path)} has {size} bytes, its record says {self.expected}: it was cut or written over", REMEDY)

    def check_size(self) -> None:
        """Raise StoreError if the file is no longer as long as it was: touching a mapping beyond the end kills the process."""
        if self._map.size() != self.expected:
            self._require_size(self._map.size())

    def announce(self, first: int, count: int, begin: int, end: int) -> None:
        """Let the system fetch the bytes `begin` to `end` of these rows in the background, unless they are in memory."""
        stride = self.layout.stride
        last = (first + count - 1) * stride + end - 1
        if _WILL_NEED is None or (self._resident(last) and (last - first * stride < _SMALL or self._resident(first * stride + begin))):
            return
        if 2 * (end - begin) >= stride:
            self._advise(first * stride + begin, (count - 1) * stride + end - begin)
        else:
            for row in range(first, first + count):
                self._advise(row * stride + begin, end - begin)

    def _advise(self, start: int, length: int) -> None:
        page = start // mmap.PAGESIZE * mmap.PAGESIZE
        self._map.madvise(_WILL_NEED, page, start + length - page)  # type: ignore[arg-type]

    def _resident(self, at: int) -> bool:
        """Whether the byte at this offset is in memory. Asking costs a microsecond, announcing memory that is there far more."""
        if _NO_WAIT is None:
            return False
        try:
            return os.preadv(self._handle, (self._byte,), at, _NO_WAIT) == 1
        except OSError:
            return False

    def check(self, first: int, count: int, expected: int, rows: np.ndarray | None = None) -> bool:
        """Whether these rows are those that were committed: each matches its checksum, and the checksums match the
        record's digest. `rows`, when given, is a contiguous copy of them, checked in their stead."""
        data, sums = self.layout.split(self._stored[first : first + count])
        if rows is not None:
            data = rows.reshape(count, -1).view(np.uint8)
        return digest(sums) == expected and np.array_equal(checksums(data), sums)
