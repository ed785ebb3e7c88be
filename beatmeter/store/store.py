"""The feature store: features by track key, under a name that only its fingerprint decides."""

from __future__ import annotations

import contextlib
import errno
import json
import re
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from beatmeter.errors import BeatmeterError, StoreError, shown
from beatmeter.schema import Features, FeatureSpec
from beatmeter.store.backend import ABSENT, Backend, full, reading
from beatmeter.store.catalog import Catalog
from beatmeter.store.commit import TrackDraft, write_tracks
from beatmeter.store.failures import Failure, Failures
from beatmeter.store.folder import Folder
from beatmeter.store.index import Keys
from beatmeter.store.journal import RecordError
from beatmeter.store.layout import NewerFormatError, StoreLayout, read_spec
from beatmeter.store.reader import Snapshot
from beatmeter.store.record import Record

Where = Path | str | Backend
_FOLDERS = ("commits", "failures", "index", "receipts", "segments", "tmp")
_INDEX_EVERY = 512  # commits without an index before one is saved


@dataclass(frozen=True)
class Receipt:
    """What a commit did, on disk for good. `added` tracks are in the store by it; those `present` were there
    before, or another writer was first. `segment` and `number` name it; empty and 0 when there was nothing to
    add."""

    segment: str
    number: int
    added: tuple[str, ...]
    present: tuple[str, ...]


