"""Which commits count: the journal of commits, read once, kept up to date, and saved as an index that makes
opening fast.

A commit counts when its record is sound and of this store's fingerprint, its files have the lengths it says,
and no later commit that counts replaces its segment. The index is a cache of this: with it a store opens
without reading the records that it covers, without it everything is read again.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import google_crc32c
import numpy as np

from beatmeter.errors import StoreError
from beatmeter.store.backend import ABSENT, Backend, UnreadableError
from beatmeter.store.index import Columns, dump, parse
from beatmeter.store.journal import Journal, RecordError, seal
from beatmeter.store.layout import StoreLayout
from beatmeter.store.record import Record, receipt_name

_INDEX = re.compile(r"([0-9]{8,12})-([0-9a-f]{8})\.npz")
_BLOCK = 1_000  # records held as Python objects at a time
_KEPT = 2  # saved indexes; somebody may be reading the one before the last
_UNFOLDED = 4_096  # tracks beside the sorted columns before they are sorted in


@dataclass(frozen=True)
class Commit:
    """What the catalog keeps of a record: its segment, the rows of each array in the spec's order, what it
    replaces."""

    segment: str
    rows: tuple[int, ...]
    replaces: tuple[str, ...]


@dataclass(frozen=True)
class State:
    """What counts at one moment: tracks sorted by key, and by commit number the commits they lie in."""

    columns: Columns
    commits: Mapping[int, Commit]


class Catalog:
    """Reads the commits of one store. Not thread-safe; what `state` returns is frozen and may be shared."""

    def __init__(self, backend: Backend, layout: StoreLayout) -> None:
        self.backend, self.layout = backend, layout
        self.journal = Journal(backend, "commits")
        self._forget()

    def _forget(self) -> None:
        self.commits: dict[int, Commit] = {}  # every sound record
        self.unsound: dict[int, str] = {}  # records that cannot be used, and why; looked at again each time
        self.misfits: dict[int, str] = {}  # records whose files have other lengths than they say
        self.last = 0  # highest number seen, sound or not
        self.covered = 0  # highest number in the saved index
        self._base: Columns | None = None  # tracks of the commits `_folded`, one entry per key, sorted
        self._unnamed: set[str] = (
            set()
        )  # what else lay among the segments before the records were read, and none named
        self._folded: set[int] = set()
        self._held: set[int] = set()  # commits whose tracks are known here: folded, or read since
        self._tail: list[Columns] = []  # tracks of the commits since
        self._tail_keys: set[str] = set()
        self._replacing = False  # some commit since replaces others
        self._state: State | None = None

    def refresh(self, use_index: bool = True) -> None:
        """Read the records that are new since the last call. Records that went away are forgotten. Raises
        UnreadableError when one cannot be read for now: a store that leaves out tracks without a word is
        worse than none."""
        if self.last:
            self._read_new(self.journal.numbers())
            return
        try:
            if not (use_index and any(map(self._start_from, self.indexes()))):
                listed = set(self.backend.list("segments"))
                self._read_new(self.journal.numbers())
                self._unnamed = listed - self._named()
        except BaseException:
            self._forget()  # half a start would pass for a whole one
            raise

    def _named(self) -> set[str]:
        return {commit.segment for commit in self.commits.values()}

    def _read_new(self, numbers: Sequence[int]) -> None:
        for number in self.commits.keys() - set(numbers):
            del self.commits[number]
            self.misfits.pop(number, None)
            self._state = None
        self.unsound = {}
        new = [n for n in numbers if n not in self.commits]
        for start in range(0, len(new), _BLOCK):
            self._read(new[start : start + _BLOCK])
        self.last = max([self.last, *numbers[-1:]])

    def state(self) -> State:
        """What counts now."""
        self.refresh()
        if self._state is None:
            live, _ = self._judge()
            for use_index in (True, False):
                if self._folded <= live.keys() <= self._held:
                    break
                # a commit whose tracks are sorted in no longer counts, or one counts again that was not
                # sorted in
                self._forget()
                self.refresh(use_index)
                live, _ = self._judge()
            self._fold(live)
        assert self._state is not None
        return self._state

    def faults(self) -> dict[int, str]:
        """Numbers of commits that would count if they were not damaged, and what is wrong with them."""
        _, replaced = self._judge()
        return dict(
            sorted(
                (self.unsound | {n: text for n, text in self.misfits.items() if n not in replaced}).items()
            )
        )

    def replaced(self) -> dict[int, int]:
        """Commits that do not count because another replaced them: number to the number of the
        replacement."""
        return self._judge()[1]

    def holds(self, keys: Sequence[str]) -> set[str]:
        """Those of `keys` that the store has now. Cheap to ask again and again while commits come in."""
        self.refresh()
        if (
            self._base is None
            or len(self._tail_keys) > max(_UNFOLDED, len(self._base) // 8)
            or self._replacing
        ):
            self.state()
        assert self._base is not None
        found = self._base.find(keys) >= 0
        return {key for key, here in zip(keys, found, strict=True) if here or key in self._tail_keys}

    def append(self, record: Record) -> int:
        """Put a record into the journal, durably, and leave its receipt: its number. Raises StoreError."""
        value = record.to_json()
        number = self.journal.append(value)
        if record.segment:
            self.backend.note(receipt_name(record.segment), seal(value))
        return number

    def read(self, number: int) -> Record:
        """One record, checked. Raises RecordError."""
        value = self.journal.read(number)
        try:
            return Record.from_json(value, self.layout)
        except RecordError as error:
            raise RecordError(f"{self.journal.path(number)} cannot be used: {error.what}") from error

    def _read(self, numbers: Sequence[int]) -> None:
        """All of these or, when a file cannot be read for now, none: the next call reads them again."""
        records: list[tuple[int, Record]] = []
        for number in numbers:
            try:
                records.append((number, self.read(number)))
            except RecordError as error:
                self.unsound[number] = error.what
        commits = {
            number: Commit(
                record.segment,
                tuple(record.extents[p].rows for p in self.layout.arrays if p in record.extents),
                record.replaces,
            )
            for number, record in records
        }
        misfits = self._misfits(commits)
        if not commits:
            return
        held = [(number, record) for number, record in records if number not in misfits]
        self._held.update(number for number, _ in held)
        if with_tracks := [(number, record) for number, record in held if record.keys]:
            self._tail.append(Columns.of(with_tracks, list(self.layout.arrays)))
            self._tail_keys.update(key for _, record in with_tracks for key in record.keys)
        self._replacing |= any(commit.replaces for commit in commits.values())
        self._state = None
        self.misfits |= misfits
        self.commits |= commits

    def _misfits(self, commits: Mapping[int, Commit]) -> dict[int, str]:
        """Those of these commits whose files have other lengths than they say."""
        wanted, expected = self._files(commits)
        numbers = [number for number, commit in commits.items() for _ in commit.rows]
        misfits: dict[int, str] = {}
        for number, name, size, right in zip(
            numbers, wanted, self.backend.sizes(wanted), expected, strict=True
        ):
            if size != right and number not in misfits:
                found = (
                    f"has {size} bytes"
                    if size is not None
                    else self.backend.wrong_with(name) or "was missing"
                )
                misfits[number] = f"{name} {found}, its record says {right} bytes"
        return misfits

    def _files(self, commits: Mapping[int, Commit]) -> tuple[list[str], list[int]]:
        """Names of the shards of these commits, and the sizes that they should have."""
        arrays = self.layout.arrays.values()
        names = [
            f"segments/{commit.segment}/{array.shard}"
            for commit in commits.values()
            for array, _ in zip(arrays, commit.rows, strict=False)
        ]
        return names, [
            array.size(rows)
            for commit in commits.values()
            for array, rows in zip(arrays, commit.rows, strict=False)
        ]

    def _judge(self) -> tuple[dict[int, Commit], dict[int, int]]:
        """The commits that count, and those that another replaced. A replacement always has the higher
        number."""
        first: dict[str, int] = {}
        for number in sorted(self.commits):
            first.setdefault(
                self.commits[number].segment or f"#{number}", number
            )  # a copied record names a segment twice
        taken: dict[str, int] = {}
        live: dict[int, Commit] = {}
        replaced: dict[int, int] = {}
        for segment, number in sorted(first.items(), key=lambda item: -item[1]):
            commit = self.commits[number]
            if segment in taken:
                replaced[number] = taken[segment]
            elif number not in self.misfits:
                live[number] = commit
            else:
                continue
            for name in commit.replaces:
                taken.setdefault(name, number)
        return live, replaced

    def _fold(self, live: Mapping[int, Commit]) -> None:
        if self._tail or self._base is None:
            parts = [p for p in (self._base, *self._tail) if p is not None] or [
                Columns.of([], list(self.layout.arrays))
            ]
            columns = Columns.join(parts)
            if any(number not in live for number in self.commits):
                columns = columns.take(np.flatnonzero(np.isin(columns.number, np.fromiter(live, np.int64))))
            self._base = columns.winners(number for number, commit in live.items() if commit.replaces)
        self._folded, self._held, self._tail, self._tail_keys, self._replacing = (
            set(live),
            set(live),
            [],
            set(),
            False,
        )
        self._state = State(self._base, dict(live))

    def save_index(self) -> None:
        """Save what `state` says, so that opening does not read the commits known now. Only a cache: failing
        is harmless."""
        with contextlib.suppress(StoreError):
            if not set(self.backend.list("segments")) <= self._unnamed | self._named():
                # nobody would believe an index with segments beside it of which it says nothing
                self._forget()
                self.refresh(use_index=False)
            self._save_index(self.state())

    def _save_index(self, state: State) -> None:
        about = {
            "fingerprint": self.layout.fingerprint,
            "folded": sorted(self._folded),
            "unnamed": sorted(self._unnamed - self._named()),
            # misfits are not among them: their tracks are not in the columns, and count again when their
            # files are back
            "commits": [
                [n, c.segment, list(c.rows), list(c.replaces)]
                for n, c in sorted(self.commits.items())
                if n not in self.misfits
            ],
        }
        data = dump(state.columns, about)
        name = f"{self.last:08d}-{google_crc32c.value(data):08x}.npz"
        self.backend.replace(f"index/{name}", data)
        self.covered = self.last
        for old in self.indexes()[_KEPT:]:
            self.backend.remove(f"index/{old}")

    def indexes(self) -> list[str]:
        """Names of saved indexes, the one that covers most first."""
        found = [
            (int(match[1]), match[0]) for match in map(_INDEX.fullmatch, self.backend.list("index")) if match
        ]
        return [name for _, name in sorted(found, reverse=True)]

    def read_index(self, name: str) -> tuple[Columns, Any]:
        """A saved index. Raises RecordError when it is damaged or another store's."""
        try:
            data = self.backend.read(f"index/{name}")
        except ABSENT as error:
            raise RecordError(
                f"index/{name} {self.backend.wrong_with(f'index/{name}') or 'went away'}"
            ) from error
        except UnreadableError as error:  # only a cache: the records themselves tell the same
            raise RecordError(error.what) from error
        if f"{google_crc32c.value(data):08x}" != name[-12:-4]:
            raise RecordError(f"index/{name} is damaged: its checksum does not match its name")
        columns, about = parse(data)
        if about.get("fingerprint") != self.layout.fingerprint:
            raise RecordError(f"index/{name} belongs to another store")
        return columns, about

    def _start_from(self, name: str) -> bool:
        """Start with a saved index and read the records that it does not cover. False, with nothing kept,
        when it is damaged or not of the commits that are there: some went away, lost their files, or have
        another's number since stores were copied into one another. That shows, without reading records, by a
        segment that nobody knows."""
        try:
            columns, about = self.read_index(name)
        except RecordError:
            return False  # `verify` reports it
        commits = {
            n: Commit(segment, tuple(rows), tuple(replaces))
            for n, segment, rows, replaces in about["commits"]
        }
        folded = set(about["folded"])
        wanted, expected = self._files({n: commits[n] for n in folded})
        listed, sizes = self.backend.survey(
            "segments", wanted
        )  # before the journal: what is acknowledged meanwhile is read from it
        numbers = self.journal.numbers()
        present = set(numbers)
        if list(sizes) != expected or not folded <= present:
            return False
        self._forget()  # also what is known of a store that had no commits
        self.commits = {n: commit for n, commit in commits.items() if n in present}
        self._base, self._folded, self._held, self._unnamed = (
            columns,
            folded,
            set(folded),
            {*about.get("unnamed", ()), "zarr.json"},
        )
        self.covered = self.last = max(self.commits, default=0)
        self._read_new(numbers)
        if listed <= self._unnamed | self._named():
            return True
        self._forget()
        return False
