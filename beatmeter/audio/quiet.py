"""libmpg123, inside libsndfile, prints notes about frames that it does not like; what matters of them our own
errors say.

It prints to the C library's variable `stderr`. Meanwhile that names a stream to nowhere; the file descriptor
2, through which Python, its threads and child processes write, stays as it is. glibc's manual allows the
assignment; with other C libraries nothing is done.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
from collections.abc import Iterator

_lock = threading.Lock()
_inside = 0  # calls that are quiet now, in all threads
_nowhere: int | None = None  # FILE*, opened once and kept: a thread may still print to it
_original: int | None = None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """C code that prints to `stderr` is not heard within the block, which should hold one call. Blocks of
    several threads overlap: the last that ends gives the stream back."""
    global _inside, _nowhere, _original
    stream = _stderr()
    if stream is None:
        yield
        return
    with _lock:
        _nowhere = _nowhere or _open_nowhere()
        if _inside == 0:
            _original, stream.value = stream.value, _nowhere or stream.value
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                stream.value = _original


def _stderr() -> ctypes.c_void_p | None:
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return ctypes.c_void_p.in_dll(library, "stderr") if hasattr(library, "gnu_get_libc_version") else None


def _open_nowhere() -> int | None:
    fopen = ctypes.CDLL(None).fopen
    fopen.restype, fopen.argtypes = ctypes.c_void_p, (ctypes.c_char_p, ctypes.c_char_p)
    stream: int | None = fopen(os.fsencode(os.devnull), b"we")
    return stream
