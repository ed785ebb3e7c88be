"""Processes of this machine, with no library but our own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import TracebackType

from beatmeter.features.engines.base import Engine, R, T
from beatmeter.runtime.parallel import Crash, ordered


class LocalEngine(Engine):
    """One worker is this very process."""

    name = "local"

    def __enter__(self) -> LocalEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The processes belong to `run` and end with it."""

    @property
    def slots(self) -> int:
        return self.workers

    def run(self, function: Callable[[T], R], items: Sequence[T]) -> Iterator[tuple[T, R | Crash]]:
        yield from zip(items, ordered(function, items, self.workers), strict=True)


ENGINE = LocalEngine
