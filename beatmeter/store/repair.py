"""Repair: keep every track whose bytes can be proven, give up the rest by name, and leave a store that verifies."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from beatmeter.display import count
from beatmeter.errors import BeatmeterError, StoreError, shown
from beatmeter.schema import FeatureSpec
from beatmeter.store.catalog import Catalog
from beatmeter.store.commit import SegmentWriter
from beatmeter.store.journal import Journal, RecordError
from beatmeter.store.layout import NewerFormatError, StoreLayout, read_spec
from beatmeter.store.place import ABSENT, Place, UnreadableError
from beatmeter.store.record import Record
from beatmeter.store.segment import embedded_record, examine, holds_json, read_tracks
from beatmeter.store.store import Store, Where, place_of
from beatmeter.store.verify import orphans

_MADE_BY = {"made_by": "repair"}
Damaged = dict[int, tuple[Record, frozenset[str]]]  # by number of the commit: its record, and the keys of tracks whose rows are wrong


@dataclass
class Repair:
    """What was done, one line each, and the keys of tracks whose features are gone: extract them again."""

    actions: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


def repair(where: Where, progress: Callable[[int, int], object] = lambda done, total: None) -> Repair:
    """Make the store at `where` sound. Nothing is deleted: what is damaged is set aside or replaced, and `gc`
    removes it later. Raises StoreError when there is nothing to rebuild the store from, and UnreadableError, before any
    record is changed, when a file cannot be read: it may be as sound as ever."""
    place, done = place_of(where), Repair()
    if not place.exists("commits") and not place.exists("segments"):
        raise StoreError(f"there is no feature store in {shown(place.where)}", "`beatmeter cache info` lists those there are.")
    with place.lock("repair"):
        place.make("commits", "failures", "index", "segments", "tmp")
        _repair_roots(place, done)
        store = Store.open(place)
        catalog = Catalog(place, store.layout)
        catalog.refresh(use_index=False)
        failures = Journal(place, "failures")
        unsound_failures = _unsound(failures)
        damaged = _damaged(store, catalog, progress)
        strays = _strays(store, catalog)
        sources, elsewhere = _sources(store, catalog, damaged, strays), _elsewhere(catalog, damaged)
        for name in store.catalog.indexes():  # they may know records by numbers that will be used again
            place.remove(f"index/{name}")
        before = {key for number in catalog.faults() if number in catalog.misfits for key in catalog.read(number).keys}
        before |= set(_all_keys(catalog))
        before |= _adopt(store, catalog, strays, done)
        for number, (record, _) in damaged.items():
            _rescue(store, catalog, record, (record.segment,), done, sources, {key for key in record.keys if elsewhere.get(key, number) != number})
        _set_aside(place, catalog.journal, catalog.unsound, Record("", store.layout.fingerprint, provenance=_MADE_BY).to_json(), done)
        _set_aside(place, failures, unsound_failures, {"failed": [], "cleared": []}, done)
        after = Store.open(place)
        done.lost = after.missing(sorted(before))
        after.catalog.save_index()
    return done


def _all_keys(catalog: Catalog) -> list[str]:
    return [k.decode("ascii") for k in catalog.state().columns.keys.tolist()]


def _repair_roots(place: Place, done: Repair) -> None:
    """The metadata of the groups: the store's own, if need be, from any segment that still tells which features these are."""
    try:
        spec = Store.open(place).spec
    except (NewerFormatError, UnreadableError):
        raise
    except StoreError as error:
        found: dict[str, FeatureSpec] = {}
        for name in place.list("segments"):
            with contextlib.suppress(*ABSENT):
                metadata = place.read(f"segments/{name}/zarr.json")
                with contextlib.suppress(ValueError, RecursionError, BeatmeterError):
                    told = read_spec(json.loads(metadata))
                    found[told.fingerprint] = told
        named = [told for fingerprint, told in found.items() if place.where.rstrip("/").endswith(fingerprint[:16])] or list(found.values())
        if len(named) != 1:
            which = "no segment tells" if not named else "segments disagree on"
            raise StoreError(f"{error.what}; {which} which features these are", "Remove the folder and extract again.") from error
        spec = named[0]
    for name, content in StoreLayout(spec).group_metadata().items():
        if not holds_json(place, name, content):
            place.replace(name, content)
            done.actions.append(f"wrote {name} again")


def _damaged(store: Store, catalog: Catalog, progress: Callable[[int, int], object]) -> Damaged:
    """Commits that were not replaced and whose segments are not as they say, after looking at every byte."""
    found = {}
    replaced = catalog.replaced()
    numbers = [n for n, commit in sorted(catalog.commits.items()) if commit.segment and n not in replaced]
    for i, number in enumerate(numbers):
        progress(i, len(numbers))
        record = catalog.read(number)
        condition = examine(store.place, store.layout, record)
        if not condition.sound:
            found[number] = record, frozenset(condition.tracks)
    progress(len(numbers), len(numbers))
    return found


