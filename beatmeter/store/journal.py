"""An append-only list of small JSON records: numbered files that each appear whole and carry their own
checksum.

The number is the order. A writer takes the next free one with a create-if-absent, so several writers need no
lock, the order does not depend on anybody's clock, and of two records the one with the lower number came
first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import google_crc32c

from beatmeter.errors import StoreError, shown
from beatmeter.store.backend import ABSENT, Backend

_LAST = 10**12 - 1  # number; a name with more digits was not made here
_NAME = re.compile(
    r"([0-9]{8}|[1-9][0-9]{8,11})\.json"
)  # exactly what `path` gives: no other digits, no zeros beyond eight places
_TAIL = re.compile(rb',"crc32c":"([0-9a-f]{8})"\}\n')
_TAIL_LENGTH = len(',"crc32c":"00000000"}\n')


class RecordError(StoreError):
    """A record that cannot be believed: damaged bytes, or values that contradict each other."""


def seal(value: Mapping[str, Any]) -> bytes:
    """One JSON object on one line whose last member is the CRC-32C of every byte before it."""
    body = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)[:-1].encode("ascii")
    return body + b',"crc32c":"%08x"}\n' % google_crc32c.value(body)


def unseal(data: bytes) -> dict[str, Any]:
    """The object that `seal` wrote. Raises RecordError when a bit of it changed or the end is missing."""
    tail = _TAIL.fullmatch(data[-_TAIL_LENGTH:])
    body = data[:-_TAIL_LENGTH]
    if tail is None or int(tail[1], 16) != google_crc32c.value(body):
        raise RecordError("the record's checksum does not match its bytes")
    try:
        value = json.loads(data)
    except RecursionError:
        raise RecordError("the record is nested deeper than any that is written here") from None
    del value["crc32c"]
    return value  # type: ignore[no-any-return]


class Journal:
    """The numbered records in one sub-folder of a store."""

    def __init__(self, backend: Backend, name: str) -> None:
        self.backend, self.name = backend, name

    def numbers(self) -> list[int]:
        """Numbers in use, ascending. Whatever else lies in the folder is not a record."""
        return sorted(int(match[1]) for match in map(_NAME.fullmatch, self.backend.list(self.name)) if match)

    def foreign(self) -> list[str]:
        """Names in the folder that are not records."""
        return sorted(name for name in self.backend.list(self.name) if not _NAME.fullmatch(name))

    def path(self, number: int) -> str:
        """The record's name in the store."""
        return f"{self.name}/{number:08d}.json"

    def read(self, number: int) -> dict[str, Any]:
        """One record. Raises RecordError, naming the file, when it is damaged or gone; UnreadableError when
        neither is known."""
        try:
            return unseal(self.backend.read(self.path(number)))
        except ABSENT as error:
            raise RecordError(
                f"{self.path(number)} {self.backend.wrong_with(self.path(number)) or 'went away'}"
            ) from error
        except (RecordError, ValueError) as error:
            raise RecordError(f"{self.path(number)} is damaged: {getattr(error, 'what', error)}") from error

    def append(self, value: Mapping[str, Any]) -> int:
        """Add a record after all that are there, durably, and return its number. Raises StoreError."""
        data = seal(value)
        while True:
            number = self._last() + 1
            if number > _LAST:
                hint = (
                    "It cannot have been written here: move it out of the store, then run the same command "
                    "again."
                )
                raise StoreError(
                    f"{self.path(_LAST)} in {shown(self.backend.where)} has the last number that there is",
                    hint,
                )
            if self.backend.put_if_absent(self.path(number), data):
                return number

    def _last(self) -> int:
        """The highest number in use, 0 when there is none. What every commit asks: names of equal length need
        no parsing."""
        names = self.backend.list(self.name)
        top = max(names, default="")
        if _NAME.fullmatch(top) and len(top) == max(map(len, names)):
            return int(top.removesuffix(".json"))
        return max((int(match[1]) for match in map(_NAME.fullmatch, names) if match), default=0)
