# ruff: noqa: PTH116, PTH118, PTH208
"""A store in a folder of a file system: durable operations, the only code that writes there."""

# Names by the ten thousand are listed and measured here; os is several times faster than pathlib

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import platform
import secrets
import shutil
import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, cast

from beatmeter.errors import StoreError, shown
from beatmeter.runtime.regular import NotRegularError, open_file, open_handle
from beatmeter.store.backend import ABSENT, Backend, UnreadableError, explained, reading
from beatmeter.store.mapped import MappedFile

_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)
_FULL_SYNC = getattr(fcntl, "F_FULLFSYNC", None)
_BUFFER = 8 << 20
_FLUSHES = 8  # at the same time


def flush(handle: int) -> None:
    """What was written there is on the disk when this returns. macOS leaves it in the drive's own memory
    unless asked for more."""
    if _FULL_SYNC is not None:
        with contextlib.suppress(OSError):  # not every file system knows it
            fcntl.fcntl(handle, _FULL_SYNC)
            return
    os.fsync(handle)


def sync_folder(path: Path) -> None:
    """Make the names in the folder `path` durable; of a file, its bytes."""
    handle = os.open(path, os.O_RDONLY)
    try:
        flush(handle)
    finally:
        os.close(handle)


def write_synced(path: Path, data: bytes) -> None:
    """A new file whose bytes are on disk when this returns (its name is not, before `sync_folder`)."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        flush(file.fileno())


def flush_tree(root: Path) -> None:
    """All files and folders from `root` down are on disk when this returns. They are flushed at the same
    time: a disk and its journal serve several requests as fast as one."""
    paths = [root, *root.rglob("*")]
    with ThreadPoolExecutor(_FLUSHES) as pool:
        for _ in pool.map(sync_folder, paths):  # a file is opened and flushed as a folder is
            pass


def _refuse(error: OSError) -> None:
    """`os.walk` leaves out what it cannot list, and says nothing, unless it is told to."""
    if not isinstance(error, FileNotFoundError):
        raise error


class Folder(Backend):
    """The folder `root`."""

    def __init__(self, root: Path) -> None:
        self.root, self.where = root, str(root)

    def make(self, *names: str) -> None:
        for folder in (self.root, *(self.root / name for name in names)):
            with explained("making the folder", folder):
                folder.mkdir(parents=True, exist_ok=True)
        with explained("creating the store", self.root):
            sync_folder(self.root)
            device = self.root.stat().st_dev
            for folder in self.root.absolute().parents:  # each may be new, whoever made it
                if folder.stat().st_dev != device:  # the folder of a mount is not
                    break
                with contextlib.suppress(PermissionError):  # nor is a folder that belongs to somebody else
                    sync_folder(folder)

    def exists(self, name: str = "") -> bool:
        path = self.root / name
        with reading(path):
            return path.is_file() or (path.is_dir() and (bool(name) or any(path.iterdir())))

    def list(self, name: str) -> list[str]:
        path = self.root / name
        try:
            names = os.listdir(path)
        except FileNotFoundError:
            return []
        except NotADirectoryError as error:
            raise StoreError(
                f"{shown(path)} is no folder", "Move it out of the store, then run `beatmeter cache repair`."
            ) from error
        except OSError as error:
            raise UnreadableError(
                f"{shown(path)} cannot be listed: {error.strerror}",
                "Check the folder's permissions and its disk.",
            ) from error
        if not os.access(path, os.X_OK):  # names without the files behind them
            raise UnreadableError(
                f"{shown(path)} cannot be entered: {os.strerror(errno.EACCES)}",
                "Check the folder's permissions.",
            )
        return names

    def read(self, name: str) -> bytes:
        with reading(self.root / name):
            handle = open_handle(self.root / name)
            try:
                size = os.fstat(handle).st_size
                data = os.read(handle, size + 1)
                while len(data) <= size and (more := os.read(handle, size + 1 - len(data))):
                    data += more
                return data
            finally:
                os.close(handle)

    def open(self, name: str) -> BinaryIO:
        with reading(self.root / name):
            return cast("BinaryIO", open_file(self.root / name, "rb", buffering=_BUFFER))

    def ranges(self, name: str, size: int) -> MappedFile:
        return MappedFile(self.root / name, size)

    def sizes(self, names: Sequence[str]) -> Sequence[int | None]:
        return tuple(map(self._size, names))

    def _size(self, name: str) -> int | None:
        try:
            status = os.stat(f"{self.root}/{name}")
        except ABSENT:
            return None
        except OSError as error:
            if error.errno == errno.ELOOP:
                return None
            with reading(self.root / name):
                raise
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    def wrong_with(self, name: str) -> str:
        path = self.root / name
        with reading(path):
            try:
                os.close(open_handle(path))
            except IsADirectoryError:
                return "is a folder"
            except NotRegularError as error:
                return str(error.strerror).removeprefix("it ")
            except ABSENT:
                return "is missing"
        return ""

    def put_if_absent(self, name: str, data: bytes) -> bool:
        """The bytes are written and flushed under another name and then linked."""
        path, draft = self.root / name, self._draft()
        with explained("writing", path):
            try:
                write_synced(draft, data)
                won = self._link(draft, path)
                if won:
                    sync_folder(path.parent)
            finally:
                draft.unlink(missing_ok=True)
        return won

    def replace(self, name: str, data: bytes) -> None:
        path, draft = self.root / name, self._draft()
        with explained("writing", path):
            try:
                self._make(path.parent)
                write_synced(draft, data)
                draft.replace(path)
                sync_folder(path.parent)
            finally:
                draft.unlink(missing_ok=True)

    def note(self, name: str, data: bytes) -> None:
        path = self.root / name
        with contextlib.suppress(OSError):
            try:
                file = open_file(path, "wb")
            except FileNotFoundError:  # a store from before there were such files
                path.parent.mkdir(exist_ok=True)
                file = open_file(path, "wb")
            with file:
                file.write(data)

    def stage(self) -> Path:
        path = self._draft()
        with explained("writing", path):
            path.mkdir()
        return path

    def publish(self, staged: Path, name: str) -> None:
        path = self.root / name
        with explained("writing", path):
            flush_tree(staged)
            staged.rename(path)
            sync_folder(path.parent)

    def discard(self, staged: Path) -> None:
        shutil.rmtree(staged, ignore_errors=True)

    def move(self, name: str, to: str) -> None:
        with explained("moving", self.root / name):
            self._make((self.root / to).parent)
            (self.root / name).replace(self.root / to)
            sync_folder((self.root / to).parent)
            sync_folder((self.root / name).parent)

    def remove(self, name: str) -> None:
        path = self.root / name
        with explained("removing", path):
            if path.is_dir() and not path.is_symlink():
                aside = self._draft()
                path.rename(
                    aside
                )  # at once: a writer that still works in it must not publish what is left of it
                shutil.rmtree(aside)
            else:
                path.unlink(missing_ok=True)

    def bytes_below(self, name: str) -> int:
        path = self.root / name
        if not path.is_dir():
            return self._size(name) or 0
        total = 0
        with reading(path):
            for folder, _, files in os.walk(path, onerror=_refuse):
                for file in files:
                    with contextlib.suppress(FileNotFoundError):  # collected meanwhile
                        total += os.lstat(os.path.join(folder, file)).st_size
        return total

    def age(self, name: str, now: float) -> float:
        path = os.path.join(self.root, name)
        try:
            newest = os.stat(path).st_mtime
            for folder, folders, files in os.walk(
                path, onerror=_refuse
            ):  # a writer's shard grows below, and the folders know nothing of it
                newest = max(
                    [
                        newest,
                        *(os.lstat(os.path.join(folder, inside)).st_mtime for inside in (*folders, *files)),
                    ]
                )
        except OSError:
            return 0.0
        return now - newest

    def now(self) -> float:
        draft = self._draft()
        with explained("writing", draft):
            try:
                draft.touch()
                return draft.stat().st_mtime
            finally:
                draft.unlink(missing_ok=True)

    @contextlib.contextmanager
    def lock(self, doing: str) -> Iterator[None]:
        """The system frees it when the process dies."""
        with self._locked("lock", wait=False) as handle:
            with contextlib.suppress(OSError):  # a full disk: whose lock it is is only for messages
                os.truncate(handle, 0)
                os.pwrite(
                    handle,
                    json.dumps({"doing": doing, "host": platform.node(), "pid": os.getpid()}).encode(),
                    0,
                )
            yield

    @contextlib.contextmanager
    def _locked(self, name: str, wait: bool) -> Iterator[int]:
        """Hold the system's lock of the file `name`."""
        path = self.root / name
        with explained("locking", path):
            handle = open_handle(
                path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
            )  # it is cut to nothing: never a file somewhere else
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(handle, 500, 0).decode(errors="replace") or "another process"
                raise StoreError(
                    f"{shown(self.root)} is being maintained by {holder}",
                    "Wait until it has finished, then try again.",
                ) from None
            except OSError as error:
                hint = (
                    "This needs a file system with locks (flock): mount it with them, or keep the cache on "
                    "another. Reading works."
                )
                raise StoreError(f"{shown(path)} cannot be locked: {error.strerror}", hint) from error
            yield handle
        finally:
            os.close(handle)

    def _link(self, draft: Path, path: Path) -> bool:
        try:
            os.link(draft, path)
        except FileExistsError:
            return draft.stat().st_nlink > 1  # NFS may repeat a request that had succeeded
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            with self._locked(
                "names.lock", wait=True
            ):  # no hard links here: one writer at a time looks and renames
                if os.path.lexists(path):
                    return False
                draft.rename(path)
        return True

    def _make(self, folder: Path) -> None:
        """A folder in the store, its name on disk."""
        if not folder.is_dir():
            folder.mkdir(exist_ok=True)
            sync_folder(folder.parent)

    def _draft(self) -> Path:
        tmp = self.root / "tmp"
        with explained("writing", tmp):
            tmp.mkdir(exist_ok=True)
        return tmp / f"{os.getpid()}-{secrets.token_hex(8)}"
