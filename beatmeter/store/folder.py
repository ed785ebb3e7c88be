# ruff: noqa: PTH116, PTH118, PTH208
"""Durable operations on a store's folder: the only code that writes there, and the only code that knows it is a file system.

What the write protocol asks of a place is little: publish a finished folder, put a file if its name is free, list, read,
remove. Each returns only when the disk holds the result.
"""

# Names by the ten thousand are listed and measured here; os is several times faster than pathlib

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from beatmeter.errors import StoreError, shown

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)


@contextlib.contextmanager
def explained(doing: str, path: Path) -> Iterator[None]:
    """Turn an OSError into a StoreError that says what was being done, where, and what to do next."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            hint = "Nothing that was committed is lost: free space or move the cache, then run the same command again."
        elif error.errno in _DENIED:
            hint = "The folder cannot be written by this user: change its permissions or use another cache folder. Reading works."
        else:
            hint = "Nothing that was committed is lost: check the disk, then run the same command again."
        raise StoreError(f"{doing} failed at {shown(path)}: {error.strerror or error}", hint) from error


def sync_folder(path: Path) -> None:
    """Make the names in `path` durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_synced(path: Path, data: bytes) -> None:
    """A new file whose bytes are on disk when this returns (its name is not, before `sync_folder`)."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


class Folder:
    """A store's folder. Names are relative to it, with `/`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __truediv__(self, name: str) -> Path:
        return self.root / name

    def make(self, *names: str) -> None:
        """Create the folder and these folders in it; existing ones are kept."""
        with explained("creating the store", self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            for name in names:
                (self.root / name).mkdir(parents=True, exist_ok=True)
            sync_folder(self.root)
            with contextlib.suppress(OSError):  # the folder above may belong to somebody else
                sync_folder(self.root.parent)

    def list(self, name: str) -> list[str]:
        """Names of what is in a folder; none when it does not exist."""
        try:
            return os.listdir(self.root / name)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StoreError(
                f"{shown(self.root / name)} cannot be listed: {error.strerror}", "Check the folder's permissions and its disk."
            ) from error

    def read(self, name: str) -> bytes:
        """All bytes of a file. Raises OSError."""
        handle = os.open(self.root / name, os.O_RDONLY)
        try:
            size = os.fstat(handle).st_size
            data = os.read(handle, size + 1)
            while len(data) <= size and (more := os.read(handle, size + 1 - len(data))):
                data += more
            return data
        finally:
            os.close(handle)

    def size(self, name: str) -> int | None:
        """Bytes of a file, None when it is not there."""
        try:
            return os.stat(f"{self.root}/{name}").st_size
        except OSError:
            return None

    def put_if_absent(self, name: str, data: bytes) -> bool:
        """Put a whole file under `name` unless something has that name already; False then. Durable when it returns.

        The bytes are written and flushed under another name and then linked, so a reader never sees a part and of
        several writers exactly one wins.
        """
        path, draft = self.root / name, self._draft()
        with explained("writing", path):
            try:
                write_synced(draft, data)
                won = _link(draft, path, data)
                if won:
                    sync_folder(path.parent)
            finally:
                draft.unlink(missing_ok=True)
        return won

    def replace(self, name: str, data: bytes) -> None:
        """Put a whole file under `name` in place of what was there."""
        path, draft = self.root / name, self._draft()
        with explained("writing", path):
            try:
                path.parent.mkdir(exist_ok=True)
                write_synced(draft, data)
                draft.replace(path)
                sync_folder(path.parent)
            finally:
                draft.unlink(missing_ok=True)

    def stage(self) -> Path:
        """A new empty folder for work in progress; `publish` or `discard` it."""
        path = self._draft()
        with explained("writing", path):
            path.mkdir()
        return path

    def publish(self, staged: Path, name: str) -> None:
        """Give a staged folder, whose files are flushed already, its final name: all of it appears at once and stays."""
        path = self.root / name
        with explained("writing", path):
            for folder, _, _ in os.walk(staged, topdown=False):
                sync_folder(Path(folder))
            staged.rename(path)
            sync_folder(path.parent)

    def discard(self, staged: Path) -> None:
        """Forget a staged folder."""
        shutil.rmtree(staged, ignore_errors=True)

    def move(self, name: str, to: str) -> None:
        """Rename within the store, durably."""
        with explained("moving", self.root / name):
            (self.root / to).parent.mkdir(exist_ok=True)
            (self.root / name).replace(self.root / to)
            sync_folder((self.root / to).parent)
            sync_folder((self.root / name).parent)

    def remove(self, name: str) -> None:
        """Remove a file or a folder with all that is in it."""
        path = self.root / name
        with explained("removing", path):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def bytes_below(self, name: str) -> int:
        """Bytes of all files in a folder, or of one file."""
        path = self.root / name
        if not path.is_dir():
            return self.size(name) or 0
        return sum(os.lstat(os.path.join(folder, f)).st_size for folder, _, files in os.walk(path) for f in files)

    def age(self, name: str, now: float) -> float:
        """Seconds since the newest change of a file or folder, by the file system's clock; 0 when it went away."""
        try:
            path = self.root / name
            newest = max([path.stat().st_mtime, *(p.stat().st_mtime for p in path.iterdir())] if path.is_dir() else [path.stat().st_mtime])
        except OSError:
            return 0.0
        return now - newest

    def now(self) -> float:
        """The file system's own clock, which is what ages are measured with: clocks of machines that share it may differ."""
        draft = self._draft()
        with explained("writing", draft):
            try:
                draft.touch()
                return draft.stat().st_mtime
            finally:
                draft.unlink(missing_ok=True)

    @contextlib.contextmanager
    def lock(self, doing: str) -> Iterator[None]:
        """Hold the store's maintenance lock; the system frees it when the process dies. StoreError when another holds it."""
        import fcntl

        path = self.root / "lock"
        with explained("locking", path):
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                holder = os.pread(handle, 500, 0).decode(errors="replace") or "another process"
                raise StoreError(f"{shown(self.root)} is being maintained by {holder}", "Wait until it has finished, then try again.") from None
            os.truncate(handle, 0)
            os.pwrite(handle, json.dumps({"doing": doing, "host": platform.node(), "pid": os.getpid()}).encode(), 0)
            yield
        finally:
            os.close(handle)

    def _draft(self) -> Path:
        tmp = self.root / "tmp"
        with explained("writing", tmp):
            tmp.mkdir(exist_ok=True)
        return tmp / f"{os.getpid()}-{secrets.token_hex(8)}"


def _link(draft: Path, path: Path, data: bytes) -> bool:
    try:
        os.link(draft, path)
    except FileExistsError:
        return draft.stat().st_nlink > 1  # NFS may repeat a request that had succeeded
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        try:  # no hard links here: a torn write is seen by its checksum, and was not acknowledged
            write_synced(path, data)
        except FileExistsError:
            return False
    return True
