"""Items through threads with bounded queues between: memory stays flat, errors arrive, leaving early stops
everything."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class ClosedError(Exception):
    """Nothing can be put any more, or nothing will come."""


class Channel(Generic[T]):
    """A queue of at most `size` items that can be ended (what is in it is still given out) or aborted."""

    def __init__(self, size: int) -> None:
        self._items: deque[T] = deque()
        self._size, self._ended, self._aborted = size, False, False
        self._changed = threading.Condition()

    def put(self, item: T) -> None:
        """Wait for room. ClosedError after `abort`."""
        with self._changed:
            self._changed.wait_for(lambda: self._aborted or len(self._items) < self._size)
            if self._aborted:
                raise ClosedError
            self._items.append(item)
            self._changed.notify_all()

    def get(self, timeout: float | None = None) -> T | None:
        """Wait for an item, None after `timeout` seconds without one. ClosedError when none will come."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._items) or self._ended or self._aborted, timeout)
            if self._aborted or (self._ended and not self._items):
                raise ClosedError
            if not self._items:
                return None
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def end(self) -> None:
        """No more will be put."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def abort(self) -> None:
        """Drop what is in it and turn everybody away."""
        with self._changed:
            self._aborted = True
            self._items.clear()
            self._changed.notify_all()


class _Raised:
    def __init__(self, error: BaseException) -> None:
        self.error = error


def through(items: Iterable[T], work: Callable[[T], R], threads: int, ahead: int) -> Generator[R, None, None]:
    """`work` of every item, in the order in which it is done: `items` is read by a thread of its own, at most
    `ahead` items before `threads` others that work, and they at most `ahead` results before the reader.

    An exception of `items` or `work` is raised here. When the reader stops, so do the threads, after what
    they have in hand.
    """
    todo: Channel[T] = Channel(ahead)
    done: Channel[R | _Raised] = Channel(ahead)
    left = threads
    lock = threading.Lock()

    def feed() -> None:
        source = iter(items)
        try:
            for item in source:
                todo.put(item)
            todo.end()
        except ClosedError:
            pass
        except BaseException as error:
            _tell(done, error)
            todo.abort()
        finally:
            if isinstance(source, Iterator) and hasattr(source, "close"):
                source.close()

    def serve() -> None:
        nonlocal left
        try:
            while (item := todo.get()) is not None:
                done.put(work(item))
        except ClosedError:
            pass
        except BaseException as error:
            _tell(done, error)
        with lock:
            left -= 1
            if left == 0:
                done.end()

    workers = [
        threading.Thread(target=t, name=f"beatmeter-{t.__name__}", daemon=True)
        for t in (feed, *[serve] * threads)
    ]
    for thread in workers:
        thread.start()
    try:
        while True:
            result = done.get()
            if isinstance(result, _Raised):
                raise result.error
            assert result is not None
            yield result
    except ClosedError:
        return
    finally:
        todo.abort()
        done.abort()
        for thread in workers:
            thread.join()


def _tell(done: Channel[R | _Raised], error: BaseException) -> None:
    with contextlib.suppress(ClosedError):
        done.put(_Raised(error))
