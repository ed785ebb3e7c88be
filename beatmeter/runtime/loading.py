"""Loading large libraries, and ending after them, without looking for garbage that is not there.

`import torch` makes a million objects that stay. Python's collector looks through all of them again and again
meanwhile, and once more at the end: a third of the processor time of a short command.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """Within it nothing is collected, and what is made there is never looked at again."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was:
            gc.enable()


def leave() -> None:
    """The process is about to end: what there is needs no collection."""
    gc.disable()
    gc.freeze()
