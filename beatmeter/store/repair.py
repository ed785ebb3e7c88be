"""Repair: keep every track whose bytes can be proven, give up the rest by name, and leave a store that
verifies."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from beatmeter.errors import StoreError, shown
from beatmeter.runtime.display import count
from beatmeter.runtime.progress import SILENT, Reporter
from beatmeter.store.catalog import Catalog
from beatmeter.store.commit import SegmentWriter
from beatmeter.store.journal import Journal, RecordError, seal
from beatmeter.store.mending import Repair, clear, move_aside, repair_roots, set_aside, unsound
from beatmeter.store.receipts import (
    Testimony,
    given_up,
    lost_commits,
    orphans,
    read_receipt,
    receipt_fault,
    weigh,
)
from beatmeter.store.record import Record, receipt_name
from beatmeter.store.segment import Condition, disputed, embedded_record, examine, read_tracks
from beatmeter.store.store import Store, Where, backend_of

_MADE_BY = {"made_by": "repair"}


@dataclass(frozen=True)
class _Damaged:
    """A commit whose segment is not as its record says: what to believe instead, the keys of tracks whose
    rows are wrong or of which it is not known which rows are theirs. Of a forged record: whether what others
    say of its segment is right as it is (it is committed, unless the journal says it already), or its tracks
    are copied to where nothing false is said of them."""

    testimony: Testimony
    tracks: frozenset[str]
    forged: bool
    right_as_told: bool = False
    told_elsewhere: bool = False

    @property
    def record(self) -> Record:
        return self.testimony.record


Damaged = dict[int, _Damaged]  # by number of the commit


def repair(where: Where, progress: Reporter = SILENT) -> Repair:
    """Make the store at `where` sound. Nothing is deleted: what is damaged is set aside or replaced, and `gc`
    removes it later. Raises StoreError when there is nothing to rebuild the store from, and UnreadableError,
    before any record is changed, when a file cannot be read: it may be as sound as ever."""
    backend, done = backend_of(where), Repair()
    if not backend.exists("commits") and not backend.exists("segments"):
        raise StoreError(
            f"there is no feature store in {shown(backend.where)}",
            "`beatmeter cache info` lists those there are.",
        )
    with backend.lock("repair"):
        backend.make("commits", "failures", "index", "receipts", "segments", "tmp")
        repair_roots(backend, done)
        store = Store.open(backend)
        catalog = Catalog(backend, store.layout)
        catalog.refresh(use_index=False)
        failures = Journal(backend, "failures")
        unsound_failures = unsound(failures)
        damaged, unreceipted = _damaged(store, catalog, progress)
        strays = _strays(store, catalog)
        gone = lost_commits(catalog)
        sources, elsewhere = _sources(store, catalog, damaged, strays), _elsewhere(catalog, damaged)
        for name in store.catalog.indexes():  # they may know records by numbers that will be used again
            backend.remove(f"index/{name}")
        before = {
            key
            for number in catalog.faults()
            if number in catalog.misfits
            for key in catalog.read(number).keys
        }
        before |= {*_all_keys(catalog), *(key for commit in gone for key in commit.keys)}
        before |= _adopt(store, catalog, strays, done)
        for number, broken in damaged.items():
            before |= broken.testimony.keys
            if broken.right_as_told:
                if not broken.told_elsewhere:
                    _commit(catalog, broken.record, done)
                continue
            lost_race = {key for key in broken.record.keys if elsewhere.get(key, number) != number}
            _rescue(store, catalog, broken.testimony, (broken.record.segment,), done, sources, lost_race)
        for record in unreceipted:
            clear(backend, receipt_name(record.segment), done)
            backend.note(receipt_name(record.segment), seal(record.to_json()))
            done.actions.append(f"wrote {receipt_name(record.segment)} again")
        forged = [number for number, broken in damaged.items() if broken.forged]
        set_aside(
            backend,
            catalog.journal,
            [*catalog.unsound, *forged],
            Record("", store.layout.fingerprint, provenance=_MADE_BY).to_json(),
            done,
        )
        set_aside(backend, failures, unsound_failures, {"failed": [], "cleared": []}, done)
        doubtful = [damaged[number].record.segment for number in forged if not damaged[number].right_as_told]
        for segment in [*doubtful, *(commit.segment for commit in gone if not commit.held)]:
            for name in (f"segments/{segment}", receipt_name(segment)):
                if backend.exists(name):
                    move_aside(backend, name, done)
        honest = Catalog(backend, store.layout)
        honest.refresh(use_index=False)
        if forged:  # these may have named tracks of others
            before |= _adopt(store, honest, _strays(store, honest), done)
        before |= _give_back(store, honest, done)
        after = Store.open(backend)
        done.lost = after.missing(sorted(before))
        after.catalog.save_index()
    return done


def _all_keys(catalog: Catalog) -> list[str]:
    return [k.decode("ascii") for k in catalog.state().columns.keys.tolist()]


def _damaged(store: Store, catalog: Catalog, progress: Reporter) -> tuple[Damaged, list[Record]]:
    """Commits that were not replaced and whose segments are not as they say, after looking at every byte; and
    records of sound ones whose receipts are damaged."""
    found: Damaged = {}
    unreceipted = []
    replaced = catalog.replaced()
    numbers = [n for n, commit in sorted(catalog.commits.items()) if commit.segment and n not in replaced]
    with progress.track("repairing", len(numbers), "segments") as tick:
        for number in numbers:
            record = catalog.read(number)
            condition = examine(store.backend, store.layout, record)
            if not condition.sound:
                found[number] = _judge(store, catalog, number, record, condition)
            elif receipt_fault(store.backend, store.layout, record):
                unreceipted.append(record)
            tick(1)
    return found, unreceipted


def _judge(store: Store, catalog: Catalog, number: int, record: Record, condition: Condition) -> _Damaged:
    """What to make of a commit that is not sound."""
    others = [
        catalog.read(n)
        for n, commit in catalog.commits.items()
        if n != number and commit.segment == record.segment
    ]
    others = [other for other in others if other.to_json() != record.to_json()]
    witnesses = _witnesses(store, record.segment, record, *others)
    told = weigh(catalog, witnesses)
    seconds = sum(witness.to_json() == record.to_json() for witness in witnesses) - 1
    forged = seconds == 0 and len(witnesses) > 1
    right = (
        forged
        and not told.doubted
        and told.record is not record
        and examine(store.backend, store.layout, told.record).sound
    )
    elsewhere = any(other.to_json() == told.record.to_json() for other in others)
    return _Damaged(told, frozenset(condition.tracks), forged, right, elsewhere)


def _witnesses(store: Store, segment: str, *known: Record) -> list[Record]:
    """All records of a segment that have the right checksum: those `known`, its own copy, the receipt."""
    found = list(known)
    for read in (embedded_record, read_receipt):
        with contextlib.suppress(RecordError):
            found.append(read(store.backend, segment, store.layout))
    return found


@dataclass(frozen=True)
class _Stray:
    """A segment that no sound record names, by the record that it carries or that its receipt is, and whether
    it is as that says."""

    testimony: Testimony
    sound: bool

    @property
    def record(self) -> Record:
        return self.testimony.record


def _strays(store: Store, catalog: Catalog) -> list[_Stray]:
    """Segments whose record was damaged or lost, or whose writer died on the last step. What matches its
    checksums is right either way."""
    found = []
    for segment in orphans(catalog):
        if witnesses := _witnesses(store, segment):
            told = weigh(catalog, witnesses)
            found.append(
                _Stray(told, not told.doubted and examine(store.backend, store.layout, told.record).sound)
            )
    return found


def _sources(store: Store, catalog: Catalog, damaged: Damaged, strays: Sequence[_Stray]) -> list[Record]:
    """Segments in which the damaged tracks lie as well: those that compaction replaced and `gc` has not
    removed, above all."""
    wanted = {key for broken in damaged.values() for key in broken.tracks}
    if not wanted:
        return []
    others = [catalog.read(n) for n, commit in sorted(catalog.commits.items()) if commit.segment]
    others += [stray.record for stray in strays if not stray.testimony.doubted]
    return [
        record
        for record in others
        if not wanted.isdisjoint(record.keys) and not disputed(store.backend, store.layout, record)
    ]


def _elsewhere(catalog: Catalog, damaged: Damaged) -> dict[str, int]:
    """The commit that each track of damaged segments is read from. Not what a damaged one replaced: that will
    count no longer."""
    state = catalog.state()
    taken = {segment for broken in damaged.values() for segment in broken.record.replaces}
    keys = sorted({key for broken in damaged.values() for key in broken.record.keys})
    found = zip(keys, state.columns.find(keys).tolist(), strict=True)
    number = {key: int(state.columns.number[at]) for key, at in found if at >= 0}
    return {key: n for key, n in number.items() if state.commits[n].segment not in taken}


def _adopt(store: Store, catalog: Catalog, strays: Sequence[_Stray], done: Repair) -> set[str]:
    """Take in the strays that hold tracks that the store lacks."""
    keys: set[str] = set()
    for stray in strays:
        record = stray.record
        if len(catalog.holds(record.keys)) == len(record.keys):
            continue
        keys |= stray.testimony.keys
        if stray.sound:
            _commit(catalog, record, done)
        else:
            _rescue(store, catalog, stray.testimony, (), done)
            if stray.testimony.doubted:
                move_aside(store.backend, f"segments/{record.segment}", done)
    return keys


def _commit(catalog: Catalog, record: Record, done: Repair) -> None:
    number = catalog.append(record)
    done.actions.append(
        f"committed segments/{record.segment} ({count(len(record.keys), 'track')}) as "
        f"{catalog.journal.path(number)}"
    )


def _give_back(store: Store, catalog: Catalog, done: Repair) -> set[str]:
    """Take in sound tracks of segments that count as replaced although nothing holds these tracks now: a
    record that says so says what is not true."""
    keys: set[str] = set()
    state = catalog.state()
    for number in sorted(catalog.replaced()):
        record = catalog.read(number)
        if tracks := given_up(catalog, state, record):
            keys |= set(tracks)
            doubted = frozenset(record.keys) - set(tracks)
            _rescue(store, catalog, Testimony(record, doubted, frozenset(record.keys)), (), done)
    return keys


def _rescue(
    store: Store,
    catalog: Catalog,
    told: Testimony,
    replaces: tuple[str, ...],
    done: Repair,
    sources: Sequence[Record] = (),
    elsewhere: Collection[str] = (),
) -> None:
    """Write the sound tracks of a damaged segment, and the others from `sources`, into a new one that
    replaces it; not those that are read from `elsewhere`, where they lost to another commit."""
    record = told.record
    lost: dict[str, int] = {}
    with SegmentWriter(store.backend, store.layout) as writer:
        for i, (stored, wrong) in enumerate(read_tracks(store.backend, record, store.layout)):
            if record.keys[i] in elsewhere:
                continue
            if wrong or record.keys[i] in told.doubted:
                lost[record.keys[i]] = i
            else:
                writer.add(record.keys[i], record.samples[i], stored)
        sound = len(writer)
        for source, at, stored in _sound_copies(store, record, lost, sources):
            writer.add(source.keys[at], source.samples[at], stored)
        saved = len(writer)
        rescued = (
            writer.publish(replaces, _MADE_BY)
            if saved
            else Record("", store.layout.fingerprint, replaces=replaces, provenance=_MADE_BY)
        )
    if saved or replaces:
        catalog.append(rescued)
    copied = f", {saved - sound} of them from other segments" if saved > sound else ""
    done.actions.append(
        f"saved {saved} of {count(len(record.keys), 'track')} of segments/{record.segment}{copied}"
    )


def _sound_copies(
    store: Store, record: Record, lost: dict[str, int], sources: Sequence[Record]
) -> Iterator[tuple[Record, int, dict[str, np.ndarray]]]:
    """For tracks that are damaged in `record`, by key with their position: a segment that holds them sound,
    their position in it, and their stored rows. Those whose rows are bit for bit the same come first."""
    missing = dict(lost)

    def same(source: Record, at: int) -> bool:
        i = missing[source.keys[at]]
        return all(
            source.extents[name].digests[at] == extent.digests[i] for name, extent in record.extents.items()
        )

    for wanted in (True, False):
        for source in sources:
            if source.segment != record.segment:
                which = [
                    at for at, key in enumerate(source.keys) if key in missing and same(source, at) == wanted
                ]
                for at, (stored, wrong) in zip(
                    which, read_tracks(store.backend, source, store.layout, which), strict=True
                ):
                    if not wrong:
                        del missing[source.keys[at]]
                        yield source, at, stored