class Store:
    """Features of one spec, in one folder or under one address of an object store. Any number of processes
    may write and read at once.

    A handle sees what others commit; use one handle per thread. `snapshot()` gives a frozen view to read
    from.
    """

    def __init__(self, backend: Backend, spec: FeatureSpec) -> None:
        self.backend, self.spec = backend, spec
        self.layout = StoreLayout(spec)
        self.catalog = Catalog(backend, self.layout)
        self._failures = Failures(backend)

    @property
    def where(self) -> str:
        """The folder or address of the store: opens it again."""
        return self.backend.where

    @property
    def path(self) -> Path:
        """The folder of the store. Raises StoreError when it lies in an object store."""
        if not isinstance(self.backend, Folder):
            raise StoreError(f"{self.where} is no folder", "Use a store in a file system for this.")
        return self.backend.root

    @classmethod
    def create(cls, where: Where, spec: FeatureSpec) -> Store:
        """A store for `spec` at `where`, a folder or an address; an existing one of the same spec is
        opened."""
        backend = backend_of(where)
        layout = StoreLayout(spec)  # refuses before anything is written
        if not backend.exists("zarr.json"):
            if backend.exists() and not (backend.exists("commits") or backend.exists("segments")):
                raise StoreError(
                    f"{shown(backend.where)} exists and is not a feature store", "Choose another folder."
                )
            backend.make(*_FOLDERS)
            for name, content in reversed(
                layout.group_metadata().items()
            ):  # the root last: with it the store exists
                backend.put_if_absent(name, content)
        return cls.open(backend, spec)

    @classmethod
    def open(cls, where: Where, spec: FeatureSpec | None = None) -> Store:
        """The store at `where`, a folder or an address. Raises StoreError when it is none or damaged,
        FingerprintError, naming the fields, when it does not hold `spec`."""
        backend = backend_of(where)
        root, repair = f"{shown(backend.where)}/zarr.json", "Run `beatmeter cache repair` on this store."
        try:
            metadata = backend.read("zarr.json")
        except ABSENT as error:
            if not isinstance(error, FileNotFoundError):
                raise StoreError(f"{root} {backend.wrong_with('zarr.json')}", repair) from None
            if backend.exists("commits"):
                raise StoreError(f"{root} is missing", repair) from None
            raise StoreError(
                f"there is no feature store in {shown(backend.where)}",
                "`beatmeter cache info` lists those there are.",
            ) from None
        try:
            found = read_spec(json.loads(metadata))
        except NewerFormatError as error:
            raise NewerFormatError(f"{root}: {error.what}", error.hint) from error
        except BeatmeterError as error:
            raise StoreError(f"{root} is damaged: {error.what}", error.hint or repair) from error
        except (ValueError, RecursionError) as error:
            raise StoreError(f"{root} is damaged: {error}", repair) from error
        if spec is not None:
            spec.require_same(found, shown(backend.where))
        return cls(backend, found)

    @classmethod
    def for_spec(cls, cache: Path | str, spec: FeatureSpec, create: bool = True) -> Store:
        """The store of `spec` in a folder (or under an address) of stores, made if there is none and
        `create`."""
        where = _inside(cache, folder_name(spec))
        return cls.create(where, spec) if create else cls.open(where, spec)

    @classmethod
    def find_covering(
        cls, cache: Path | str, wanted: FeatureSpec, kinds: Collection[str] | None = None
    ) -> Store | None:
        """A store in a folder of stores that holds `wanted`: its own, or one with more poolings or layers; or
        None. With `kinds`, one that has poolings of these kinds alone: another version of beatmeter may know
        more, and what nobody here can make nobody can add to."""
        own = backend_of(_inside(cache, folder_name(wanted)))
        if own.exists("zarr.json"):
            return cls.open(own, wanted)
        covering = [
            store
            for store in list_stores(cache)
            if isinstance(store, Store)
            and store.spec.covers(wanted)
            and (kinds is None or all(pooling.kind in kinds for pooling in store.spec.poolings))
        ]
        return max(covering, key=lambda store: (len(store.keys()), store.where), default=None)

    def keys(self) -> Keys:
        """Keys of the tracks that are in the store now, sorted."""
        return Keys(self.catalog.state().columns)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and bool(self.catalog.holds([key]))

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Those of `keys` that are not in the store, each once, in their order."""
        wanted = list(dict.fromkeys(keys))
        have = self.catalog.holds(wanted)
        return [key for key in wanted if key not in have]

    def snapshot(self) -> Snapshot:
        """The store as it is now, to read from."""
        return Snapshot(self.backend, self.layout, self.catalog.state())

    def commit(
        self, items: Sequence[tuple[str, Features]], provenance: Mapping[str, Any] | None = None
    ) -> Receipt:
        """Add the features of some tracks: all of them or, when anything is wrong, none. On disk when it
        returns.

        The first commit of a key wins, whoever makes it; of a key given twice the first counts. `provenance`
        (plain JSON, for instance the device) is kept with library versions, host and time. Raises
        FingerprintError, UnstorableError (naming tracks, poolings and layers), StoreError.
        """
        unique = dict(reversed(items))
        order = list(dict.fromkeys(key for key, _ in items))
        have = self.catalog.holds(order)
        todo = [(key, unique[key]) for key in order if key not in have]
        if not todo:
            return Receipt("", 0, (), tuple(order))
        before = self.catalog.last
        record = write_tracks(self.backend, self.layout, todo, provenance)
        number, first = self._acknowledge(record, before)
        have |= first
        return Receipt(
            record.segment,
            number,
            tuple(k for k, _ in todo if k not in have),
            tuple(k for k in order if k in have),
        )

    def draft(self, key: str, samples: int) -> TrackDraft:
        """A track of `samples` samples to be written part by part, because its features are too large to
        hold; then `commit_draft`."""
        return TrackDraft(self.backend, self.layout, key, samples)

    def commit_draft(self, draft: TrackDraft, provenance: Mapping[str, Any] | None = None) -> Receipt:
        """Like `commit`, of a finished draft. The draft is used up."""
        if self.missing([draft.key]) == []:
            draft.discard()
            return Receipt("", 0, (), (draft.key,))
        before = self.catalog.last
        record = draft.publish(provenance)
        number, first = self._acknowledge(record, before)
        return Receipt(
            record.segment, number, *(((), (draft.key,)) if draft.key in first else ((draft.key,), ()))
        )

    def _acknowledge(self, record: Record, before: int) -> tuple[int, set[str]]:
        """Put a published segment into the journal: its number, and the keys of commits after `before` that
        were first."""
        try:
            number = self.catalog.append(record)
        except StoreError as error:
            if full(error):
                self._take_back(record, before)
            raise
        self._require_there(record, number)
        first: set[str] = set()
        for other in range(before + 1, number):
            try:
                first |= set(self.catalog.read(other).keys)
            except RecordError:
                continue
        if number - self.catalog.covered >= max(_INDEX_EVERY, len(self.catalog.commits) // 4):
            self.catalog.save_index()
        return number, first

    def _require_there(self, record: Record, number: int) -> None:
        """A writer as slow as the grace period may have lost its segment before the record was there."""
        try:
            gone = self.backend.size(f"segments/{record.segment}/zarr.json") is None
        except StoreError as error:
            what = (
                f"commit {number} stands in {shown(self.where)}, but whether its segment does could not be "
                f"asked: {error}"
            )
            raise StoreError(
                what, "Run the same command again: what is there is not extracted again."
            ) from error
        if gone:
            what = f"segment {record.segment} was collected as garbage while it was being committed"
            raise StoreError(what, "Commit these tracks again.")

    def _take_back(self, record: Record, before: int) -> None:
        """Free what a commit took when the disk was too full for its record. Only if no record can name it:
        one that appeared in spite of the error, or that of a repair, which takes in such segments. Else it
        stays, as garbage."""
        with contextlib.suppress(StoreError), self.backend.lock("taking back a commit"):
            since = [number for number in self.catalog.journal.numbers() if number > before]
            if all(self.catalog.read(number).segment != record.segment for number in since):
                self.backend.remove(f"segments/{record.segment}")

    def failures(self) -> dict[str, Failure]:
        """Files that could not be used and have no features since, by track key."""
        current = self._failures.current()
        done = self.catalog.holds(list(current)) if current else set()
        return {key: failure for key, failure in current.items() if key not in done}

    def record_failure(self, key: str, path: str, reason: str) -> None:
        """Remember that the file at `path` cannot be used."""
        self._failures.record(key, path, reason)

    def clear_failures(self, keys: Iterable[str] | None = None) -> None:
        """Forget failures (default: all), so that these files are tried again."""
        self._failures.clear(self._failures.current() if keys is None else keys)


def folder_name(spec: FeatureSpec) -> str:
    """`<name of the backbone>-<first 16 digits of the fingerprint>`."""
    slug = re.sub(r"[^a-z0-9]+", "-", Path(spec.backbone).name.lower()).strip("-")[:40] or "features"
    return f"{slug}-{spec.fingerprint[:16]}"


def _inside(cache: Path | str, name: str) -> Path | str:
    return f"{cache.rstrip('/')}/{name}" if is_address(cache) else Path(cache) / name


def around(store: str) -> str:
    """The folder, or the address, in which the store at `store` lies among others."""
    return store.rstrip("/").rpartition("/")[0] if is_address(store) else str(Path(store).parent)


def backend_of(where: Where) -> Backend:
    """A folder, or for an address (`s3://bucket/caches/name`) a prefix in an object store."""
    if isinstance(where, Backend):
        return where
    if is_address(where):
        from beatmeter.store.bucket import Bucket  # needs a library that not everybody has

        return Bucket.at(where)
    return Folder(Path(where))


def is_address(where: Where) -> TypeGuard[str]:
    """Whether this names an object store."""
    return isinstance(where, str) and "://" in where


def stores_in(where: Where) -> list[Backend]:
    """The stores in a folder or under an address, or that itself if it is a store; damaged ones too."""
    if not isinstance(where, Backend) and not is_address(where):
        return [Folder(path) for path in store_folders(where)]
    backend = backend_of(where)
    if backend.exists("commits") or backend.exists("segments"):
        return [backend]
    inside = [backend_of(f"{backend.where.rstrip('/')}/{name}") for name in sorted(backend.list(""))]
    return [p for p in inside if p.exists("commits") or p.exists("segments")]


def store_folders(path: Path | str) -> list[Path]:
    """The stores in a folder, or the folder itself if it is one, damaged ones too, and those that may not be
    entered: opening them tells. Raises UnreadableError when the folder cannot be listed."""
    path = Path(path)
    if _may_be_store(path):
        return [path]
    if not path.is_dir():
        return []
    try:
        with reading(path):
            inside = sorted(path.iterdir())
    except ABSENT:
        return []
    return [folder for folder in inside if folder.name != "lost+found" and _may_be_store(folder)]


def _may_be_store(path: Path) -> bool:
    """Whether there is a store, or a folder of which that cannot be known."""
    for name in ("commits", "segments"):
        try:
            if stat.S_ISDIR((path / name).stat().st_mode):
                return True
        except ABSENT:
            continue
        except OSError as error:
            return error.errno != errno.ELOOP
    return False


def list_stores(where: Path | str) -> Iterator[Store | StoreError]:
    """The stores in a folder or under an address, or that itself; for those that cannot be opened, the
    error."""
    for backend in stores_in(where):
        try:
            yield Store.open(backend)
        except StoreError as error:
            yield error
