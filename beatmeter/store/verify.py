"""Is the store sound? Quick: records against segments, but not their rows. Full: every byte. Each fault is
named with its remedy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from beatmeter.errors import StoreError
from beatmeter.runtime.display import count
from beatmeter.runtime.progress import SILENT, Reporter
from beatmeter.store.backend import Backend, UnreadableError
from beatmeter.store.catalog import Catalog, Commit, State
from beatmeter.store.journal import Journal, RecordError
from beatmeter.store.receipts import given_up, impostors, lost_commits, orphans, receipt_fault, receipts
from beatmeter.store.record import receipt_name
from beatmeter.store.segment import compare, examine, holds_json, lacks_layer_sums
from beatmeter.store.store import Store, Where, backend_of

REPAIR = "`beatmeter cache repair`: keeps what is sound, gives up what is not; then extract again"
COLLECT = "`beatmeter cache gc` removes it once it is old enough"
Level = Literal["error", "unreadable", "garbage", "note"]


@dataclass(frozen=True)
class Fault:
    """One thing: `error` means features are missing or wrong to some reader, `unreadable` that they cannot be
    checked for now, `garbage` only takes space, `note` is harmless. `tracks` are keys that cannot be read
    because of it."""

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
        return not any(fault.level in ("error", "unreadable") for fault in self.faults)

    @property
    def verdict(self) -> str:
        """In a word or three."""
        return (
            "sound"
            if self.sound
            else "DAMAGED"
            if any(fault.level == "error" for fault in self.faults)
            else "CANNOT BE CHECKED"
        )


def verify(where: Where, full: bool = False, progress: Reporter = SILENT) -> Report:
    """Check the store at `where`, reading only. Without `full` the rows of features are not read, only what
    describes them. `progress` hears of segments."""
    backend = backend_of(where)
    try:
        return _verify(backend, full, progress)
    except StoreError as error:  # what there is to check cannot be known
        return Report(backend.where, full, 0, 0, (_fault(".", error),))


def _verify(backend: Backend, full: bool, progress: Reporter) -> Report:
    try:
        store = Store.open(backend)
    except UnreadableError:
        raise
    except StoreError as error:
        fault = Fault(
            "error",
            "zarr.json",
            error.what,
            "`beatmeter cache repair` rebuilds it from a segment, if it was made by this version",
        )
        return Report(backend.where, full, 0, 0, (fault,))
    catalog = Catalog(store.backend, store.layout)
    catalog.refresh(use_index=False)  # an index may hide a record that was damaged since
    state = catalog.state()
    faults = [_commit_fault(catalog, number, text) for number, text in catalog.faults().items()]
    faults += [
        Fault(
            "error",
            name,
            backend.wrong_with(name) or "differs from what it was: other Zarr readers may fail",
            REPAIR,
        )
        for name, content in store.layout.group_metadata().items()
        if not holds_json(store.backend, name, content)
    ]
    faults += _bystanders(store, catalog)
    segments = {number: commit for number, commit in state.commits.items() if commit.segment}
    faults += _examined(store, catalog, segments, full, progress)
    faults += _old(store, [commit.segment for commit in segments.values()])
    if full:
        faults += _given_up(catalog, state)
    return Report(backend.where, full, len(state.columns), len(segments), tuple(faults))


def _fault(file: str, error: StoreError) -> Fault:
    return Fault(
        "unreadable" if isinstance(error, UnreadableError) else "error", file, error.what, error.hint
    )


def _examined(
    store: Store, catalog: Catalog, segments: Mapping[int, Commit], full: bool, progress: Reporter
) -> list[Fault]:
    """These segments against their records: all but their rows, or with `full` every byte."""
    faults: list[Fault] = []
    with progress.track("verifying", len(segments), "segments") as tick:
        for number, commit in segments.items():
            faults += _examined_segment(store, catalog, number, f"segments/{commit.segment}", full)
            tick(1)
    return faults


def _examined_segment(store: Store, catalog: Catalog, number: int, name: str, full: bool) -> list[Fault]:
    faults = []
    try:
        record = catalog.read(number)
        condition = (examine if full else compare)(store.backend, store.layout, record)
        if full and (text := receipt_fault(store.backend, store.layout, record)):
            faults.append(
                Fault(
                    "garbage",
                    receipt_name(record.segment),
                    text,
                    "`beatmeter cache repair` writes it again",
                )
            )
    except UnreadableError as error:
        return [_fault(name, error)]
    faults += [Fault("error", file, text, REPAIR) for file, text in condition.files.items()]
    faults += [
        Fault("error", name, f"track {key}: {text}", REPAIR, (key,)) for key, text in condition.tracks.items()
    ]
    return faults


def _old(store: Store, segments: Sequence[str]) -> list[Fault]:
    """Segments in which single layers have no checksums, as one note."""
    try:
        old = [segment for segment in segments if lacks_layer_sums(store.backend, store.layout, segment)]
    except UnreadableError:
        return []  # told of already
    if not old:
        return []
    text = (
        f"{count(len(old), 'segment')} without checksums of single layers, as earlier versions wrote them: "
        "to read one layer all are read"
    )
    return [Fault("note", "segments", text, "`beatmeter cache compact` adds them")]


def _given_up(catalog: Catalog, state: State) -> list[Fault]:
    """Records that replace segments whose tracks nobody else holds."""
    faults = []
    for number, by in catalog.replaced().items():
        if tracks := given_up(catalog, state, catalog.read(number)):
            text = (
                f"it replaces segments/{catalog.commits[number].segment}, in which lie "
                f"{count(len(tracks), 'track')} that the store lacks, sound"
            )
            faults.append(Fault("error", catalog.journal.path(by), text, REPAIR, tuple(tracks)))
    return faults


def _commit_fault(catalog: Catalog, number: int, text: str) -> Fault:
    keys: tuple[str, ...] = ()
    if number in catalog.misfits:
        keys = catalog.read(number).keys
    return Fault("error", catalog.journal.path(number), text, REPAIR, keys)


def _bystanders(store: Store, catalog: Catalog) -> list[Fault]:
    """Everything in the store that is not a commit that counts."""
    faults = []
    for look in (_segments, _leftovers, _indexes, _journals):
        try:
            faults += look(store.backend, catalog)
        except StoreError as error:
            faults.append(_fault(".", error))
    return faults


def _segments(backend: Backend, catalog: Catalog) -> list[Fault]:
    faults = []
    lost = lost_commits(catalog)
    for commit in lost:
        file = f"segments/{commit.segment}" if commit.held else receipt_name(commit.segment)
        remedy = "`beatmeter cache repair` takes its tracks in again" if commit.held else REPAIR
        faults.append(Fault("error", file, commit.text, remedy, commit.keys))
    for number, by in impostors(catalog).items():
        text = (
            f"it says other things of segments/{catalog.commits[number].segment} than "
            f"{catalog.journal.path(by)}"
        )
        faults.append(Fault("error", catalog.journal.path(number), text, REPAIR))
    replaced = catalog.replaced()
    for number, by in replaced.items():
        name = f"segments/{catalog.commits[number].segment}"
        faults.append(Fault("garbage", name, f"replaced by {catalog.journal.path(by)}", COLLECT))
    told = {commit.segment for commit in lost}
    stray = orphans(catalog)
    for segment in stray:
        if segment not in told:
            text = "no record names it: its writer died before it was acknowledged, or its record was lost"
            faults.append(
                Fault(
                    "garbage",
                    f"segments/{segment}",
                    text,
                    f"`beatmeter cache repair` adopts it if it is complete; {COLLECT}",
                )
            )
    known = told | {commit.segment for commit in catalog.commits.values()} | set(stray)
    text = "of a segment that is gone, whose tracks are in others"
    return faults + [
        Fault("garbage", receipt_name(segment), text, COLLECT)
        for segment in sorted(receipts(backend) - known)
    ]


def _leftovers(backend: Backend, catalog: Catalog) -> list[Fault]:
    faults = [
        Fault("garbage", f"tmp/{name}", "work in progress, or left by a writer that died", COLLECT)
        for name in sorted(backend.list("tmp"))
    ]
    return faults + [
        Fault("garbage", f"damaged/{name}", "set aside by a repair", COLLECT)
        for name in sorted(backend.list("damaged"))
    ]


def _indexes(backend: Backend, catalog: Catalog) -> list[Fault]:
    faults = []
    for name in catalog.indexes():
        try:
            catalog.read_index(name)
        except RecordError as error:
            faults.append(
                Fault(
                    "garbage", f"index/{name}", error.what, "It is not used; `beatmeter cache gc` removes it"
                )
            )
    return faults


def _journals(backend: Backend, catalog: Catalog) -> list[Fault]:
    faults = []
    failures = Journal(backend, "failures")
    for number in failures.numbers():
        try:
            failures.read(number)
        except RecordError as error:
            faults.append(
                Fault(
                    "error",
                    failures.path(number),
                    error.what,
                    "`beatmeter cache repair` sets it aside; its files are tried again",
                )
            )
    for journal in (catalog.journal, failures):
        faults += [
            Fault(
                "note", f"{journal.name}/{name}", "not a record; ignored", "Remove it if you know what it is"
            )
            for name in journal.foreign()
        ]
    return faults
