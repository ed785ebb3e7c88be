"""Files that cannot be read for now (a failing disk, a file server that is away, permissions): an error that
names them, and never taken for missing or damaged."""

from __future__ import annotations

import builtins
import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import store_samples as samples

from beatmeter.errors import StoreError
from beatmeter.store import Store
from beatmeter.store.backend import UnreadableError
from beatmeter.store.repair import repair
from beatmeter.store.verify import verify


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Six tracks in three commits, and a failure."""
    made = Store.create(tmp_path / "store", samples.spec())
    for n in range(0, 6, 2):
        made.commit(samples.tracks(made.spec, [n, n + 1]))
    made.record_failure("k", "a.wav", "silent")
    return made


@contextmanager
def failing(victim: Path, step: str, code: int = errno.EIO) -> Iterator[None]:
    """While this lasts, a `step` (stat, open or read) on one file fails. No permissions are changed: root may
    read everything.
    """
    handles: set[int] = set()

    def fail() -> None:
        raise OSError(code, os.strerror(code), str(victim))

    with pytest.MonkeyPatch.context() as patch:
        real_stat, real_open, real_read, real_file = os.stat, os.open, os.read, io.open

        def is_it(file: Any) -> bool:
            return not isinstance(file, int) and os.fspath(file) == str(victim)

        def stat(file: Any, **keywords: Any) -> Any:
            return fail() if step == "stat" and is_it(file) else real_stat(file, **keywords)

        def open_handle(file: Any, *arguments: Any, **keywords: Any) -> int:
            if step == "open" and is_it(file):
                fail()
            handle = real_open(file, *arguments, **keywords)
            (handles.add if is_it(file) else handles.discard)(handle)
            return handle

        def read(handle: int, size: int) -> bytes:
            if step == "read" and handle in handles:
                fail()
            return real_read(handle, size)

        class Broken(io.FileIO):
            def readinto(self, buffer: Any) -> int:
                fail()
                return 0

            def readall(self) -> bytes:
                fail()
                return b""

        def open_file(file: Any, *arguments: Any, **keywords: Any) -> Any:
            if step == "open" and is_it(file):
                fail()
            if step == "read" and is_it(file):
                return io.BufferedReader(Broken(file))
            return real_file(file, *arguments, **keywords)

        for module, name, operation in (
            (os, "stat", stat),
            (os, "open", open_handle),
            (os, "read", read),
            (io, "open", open_file),
            (builtins, "open", open_file),
        ):
            patch.setattr(module, name, operation)
        yield


def contents(path: Path) -> dict[str, bytes]:
    """All files that say something, by name."""
    return {
        str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file() and p.name != "lock"
    }


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES, errno.ESTALE])
@pytest.mark.parametrize("step", ["stat", "open", "read"])
def test_repair_gives_up_nothing_that_it_cannot_read(store: Store, step: str, code: int) -> None:
    before = contents(store.path)
    failed = set()
    for name in before:
        with failing(store.path / name, step, code):
            try:
                done = repair(store.path)
                assert (done.actions, done.lost) == ([], []), name
            except UnreadableError as error:
                assert name in error.what  # noqa: PT017
                assert os.strerror(code) in error.what  # noqa: PT017
                advice = "permissions" if code == errno.EACCES else "run the same command again"
                assert advice in error.hint  # noqa: PT017
                failed.add(name)
        assert {
            n: data for n, data in contents(store.path).items() if not n.startswith("index/")
        } == before, name
    sized = {name for name in before if "/c.0" in name or "/layers." in name}
    assert failed == (sized if step == "stat" else set(before))
    assert repair(store.path).actions == []
    assert set(store.keys()) == {samples.key(n) for n in range(6)}


def test_repair_mends_damage_only_when_all_else_can_be_read(store: Store) -> None:
    """The first segment is damaged, the last cannot be read: nothing is replaced before all is known."""
    first, last = (
        store.path / "segments" / store.catalog.read(n).segment / "stats/c.0.0.0.0" for n in (1, 3)
    )
    os.truncate(first, 10)
    before = contents(store.path)
    with failing(last, "read"), pytest.raises(UnreadableError, match="Input/output error"):
        repair(store.path)
    assert contents(store.path) == before
    assert repair(store.path).lost == sorted(map(samples.key, [0, 1]))


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES])
def test_a_root_that_cannot_be_read_is_not_called_damaged(store: Store, code: int) -> None:
    with (
        failing(store.path / "zarr.json", "open", code),
        pytest.raises(StoreError, match=r"zarr.json cannot be read: ") as error,
    ):
        Store.open(store.path)
    assert "damaged" not in str(error.value)
    assert "change them" in error.value.hint or "Check the disk" in error.value.hint


@pytest.mark.parametrize("step", ["stat", "open", "read"])
def test_verify_names_what_cannot_be_read_and_goes_on(store: Store, step: str) -> None:
    os.truncate(store.path / "segments" / store.catalog.read(3).segment / "lag/c.0.0.0.0", 10)
    victim = store.path / "segments" / store.catalog.read(1).segment / "zarr.json"
    with failing(victim, step):
        faults = {fault.file: fault for fault in verify(store.path, full=True).faults}
    assert "commits/00000003.json" in faults
    if step != "stat":
        fault = faults[f"segments/{victim.parent.name}"]
        assert "cannot be read: Input/output error" in fault.fault
        assert "Check the disk" in fault.remedy


@pytest.mark.parametrize("indexed", [False, True])
@pytest.mark.parametrize("step", ["stat", "open", "read"])
def test_a_handle_forgets_that_a_file_could_not_be_read(store: Store, step: str, indexed: bool) -> None:
    """An error as long as it lasts, then everything: no track is left out without a word."""
    if indexed:
        store.catalog.save_index()
    reader = Store.open(store.path)
    writer = Store.open(store.path)
    assert len(reader.keys()) == 6
    number = writer.commit(samples.tracks(store.spec, [6, 7])).number
    writer.commit(samples.tracks(store.spec, [8]))
    segment = f"segments/{writer.catalog.read(number).segment}"
    victim = store.path / (f"{segment}/stats/c.0.0.0.0" if step == "stat" else f"commits/{number:08d}.json")
    for handle in (reader, Store.open(store.path)):
        with failing(victim, step):
            for ask in (handle.keys, handle.snapshot, lambda handle=handle: handle.missing([samples.key(8)])):
                with pytest.raises(
                    UnreadableError, match=r"cannot be read: Input/output error.*run the same command again"
                ):
                    ask()
        assert handle.missing(map(samples.key, range(9))) == []
        assert len(handle.snapshot()) == 9


def test_a_record_that_is_put_back_counts_in_every_handle(store: Store) -> None:
    record = store.path / "commits/00000002.json"
    data = record.read_bytes()
    for broken in (data[:100], b""):
        record.write_bytes(broken)
        reader = Store.open(store.path)
        assert len(reader.keys()) == 4
        assert list(reader.catalog.faults()) == [2]
        record.write_bytes(data)
        assert len(reader.keys()) == 6
        assert reader.catalog.faults() == {}


def test_an_index_that_cannot_be_written_or_read_costs_only_time(store: Store) -> None:
    store.catalog.save_index()
    with failing(store.path / "index" / store.catalog.indexes()[0], "read"):
        assert len(Store.open(store.path).keys()) == 6
    fresh = Store.open(store.path)
    with failing(store.path / "commits/00000002.json", "open"):
        (store.path / "index" / store.catalog.indexes()[0]).unlink()
        fresh.catalog.save_index()  # a commit that was acknowledged does not fail by it
    assert store.catalog.indexes() == []
