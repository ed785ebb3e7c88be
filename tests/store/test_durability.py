"""What kill -9 cannot show: that bytes are on disk before a name says so, and names before anybody is
told."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import store_samples as samples

from beatmeter.store import Store, folder


@pytest.fixture
def happened(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, str]]:
    """Everything that was flushed, renamed or linked, in order: (operation, path, target)."""
    events: list[tuple[str, str, str]] = []

    def watch(name: str, describe: Callable[..., tuple[str, str]]) -> None:
        real = getattr(os, name)

        def operation(*args: Any, **keywords: Any) -> Any:
            events.append((name, *describe(*args)))
            return real(*args, **keywords)

        monkeypatch.setattr(os, name, operation)

    watch("fsync", lambda handle: (str(Path(f"/proc/self/fd/{handle}").resolve()), ""))
    watch("rename", lambda a, b: (str(a), str(b)))
    watch("link", lambda a, b: (str(a), str(b)))
    return events


def test_a_commit_is_on_disk_before_it_counts_and_before_it_is_acknowledged(
    tmp_path: Path, happened: list[tuple[str, str, str]]
) -> None:
    store = Store.create(tmp_path / "store", samples.spec())
    created = [path for operation, path, _ in happened if operation == "fsync"]
    assert str(tmp_path) in created
    assert str(tmp_path / "store") in created
    happened.clear()
    receipt = store.commit(samples.tracks(store.spec, range(3)))
    order = [operation for operation, _, _ in happened]
    rename, link = order.index("rename"), order.index("link")
    _, staged, segment = happened[rename]
    assert segment == str(store.path / "segments" / receipt.segment)
    published = Path(segment)
    everything = {published, *published.rglob("*")}
    flushed = {path for operation, path, _ in happened[:rename] if operation == "fsync"}
    assert {path.replace(staged, segment) for path in flushed} == {
        str(path) for path in everything
    }  # every file and every folder
    assert ("fsync", str(store.path / "segments"), "") in happened[rename:link]
    _, draft, record = happened[link]
    assert ("fsync", draft, "") in happened[rename:link]
    assert record == str(store.path / "commits" / f"{receipt.number:08d}.json")
    assert ("fsync", str(store.path / "commits"), "") in happened[link:]


def test_failures_are_flushed_too(tmp_path: Path, happened: list[tuple[str, str, str]]) -> None:
    store = Store.create(tmp_path / "store", samples.spec())
    happened.clear()
    store.record_failure("k", "a.wav", "silent")
    operations = [(operation, target or path) for operation, path, target in happened]
    linked = operations.index(("link", str(store.path / "failures/00000001.json")))
    assert operations[linked - 1][0] == "fsync"
    assert ("fsync", str(store.path / "failures")) in operations[linked:]


def test_every_new_folder_above_a_store_is_flushed(
    tmp_path: Path, happened: list[tuple[str, str, str]]
) -> None:
    """Its name lies in the folder above it. A watcher's status may have made the cache's folder a moment
    before."""
    (tmp_path / "disk/cache").mkdir(parents=True)
    Store.create(tmp_path / "disk/cache/deep/store", samples.spec())
    created = {path for operation, path, _ in happened if operation == "fsync"}
    above = ("disk/cache/deep/store", "disk/cache/deep", "disk/cache", "disk", ".")
    assert {str(tmp_path / name) for name in above} <= created


def test_a_folder_that_a_repair_makes_is_flushed(
    tmp_path: Path, happened: list[tuple[str, str, str]]
) -> None:
    store = Store.create(tmp_path / "store", samples.spec())
    store.record_failure("k", "a.wav", "silent")
    (store.path / "failures/00000001.json").write_bytes(b"")
    happened.clear()
    store.backend.move("failures/00000001.json", "damaged/failures-00000001.json")
    flushed = [
        Path(path).relative_to(tmp_path).as_posix() for operation, path, _ in happened if operation == "fsync"
    ]
    assert flushed == ["store", "store/damaged", "store/failures"]


def test_a_folder_above_that_cannot_be_read_is_nobodys_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = folder.sync_folder

    def refuse(path: Path) -> None:
        if path == tmp_path:
            raise PermissionError(errno.EACCES, "Permission denied")
        real(path)

    monkeypatch.setattr(folder, "sync_folder", refuse)
    Store.create(tmp_path / "store", samples.spec()).commit(samples.tracks(samples.spec(), [1]))


@pytest.mark.parametrize("known", [True, False])
def test_the_drive_is_flushed_where_the_system_has_to_be_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    """macOS: F_FULLFSYNC, and fsync on a file system that does not know it."""
    asked: list[str] = []

    def control(handle: int, what: int) -> None:
        asked.append("drive")
        if not known:
            raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(folder, "_FULL_SYNC", 51)
    monkeypatch.setattr(fcntl, "fcntl", control)
    monkeypatch.setattr(os, "fsync", lambda handle: asked.append("system"))
    Store.create(tmp_path / "store", samples.spec()).commit(samples.tracks(samples.spec(), [1]))
    assert len(asked) > 10
    assert asked == (["drive"] * len(asked) if known else ["drive", "system"] * (len(asked) // 2))
