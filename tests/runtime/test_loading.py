"""Nothing is collected while libraries load; afterwards the collector does its work as before."""

from __future__ import annotations

import gc
import importlib
import weakref

import pytest

from beatmeter.runtime.loading import loading


class Knot:
    """Garbage that only the collector finds."""

    def __init__(self) -> None:
        self.itself = self


def test_nothing_is_collected_meanwhile_and_garbage_of_later_is_found() -> None:
    assert gc.isenabled()
    with loading():
        assert not gc.isenabled()
        knot = weakref.ref(Knot())
    assert gc.isenabled()
    gc.collect()
    assert knot() is None


def test_a_library_that_does_not_load_leaves_the_collector_on() -> None:
    with pytest.raises(ModuleNotFoundError), loading():
        importlib.import_module("a_library_that_nobody_has")
    assert gc.isenabled()


def test_who_collects_by_hand_stays_so() -> None:
    gc.disable()
    try:
        with loading():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
