"""Index, compaction, garbage: they change where features lie and how fast a store opens, and nothing else."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import store_samples as samples
from hypothesis import given
from hypothesis import strategies as st

import beatmeter.store.store
from beatmeter.errors import StoreError
from beatmeter.schema import PoolingSpec
from beatmeter.store import Store, folder
from beatmeter.store.backend import UnreadableError
from beatmeter.store.catalog import Catalog
from beatmeter.store.commit import write_tracks
from beatmeter.store.compact import compact
from beatmeter.store.folder import Folder
from beatmeter.store.gc import collect
from beatmeter.store.index import Columns, Keys
from beatmeter.store.journal import Journal
from beatmeter.store.repair import repair
from beatmeter.store.verify import verify


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Twelve tracks in eight commits, some keys in two of them because two writers did not know of each
    other."""
    made = Store.create(tmp_path / "store", samples.spec())
    for n in range(6):
        made.commit(samples.tracks(made.spec, [n, n + 6]))
    return made


def numbers(path: Path) -> set[int]:
    """Numbers of all tracks of a fresh snapshot, after comparing each with what was committed."""
    snapshot = Store.open(path).snapshot()
    known = {samples.key(n): n for n in range(100)}
    assert all(
        samples.same(snapshot.read(key), samples.features(samples.spec(), known[key]))
        for key in snapshot.keys
    )
    return {known[key] for key in snapshot.keys}


def records_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many commit records opening a snapshot reads."""
    count = 0
    read = Journal.read

    def counted(self: Journal, number: int) -> dict[str, object]:
        nonlocal count
        count += 1
        return read(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "read", counted)
        Store.open(path).snapshot()
    return count


def test_index_spares_reading_records(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert records_read(store.path, monkeypatch) == 6
    before = store.snapshot().id
    store.catalog.save_index()
    assert records_read(store.path, monkeypatch) == 0
    store.commit(samples.tracks(store.spec, [50]))
    assert records_read(store.path, monkeypatch) == 1
    assert numbers(store.path) == {*range(12), 50}
    index = store.path / "index" / store.catalog.indexes()[0]
    for damage in (lambda d: d[:-9], lambda d: d[:300] + b"x" + d[301:], lambda d: b""):
        index.write_bytes(damage(index.read_bytes()))
        assert records_read(store.path, monkeypatch) == 7
        assert numbers(store.path) == {*range(12), 50}
    index.unlink()
    index.parent.rmdir()
    assert numbers(store.path) == {*range(12), 50}
    Store.open(store.path).catalog.save_index()
    assert records_read(store.path, monkeypatch) == 0
    (store.path / "commits/00000007.json").unlink()
    assert Store.open(store.path).snapshot().id == before


def test_writers_save_the_index_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beatmeter.store.store, "_INDEX_EVERY", 4)
    store = Store.create(tmp_path / "s", samples.spec())
    for n in range(11):
        store.commit(samples.tracks(store.spec, [n]))
    assert [name[:8] for name in store.catalog.indexes()] == ["00000008", "00000004"]
    assert records_read(store.path, monkeypatch) == 3
    assert numbers(store.path) == set(range(11))


def test_writers_save_no_index_with_every_commit_after_a_collection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers go on where they were, while few commits are left."""
    monkeypatch.setattr(beatmeter.store.store, "_INDEX_EVERY", 4)
    store = Store.create(tmp_path / "s", samples.spec())
    for n in range(11):
        store.commit(samples.tracks(store.spec, [n]))
    compact(store)
    collect(store, 0.0)
    for handle in (Store.open(store.path), store):
        before = set(handle.catalog.indexes())
        for n in range(3):
            handle.commit(samples.tracks(store.spec, [20 + n + 3 * (handle is store)]))
        assert len(set(handle.catalog.indexes()) - before) == (handle is store)  # the fourth commit since


