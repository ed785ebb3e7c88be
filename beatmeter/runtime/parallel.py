"""Work in processes, in order, a bounded number of items ahead; an item that kills its process is named, not
the end."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from dataclasses import dataclass
from multiprocessing import Pipe
from typing import Any, Generic, TypeVar

from beatmeter.errors import BeatmeterError

T = TypeVar("T")
R = TypeVar("R")

_LOOK = 0.5  # seconds between two looks of a reader for a stop
_ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"
)  # the processes are the threads
_TRIES = 2  # deaths of a process that are one item's fault
# Ctrl-C, which a terminal sends to all, is left to the parent, and what it can import can be imported there.
_BEGIN = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    "signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT]); import json; "
    "sys.path[:] = json.loads(sys.argv[1]); from beatmeter.runtime.worker import serve; "
    "serve(*map(int, sys.argv[2:]))"
)


@dataclass(frozen=True)
class Crash:
    """Stands for the result of an item whose process died while it worked on it, and whose second process did
    too."""


class WorkerError(BeatmeterError):
    """Processes that work beside this one do not start."""


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
    when the reader stops early, and when this process is killed. Raises WorkerError when they do not start.
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
    waiting: deque[Future[R | Crash]] = deque()
    workers = _Workers(function, jobs)
    try:
        while True:
            while len(waiting) < depth:
                try:
                    waiting.append(workers.submit(next(todo)))
                except StopIteration:
                    break
            if not waiting:
                return
            future = waiting.popleft()
            while not wait([future], _LOOK).done:
                if stop.is_set():
                    return
            yield future.result()
    finally:
        workers.end()


class _Workers(Generic[T, R]):
    """Processes that answer one item at a time. Each has a thread here that hands it items and takes its
    results, so a death is known at once, and whose item it was."""

    def __init__(self, function: Callable[[T], R], count: int) -> None:
        from joblib import wrap_non_picklable_objects

        # Functions of scripts, notebooks and tests can be sent too, which pickle alone refuses.
        self._function = wrap_non_picklable_objects(function)
        self._todo: queue.SimpleQueue[tuple[T, Future[R | Crash]] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._ended = False
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def submit(self, item: T) -> Future[R | Crash]:
        future: Future[R | Crash] = Future()
        self._todo.put((item, future))
        return future

    def end(self) -> None:
        """End the processes at once, whatever they do: the pipes break, and the threads here end too."""
        with self._lock:
            self._ended = True
            for process in self._processes:
                process.kill()
        for _ in self._threads:
            self._todo.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        """What a thread does: items go to its process, and to a new one when that has died."""
        worker: _Worker | None = None
        try:
            while not self._ended and (task := self._todo.get()) is not None:
                item, future = task
                try:
                    for _ in range(_TRIES):
                        worker = worker or self._start()
                        try:
                            future.set_result(worker.ask(item))
                            break
                        except _DeadError:
                            self._remove(worker)
                            worker = None
                    else:
                        future.set_result(Crash())
                except BaseException as error:  # of the function, of pickling, of starting: the reader's
                    future.set_exception(error)
        finally:
            if worker is not None:
                self._remove(worker)

    def _start(self) -> _Worker:
        with self._lock:
            if self._ended:
                raise WorkerError("processes were to end before they had begun")
            worker = _Worker()
            self._processes.add(worker.process)
        try:
            worker.ask(self._function)
        except _DeadError:
            status = self._remove(worker)
            raise WorkerError(
                f"a process that should work beside this one ended before it began (exit status {status})",
                "If memory is short, use fewer --jobs.",
            ) from None
        except BaseException:
            self._remove(worker)
            raise
        return worker

    def _remove(self, worker: _Worker) -> int:
        with self._lock:
            self._processes.discard(worker.process)
        return worker.end()


class _DeadError(Exception):
    """The process has ended, perhaps in the middle of an answer."""


class _Worker:
    """One process and the pipe to it."""

    def __init__(self) -> None:
        self.pipe, theirs = Pipe()
        with theirs, _ctrl_c_held():  # what is born meanwhile holds it too, until it can ignore it
            self.process = subprocess.Popen(
                [sys.executable, "-c", _BEGIN, json.dumps(sys.path), str(theirs.fileno()), str(os.getpid())],
                env={**os.environ, **_ONE_THREAD},
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )

    def ask(self, message: object) -> Any:
        """The answer to a message; raises what it ended with."""
        try:
            self.pipe.send(message)
            while not self.pipe.poll(_LOOK):
                if self.process.poll() is not None and not self.pipe.poll():
                    raise _DeadError
            good, answer = self.pipe.recv()
        except (EOFError, OSError) as error:
            raise _DeadError from error
        if not good:
            raise answer
        return answer

    def end(self) -> int:
        """End the process; its exit status."""
        self.pipe.close()
        self.process.kill()
        return self.process.wait()


@contextlib.contextmanager
def _ctrl_c_held() -> Iterator[None]:
    """Within it this thread is not sent Ctrl-C: other threads are, or it comes after."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
