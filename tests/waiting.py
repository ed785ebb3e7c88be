"""How tests wait: for the event, never for the clock, and as long as a machine ten times slower and fully
busy needs."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable
from typing import IO

PATIENCE = 600.0  # seconds: the one limit of all tests; who reaches it hangs


def until(
    happened: Callable[[], object],
    meanwhile: Callable[[], object] = lambda: None,
    process: subprocess.Popen[str] | None = None,
) -> None:
    """Wait until `happened()` is true. `meanwhile()` is done between two looks; once `process` has ended it
    cannot happen any more."""
    end = time.monotonic() + PATIENCE
    while not happened():
        assert process is None or process.poll() is None or happened(), (
            f"the process ended with {process.returncode} before it happened"
        )
        assert time.monotonic() < end, "it never happened"
        meanwhile()
        time.sleep(0.02)


def ends(call: Callable[[], object]) -> None:
    """Do `call()`, which must come to an end though others never do. What it raises is raised."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive(), "it waits for ever"
    if raised:
        raise raised[0]


class Lines:
    """What a process prints, line by line, read as it comes."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.seen: list[str] = []
        assert process.stdout is not None
        self._thread = threading.Thread(target=self._read, args=(process.stdout,), daemon=True)
        self._thread.start()

    def _read(self, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                self.seen.append(line)

    def all(self) -> list[str]:
        """Every line, once the process has ended."""
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the process still prints"
        return self.seen
