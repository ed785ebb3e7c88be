"""Loading large libraries, and ending after them, without looking for garbage that is not there.

`import torch` makes a million objects that stay. Python's collector looks through all of them again and again
meanwhile, and once more at the end: a third of the processor time of a short command.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """Within it nothing is collected."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def leave_uncollected() -> None:
    """Nothing is collected when this process ends."""
    atexit.register(gc.freeze)
