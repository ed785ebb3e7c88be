"""Work in processes, in order, a bounded number of items ahead; an item that kills its process is named, not
the end."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import TypeVar

from joblib.externals.loky import ProcessPoolExecutor

T = TypeVar("T")
R = TypeVar("R")

_LOOK = 0.5  # seconds between two looks: of a process for its parent, of a reader for a stop
_ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"
)  # the processes are the threads


@dataclass(frozen=True)
class Crash:
    """Stands for the result of an item whose process died while it worked on it alone."""


def ordered(
    function: Callable[[T], R],
    items: Iterable[T],
    jobs: int,
    depth: int = 0,
    stop: threading.Event | None = None,
) -> Iterator[R | Crash]:
    """`function` of every item, in their order, by `jobs` processes that work at most `depth` items ahead of
    the reader (default: 2 per job and 2 more).

    `jobs` of 1 or less works in this process, where a crash is a crash. An exception of `function` is raised
    here. Once `stop` is set no more results come. The processes are this call's own and end with it, also
    when the reader stops early, and when this process is killed.
    """
    stop = stop or threading.Event()
    if jobs <= 1:
        for item in items:
            if stop.is_set():
                return
            yield function(item)
        return
    depth = depth or 2 * jobs + 2
    todo = iter(items)
    waiting: deque[tuple[T, Future[R]]] = deque()
    pool = _pool(jobs)
    try:
        while True:
            while len(waiting) < depth:
                try:
                    item = next(todo)
                except StopIteration:
                    break
                try:
                    waiting.append((item, pool.submit(function, item)))
                except (
                    BrokenProcessPool
                ):  # died since the last result: `item` waits for its turn like the others
                    waiting.append((item, _broken()))
            if not waiting:
                return
            item, future = waiting.popleft()
            try:
                result: R | Crash = _result(future, pool, stop)
            except BrokenProcessPool:  # perhaps a neighbour's fault: this one alone, then everyone once more
                _stop(pool)
                result = _alone(function, item, stop)
                pool = _pool(jobs)
                waiting = deque((other, pool.submit(function, other)) for other, _ in waiting)
            yield result
    except _StoppedError:
        return
    finally:
        _stop(pool)


def _pool(jobs: int) -> ProcessPoolExecutor:
    pool = ProcessPoolExecutor(
        max_workers=jobs, env=_ONE_THREAD, initializer=_belong_to, initargs=(os.getpid(),)
    )
    end = pool._result_queue._writer
    end.close = _one_at_a_time(
        end.close
    )  # `_stop` and the pool's own thread close it, perhaps at the same moment
    return pool


def _one_at_a_time(close: Callable[[], None]) -> Callable[[], None]:
    lock = threading.Lock()

    def locked() -> None:
        with lock:
            close()

    return locked


def _belong_to(parent: int) -> None:
    """A process of a pool ends when its parent has ended, in whatever way, and leaves Ctrl-C, which a
    terminal sends to both, to it. A thread asks, because the kernel's own signal (PR_SET_PDEATHSIG) comes
    when the parent's thread ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK)
        os._exit(1)

    threading.Thread(target=watch, name="beatmeter-parent", daemon=True).start()


def _stop(pool: ProcessPoolExecutor) -> None:
    """End the processes at once, whatever they do. The pool then takes the path of a crash, which is sound;
    its own `shutdown(kill_workers=True)` trips in its thread over items that were just submitted.

    Our own end of the pipe of results goes first: that thread may be in the middle of one, and would wait for
    the rest for ever."""
    if (results := pool._result_queue) is not None:
        results._writer.close()
    for process in list(pool._processes.values()):
        process.terminate()
    pool.shutdown(wait=True)


def _broken() -> Future[R]:
    future: Future[R] = Future()
    future.set_exception(BrokenProcessPool())
    return future


class _StoppedError(Exception):
    """Nobody waits for the result any more."""


def _result(future: Future[R], pool: ProcessPoolExecutor, stop: threading.Event) -> R:
    died = False
    while not wait([future], _LOOK).done:
        if stop.is_set():
            raise _StoppedError
        if (
            died
        ):  # and the pool has not said so: it waits for the rest of a result that the process was sending
            _stop(pool)
        died = any(not process.is_alive() for process in list(pool._processes.values()))
    return future.result()


def _alone(function: Callable[[T], R], item: T, stop: threading.Event) -> R | Crash:
    pool = _pool(1)
    try:
        return _result(pool.submit(function, item), pool, stop)  # type: ignore[no-any-return]
    except BrokenProcessPool:
        return Crash()
    finally:
        _stop(pool)
