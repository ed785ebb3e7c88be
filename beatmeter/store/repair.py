"""Repair: keep every track whose bytes can be proven, give up the rest by name, and leave a store that verifies."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

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
        for name in store.catalog.indexes():  # they may know records by numbers that will be used again
            place.remove(f"index/{name}")
        before = {key for number in catalog.faults() if number in catalog.misfits for key in catalog.read(number).keys}
        before |= set(_all_keys(catalog))
        before |= _adopt(store, catalog, strays, done)
        for record in damaged:
            _rescue(store, catalog, record, (record.segment,), done)
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


def _damaged(store: Store, catalog: Catalog, progress: Callable[[int, int], object]) -> list[Record]:
    """Commits that were not replaced and whose segments are not as they say, after looking at every byte."""
    found = []
    replaced = catalog.replaced()
    numbers = [n for n, commit in sorted(catalog.commits.items()) if commit.segment and n not in replaced]
    for i, number in enumerate(numbers):
        progress(i, len(numbers))
        record = catalog.read(number)
        if not examine(store.place, store.layout, record).sound:
            found.append(record)
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


def _adopt(store: Store, catalog: Catalog, strays: list[tuple[Record, bool]], done: Repair) -> set[str]:
    """Take in the strays that hold tracks that the store lacks."""
    keys: set[str] = set()
    for record, sound in strays:
        if len(catalog.holds(record.keys)) == len(record.keys):
            continue
        keys |= set(record.keys)
        if sound:
            number = catalog.journal.append(record.to_json())
            done.actions.append(f"committed segments/{record.segment} ({len(record.keys)} tracks) as {catalog.journal.path(number)}")
        else:
            _rescue(store, catalog, record, (), done)
    return keys


def _rescue(store: Store, catalog: Catalog, record: Record, replaces: tuple[str, ...], done: Repair) -> None:
    with SegmentWriter(store.place, store.layout) as writer:
        tracks = read_tracks(store.place, record, store.layout)
        for key, samples, (stored, wrong) in zip(record.keys, record.samples, tracks, strict=True):
            if not wrong:
                writer.add(key, samples, stored)
        saved = len(writer)
        rescued = writer.publish(replaces, _MADE_BY) if saved else Record("", store.layout.fingerprint, replaces=replaces, provenance=_MADE_BY)
    if saved or replaces:
        catalog.journal.append(rescued.to_json())
    done.actions.append(f"saved {saved} of {len(record.keys)} tracks of segments/{record.segment}")


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
