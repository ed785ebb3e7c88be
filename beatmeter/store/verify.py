"""Is the store sound? Quick: records, lengths, leftovers. Full: every byte. Each fault is named with its remedy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from beatmeter.errors import StoreError
from beatmeter.store.catalog import Catalog
from beatmeter.store.journal import Journal, RecordError
from beatmeter.store.place import UnreadableError
from beatmeter.store.segment import examine, holds_json
from beatmeter.store.store import Store, Where, place_of

REPAIR = "`beatmeter cache repair`: keeps what is sound, gives up what is not; then extract again"
COLLECT = "`beatmeter cache gc` removes it once it is old enough"
Level = Literal["error", "garbage", "note"]


@dataclass(frozen=True)
class Fault:
    """One thing: `error` means features are missing or wrong to some reader, `garbage` only takes space, `note` is harmless.
    `tracks` are keys that cannot be read because of it."""

    level: Level
    file: str
    fault: str
    remedy: str
    tracks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """What `verify` saw. `tracks` can be read, unless a fault names them."""

    path: str
    full: bool
    tracks: int
    segments: int
    faults: tuple[Fault, ...]

    @property
    def sound(self) -> bool:
        return not any(fault.level == "error" for fault in self.faults)


def verify(where: Where, full: bool = False, progress: Callable[[int, int], object] = lambda done, total: None) -> Report:
    """Check the store at `where`, reading only. `progress(done, total)` counts segments of a full check. Raises
    UnreadableError when it cannot be known what there is to check."""
    place = place_of(where)
    try:
        store = Store.open(place)
    except UnreadableError:
        raise
    except StoreError as error:
        fault = Fault("error", "zarr.json", error.what, "`beatmeter cache repair` rebuilds it from a segment, if it was made by this version")
        return Report(place.where, full, 0, 0, (fault,))
    catalog = Catalog(store.place, store.layout)
    catalog.refresh(use_index=False)  # an index may hide a record that was damaged since
    state = catalog.state()
    faults = [_commit_fault(catalog, number, text) for number, text in catalog.faults().items()]
    faults += [
        Fault("error", name, "differs from what it was: other Zarr readers may fail", REPAIR)
        for name, content in store.layout.group_metadata().items()
        if not holds_json(store.place, name, content)
    ]
    faults += _bystanders(store, catalog)
    segments = {number: commit for number, commit in state.commits.items() if commit.segment}
    if full:
        for done, number in enumerate(segments):
            progress(done, len(segments))
            name = f"segments/{segments[number].segment}"
            try:
                condition = examine(store.place, store.layout, catalog.read(number))
            except UnreadableError as error:
                faults.append(Fault("error", name, error.what, error.hint))
                continue
            faults += [Fault("error", file, text, REPAIR) for file, text in condition.files.items()]
            faults += [Fault("error", name, f"track {key}: {text}", REPAIR, (key,)) for key, text in condition.tracks.items()]
        progress(len(segments), len(segments))
    return Report(place.where, full, len(state.columns), len(segments), tuple(faults))


def _commit_fault(catalog: Catalog, number: int, text: str) -> Fault:
    keys: tuple[str, ...] = ()
    if number in catalog.misfits:
        keys = catalog.read(number).keys
    return Fault("error", catalog.journal.path(number), text, REPAIR, keys)


def _bystanders(store: Store, catalog: Catalog) -> list[Fault]:
    """Everything in the place that is not a commit that counts."""
    place, faults = store.place, []
    replaced = catalog.replaced()
    for number, by in replaced.items():
        name = f"segments/{catalog.commits[number].segment}"
        faults.append(Fault("garbage", name, f"replaced by {catalog.journal.path(by)}", COLLECT))
    for segment in orphans(store, catalog):
        text = "no record names it: its writer died before it was acknowledged, or its record was lost"
        faults.append(Fault("garbage", f"segments/{segment}", text, f"`beatmeter cache repair` adopts it if it is complete; {COLLECT}"))
    faults += [Fault("garbage", f"tmp/{name}", "work in progress, or left by a writer that died", COLLECT) for name in sorted(place.list("tmp"))]
    faults += [Fault("garbage", f"damaged/{name}", "set aside by a repair", COLLECT) for name in sorted(place.list("damaged"))]
    for name in catalog.indexes():
        try:
            catalog.read_index(name)
        except RecordError as error:
            faults.append(Fault("garbage", f"index/{name}", error.what, "It is not used; `beatmeter cache gc` removes it"))
    failures = Journal(place, "failures")
    for number in failures.numbers():
        try:
            failures.read(number)
        except RecordError as error:
            faults.append(Fault("error", failures.path(number), error.what, "`beatmeter cache repair` sets it aside; its files are tried again"))
    for journal in (catalog.journal, failures):
        faults += [Fault("note", f"{journal.name}/{name}", "not a record; ignored", "Remove it if you know what it is") for name in journal.foreign()]
    return faults


def orphans(store: Store, catalog: Catalog) -> list[str]:
    """Segments that no sound record names."""
    known = {commit.segment for commit in catalog.commits.values()}
    return sorted(name for name in store.place.list("segments") if name != "zarr.json" and name not in known)
