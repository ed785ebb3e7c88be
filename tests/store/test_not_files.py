"""FIFOs, devices, folders and loops of links where a store has files: told by name, mended, and never waited
for. Opening a FIFO as a file would last until somebody writes to it."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import store_samples as samples

from beatmeter.errors import StoreError
from beatmeter.store import Store, store_folders
from beatmeter.store.compact import compact
from beatmeter.store.gc import collect
from beatmeter.store.repair import repair
from beatmeter.store.verify import verify

KINDS = {"FIFO": "a FIFO", "folder": "a folder", "loop": "a loop of links", "device": "a device"}
LIMIT = 300  # seconds, for a machine ten times slower; without a fault each takes less than one


@pytest.fixture(autouse=True)
def _no_endless_wait() -> Iterator[None]:
    def end(number: int, frame: object) -> None:
        raise AssertionError("somebody waits for a file that is none")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(LIMIT)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Six tracks in three commits, a failure and an index."""
    made = Store.create(tmp_path / "store", samples.spec())
    for n in range(0, 6, 2):
        made.commit(samples.tracks(made.spec, [n, n + 1]))
    made.record_failure("k", "a.wav", "silent")
    made.catalog.save_index()
    return made


def put(kind: str, path: Path) -> None:
    """Something else in the place of a file."""
    path.unlink(missing_ok=True)
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
        (path / "inside").write_bytes(b"x")
    else:
        path.symlink_to(path if kind == "loop" else "/dev/zero")


def there(path: Path) -> set[int]:
    """Numbers of the tracks that can be read, each of them right."""
    snapshot = Store.open(path).snapshot()
    known = {samples.key(n): n for n in range(20)}
    assert all(
        samples.same(snapshot.read(key), samples.features(samples.spec(), known[key]))
        for key in snapshot.keys
    )
    return {known[key] for key in snapshot.keys}


FILES = [
    "zarr.json",
    "segments/zarr.json",
    "commits/00000002.json",
    "commits/00000003.json",
    "segments/ID/zarr.json",
    "segments/ID/lag/zarr.json",
    "segments/ID/stats/c.0.0.0.0",
    "receipts/ID.json",
    "failures/00000001.json",
    "index/NAME",
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FILES)
def test_what_is_no_file_is_told_and_mended(store: Store, name: str, kind: str) -> None:
    name = name.replace("ID", store.catalog.read(2).segment).replace("NAME", store.catalog.indexes()[0])
    put(kind, store.path / name)
    report = verify(store.path, full=True)
    told = [fault for fault in report.faults if KINDS[kind] in fault.fault]
    assert any(name in f"{fault.file} {fault.fault}" for fault in told)
    assert report.sound == name.startswith(("index/", "receipts/"))
    if name == "zarr.json":
        with pytest.raises(StoreError, match=rf"zarr.json is {KINDS[kind]}.*cache repair"):
            Store.open(store.path)
    else:
        assert there(store.path) == {*range(6)} - (
            {2, 3} if name.endswith("0.0") else set()
        )  # an index knows the records
    lost = repair(store.path).lost
    assert lost == (sorted([samples.key(2), samples.key(3)]) if name.endswith("0.0") else [])
    assert there(store.path) == {*range(6)} - ({2, 3} if lost else set())
    collect(Store.open(store.path), 0.0)
    assert verify(store.path, full=True).faults == ()


@pytest.mark.parametrize("kind", ["FIFO", "loop", "device"])
def test_a_shard_that_becomes_something_else_is_an_error_of_one_line(store: Store, kind: str) -> None:
    """Between the look at its length and its opening."""
    snapshot = store.snapshot()
    put(kind, store.path / f"segments/{store.catalog.read(2).segment}/stats/c.0.0.0.0")
    with pytest.raises(StoreError, match=rf"stats/c.0.0.0.0 cannot be read: it is {KINDS[kind]}"):
        snapshot.read(samples.key(2))
    assert samples.same(snapshot.read(samples.key(0)), samples.features(store.spec, 0))


@pytest.mark.parametrize("kind", KINDS)
def test_a_lock_that_is_no_file(store: Store, kind: str) -> None:
    put(kind, store.path / "lock")
    for maintain in (compact, collect):
        with pytest.raises(StoreError, match=r"locking failed at .*/lock: "):
            maintain(Store.open(store.path))
    (shutil.rmtree if kind == "folder" else os.unlink)(store.path / "lock")
    compact(Store.open(store.path))


def test_a_lock_that_is_a_link_cuts_nothing(store: Store, tmp_path: Path) -> None:
    """Whoever holds the lock writes its name into it."""
    (tmp_path / "diary").write_text("dear diary")
    (store.path / "lock").unlink(missing_ok=True)
    (store.path / "lock").symlink_to(tmp_path / "diary")
    with pytest.raises(StoreError, match=r"locking failed at .*a link where none may be"):
        compact(Store.open(store.path))
    assert (tmp_path / "diary").read_text() == "dear diary"


@pytest.mark.parametrize("name", ["commits", "segments", "receipts", "index", "failures", "tmp"])
def test_folders_that_are_none(store: Store, name: str) -> None:
    shutil.rmtree(store.path / name)
    os.mkfifo(store.path / name)
    if name in ("commits", "segments", "index"):
        with pytest.raises(StoreError, match=rf"{name} is no folder.*Move it"):
            Store.open(store.path).snapshot()
    report = verify(store.path)
    assert any(f"{name} is no folder" in fault.fault for fault in report.faults)
    assert not report.sound
    with pytest.raises(StoreError, match=name):
        repair(store.path)
    if name != "failures":  # whose files are never garbage
        with pytest.raises(StoreError, match=name):
            collect(Store.open(store.path))


def test_a_folder_of_stores_with_other_things_in_it(store: Store, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "nowhere").symlink_to("nothing")
    (tmp_path / "empty").mkdir()
    assert store_folders(tmp_path) == [store.path]
    assert store_folders(tmp_path / "pipe") == []
    assert store_folders(tmp_path / "loop") == []
