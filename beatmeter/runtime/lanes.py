"""Work in threads that share the cores: each computes an item of its own with its share of them.

Kernels of one item then never wait for each other, which costs a little on a quiet machine and most of the
time on a busy one.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")
MOST = 8  # more cores than that share a lane's work


def lanes_for(items: int, device: torch.device) -> int:
    """How many lanes pay for so many items: on a CPU one a core, elsewhere one."""
    return max(1, min(items, torch.get_num_threads(), MOST)) if device.type == "cpu" else 1


def in_lanes(function: Callable[[T, Callable[[], bool]], R], items: Iterable[T], lanes: int) -> Iterator[R]:
    """`function(item, over)` of every item, in their order, by `lanes` threads that work as many items ahead
    of the reader. One lane works in this thread.

    Once `over()` is true nobody waits for the result any more: work that takes long asks and stops. An
    exception of `function` is raised here.
    """
    if lanes <= 1:
        yield from (function(item, lambda: False) for item in items)
        return
    cores, over = torch.get_num_threads(), False
    todo, waiting = iter(items), deque[Future[R]]()
    pool = ThreadPoolExecutor(lanes, "beatmeter-lane", lambda: torch.set_num_threads(max(1, cores // lanes)))
    try:
        while True:
            for item in itertools.islice(todo, lanes - len(waiting)):
                waiting.append(pool.submit(function, item, lambda: over))
            if not waiting:
                return
            yield waiting.popleft().result()
    finally:
        over = True
        pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(cores)  # a part of it holds for the whole process
