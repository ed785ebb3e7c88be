"""Receipts: a second copy of each record under its segment's name; and what a store remembers of commits that
its journal lost.

A record that was deleted leaves no trace in the journal: the next commit may even take its number. So a
writer that was acknowledged leaves a receipt. A segment with a receipt and without a record was lost; one
with neither was never acknowledged. Segments from before there were receipts are believed to be committed
while a number is missing in the journal, or when a saved index names them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from beatmeter.runtime.display import count
from beatmeter.store.backend import ABSENT, Backend
from beatmeter.store.catalog import Catalog, State
from beatmeter.store.journal import RecordError, unseal
from beatmeter.store.layout import StoreLayout
from beatmeter.store.record import Record, receipt_name
from beatmeter.store.segment import disputed, embedded_record, read_tracks

_SUFFIX = ".json"


@dataclass(frozen=True)
class LostCommit:
    """A commit that no record tells of. `keys` are tracks that the store lacks by it, `held` whether its
    segment still is."""

    segment: str
    keys: tuple[str, ...]
    held: bool
    told_by: str

    @property
    def text(self) -> str:
        """What happened, for people."""
        rest = "its segment is here" if self.held else "its segment is gone too"
        return (
            f"the record of this commit of {count(len(self.keys), 'track')} that the store lacks was lost: "
            f"{self.told_by} tells of it, {rest}"
        )


def receipts(backend: Backend) -> set[str]:
    """Segments of which there are receipts."""
    return {name.removesuffix(_SUFFIX) for name in backend.list("receipts") if name.endswith(_SUFFIX)}


def read_receipt(backend: Backend, segment: str, layout: StoreLayout) -> Record:
    """The copy of the record that committed a segment. Raises RecordError when there is none that can be
    believed, and UnreadableError."""
    name = receipt_name(segment)
    try:
        record = Record.from_json(unseal(backend.read(name)), layout)
    except ABSENT as error:
        raise RecordError(f"{name} {backend.wrong_with(name) or 'went away'}") from error
    except ValueError as error:
        raise RecordError(f"{name} is damaged: {error}") from error
    if record.segment != segment:
        raise RecordError(f"{name} is of {record.segment}")
    return record


def receipt_fault(backend: Backend, layout: StoreLayout, record: Record) -> str:
    """What is wrong with the receipt of a commit, if there is one. Raises UnreadableError."""
    try:
        same = read_receipt(backend, record.segment, layout).to_json() == record.to_json()
    except RecordError as error:
        return "" if isinstance(error.__cause__, FileNotFoundError) else error.what
    return "" if same else "differs from the record"


def lost_commits(catalog: Catalog) -> list[LostCommit]:
    """Commits that were acknowledged, as far as anything tells, have no record, and held tracks that no other
    commit holds. Raises UnreadableError when a file that may tell cannot be read."""
    backend = catalog.backend
    listed = set(backend.list("segments")) - {"zarr.json"}
    acknowledged = receipts(backend)
    remembered, replaced = _indexed(catalog)
    catalog.refresh()  # after that look: what had a receipt by then has its record now
    for commit in catalog.commits.values():
        replaced |= {commit.segment, *commit.replaces}
    numbers, columns = catalog.journal.numbers(), catalog.state().columns
    gap = numbers != list(range(1, len(numbers) + 1)) or not numbers or bool(impostors(catalog))
    found = []
    for segment in sorted((listed | acknowledged | remembered.keys()) - replaced):
        record = _own_record(catalog, segment)
        if segment in acknowledged:
            told_by = receipt_name(segment)
        elif segment in remembered:
            told_by = "a saved index"
        elif record is not None and gap and not record.leaves_receipt:
            told_by = "a gap in the journal"
        else:
            continue
        keys = remembered.get(segment, ()) if record is None else record.keys
        if lacking := tuple(key for key, at in zip(keys, columns.find(keys), strict=True) if at < 0):
            found.append(LostCommit(segment, lacking, segment in listed, told_by))
    return found


def orphans(catalog: Catalog) -> list[str]:
    """Segments that no sound record names."""
    known = {commit.segment for commit in catalog.commits.values()}
    return sorted(
        name for name in catalog.backend.list("segments") if name != "zarr.json" and name not in known
    )


def impostors(catalog: Catalog) -> dict[int, int]:
    """Records of a segment that an earlier record names too, and says something else of: number to the
    earlier one's. A mere copy of a record is none."""
    first: dict[str, int] = {}
    found: dict[int, int] = {}
    for number, commit in sorted(catalog.commits.items()):
        earlier = first.setdefault(commit.segment, number) if commit.segment else number
        if earlier != number and catalog.read(number).to_json() != catalog.read(earlier).to_json():
            found[number] = earlier
    return found


