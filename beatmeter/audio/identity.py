"""What a track is: the sha256 of its file's bytes. A cache by path, size, time and inode makes asking again
cheap.

The cache is one sqlite file. It is only a memory: delete it at any time, share it between processes; when it
cannot be read or written, keys are computed without it.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from beatmeter.audio.reader import require_file
from beatmeter.errors import AudioError, shown
from beatmeter.runtime.paths import StrPath, as_path, as_paths
from beatmeter.runtime.progress import Tick, untold

Stamp = tuple[int, int, int]
STOPPED = "stopped"  # kind of the error of a file that was not read to its end, as asked
CACHE_NAME = "track-keys.sqlite"
_TABLE = (
    "CREATE TABLE IF NOT EXISTS keys (path BLOB PRIMARY KEY, size INTEGER, mtime INTEGER, inode INTEGER, "
    "key TEXT) WITHOUT ROWID"
)
_LOOK_UP = 500  # paths per query, below sqlite's limit of 999 parameters
_WRITE = 2000  # keys per transaction
_SETTLED = 2_000_000_000  # ns: a file changed more recently could change again within the same timestamp
_HALF = 1 << 63
_BUSY = 30.0  # seconds to wait for another process's transaction


def track_key(path: str | os.PathLike[str]) -> str:
    """Hex sha256 of the file's bytes. Raises AudioError when it cannot be read or changes meanwhile."""
    return _hash(Path(path))[0]


def track_keys(
    paths: StrPath | Iterable[StrPath],
    cache: StrPath | None = None,
    jobs: int = 1,
    tick: Tick = untold,
    stop: threading.Event | None = None,
) -> list[str | AudioError]:
    """The key of every path, in order, or the AudioError that says why it has none.

    `cache` is the folder of the memory of earlier keys (None: compute them all); `jobs` files are read at a
    time. `tick(n)` is called as n more paths are known. Once `stop` is set no more is read; what has no key
    yet gets an AudioError of the kind stopped.
    """
    paths = as_paths(paths)
    stop = stop or threading.Event()
    result: list[str | AudioError | None] = [None] * len(paths)
    memory = None if cache is None else _Memory(as_path(cache) / CACHE_NAME)
    unknown: list[int] = []
    for at in _batches(range(len(paths)), _LOOK_UP):
        states = {i: _state(paths[i]) for i in at}
        known = memory.get([s for s in states.values() if s is not None]) if memory else {}
        for i, state in states.items():
            result[i] = known.get(state) if state is not None else None
        unknown += [i for i in at if result[i] is None]
        tick(sum(result[i] is not None for i in at))
    with (
        ThreadPoolExecutor(max(1, jobs)) as pool,
        _set_on_error(stop),
    ):  # Ctrl-C does not wait for large files
        for at in _batches(unknown, _WRITE):
            learned: list[tuple[_State, str]] = []
            for i, outcome in zip(
                at, pool.map(partial(_try_hash, stop), [paths[i] for i in at]), strict=True
            ):
                if isinstance(outcome, AudioError):
                    result[i] = outcome
                else:
                    result[i] = outcome[0]
                    learned.append((outcome[1], outcome[0]))
                tick(1)
            if memory:
                memory.put(learned)
    return [key for key in result if key is not None]


def stamp(path: Path) -> Stamp | None:
    """Size, time of change (ns) and inode of a file: while they stay, so do its bytes. None when it cannot be
    asked."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_size, status.st_mtime_ns, status.st_ino


def require_unchanged(path: Path, before: Stamp | None) -> None:
    """Raise AudioError when the file is not what its stamp from before says: its bytes may not be those of
    its key."""
    if stamp(path) != before:
        raise AudioError(
            f"{shown(path)} changed while it was read", "Run again when it is complete.", "changed"
        )


@dataclass(frozen=True)
class _State:
    """What tells one state of a file from another without reading it."""

    path: bytes
    size: int
    mtime: int  # ns
    inode: int


def _state(path: Path) -> _State | None:
    found = stamp(path)
    return None if found is None else _State(os.fsencode(os.path.abspath(path)), *found)  # noqa: PTH100 (links stay as they are)


class _Stoppable(io.FileIO):
    """A file that is read until somebody says stop."""

    stop: threading.Event | None = None

    def readinto(self, buffer: Any) -> int:
        if self.stop is not None and self.stop.is_set():
            raise AudioError(f"{shown(self.name)} was not read: stopped", kind=STOPPED)
        return super().readinto(buffer)


@contextlib.contextmanager
def _set_on_error(event: threading.Event) -> Iterator[None]:
    try:
        yield
    except BaseException:
        event.set()
        raise


def _hash(path: Path, stop: threading.Event | None = None) -> tuple[str, _State]:
    require_file(path)
    before = _state(path)
    try:
        with _Stoppable(path) as file:
            file.stop = stop
            key = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise AudioError(
            f"cannot read {shown(path)}: {error.strerror or error}", "Check the disk and the permissions."
        ) from None
    after = _state(path)
    if before is None or after != before:
        raise AudioError(f"{shown(path)} changed while it was read", "Run again when it is complete.")
    return key, after


def _try_hash(stop: threading.Event, path: Path) -> tuple[str, _State] | AudioError:
    try:
        return _hash(path, stop)
    except AudioError as error:
        return error


def _batches(items: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    return (items[i : i + size] for i in range(0, len(items), size))


def _row(state: _State) -> tuple[bytes, int, int, int]:
    """The state as sqlite holds it, whose integers have 64 bits with a sign: inodes go beyond, and so do
    times after 2262."""
    size, mtime, inode = ((n + _HALF) % (2 * _HALF) - _HALF for n in (state.size, state.mtime, state.inode))
    return state.path, size, mtime, inode


class _Memory:
    """Keys of earlier runs on disk. Never an error: what goes wrong only costs time."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._usable = True

    def get(self, states: Sequence[_State]) -> dict[_State, str]:
        """The keys of those states that are known exactly as they are."""
        marks = ",".join("?" * len(states))
        wanted = {_row(s): s for s in states}
        rows = self._run(
            lambda db: db.execute(
                f"SELECT path, size, mtime, inode, key FROM keys WHERE path IN ({marks})",
                [s.path for s in states],
            ).fetchall()
        )
        return {wanted[row[:4]]: row[4] for row in rows or [] if row[:4] in wanted}

    def put(self, learned: Iterable[tuple[_State, str]]) -> None:
        """Remember the keys of files that have settled."""
        now = time.time_ns()
        rows = [(*_row(s), key) for s, key in learned if now - s.mtime > _SETTLED]
        if rows:
            self._run(
                lambda db: db.executemany(
                    "INSERT OR REPLACE INTO keys VALUES (?, ?, ?, ?, ?)", rows
                ).fetchall()
            )

    def _run(
        self, work: Callable[[sqlite3.Connection], list[tuple[Any, ...]]]
    ) -> list[tuple[Any, ...]] | None:
        for _ in range(2):
            if not self._usable:
                return None
            try:
                self._file.parent.mkdir(parents=True, exist_ok=True)
                with contextlib.closing(sqlite3.connect(self._file, timeout=_BUSY)) as db, db:
                    db.execute(_TABLE)
                    return work(db)
            except (sqlite3.OperationalError, OSError):  # read-only, full, locked for long
                self._usable = False
            except sqlite3.DatabaseError:  # damaged: start again
                with contextlib.suppress(OSError):
                    self._file.unlink()
        return None
