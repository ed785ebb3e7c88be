"""Files that are files: a FIFO, a device, a socket or a loop of links under a file's name is refused by name,
and never waited for.

Opening a FIFO waits until somebody writes to it, which may be never. Every file that beatmeter finds in a
folder (stores, runs, checkpoints, tables, audio) is opened here.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import IO, Any

_NEVER_WAIT = getattr(os, "O_NONBLOCK", 0)  # means nothing to a regular file
_NOT_OPENED = {
    errno.ENXIO: "a FIFO, a socket or a device",  # opened to write, or a socket
    errno.ENODEV: "a device",
    errno.ELOOP: "a loop of links, or a link where none may be",
}
_KINDS = (
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISLNK, "a link"),
)


class NotRegularError(OSError):
    """There is something of that name, and it is no regular file; `strerror` says what it is. Folders are
    IsADirectoryError."""


def _refused(path: str | os.PathLike[str], kind: str) -> NotRegularError:
    return NotRegularError(errno.EINVAL, f"it is {kind}, not a regular file", os.fspath(path))


def require_regular(path: str | os.PathLike[str], mode: int) -> None:
    """Raise NotRegularError or IsADirectoryError unless `mode` (`st_mode`) is a regular file's."""
    if stat.S_ISREG(mode):
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    raise _refused(path, next((kind for is_it, kind in _KINDS if is_it(mode)), "something else"))


def open_handle(path: str | os.PathLike[str], flags: int = os.O_RDONLY, mode: int = 0o666) -> int:
    """`os.open` of a regular file: returns at once whatever is there. Raises OSError; NotRegularError and
    IsADirectoryError for what is no file."""
    try:
        handle = os.open(path, flags | _NEVER_WAIT, mode)
    except OSError as error:
        if error.errno in _NOT_OPENED:
            raise _refused(path, _NOT_OPENED[error.errno]) from None
        raise
    try:
        require_regular(path, os.fstat(handle).st_mode)
    except OSError:
        os.close(handle)
        raise
    return handle


def open_file(path: str | os.PathLike[str], mode: str = "r", **options: Any) -> IO[Any]:
    """`open` of a regular file, with its modes and options. Raises OSError as `open_handle` does."""
    return open(path, mode, opener=open_handle, **options)