def test_a_handle_that_saw_the_store_empty_believes_the_index_of_others(tmp_path: Path) -> None:
    early = Store.create(tmp_path / "s", samples.spec())
    assert len(early.keys()) == 0
    other = Store.open(early.path)
    other.commit(samples.tracks(other.spec, [1, 2]))
    other.catalog.save_index()
    assert len(early.snapshot()) == 2
    assert compact(early).after == 1
    early.catalog.save_index()
    assert numbers(early.path) == {1, 2}


def test_an_index_of_commits_that_are_gone_is_not_believed(store: Store) -> None:
    store.catalog.save_index()
    (store.path / "commits/00000003.json").unlink()
    assert numbers(store.path) == set(range(12)) - {2, 8}
    assert list(store.keys()) == list(Store.open(store.path).keys())  # a handle that was open notices as well


def test_index_hides_no_loser_of_a_race(store: Store) -> None:
    """A key in two commits: when the first is lost, the second counts, whether or not an index knew only the
    first."""
    double = Store.open(store.path)
    double.catalog.holds = lambda keys: set()  # type: ignore[method-assign]  # a writer that looked just before the others
    assert double.commit(samples.tracks(store.spec, [2, 3])).number == 7
    assert numbers(store.path) == set(range(12))
    store.catalog.save_index()
    os.truncate(store.path / f"segments/{store.catalog.read(3).segment}/lag/c.0.0.0.0", 5)
    assert numbers(store.path) == set(range(12)) - {8}
    columns = Store.open(store.path).catalog.state().columns
    assert columns.number[columns.find([samples.key(2), samples.key(3)])].tolist() == [7, 4]


