"""What a watcher tells about itself: one small JSON file beside the stores, for people and for monitoring."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import os
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from beatmeter.errors import EngineError, shown
from beatmeter.runtime.artifacts import read_json, to_json, to_json_line
from beatmeter.runtime.atomic import write_text
from beatmeter.runtime.regular import open_file, open_handle

FOLDER = "watch"  # in the cache
_BLOCK = 4096  # bytes of the file, or a multiple, filled up with spaces
_ERROR = 1000  # bytes of an error, as JSON
_GRACE = 90.0  # seconds without news after which a watcher on another machine counts as silent


def now() -> str:
    """UTC, ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


@dataclass
class Status:
    """The content of the file. `done`, `waiting` and `failed` count files of the folder; `extracted` what
    this process did.

    `state` is starting, idle, extracting, blocked (the store or the folder cannot be used: `last_error` says
    why, and it is tried again), stopping (as asked; what is in flight is finished), stopped, or crashed.
    """

    folder: str
    store: str
    shard: str = "1/1"
    state: str = "starting"
    done: int = 0
    waiting: int = 0
    failed: int = 0
    extracted: int = 0
    clips_per_second: float = 0.0
    last_error: str = ""
    last_error_time: str = ""
    pid: int = 0
    host: str = ""
    since: str = ""
    updated: str = ""

    def alive(self) -> bool:
        """Whether the process is there, or was heard of lately when it runs on another machine."""
        if self.state in ("stopped", "crashed"):
            return False
        if self.host == platform.node():
            return (
                self.pid > 0 and Path(f"/proc/{self.pid}").exists() if Path("/proc/self").exists() else True
            )
        with contextlib.suppress(ValueError, TypeError):
            age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(self.updated)
            return age.total_seconds() < _GRACE
        return False

    def line(self) -> str:
        """For people."""
        state = (
            self.state
            if self.alive() or self.state in ("stopped", "crashed")
            else f"NOT RUNNING, last heard of {self.updated}"
        )
        part = "" if self.shard == "1/1" else f" (shard {self.shard})"
        counts = (
            f"{self.done} done, {self.waiting} waiting, {self.failed} failed, {self.clips_per_second:.2f} "
            "clips/s"
        )
        error = f"; last error {self.last_error_time}: {shown(self.last_error)}" if self.last_error else ""
        return (
            f"{shown(self.folder)}{part}: {state}, {counts}, pid {self.pid} on {self.host} since "
            f"{self.since}{error}"
        )


def _cut(text: str, limit: int) -> str:
    """The beginning of it that takes at most `limit` bytes as JSON, where a character takes up to 12."""
    for i in range(len(text)):
        limit -= len(to_json_line(text[i])) - 2
        if limit < 0:
            return text[:i]
    return text


class StatusFile:
    """One watcher's file in `folder`, and its lock: one process at a time watches a folder for a store."""

    def __init__(self, folder: Path, status: Status) -> None:
        text = to_json_line([status.folder, status.store, status.shard])
        slug = (
            "".join(c if c.isascii() and c.isalnum() else "-" for c in Path(status.folder).name)[:40].strip(
                "-"
            )
            or "folder"
        )
        self.path = folder / f"{slug}-{hashlib.sha256(text.encode()).hexdigest()[:8]}.json"
        self.status = status
        status.pid, status.host, status.since = os.getpid(), platform.node(), now()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Raises EngineError when another process watches the same folder for the same store."""
        import fcntl

        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle = open_handle(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise EngineError(
                f"{shown(self.path.parent)} cannot be written: {error.strerror}",
                "Give a folder for status and logs with --status.",
            ) from None
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise EngineError(
                    f"another process watches {shown(self.status.folder)} for {shown(self.status.store)}",
                    f"{shown(self.path)} says which.",
                ) from None
            except OSError:  # no locks on this file system: two watchers waste work, and do no harm
                pass
            yield
        finally:
            os.close(handle)

    def note(self, error: str) -> None:
        """Remember what went wrong; `write` tells it."""
        self.status.last_error, self.status.last_error_time = _cut(shown(error), _ERROR), now()

    def fail(self, error: str) -> None:
        """Say that the watcher ends because of this."""
        self.note(error)
        self.status.state = "crashed"
        self.write()

    def write(self) -> None:
        """Replace the file. On a full disk the old one, which has room for the longest error, is written over
        in place: that needs no space. When that fails too the log has to do."""
        self.status.updated = now()
        text = to_json(asdict(self.status))
        room = len(text) + _ERROR + 500  # for an error and longer numbers
        try:
            write_text(self.path, text.ljust(-(-room // _BLOCK) * _BLOCK - 1) + "\n")
        except OSError:
            with contextlib.suppress(OSError):
                size = self.path.stat().st_size
                if len(text) < size:
                    with open_file(self.path, "r+", encoding="ascii") as file:
                        file.write(text.ljust(size - 1) + "\n")


def read(cache: Path) -> list[Status]:
    """The status of every watcher that wrote into the folder `watch` of a cache. Files that are none are left
    out."""
    return read_in(cache / FOLDER)


def read_in(folder: Path) -> list[Status]:
    """`read`, of the folder that `--status` names."""
    found = []
    known = {f.name for f in fields(Status)}
    for path in sorted(folder.glob("*.json")):
        with contextlib.suppress(EngineError, TypeError):
            value = read_json(path, EngineError, names=True)
            found.append(Status(**{k: v for k, v in value.items() if k in known}))
    return found
