"""Work in processes: in order, bounded, and no item lost when a process dies."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from beatmeter.parallel import Crash, ordered


@pytest.mark.parametrize("jobs", [0, 1, 2])
def test_results_come_in_order(jobs: int) -> None:
    def square(n: int) -> int:
        time.sleep(0.02 * (n % 3 == 0))
        return n * n

    assert list(ordered(square, range(20), jobs)) == [n * n for n in range(20)]
    assert list(ordered(square, [], jobs)) == []


def test_no_more_than_asked_for_are_begun_ahead() -> None:
    asked: list[int] = []

    def items():
        for n in range(100):
            asked.append(n)
            yield n

    results = ordered(lambda n: n, items(), 2, depth=5)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    assert len(asked) <= 8
    results.close()


def test_work_is_shared(tmp_path: Path) -> None:
    def who(n: int) -> int:
        time.sleep(0.05)
        return os.getpid()

    found = set(ordered(who, range(12), 2))
    assert len(found) == 2
    assert os.getpid() not in found


def test_an_exception_is_raised_here() -> None:
    def fail(n: int) -> int:
        if n == 3:
            raise ValueError("three")
        return n

    results = ordered(fail, range(10), 2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)


def test_an_item_that_kills_its_process_is_the_only_loss() -> None:
    def die(n: int) -> int:
        if n in (2, 3, 9):
            os._exit(7)
        return n

    assert list(ordered(die, range(12), 2)) == [Crash() if n in (2, 3, 9) else n for n in range(12)]


def test_a_process_that_dies_by_accident_costs_nothing(tmp_path: Path) -> None:
    def once(n: int) -> int:
        if n == 4 and not (tmp_path / "died").exists():
            (tmp_path / "died").touch()
            os._exit(7)
        return n

    assert list(ordered(once, range(10), 2)) == list(range(10))


def test_leaving_early_waits_for_nobody() -> None:
    def slow(n: int) -> int:
        time.sleep(0 if n == 0 else 300)
        return n

    results = ordered(slow, range(50), 2)
    assert next(results) == 0
    began = time.monotonic()
    results.close()
    assert time.monotonic() - began < 60