def test_compaction_changes_only_where_features_lie(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, other_writer = store.snapshot(), Store.open(store.path)
    other_writer.snapshot()
    done = compact(Store.open(store.path))
    assert (done.before, done.after, done.copied) == (6, 1, 12)
    assert store.snapshot().id == reader.id
    assert records_read(store.path, monkeypatch) == 0  # it saved an index
    assert samples.same(
        reader.read(samples.key(1)), samples.features(store.spec, 1)
    )  # from the old segments, still there
    assert len(other_writer.commit(samples.tracks(store.spec, [1, 40])).added) == 1
    assert numbers(store.path) == {*range(12), 40}
    assert [f.level for f in verify(store.path, full=True).faults] == ["garbage"] * 6
    assert compact(Store.open(store.path)).after == 1
    assert compact(Store.open(store.path)).copied == 0  # nothing left to do
    assert numbers(store.path) == {*range(12), 40}


def test_compaction_aims_at_a_size(tmp_path: Path) -> None:
    of = samples.spec(PoolingSpec("stats", "stats", "chunk", (1,), ("dim",), (5000,), {}))
    store = Store.create(tmp_path / "s", of)
    for n in range(9):
        store.commit([(samples.key(n), samples.features(of, n, 5000))])  # 10 kB each
    assert compact(store, target=35_000).after == 3
    assert compact(store, target=35_000).copied == 0
    assert len(store.snapshot().load(None, "stats").values) == 9


def test_garbage_goes_after_its_time(store: Store) -> None:
    compact(store)
    (store.path / "tmp" / "123-dead").mkdir()
    (store.path / "tmp" / "123-dead" / "c.0").write_bytes(b"x" * 1000)
    assert collect(store, 3600.0) == []
    would = collect(store, 0.0, dry_run=True)
    assert len(list((store.path / "commits").iterdir())) == 7
    gone = collect(store, 0.0)
    assert [g.file for g in would] == [g.file for g in gone]
    assert sum(g.bytes for g in gone) > 1000
    assert len(list((store.path / "commits").iterdir())) == 1
    assert len(list((store.path / "segments").iterdir())) == 2
    assert verify(store.path, full=True).faults == ()
    assert numbers(store.path) == set(range(12))
    assert store.commit(samples.tracks(store.spec, [20])).number == 8  # numbers do not come again


def grow_old(path: Path) -> None:
    """As if nothing in it had changed for a day and more."""
    for old in (path, *path.rglob("*")):
        os.utime(old, (time.time() - 100_000,) * 2)


def test_what_is_being_written_is_no_garbage(store: Store) -> None:
    """Eight hours of audio take longer than a short grace period. Rows reach a shard two folders down, or
    wait in memory."""
    rows = samples.features(store.spec, 20, 50_000).pooled
    draft = store.draft(samples.key(20), 50_000)
    draft.append({name: pooled.values[:1] for name, pooled in rows.items()})
    staged = next((store.path / "tmp").iterdir())
    grow_old(staged)
    os.utime(next(staged.rglob("stats/c.*")))
    assert collect(store, 3600.0) == []
    grow_old(staged)
    draft.append({name: pooled.values[1:2] for name, pooled in rows.items()})
    assert collect(store, 3600.0) == []
    draft.append({name: pooled.values[2:] for name, pooled in rows.items()})
    assert store.commit_draft(draft).added == (samples.key(20),)
    assert samples.same(store.snapshot().read(samples.key(20)), samples.features(store.spec, 20, 50_000))
    dead = store.draft(samples.key(21), 20_000)
    grow_old(next((store.path / "tmp").iterdir()))
    assert len(collect(store, 3600.0)) == 1
    dead.discard()


def test_a_segment_that_is_acknowledged_while_it_is_collected_is_put_back(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer slower than the grace period links its record after garbage collection has taken the segment
    away."""
    record = write_tracks(store.backend, store.layout, samples.tracks(store.spec, [70]), None)
    dead = write_tracks(store.backend, store.layout, samples.tracks(store.spec, [71]), None)
    move = Folder.move

    def meanwhile(self: Folder, name: str, to: str) -> None:
        move(self, name, to)
        if name == f"segments/{record.segment}" and to.startswith("tmp/"):
            store.catalog.journal.append(record.to_json())

    monkeypatch.setattr(Folder, "move", meanwhile)
    assert [garbage.file for garbage in collect(Store.open(store.path), 0.0)] == [f"segments/{dead.segment}"]
    assert store.backend.list("tmp") == []
    assert numbers(store.path) == {*range(12), 70}
    assert verify(store.path, full=True).faults == ()


@pytest.mark.parametrize("death", [KeyboardInterrupt, UnreadableError])
def test_a_collection_that_cannot_look_again_takes_nothing_away(
    store: Store, monkeypatch: pytest.MonkeyPatch, death: type[BaseException]
) -> None:
    record = write_tracks(store.backend, store.layout, samples.tracks(store.spec, [70]), None)
    move = Folder.move

    def meanwhile(self: Folder, name: str, to: str) -> None:
        move(self, name, to)
        if to.startswith("tmp/"):
            store.catalog.journal.append(record.to_json())
            monkeypatch.setattr(Journal, "read", broken)

    def broken(self: Journal, number: int) -> dict[str, object]:
        raise death("no")

    monkeypatch.setattr(Folder, "move", meanwhile)
    with pytest.raises(death):
        collect(Store.open(store.path), 0.0)
    monkeypatch.undo()
    assert numbers(store.path) == {*range(12), 70}
    store.backend.move(
        f"segments/{record.segment}", f"tmp/{record.segment}"
    )  # as one leaves it that was killed
    assert collect(Store.open(store.path), 0.0) == []
    assert numbers(store.path) == {*range(12), 70}


def test_a_commit_whose_segment_was_collected_is_not_acknowledged(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other way round: the segment is gone for good when the slow writer links its record, and the writer
    notices."""
    append = Journal.append

    def late(self: Journal, value: Mapping[str, Any]) -> int:
        assert [garbage.why for garbage in collect(Store.open(store.path), 0.0)] == ["no record names it"]
        return append(self, value)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", late)
        with pytest.raises(
            StoreError,
            match=r"was collected as garbage while it was being committed\. Commit these tracks again",
        ):
            store.commit(samples.tracks(store.spec, [70]))
    assert numbers(store.path) == set(range(12))
    assert store.commit(samples.tracks(store.spec, [70])).added == (samples.key(70),)
    assert numbers(store.path) == {*range(12), 70}
    assert repair(store.path).lost == []  # the record of the first attempt is replaced
    assert verify(store.path, full=True).sound


def test_a_snapshot_whose_segments_were_collected_says_so(store: Store) -> None:
    snapshot = store.snapshot()
    compact(store)
    collect(store, 0.0)
    with pytest.raises(StoreError, match="open the store again"):
        snapshot.read(samples.key(3))


def test_compaction_of_compactions(store: Store) -> None:
    """Replacements of replacements: what is replaced stays replaced while any of it is still on disk."""
    before = store.snapshot().id
    for n in range(20, 24):
        compact(Store.open(store.path))
        store.commit(samples.tracks(store.spec, [n]))
        fresh = Catalog(store.backend, store.layout)
        fresh.refresh(use_index=False)
        np.testing.assert_array_equal(
            fresh.state().columns.number, Store.open(store.path).catalog.state().columns.number
        )
    assert len(store.backend.list("commits")) == 6 + 4 + 4
    collect(store, 0.0)
    assert numbers(store.path) == {*range(12), *range(20, 24)}
    assert len(store.backend.list("commits")) == 2
    assert store.snapshot().id != before


def test_many_open_shards_stay_within_the_limit_of_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.create(tmp_path / "s", samples.spec())
    for n in range(20):
        store.commit(samples.tracks(store.spec, [n]))
    monkeypatch.setattr("beatmeter.store.gather._open_files_limit", lambda: 1)
    snapshot = store.snapshot()
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for check in ("first", "always"):
        snapshot.load(None, "stats", check=check)  # type: ignore[arg-type]
        snapshot.load(None, "lag", check=check)  # type: ignore[arg-type]
    assert len(os.listdir("/proc/self/fd")) <= before + 2 * 16  # noqa: PTH208
    del snapshot
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_threads_share_a_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More shards than may be open at once, read from several threads: a shard that is closed under a
    reader's feet would give wrong rows or end the process."""
    store = Store.create(tmp_path / "s", samples.spec())
    for n in range(20):
        store.commit(samples.tracks(store.spec, [n]))
    monkeypatch.setattr("beatmeter.store.gather._open_files_limit", lambda: 1)
    snapshot = store.snapshot()

    def read(seed: int) -> bool:
        order = np.random.default_rng(seed).permutation(20).tolist()
        return all(
            samples.same(snapshot.read(samples.key(n), check="always"), samples.features(store.spec, n))
            for n in order
        )

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(read, range(12)))


@given(
    entries=st.lists(
        st.tuples(st.sampled_from(["a", "b", "cc", "ccc", "d" * 70]), st.integers(1, 5), st.integers(1, 9)),
        max_size=12,
    ),
    compacted=st.sets(st.integers(1, 5)),
)
def test_winners_are_the_first_of_each_key(entries: list[tuple[str, int, int]], compacted: set[int]) -> None:
    expected: dict[str, tuple[bool, int, int]] = {}
    for key, number, length in entries:
        rank = (number not in compacted, number, length)
        if key not in expected or rank[:2] < expected[key][:2]:
            expected[key] = rank
    column = np.array([[n] for _, n, _ in entries], np.int64).reshape(-1, 1)
    columns = Columns(
        np.array([k for k, _, _ in entries], "S70"),
        column[:, 0],
        np.array([n for _, _, n in entries], np.int64),
        column,
        column,
        column.astype(np.uint32),
    ).winners(compacted)
    assert list(Keys(columns)) == sorted(expected)
    for key, at in zip(
        ["a", "zz", "b", "", "cc", "é"], columns.find(["a", "zz", "b", "", "cc", "é"]), strict=True
    ):
        assert (at >= 0) == (key in expected)
        if at >= 0:
            assert (int(columns.number[at]), int(columns.samples[at])) == expected[key][1:]


@pytest.mark.parametrize("kind", ["no hard links", "an answer that got lost"])
def test_file_systems_with_manners_of_their_own(
    store: Store, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Without hard links a record is renamed under a lock; where a request is repeated, success may look like
    a conflict."""
    link = os.link

    def refuse(source: Path, target: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    def repeat(source: Path, target: Path) -> None:
        link(source, target)
        link(source, target)

    monkeypatch.setattr(os, "link", refuse if kind == "no hard links" else repeat)
    assert store.commit(samples.tracks(store.spec, [20])).number == 7
    if kind == "no hard links":
        assert not store.backend.put_if_absent("commits/00000007.json", b"x")
    monkeypatch.undo()
    assert numbers(store.path) == {*range(12), 20}
    assert len(store.backend.list("commits")) == 7
    assert verify(store.path, full=True).faults == ()


def no_links(source: Path, target: Path) -> None:
    raise PermissionError(errno.EPERM, "Operation not permitted")


def test_without_hard_links_a_full_disk_leaves_no_torn_record(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file that is written beside the first of a record finds the disk full, with half of it written."""
    write = folder.write_synced

    def torn(path: Path, data: bytes) -> None:
        if any((store.path / "tmp").iterdir()):
            path.write_bytes(data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, data)

    monkeypatch.setattr(os, "link", no_links)
    monkeypatch.setattr(folder, "write_synced", torn)
    for n in range(20, 23):
        with contextlib.suppress(StoreError):
            store.commit(samples.tracks(store.spec, [n]))
    monkeypatch.undo()
    assert verify(store.path, full=True).faults == ()
    assert collect(store, 0.0) == []


def test_without_hard_links_one_writer_wins_and_readers_see_whole_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", no_links)
    place, names, size = Folder(tmp_path), [f"commits/{n:08d}.json" for n in range(1, 31)], 1 << 22
    place.make("commits", "tmp")
    won: list[tuple[str, int]] = []
    seen: set[int] = set()
    done = threading.Event()

    def write(writer: int) -> None:
        mine = Folder(tmp_path)
        won.extend((name, writer) for name in names if mine.put_if_absent(name, bytes([writer]) * size))

    def read() -> None:
        while not done.is_set():
            seen.update(len(place.read(f"commits/{name}")) for name in place.list("commits"))

    with ThreadPoolExecutor(5) as threads:
        reader = threads.submit(read)
        list(threads.map(write, range(4)))
        done.set()
        reader.result()
    assert sorted(name for name, _ in won) == names
    assert all(place.read(name) == bytes([writer]) * size for name, writer in won)
    assert seen == {size}


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK])
def test_a_file_system_without_locks_is_not_one_that_somebody_maintains(
    store: Store, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def flock(handle: int, how: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(
        StoreError, match=rf"lock cannot be locked: {os.strerror(number)}.*file system with locks"
    ):
        compact(store)
    assert numbers(store.path) == set(range(12))
    monkeypatch.setattr(os, "link", no_links)
    with pytest.raises(StoreError, match=r"names.lock cannot be locked"):
        store.commit(samples.tracks(store.spec, [20]))


def test_maintenance_of_a_full_disk(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock says whose it is only if there is room: what makes room must not need any."""

    def full(handle: int, data: bytes, at: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with store.backend.lock("a test"), pytest.raises(StoreError, match="maintained by another process"):
        compact(Store.open(store.path))


def test_an_index_saved_while_files_were_away_hides_nothing_once_they_are_back(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment, away = store.path / "segments" / store.catalog.read(3).segment, store.path / "tmp" / "away"
    segment.rename(away)
    Store.open(store.path).catalog.save_index()
    assert numbers(store.path) == set(range(12)) - {2, 8}
    away.rename(segment)
    assert numbers(store.path) == set(range(12))
    assert records_read(store.path, monkeypatch) == 1  # the index still spares the others
    compact(Store.open(store.path))
    collect(Store.open(store.path), 0.0)
    assert numbers(store.path) == set(range(12))


def test_an_index_that_counts_misfits_is_not_believed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Earlier versions saved such: the commit seems known, its tracks are not."""
    segment, away = store.path / "segments" / store.catalog.read(3).segment, store.path / "tmp" / "away"
    segment.rename(away)
    catalog = Store.open(store.path).catalog
    catalog.state()
    catalog.misfits.clear()
    catalog.refresh = lambda use_index=True: None  # type: ignore[method-assign]
    catalog.save_index()
    away.rename(segment)
    assert numbers(store.path) == set(range(12))


@pytest.mark.parametrize("over", ["the copy over the store", "the store over the copy"])
def test_an_index_hides_no_commit_of_a_copy_with_the_same_number(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, over: str
) -> None:
    """A store and its copy go on for themselves and are copied into one another: what a record says counts,
    not what an index remembers of another record with its number."""
    shutil.copytree(store.path, tmp_path / "copy")
    copy = Store.open(tmp_path / "copy")
    open_all_the_time = Store.open(store.path)
    for made, number in ((store, 20), (copy, 30)):
        assert made.commit(samples.tracks(made.spec, [number])).number == 7
        made.commit(samples.tracks(made.spec, [number + 1]))
    store.commit(samples.tracks(store.spec, [22]))
    open_all_the_time.keys()
    store.catalog.save_index()
    copy.catalog.save_index()
    expected = {*range(12), 30, 31, 22}
    if over == "the copy over the store":
        shutil.copytree(copy.path, store.path, dirs_exist_ok=True)
        merged = store.path
    else:
        for file in store.path.rglob("*"):  # only what is not there
            if file.is_file() and not (copy.path / file.relative_to(store.path)).exists():
                (copy.path / file.relative_to(store.path)).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, copy.path / file.relative_to(store.path))
        merged = copy.path
    assert numbers(merged) == expected
    if over == "the copy over the store":
        open_all_the_time.catalog.save_index()  # by a handle that knew the commits that were written over
        assert numbers(merged) == expected
    Store.open(merged).catalog.save_index()
    assert records_read(merged, monkeypatch) == 0
    assert numbers(merged) == expected
    repair(merged)  # finds those whose records were written over
    assert numbers(merged) == {*expected, 20, 21}


def test_segments_without_a_record_do_not_slow_opening_for_good(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.catalog.save_index()
    write_tracks(
        store.backend, store.layout, samples.tracks(store.spec, [70]), None
    )  # a writer that died before it was acknowledged
    assert records_read(store.path, monkeypatch) == 6
    store.catalog.save_index()  # by a handle that was open all the time
    assert records_read(store.path, monkeypatch) == 0
    assert numbers(store.path) == set(range(12))


def test_a_folder_is_collected_at_once_so_that_its_writer_publishes_all_of_it_or_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer renames its folder into place while the collection is half through deleting it."""
    before, draft = set(Store.open(store.path).keys()), store.draft(samples.key(50), 20_000)
    draft.append({name: p.values for name, p in samples.features(store.spec, 50, 20_000).pooled.items()})
    delete, refused = shutil.rmtree, list[str]()

    def half(path: Path, **options: bool) -> None:
        if not refused and not options:
            next(p for p in sorted(path.rglob("*")) if p.is_file()).unlink()
            with pytest.raises(StoreError) as error:
                Store.open(store.path).commit_draft(draft)
            refused.append(str(error.value))
        delete(path, **options)

    monkeypatch.setattr(folder.shutil, "rmtree", half)
    collect(store, 0.0)
    assert len(refused) == 1
    assert "removed meanwhile" in refused[0]
    assert set(Store.open(store.path).keys()) == before
    assert verify(store.path, full=True).sound