def given_up(catalog: Catalog, state: State, record: Record) -> list[str]:
    """Tracks of a segment that counts as replaced, which nothing in `state` holds although their rows are
    sound here."""
    at = np.flatnonzero(state.columns.find(record.keys) < 0).tolist()
    if not at:
        return []
    doubted = disputed(catalog.backend, catalog.layout, record)
    rows = read_tracks(catalog.backend, record, catalog.layout, at)
    return [
        record.keys[i]
        for i, (_, wrong) in zip(at, rows, strict=True)
        if not wrong and record.keys[i] not in doubted
    ]


def _own_record(catalog: Catalog, segment: str) -> Record | None:
    for read in (embedded_record, read_receipt):
        with contextlib.suppress(RecordError):
            return read(catalog.backend, segment, catalog.layout)
    return None


def _indexed(catalog: Catalog) -> tuple[dict[str, tuple[str, ...]], set[str]]:
    """Segments that saved indexes count, with the keys that are read from them, and those that they say were
    replaced."""
    keys: dict[str, tuple[str, ...]] = {}
    replaced: set[str] = set()
    for name in catalog.indexes():
        with contextlib.suppress(RecordError):
            columns, about = catalog.read_index(name)
            for number, segment, _, replaces in about["commits"]:
                replaced.update(replaces)
                if segment and segment not in keys:
                    mine = columns.keys[columns.number == number]
                    keys[segment] = tuple(key.decode("ascii") for key in mine.tolist())
    return keys, replaced


@dataclass(frozen=True)
class Testimony:
    """What may be believed of a segment: a record, and those of its tracks of which it is not known which
    rows are theirs. `keys` are all tracks that anything says were in it."""

    record: Record
    doubted: frozenset[str]
    keys: frozenset[str]


def weigh(catalog: Catalog, records: Iterable[Record]) -> Testimony:
    """Several records of one segment: its own copy, the journal's, the receipt. Their checksums are right, so
    when they differ somebody made one. What the rows refute counts for nothing; of two that both fit the rows
    that counts which another one repeats; and neither when none does."""
    witnesses = list(records)
    told = [_borne_out(catalog, record) for record in witnesses]
    doubted = [
        frozenset(
            key
            for key, (samples, *rows) in mine.items()
            if not any(other.get(key) == (samples, *rows) for j, other in enumerate(told) if j != i)
            and any(_contradicts(other, key, (samples, *rows)) for j, other in enumerate(told) if j != i)
        )
        for i, mine in enumerate(told)
    ]
    best = max(range(len(witnesses)), key=lambda i: (len(told[i]) - len(doubted[i]), -i))
    return Testimony(
        witnesses[best], doubted[best], frozenset(key for record in witnesses for key in record.keys)
    )


def _borne_out(catalog: Catalog, record: Record) -> dict[str, tuple[Any, ...]]:
    """What a record says of those tracks whose rows are as it says."""
    told = record.statements()
    rows = read_tracks(catalog.backend, record, catalog.layout)
    return {key: told[key] for key, (_, wrong) in zip(record.keys, rows, strict=True) if not wrong}


def _contradicts(other: Mapping[str, tuple[Any, ...]], key: str, told: tuple[Any, ...]) -> bool:
    """Whether another record has other rows for this track, or this track's rows for another."""
    return other[key] != told if key in other else any(rows[1:] == told[1:] for rows in other.values())
