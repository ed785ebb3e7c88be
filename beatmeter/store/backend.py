"""Storage backends: what the write protocol asks of the folder or bucket that holds a store, no more.

Publish a finished segment, put a file if its name is free, list, read, remove, read ranges of files that
never change. `Folder` is the backend for file systems, `Bucket` the one for object stores.
"""

from __future__ import annotations

import contextlib
import errno
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from beatmeter.errors import StoreError, shown
from beatmeter.runtime.regular import NotRegularError

# There is no file of that name, or something else that nobody could read; every other OSError says nothing
# about it
ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError, NotRegularError)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)


class UnreadableError(StoreError):
    """A file that cannot be read now. Nothing is known about it: it is neither missing nor damaged."""


@contextlib.contextmanager
def reading(where: object) -> Iterator[None]:
    """Turn an OSError into UnreadableError, unless it says that there is no such file."""
    try:
        yield
    except ABSENT:
        raise
    except OSError as error:
        if error.errno in _DENIED:
            hint = (
                "Its permissions keep this user from reading it: change them, then run the same command "
                "again."
            )
        else:
            hint = (
                "Check the disk or the connection, then run the same command again. If it stays so, put back "
                "a copy of this file, or move it out of the store and run `beatmeter cache repair`."
            )
        raise UnreadableError(f"{shown(where)} cannot be read: {error.strerror or error}", hint) from error


@contextlib.contextmanager
def explained(doing: str, where: object) -> Iterator[None]:
    """Turn an OSError into a StoreError that says what was being done, where, and what to do next."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            hint = (
                "Nothing that was committed is lost: free space or move the cache, then run the same "
                "command again."
            )
        elif error.errno in _DENIED:
            hint = (
                "The folder cannot be written by this user: change its permissions or use another cache "
                "folder. Reading works."
            )
        elif isinstance(error, FileNotFoundError):
            hint = (
                "It was removed meanwhile, as by `cache gc` with less grace than a commit takes. Nothing "
                "that was committed is lost: run the same command again."
            )
        else:
            hint = "Nothing that was committed is lost: check the disk, then run the same command again."
        raise StoreError(f"{doing} failed at {shown(where)}: {error.strerror or error}", hint) from error


def full(error: StoreError) -> bool:
    """Whether this comes from a disk or a quota that has no room."""
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in _FULL


class Ranges(ABC):
    """A file that never changes, read by ranges. Shared between threads. `whole_records`: parts of records
    are not read without the rest."""

    whole_records = False

    @abstractmethod
    def fetch(self, first: int, count: int, stride: int, begin: int, end: int) -> Callable[[], np.ndarray]:
        """Start to read the bytes `begin` to `end` of each of `count` records of `stride` bytes, from record
        `first` on.

        Calling the result waits for them: (count, stride) uint8, in which other bytes may be anything; not to
        be kept or written to. That call raises StoreError when the file is gone, shorter than it was, or
        cannot be read.
        """

    def pour(self, first: int, stride: int, rows: np.ndarray) -> np.ndarray | None:
        """Read records of `stride` bytes, from record `first` on: their first bytes into `rows` (record,
        byte), without a stop on the way, the others are returned (record, byte). None where `fetch` is as
        fast: then nothing was read."""
        return None


class Backend(ABC):
    """Where one store lies. Names are relative to its root, with `/`; what returns has happened for good."""

    where: str  # for messages, and to open the store again

    @abstractmethod
    def make(self, *names: str) -> None:
        """Make the root and these folders in it; existing ones are kept."""

    @abstractmethod
    def exists(self, name: str = "") -> bool:
        """Whether there is a file of that name, or a folder with something in it. Raises UnreadableError."""

    @abstractmethod
    def list(self, name: str) -> list[str]:
        """Names of what is in a folder; none when it does not exist. Raises UnreadableError when it may not
        be listed or entered, StoreError."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """All bytes of a file. Raises one of ABSENT, UnreadableError."""

    @abstractmethod
    def open(self, name: str) -> BinaryIO:
        """A file to read through. Raises one of ABSENT, UnreadableError; reading from it may raise
        OSError."""

    @abstractmethod
    def ranges(self, name: str, size: int) -> Ranges:
        """A file of `size` bytes to read by ranges. Raises StoreError when it is gone or has another size."""

    def size(self, name: str) -> int | None:
        """Bytes of a file, None when there is none. Raises UnreadableError when that cannot be known."""
        return self.sizes([name])[0]

    @abstractmethod
    def sizes(self, names: Sequence[str]) -> Sequence[int | None]:
        """`size` of many files in one folder or its folders."""

    def wrong_with(self, name: str) -> str:
        """Why there is no file of that name, as the end of a sentence ("is missing", "is a folder", "is a
        FIFO"); nothing when there is one. Raises UnreadableError."""
        return "is missing" if self.size(name) is None else ""

    def survey(self, folder: str, names: Sequence[str]) -> tuple[set[str], Sequence[int | None]]:
        """Names of what is in a folder, and the `sizes` of files below it."""
        return set(self.list(folder)), self.sizes(names)

    @abstractmethod
    def put_if_absent(self, name: str, data: bytes) -> bool:
        """Put a whole file under `name` unless something has that name already; False then. A reader never
        sees a part, and of several writers exactly one wins."""

    @abstractmethod
    def replace(self, name: str, data: bytes) -> None:
        """Put a whole file under `name` in place of what was there."""

    @abstractmethod
    def note(self, name: str, data: bytes) -> None:
        """Put a file that helps when others are damaged: not flushed, a reader may see a part, and failing is
        no error."""

    @abstractmethod
    def stage(self) -> Path:
        """A new empty folder of the file system for work in progress; `publish` or `discard` it."""

    @abstractmethod
    def publish(self, staged: Path, name: str) -> None:
        """Give a staged folder its final name, once everything in it is durable. Until a record names it
        nobody looks there."""

    @abstractmethod
    def discard(self, staged: Path) -> None:
        """Forget a staged folder."""

    @abstractmethod
    def move(self, name: str, to: str) -> None:
        """Rename a file or a folder within the store."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a file or a folder with all that is in it."""

    @abstractmethod
    def bytes_below(self, name: str) -> int:
        """Bytes of all files in a folder, or of one file."""

    @abstractmethod
    def age(self, name: str, now: float) -> float:
        """Seconds since the newest change of a file or folder, by the backend's clock; 0 when it is gone."""

    @abstractmethod
    def now(self) -> float:
        """The backend's own clock, which is what ages are measured with: clocks of machines that share it may
        differ."""

    @abstractmethod
    def lock(self, doing: str) -> contextlib.AbstractContextManager[None]:
        """Hold the store's maintenance lock. StoreError when another holds it."""


def removed(where: str) -> StoreError:
    """The error for a segment that was there when the snapshot was taken."""
    return StoreError(
        f"{where} is gone",
        "It may have been replaced and collected since this snapshot was taken: open the store again.",
    )
