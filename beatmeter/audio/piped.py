"""Audio that arrives as a stream of bytes (standard input): readers need a file that they can seek in, so it
is given one."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from beatmeter.errors import AudioError, shown

NAME = "standard input"


@contextlib.contextmanager
def spooled(source: BinaryIO, name: str = NAME) -> Iterator[Path]:
    """A file that holds all bytes of `source` (`sys.stdin.buffer`) and is removed at the end of the block.

    An AudioError that leaves the block names `name` instead of that file. Raises AudioError when
    `source` is a terminal, closed or empty, or when there is no room for its bytes (kind machine).
    """
    with contextlib.ExitStack() as undo:
        try:
            if source.isatty():
                raise AudioError(
                    f"{name} is a terminal", "Pipe a file into it: beatmeter predict - < song.mp3"
                )
            folder = undo.enter_context(
                tempfile.TemporaryDirectory(prefix="beatmeter-", ignore_cleanup_errors=True)
            )
            path = Path(folder, name)
            with path.open("xb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
                size = file.tell()
        except (OSError, ValueError) as error:  # ValueError: somebody closed it
            reason = shown(getattr(error, "strerror", None) or error)
            raise AudioError(
                f"cannot keep {name} in a file: {reason}",
                "Make room in the folder for temporary files (TMPDIR).",
                "machine",
            ) from None
        if size == 0:
            raise AudioError(
                f"{name} is empty (0 bytes)",
                "Pipe a file into it: beatmeter predict - < song.mp3",
                kind="empty",
            )
        try:
            yield path
        except AudioError as error:
            raise AudioError(
                error.what.replace(shown(path), name), error.hint, error.kind
            ) from error.__cause__
