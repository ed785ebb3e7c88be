"""A Reporter that counts: what was promised of each piece of work, and what was done of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from beatmeter.runtime.progress import Tick


class Counting:
    """`total` and `done` by label."""

    def __init__(self) -> None:
        self.total: dict[str, float] = {}
        self.done: dict[str, float] = {}

    @contextmanager
    def track(self, label: str, total: float, unit: str = "") -> Iterator[Tick]:
        """Count."""
        self.total[label], self.done[label] = total, 0.0

        def tick(n: float) -> None:
            self.done[label] += n

        yield tick
