"""The log of a watcher: to stderr for the service manager, and to files that rotate and so never fill the
disk."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import cast

from beatmeter.runtime.regular import open_file

LOG = logging.getLogger("beatmeter.features.watch")
_BYTES, _FILES = 1_000_000, 5


class _Forgiving(RotatingFileHandler):
    """A full disk loses lines, and nothing else."""

    def _open(self) -> TextIOWrapper:
        """Not a FIFO, which would wait for somebody to read it."""
        return cast(
            "TextIOWrapper",
            open_file(self.baseFilename, self.mode, encoding=self.encoding, errors=self.errors),
        )

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (the library's name)
        """Quiet: the same line went to stderr."""


@contextlib.contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Lines go to stderr and to `path`, which is renamed to `path.1` when it is large, and so on."""
    form = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    handlers: list[logging.Handler] = [
        logging.StreamHandler(),
        _Forgiving(
            path, maxBytes=_BYTES, backupCount=_FILES, encoding="utf-8", errors="backslashreplace", delay=True
        ),
    ]
    for handler in handlers:
        handler.setFormatter(form)
        LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    LOG.propagate = False
    try:
        yield
    finally:
        for handler in handlers:
            LOG.removeHandler(handler)
            with contextlib.suppress(OSError):
                handler.close()


def tell_manager(state: str) -> None:
    """READY=1 or STOPPING=1 to systemd, when it started us with Type=notify (sd_notify's protocol)."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
        link.connect("\0" + address[1:] if address[0] == "@" else address)
        link.sendall(state.encode())
