"""Threads that share the cores."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import torch
from waiting import PATIENCE

from beatmeter.runtime.lanes import in_lanes, lanes_for

Over = Callable[[], bool]
CPU = torch.device("cpu")


def test_results_come_in_order_whoever_is_first() -> None:
    second = threading.Event()

    def work(item: int, over: Over) -> int:
        if item == 0:
            assert second.wait(PATIENCE)  # the first ends after the second: they work at the same time
        else:
            second.set()
        return item * item

    assert list(in_lanes(work, range(5), 2)) == [0, 1, 4, 9, 16]


def test_the_cores_are_shared_and_given_back() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        shares = list(in_lanes(lambda item, over: torch.get_num_threads(), range(6), 2))
        assert shares == [2] * 6
        assert torch.get_num_threads() == 4
        assert lanes_for(3, CPU) == 3
        assert lanes_for(9, CPU) == 4
        assert lanes_for(1, CPU) == lanes_for(0, CPU) == lanes_for(9, torch.device("meta")) == 1
    finally:
        torch.set_num_threads(before)


def test_a_reader_that_leaves_ends_the_work() -> None:
    begun = threading.Event()

    def work(item: int, over: Over) -> int:
        if item:
            begun.set()
            while not over():
                pass
        return item

    results = in_lanes(work, range(9), 2)
    assert next(results) == 0
    assert begun.wait(PATIENCE)
    results.close()  # returns: the work in progress was told
    assert not any(t.name.startswith("beatmeter-lane") for t in threading.enumerate())


@pytest.mark.parametrize("lanes", [1, 3])
def test_no_more_is_taken_than_the_lanes_hold_and_exceptions_arrive(lanes: int) -> None:
    taken: list[int] = []

    def items() -> object:
        for i in range(100):
            taken.append(i)
            yield i

    def work(item: int, over: Over) -> int:
        if item == 4:
            raise ValueError("four")
        return item

    results = in_lanes(work, items(), lanes)  # type: ignore[arg-type]
    assert [next(results) for _ in range(2)] == [0, 1]
    assert len(taken) <= 2 + lanes
    with pytest.raises(ValueError, match="four"):
        list(results)
