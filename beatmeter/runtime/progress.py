"""How work tells how far it is: `with reporter.track(label, total) as tick:`, then `tick(n)` when n more are
done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Tick = Callable[[float], object]  # so many more are done


class Reporter(Protocol):
    """Whoever wants to know: a terminal with bars, a status file, nobody."""

    def track(self, label: str, total: float, unit: str = "clips") -> AbstractContextManager[Tick]:
        """For the time of one piece of work of `total` units; what was shown of it goes away with its end, in
        whatever way it ends."""


def untold(n: float) -> None:
    """A tick that nobody hears."""


class Silent:
    """Nobody wants to know."""

    @contextmanager
    def track(self, label: str, total: float, unit: str = "clips") -> Iterator[Tick]:
        """Nothing is told."""
        yield untold


SILENT = Silent()
