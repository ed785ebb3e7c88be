"""What a process of `parallel.ordered` does: take the function, then answer item after item, for as long as
its parent lives."""

from __future__ import annotations

import os
import pickle
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

_LOOK = 0.5  # seconds between two looks for the parent


def serve(handle: int, parent: int) -> None:
    """Answer what comes through the pipe `handle`: first a function, then its items. The answer is (True,
    result) or (False, exception)."""
    os.set_inheritable(handle, False)
    threading.Thread(target=_follow, args=(parent,), name="beatmeter-parent", daemon=True).start()
    pipe = Connection(handle)
    function: Callable[[Any], Any] = _take
    while True:
        try:
            message = pipe.recv_bytes()
        except (EOFError, OSError):  # nobody asks any more
            os._exit(0)
        try:
            result = function(pickle.loads(message))
            if function is _take:
                function, result = result, None
            answer = pickle.dumps((True, result), protocol=pickle.HIGHEST_PROTOCOL)
        except BaseException as error:
            answer = _failure(error)
        try:
            pipe.send_bytes(answer)
        except OSError:
            os._exit(0)


def _take(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """What the first message is answered by."""
    return function


def _failure(error: BaseException) -> bytes:
    """An exception as it is sent, with the traceback of this process as a note."""
    error.add_note("in a process beside this one:\n" + "".join(traceback.format_exception(error)).rstrip())
    try:
        sent = pickle.dumps((False, error.with_traceback(None)), protocol=pickle.HIGHEST_PROTOCOL)
        pickle.loads(sent)
    except Exception:  # some exceptions cannot be made again from what pickle keeps of them
        sent = pickle.dumps((False, RuntimeError(f"{type(error).__name__}: {error}")))
    return sent


def _follow(parent: int) -> None:
    """End with the parent, in whatever way it ended, also in the middle of an item. This asks, because the
    kernel's own signal (PR_SET_PDEATHSIG) comes when the parent's thread ends."""
    while os.getppid() == parent:
        time.sleep(_LOOK)
    os._exit(1)
