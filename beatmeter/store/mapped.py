"""A file of a file system, mapped. Its length is compared before every use, so a truncated file is an
error."""

from __future__ import annotations

import mmap
import os
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from beatmeter.errors import StoreError, shown
from beatmeter.runtime.regular import open_handle
from beatmeter.store.backend import ABSENT, Ranges, reading, removed

REMEDY = (
    "Run `beatmeter cache verify --full` to see what is damaged and `beatmeter cache repair` to keep the "
    "rest."
)
_WILL_NEED = getattr(mmap, "MADV_WILLNEED", None)
_LONG = 1 << 20  # bytes of a run; of a shorter one, one byte tells whether all are in memory
_LEAST_ROW = 4096  # bytes of a row from which that pays
_VECTORS = 512  # rows read by one call: a row and what follows it are two of 1024 buffers
_NO_WAIT = getattr(os, "RWF_NOWAIT", None)


class MappedFile(Ranges):
    """Nothing is read before it is used."""

    def __init__(self, path: Path, size: int) -> None:
        self.path, self.expected = path, size
        try:
            with reading(path):
                self._handle = open_handle(path)
        except ABSENT as error:
            if isinstance(error, FileNotFoundError):
                raise removed(shown(path)) from None
            raise StoreError(f"{shown(path)} cannot be read: {error.strerror}", REMEDY) from None
        weakref.finalize(self, os.close, self._handle)
        self._require_size(os.fstat(self._handle).st_size)
        self._map = mmap.mmap(self._handle, 0, access=mmap.ACCESS_READ)
        self._bytes = np.frombuffer(self._map, np.uint8)
        self._byte = bytearray(1)

    def _require_size(self, size: int) -> None:
        if size != self.expected:
            raise StoreError(
                f"{shown(self.path)} has {size} bytes, its record says {self.expected}: it was cut or "
                "written over",
                REMEDY,
            )

    def fetch(self, first: int, count: int, stride: int, begin: int, end: int) -> Callable[[], np.ndarray]:
        self._announce(first, count, stride, begin, end)
        return partial(self._view, first, count, stride)

    def _view(self, first: int, count: int, stride: int) -> np.ndarray:
        if (
            self._map.size() != self.expected
        ):  # touching a mapping beyond the end of its file kills the process
            self._require_size(self._map.size())
        view: np.ndarray = self._bytes[first * stride : (first + count) * stride].reshape(count, stride)
        return view

    def pour(self, first: int, stride: int, rows: np.ndarray) -> np.ndarray | None:
        """Long runs that are not in memory: reading copies once, a mapping takes a fault for every page
        before it is copied."""
        count, length = rows.shape
        size = count * stride
        if size < _LONG or length < _LEAST_ROW or not hasattr(os, "preadv"):
            return None
        if self._resident(first * stride) and self._resident(first * stride + size - 1):
            return None
        tail = np.empty((count, stride - length), np.uint8)
        for begin in range(0, count, _VECTORS):
            end = min(begin + _VECTORS, count)
            buffers = [part for i in range(begin, end) for part in (rows[i], tail[i])]
            if os.preadv(self._handle, buffers, (first + begin) * stride) != (end - begin) * stride:
                return None  # cut, or the system had enough: `fetch` tells
        return tail

    def _announce(self, first: int, count: int, stride: int, begin: int, end: int) -> None:
        """Let the system fetch these bytes in the background, unless they are in memory. Long runs it reads
        ahead by itself, faster."""
        last = (first + count - 1) * stride + end - 1
        dense, long = 2 * (end - begin) >= stride, last - first * stride >= _LONG
        if (
            _WILL_NEED is None
            or (dense and long)
            or (self._resident(last) and (not long or self._resident(first * stride + begin)))
        ):
            return
        if dense:
            self._advise(first * stride + begin, (count - 1) * stride + end - begin)
        else:
            for record in range(first, first + count):
                self._advise(record * stride + begin, end - begin)

    def _advise(self, start: int, length: int) -> None:
        page = start // mmap.PAGESIZE * mmap.PAGESIZE
        self._map.madvise(_WILL_NEED, page, start + length - page)  # type: ignore[arg-type]

    def _resident(self, at: int) -> bool:
        """Whether the byte at this offset is in memory. Asking costs a microsecond, announcing memory that is
        there far more."""
        if _NO_WAIT is None:
            return False
        try:
            return os.preadv(self._handle, (self._byte,), at, _NO_WAIT) == 1
        except OSError:
            return False
