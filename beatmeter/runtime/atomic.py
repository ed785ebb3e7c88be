"""Files that appear whole or not at all: written beside their place, flushed to disk, then renamed into
it."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path


class WriteError(OSError):
    """A file that cannot be written: `filename` is the name that was asked for, not that of a temporary file
    beside it."""


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Every OSError inside becomes a WriteError that names `path`: the system names a temporary file, or on a
    full disk none."""
    try:
        yield
    except WriteError:
        raise
    except OSError as error:
        raise WriteError(error.errno, error.strerror or str(error), str(path)) from error


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path`, creating its folder; a reader sees the old file or the new one, never a part.

    Raises WriteError.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name[:100]}.{os.getpid()}.{secrets.token_hex(4)}")
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def require_writable(*paths: Path) -> None:
    """Raise WriteError unless a file can appear at each of `paths`: asked before hours of work, not after."""
    for path in paths:
        with writing(path):
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name[:100]}.{os.getpid()}.{secrets.token_hex(4)}")
            temporary.touch(exist_ok=False)
            temporary.unlink()


def create_text(path: Path, text: str) -> bool:
    """Write `text` to `path` unless something is there: of several processes one makes it, whole, and gets
    True.

    Raises OSError as `open` does.
    """
    draft = path.with_name(f".{path.name[:100]}.{os.getpid()}.{secrets.token_hex(4)}")
    write_text(draft, text)
    try:
        os.link(draft, path)
    except FileExistsError:
        return draft.stat().st_nlink > 1  # NFS may repeat a request that had succeeded
    except OSError:  # no hard links here
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            return False
    finally:
        draft.unlink()
    return True


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of `text` as UTF-8, line ends as given."""
    write_bytes(path, text.encode("utf-8"))
