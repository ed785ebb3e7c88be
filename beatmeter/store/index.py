"""Where every track lies, as sorted numpy columns: a hundred bytes a track, no Python objects, a million
tracks in memory."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, overload

import numpy as np

from beatmeter.store.journal import RecordError
from beatmeter.store.record import Record

_COLUMNS = ("keys", "number", "samples", "first", "counts", "digests")
_BLOCK = 65_536


@dataclass(frozen=True, eq=False)
class Columns:
    """One entry per track. `number` is the number of the commit that holds it; `first`, `counts` and
    `digests` are (track, pooling), poolings in the spec's order: first row, number of rows, digest of the
    rows' checksums."""

    keys: np.ndarray  # (track,) bytes
    number: np.ndarray  # (track,) int64
    samples: np.ndarray  # (track,) int64
    first: np.ndarray  # (track, pooling) int64
    counts: np.ndarray  # (track, pooling) int64
    digests: np.ndarray  # (track, pooling) uint32

    def __len__(self) -> int:
        return len(self.keys)

    @classmethod
    def of(cls, records: Iterable[tuple[int, Record]], poolings: Sequence[str]) -> Columns:
        """The tracks of some records with their numbers."""
        keys: list[str] = []
        number: list[int] = []
        samples: list[int] = []
        per_row: dict[str, list[list[int]]] = {
            name: [[] for _ in poolings] for name in ("first", "counts", "digests")
        }
        for n, record in records:
            keys += record.keys
            number += [n] * len(record.keys)
            samples += record.samples
            if record.keys:
                for i, pooling in enumerate(poolings):
                    extent = record.extents[pooling]
                    per_row["first"][i] += extent.first
                    per_row["counts"][i] += extent.counts
                    per_row["digests"][i] += extent.digests
        return cls(
            np.array(keys, dtype="S") if keys else np.empty(0, "S1"),
            np.array(number, np.int64),
            np.array(samples, np.int64),
            np.array(per_row["first"], np.int64).T,
            np.array(per_row["counts"], np.int64).T,
            np.array(per_row["digests"], np.uint32).T,
        )

    @classmethod
    def join(cls, parts: Sequence[Columns]) -> Columns:
        """All entries, one part after the other."""
        return (
            parts[0]
            if len(parts) == 1
            else cls(*(np.concatenate([getattr(p, name) for p in parts]) for name in _COLUMNS))
        )

    def take(self, index: np.ndarray) -> Columns:
        """The entries at `index`."""
        return Columns(*(np.ascontiguousarray(getattr(self, name)[index]) for name in _COLUMNS))

    def winners(self, compacted: Iterable[int]) -> Columns:
        """One entry per key, sorted by key: the one of the lowest commit number. Commits in `compacted`,
        which hold copies of entries that had won before, come before all others."""
        rank = np.where(
            np.isin(self.number, np.fromiter(compacted, np.int64)), self.number - 2**62, self.number
        )
        order = np.argsort(rank, kind="stable")
        order = order[np.argsort(self.keys[order], kind="stable")]
        keys = self.keys[order]
        new = np.ones(len(keys), bool)
        new[1:] = keys[1:] != keys[:-1]
        return self.take(order[new])

    def find(self, keys: Sequence[str]) -> np.ndarray:
        """Positions of `keys` in entries sorted by key, -1 where there is none."""
        if not len(keys) or not len(self):
            return np.full(len(keys), -1)
        width = self.keys.dtype.itemsize
        if (
            max(map(len, keys)) > width or not "".join(keys).isascii()
        ):  # such keys would be cut, or cannot be encoded
            keys = [k if k.isascii() and len(k) <= width else "" for k in keys]
        wanted = np.array(keys, dtype=self.keys.dtype)
        at = np.minimum(np.searchsorted(self.keys, wanted), len(self) - 1)
        result: np.ndarray = np.where(self.keys[at] == wanted, at, -1)
        return result

    @cached_property
    def identity(self) -> str:
        """Hex sha256 of what is stored under which key: lengths, row counts and checksums, not where it
        lies."""
        total = hashlib.sha256()
        for start in range(0, len(self), _BLOCK):
            part = slice(start, start + _BLOCK)
            total.update(b"\n".join(self.keys[part].tolist()) + b"\n")
            for values, dtype in ((self.samples, "<i8"), (self.counts, "<i8"), (self.digests, "<u4")):
                total.update(np.ascontiguousarray(values[part], dtype).tobytes())
        return total.hexdigest()


class Keys(Sequence[str]):
    """Track keys, sorted; `in` is a binary search."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns

    def __len__(self) -> int:
        return len(self._columns)

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> list[str]: ...
    def __getitem__(self, at: int | slice) -> str | list[str]:
        if isinstance(at, slice):
            return [k.decode("ascii") for k in self._columns.keys[at].tolist()]
        return bytes(self._columns.keys[at]).decode("ascii")

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and bool(self._columns.find([key])[0] >= 0)

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, Sequence) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{len(self)} track keys>"


def dump(columns: Columns, commits: Any) -> bytes:
    """Columns and a JSON value about the commits they come from, as the bytes of an `.npz`."""
    buffer = io.BytesIO()
    about = np.frombuffer(json.dumps(commits, separators=(",", ":")).encode(), np.uint8)
    np.savez(buffer, about=about, **{name: getattr(columns, name) for name in _COLUMNS})
    return buffer.getvalue()


def parse(data: bytes) -> tuple[Columns, Any]:
    """What `dump` wrote. Raises RecordError when it is something else."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            columns = Columns(*(arrays[name] for name in _COLUMNS))
            commits = json.loads(arrays["about"].tobytes())
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise RecordError(f"the index is damaged: {error}") from error
    if any(len(getattr(columns, name)) != len(columns) for name in _COLUMNS):
        raise RecordError("the index is damaged: its columns differ in length")
    return columns, commits