def _strays(store: Store, catalog: Catalog) -> list[tuple[Record, bool]]:
    """Segments that no sound record names, by the record that they carry, and whether they are as it says: their record was
    damaged or lost, or their writer died on the last step. What matches its checksums is right either way."""
    found = []
    for segment in orphans(store, catalog):
        with contextlib.suppress(RecordError):
            record = embedded_record(store.place, segment, store.layout)
            found.append((record, examine(store.place, store.layout, record).sound))
    return found


def _sources(store: Store, catalog: Catalog, damaged: Damaged, strays: list[tuple[Record, bool]]) -> list[Record]:
    """Segments in which the damaged tracks lie as well: those that compaction replaced and `gc` has not removed, above all."""
    wanted = {key for _, tracks in damaged.values() for key in tracks}
    if not wanted:
        return []
    others = (catalog.read(n) for n, commit in sorted(catalog.commits.items()) if commit.segment)
    return [record for record in itertools.chain(others, (record for record, _ in strays)) if not wanted.isdisjoint(record.keys)]


def _elsewhere(catalog: Catalog, damaged: Damaged) -> dict[str, int]:
    """The commit that each track of damaged segments is read from. Not what a damaged one replaced: that will count no longer."""
    state = catalog.state()
    taken = {segment for record, _ in damaged.values() for segment in record.replaces}
    keys = sorted({key for record, _ in damaged.values() for key in record.keys})
    found = zip(keys, state.columns.find(keys).tolist(), strict=True)
    number = {key: int(state.columns.number[at]) for key, at in found if at >= 0}
    return {key: n for key, n in number.items() if state.commits[n].segment not in taken}


def _adopt(store: Store, catalog: Catalog, strays: list[tuple[Record, bool]], done: Repair) -> set[str]:
    """Take in the strays that hold tracks that the store lacks."""
    keys: set[str] = set()
    for record, sound in strays:
        if len(catalog.holds(record.keys)) == len(record.keys):
            continue
        keys |= set(record.keys)
        if sound:
            number = catalog.journal.append(record.to_json())
            done.actions.append(f"committed segments/{record.segment} ({count(len(record.keys), 'track')}) as {catalog.journal.path(number)}")
        else:
            _rescue(store, catalog, record, (), done)
    return keys


def _rescue(
    store: Store,
    catalog: Catalog,
    record: Record,
    replaces: tuple[str, ...],
    done: Repair,
    sources: Sequence[Record] = (),
    elsewhere: Collection[str] = (),
) -> None:
    """Write the sound tracks of a damaged segment, and the others from `sources`, into a new one that replaces it; not those
    that are read from `elsewhere`, where they lost to another commit."""
    lost: dict[str, int] = {}
    with SegmentWriter(store.place, store.layout) as writer:
        for i, (stored, wrong) in enumerate(read_tracks(store.place, record, store.layout)):
            if record.keys[i] in elsewhere:
                continue
            if wrong:
                lost[record.keys[i]] = i
            else:
                writer.add(record.keys[i], record.samples[i], stored)
        sound = len(writer)
        for source, at, stored in _sound_copies(store, record, lost, sources):
            writer.add(source.keys[at], source.samples[at], stored)
        saved = len(writer)
        rescued = writer.publish(replaces, _MADE_BY) if saved else Record("", store.layout.fingerprint, replaces=replaces, provenance=_MADE_BY)
    if saved or replaces:
        catalog.journal.append(rescued.to_json())
    copied = f", {saved - sound} of them from other segments" if saved > sound else ""
    done.actions.append(f"saved {saved} of {count(len(record.keys), 'track')} of segments/{record.segment}{copied}")


def _sound_copies(
    store: Store, record: Record, lost: dict[str, int], sources: Sequence[Record]
) -> Iterator[tuple[Record, int, dict[str, np.ndarray]]]:
    """For tracks that are damaged in `record`, by key with their position: a segment that holds them sound, their position
    in it, and their stored rows. Those whose rows are bit for bit the same come first."""
    missing = dict(lost)

    def same(source: Record, at: int) -> bool:
        i = missing[source.keys[at]]
        return all(source.extents[name].digests[at] == extent.digests[i] for name, extent in record.extents.items())

    for wanted in (True, False):
        for source in sources:
            if source.segment != record.segment:
                which = [at for at, key in enumerate(source.keys) if key in missing and same(source, at) == wanted]
                for at, (stored, wrong) in zip(which, read_tracks(store.place, source, store.layout, which), strict=True):
                    if not wrong:
                        del missing[source.keys[at]]
                        yield source, at, stored


def _unsound(journal: Journal) -> list[int]:
    found = []
    for number in journal.numbers():
        try:
            journal.read(number)
        except RecordError:
            found.append(number)
    return found


def _set_aside(place: Place, journal: Journal, numbers: Iterable[int], empty: dict[str, Any], done: Repair) -> None:
    """Move damaged records out of their journal. Their numbers must not come again while somebody remembers them."""
    unsound = sorted(numbers)
    if unsound and journal.numbers()[-1] == unsound[-1]:
        journal.append(empty)
    for number in unsound:
        name = journal.path(number)
        place.move(name, f"damaged/{journal.name}-{number:08d}.json")
        done.actions.append(f"set {name} aside")
