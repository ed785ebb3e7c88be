"""Garbage: what dead writers, compactions and repairs left behind, removed after a grace period."""

from __future__ import annotations

from dataclasses import dataclass

from beatmeter.errors import StoreError
from beatmeter.runtime.display import count
from beatmeter.store.catalog import Catalog
from beatmeter.store.receipts import given_up, lost_commits, orphans, receipts
from beatmeter.store.record import receipt_name
from beatmeter.store.store import Store

_FIRST = "Repair first: `beatmeter cache repair`."
GRACE = (
    24 * 3600.0
)  # seconds; longer than any reader keeps an old snapshot and any writer takes for one commit


@dataclass(frozen=True)
class Garbage:
    """One file or folder, its bytes, and why nobody needs it."""

    file: str
    bytes: int
    why: str


def collect(store: Store, grace: float = GRACE, dry_run: bool = False) -> list[Garbage]:
    """Remove what has been garbage for `grace` seconds by the file system's clock; tell what was, or would
    be, removed.

    Raises StoreError when another process maintains the store, or when a damaged record leaves it open which
    segments are needed.
    """
    with store.backend.lock("garbage collection"):
        catalog = Catalog(store.backend, store.layout)
        catalog.refresh(use_index=False)
        if catalog.unsound:
            first = next(iter(catalog.unsound.values()))
            raise StoreError(
                f"{len(catalog.unsound)} commit records cannot be used, so their segments look like garbage: "
                f"{first}",
                _FIRST,
            )
        if lost := lost_commits(catalog):
            raise StoreError(
                f"{count(len(lost), 'commit')} without a record, whose segments look like garbage: "
                f"{lost[0].segment}: {lost[0].text}",
                _FIRST,
            )
        return _Collection(store, catalog, grace, dry_run).run()


class _Collection:
    def __init__(self, store: Store, catalog: Catalog, grace: float, dry_run: bool) -> None:
        self.backend, self.store, self.catalog, self.grace, self.dry_run = (
            store.backend,
            store,
            catalog,
            grace,
            dry_run,
        )
        self.now = store.backend.now()
        self.state = catalog.state()
        self.found: list[Garbage] = []

    def run(self) -> list[Garbage]:
        for number, by in sorted(self.catalog.replaced().items()):
            if self._old(self.catalog.journal.path(by)):
                self._remove_replaced(number, self.catalog.journal.path(by))
        for segment in orphans(self.catalog):
            if self._old(f"segments/{segment}"):
                self._remove_orphan(segment)
        needed = {commit.segment for commit in self.catalog.commits.values()} | set(
            self.backend.list("segments")
        )
        for segment in sorted(receipts(self.backend) - needed):
            if self._old(receipt_name(segment)):
                self._remove(receipt_name(segment), "of a segment that is gone")
        for folder, why in (("tmp", "left by a writer that died"), ("damaged", "set aside by a repair")):
            for name in sorted(self.backend.list(folder)):
                if folder == "tmp" and any(
                    self.catalog.commits[number].segment == name for number in self.catalog.misfits
                ):
                    self._put_back(name)  # a collection died while it looked again
                elif self._old(f"{folder}/{name}"):
                    self._remove(f"{folder}/{name}", why)
        for name in self.catalog.indexes():
            try:
                self.catalog.read_index(name)
            except StoreError as error:
                self._remove(f"index/{name}", error.what)
        return self.found

    def _old(self, name: str) -> bool:
        return self.backend.age(name, self.now) >= self.grace

    def _remove(self, name: str, why: str) -> None:
        self.found.append(Garbage(name, self.backend.bytes_below(name), why))
        if not self.dry_run:
            self.backend.remove(name)

    def _remove_replaced(self, number: int, by: str) -> None:
        """The receipt first and the segment last: what is left by a death in between is garbage, not a lost
        commit."""
        record = self.catalog.read(number)
        if tracks := given_up(self.catalog, self.state, record):
            what = (
                f"{by} replaces segments/{record.segment}, in which lie {count(len(tracks), 'track')} that "
                f"the store lacks, sound: {tracks[0]}"
            )
            raise StoreError(what, _FIRST)
        name = receipt_name(record.segment)
        if self.backend.exists(name) and not self.dry_run:
            self.backend.remove(name)
        for file in (self.catalog.journal.path(number), f"segments/{record.segment}"):
            self._remove(file, f"replaced by {by}")

    def _remove_orphan(self, segment: str) -> None:
        """A writer as slow as the grace period may link its record this very moment: take the segment away,
        look again, and put it back if one names it. The writer looks for its segment after linking, so one of
        the two notices."""
        name, aside = f"segments/{segment}", f"tmp/{segment}"
        size = self.backend.bytes_below(name)
        if not self.dry_run:
            self.backend.move(name, aside)
            try:
                self.catalog.refresh()
                named = any(commit.segment == segment for commit in self.catalog.commits.values())
            except BaseException:
                self._put_back(segment)
                raise
            if named or self.catalog.unsound:  # one of these may name it
                self._put_back(segment)
                return
            self.backend.remove(aside)
            if self.backend.exists(receipt_name(segment)):
                self.backend.remove(receipt_name(segment))
        self.found.append(Garbage(name, size, "no record names it"))

    def _put_back(self, segment: str) -> None:
        if not self.dry_run:
            self.backend.move(f"tmp/{segment}", f"segments/{segment}")
