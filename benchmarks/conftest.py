"""The fixture `bench`: timed with `--benchmark-enable`, run once and small otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from harness import Bench

import beatmeter  # noqa: F401 (before torch, whose threads then sleep while they wait)


@pytest.fixture(scope="session")
def timed(request: pytest.FixtureRequest) -> bool:
    """Whether numbers are wanted; otherwise everything runs once on small data."""
    return bool(request.config.getoption("--benchmark-enable"))


@pytest.fixture
def bench(request: pytest.FixtureRequest, timed: bool) -> Bench:
    """Named after its file: `bench_store.py` measures the part "store"."""

    def call(way: Callable[[], Any], **options: Any) -> object:
        return request.getfixturevalue("benchmark").pedantic(way, **options)

    return Bench(timed, request.module.__name__.rpartition(".")[2].removeprefix("bench_"), call)
