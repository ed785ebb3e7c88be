"""One process at a time: a lock file that the system frees when its holder dies, whatever it dies of.

It is `flock`. On Linux that reaches over NFS too (version 4, and 3 with lockd): processes on several machines
exclude each other, and what a machine held that went down is freed when its lease ends, after a minute or
two. A file system that has no locks is said so, and goes on without.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import os
import platform
from collections.abc import Callable, Iterator
from pathlib import Path

from beatmeter.errors import RunError, shown
from beatmeter.runtime import regular


@contextlib.contextmanager
def held(path: Path, doing: str, report: Callable[[str], object] = print) -> Iterator[None]:
    """Hold the file `path`, which is made with its folder and taken away afterwards, the folder too when it
    was made here and nothing else is in it.

    Raises RunError, with the process and machine that hold it, when another has it: `doing` says what that
    one does, "training in runs/first" for instance.
    """
    fresh = not path.parent.exists()
    handle = _taken(path, doing, report)
    try:
        with contextlib.suppress(OSError):  # a full disk: whose lock it is is only for messages
            os.ftruncate(handle, 0)
            now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            os.pwrite(handle, f"process {os.getpid()} on {platform.node()} since {now}".encode(), 0)
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
            if fresh:
                path.parent.rmdir()
        os.close(handle)


def _taken(path: Path, doing: str, report: Callable[[str], object]) -> int:
    """The open lock file, locked, and still the one that lies at `path`: another holder may just have taken
    it away."""
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = regular.open_handle(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # the folder went with the lock of another
        except OSError as error:
            raise RunError(f"cannot write {shown(path)}: {error.strerror}", "Choose another --out.") from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(handle), path.stat()):
                return handle
        except BlockingIOError:
            holder = os.pread(handle, 500, 0).decode(errors="replace") or "another process"
            os.close(handle)
            raise RunError(
                f"{shown(holder)} is {doing}", "Wait until it has ended, or choose another --out."
            ) from None
        except FileNotFoundError:
            pass
        except OSError as error:
            report(
                f"warning: {shown(path)} cannot be locked ({error.strerror}): start nothing else that works "
                "in this folder"
            )
            return handle
        os.close(handle)
