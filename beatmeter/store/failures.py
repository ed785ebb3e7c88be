"""Files that could not be used, with reasons: kept beside the features so that nobody tries them again by
accident."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from beatmeter.errors import StoreError
from beatmeter.store.backend import Backend
from beatmeter.store.journal import Journal, RecordError


@dataclass(frozen=True)
class Failure:
    """One file: its track key, the path it was read from, why it has no features, and when (UTC, ISO
    8601)."""

    key: str
    path: str
    reason: str
    time: str


class Failures:
    """An append-only journal of failures and of their being cleared; the last word on a key counts."""

    def __init__(self, backend: Backend) -> None:
        self.journal = Journal(backend, "failures")
        self._read = 0
        self._current: dict[str, Failure] = {}

    def record(self, key: str, path: str, reason: str) -> None:
        """Add one, durably."""
        if not key:
            raise StoreError(f"the failure of {path} needs a track key")
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self.journal.append({"failed": [[key, path, reason, now]], "cleared": []})

    def clear(self, keys: Iterable[str]) -> None:
        """Forget these, durably, so that they are tried again."""
        if cleared := sorted(set(keys)):
            self.journal.append({"failed": [], "cleared": cleared})

    def current(self) -> dict[str, Failure]:
        """By track key. Damaged records are left out: their files are merely tried again."""
        numbers = self.journal.numbers()
        for number in numbers:
            if number > self._read:
                try:
                    value = self.journal.read(number)
                    entries = [Failure(*map(str, entry)) for entry in value["failed"]]
                    cleared: list[Any] = list(value["cleared"])
                except (RecordError, KeyError, TypeError):
                    continue
                self._current |= {failure.key: failure for failure in entries}
                for key in cleared:
                    self._current.pop(key, None)
        self._read = max([self._read, *numbers[-1:]])
        return dict(self._current)
