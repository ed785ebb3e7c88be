"""A few threads that copy at the same time: one core does not use all of the memory's bandwidth, nor pages in
fast enough."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from beatmeter.runtime.cores import usable_cores

T = TypeVar("T")

MOST = 4  # threads; memory is busy then
_WORTH = 4 << 20  # bytes for which it pays to wake another thread

_helpers: ThreadPoolExecutor | None = None


def _forget() -> None:
    """A forked process has none of its parent's threads."""
    global _helpers
    _helpers = None


os.register_at_fork(after_in_child=_forget)


def share(work: Callable[[list[T]], None], items: Sequence[T], size: int) -> None:
    """`work` on all of `items`, in neighbouring parts by several threads when `size` bytes are worth it.
    Raises what any part raises, after all have ended."""
    global _helpers
    parts = min(MOST, usable_cores(), len(items), max(1, size // _WORTH))
    if parts <= 1:
        work(list(items))
        return
    if _helpers is None:
        _helpers = ThreadPoolExecutor(MOST - 1, "beatmeter-copy")
    edges = [len(items) * i // parts for i in range(parts + 1)]
    others = [_helpers.submit(work, list(items[a:b])) for a, b in itertools.pairwise(edges[1:])]
    try:
        work(list(items[: edges[1]]))
    finally:
        errors = [future.exception() for future in others]
    for error in errors:
        if error is not None:
            raise error
