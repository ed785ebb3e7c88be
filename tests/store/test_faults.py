"""Damage of every kind: named with its file and its remedy, never a wrong number, and mended without losing
what is sound.

BEATMETER_FULL=1 flips 1000 bits, BEATMETER_FLIPS as many as one wants.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
import store_samples as samples
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from beatmeter.errors import StoreError
from beatmeter.store import Store, folder, mapped
from beatmeter.store.compact import compact
from beatmeter.store.gc import collect
from beatmeter.store.journal import Journal, RecordError, seal, unseal
from beatmeter.store.layout import NewerFormatError, StoreLayout
from beatmeter.store.mapped import MappedFile
from beatmeter.store.record import Record
from beatmeter.store.repair import repair
from beatmeter.store.verify import verify

FLIPS = int(
    os.environ.get("BEATMETER_FLIPS", "1000" if os.environ.get("BEATMETER_FULL", "0") != "0" else "100")
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Six tracks in three commits."""
    of = samples.spec()
    made = Store.create(tmp_path / "store", of)
    for n in range(0, 6, 2):
        made.commit(samples.tracks(of, [n, n + 1]))
    return made


def shard(store: Store, number: int, pooling: str = "stats") -> Path:
    return store.path / f"segments/{store.catalog.read(number).segment}/{store.layout.arrays[pooling].shard}"


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def readable(path: Path) -> set[int]:
    """Numbers of the tracks that can be read; each of them is right."""
    snapshot = Store.open(path).snapshot()
    numbers = set()
    for n in range(20):
        try:
            found = snapshot.read(samples.key(n))
        except StoreError:
            continue
        assert samples.same(found, samples.features(samples.spec(), n))
        numbers.add(n)
    return numbers


def test_any_flipped_bit_is_found_and_mended(store: Store, tmp_path: Path) -> None:
    store.record_failure("k", "a.wav", "silent")
    store.catalog.save_index()
    files = sorted(
        p.relative_to(store.path) for p in store.path.rglob("*") if p.is_file() and p.name != "lock"
    )
    rng = random.Random(1)
    for i in range(FLIPS):
        copy = tmp_path / f"copy{i}" / store.path.name
        shutil.copytree(store.path, copy)
        file = files[i % len(files)]
        flip(copy / file, rng.randrange(8 * (copy / file).stat().st_size))
        report = verify(copy, full=True)
        if file.parts[0] in ("index", "receipts"):  # copies of what is said elsewhere
            assert report.sound
            assert [f.file for f in report.faults] == [str(file)]
            assert readable(copy) == set(range(6))
            assert repair(copy).lost == []
            assert verify(copy, full=True).faults == ()
            continue
        assert not report.sound, file
        assert all("beatmeter cache repair" in f.remedy for f in report.faults if f.level == "error")
        before = readable(copy) if file != Path("zarr.json") else set()
        try:
            done = repair(copy)
        except NewerFormatError:  # the bit made it a format of the future, which is not for us to touch
            assert file == Path("zarr.json")
            continue
        after = readable(copy)
        assert verify(copy, full=True).sound
        assert before <= after
        assert {samples.key(n) for n in set(range(6)) - after} == set(done.lost)
        assert len(done.lost) <= 1  # one bit costs one track at most
        assert done.actions
        shutil.rmtree(copy)


@pytest.mark.parametrize("length", [0, 1, 500, -1])
def test_truncated_shard(store: Store, length: int) -> None:
    """An error while it is open, gone from the next snapshot, named by a quick check, and its whole rows are
    rescued."""
    snapshot = store.snapshot()
    snapshot.load(None, "stats")
    victim = shard(store, 2)
    os.truncate(victim, length % victim.stat().st_size)
    with pytest.raises(StoreError, match=r"its record says \d+.*cache repair"):
        snapshot.load([samples.key(2)], "stats")  # mapped already: not a SIGBUS
    assert readable(store.path) == {0, 1, 4, 5}
    report = verify(store.path)
    assert [(f.level, f.file) for f in report.faults] == [("error", "commits/00000002.json")]
    assert set(report.faults[0].tracks) == {samples.key(2), samples.key(3)}
    assert Store.open(store.path).missing(map(samples.key, range(6))) == [samples.key(2), samples.key(3)]
    whole = {
        n
        for n in (2, 3)
        if length == -1
        or (n == 2 and length == 500 and store.catalog.read(2).extents["stats"].counts[0] * 100 < 500)
    }
    done = repair(store.path)
    assert readable(store.path) == {0, 1, 4, 5} | whole
    assert set(done.lost) == {samples.key(n) for n in {2, 3} - whole}
    assert verify(store.path, full=True).sound


def test_longer_and_missing_shards(store: Store) -> None:
    with shard(store, 1).open("ab") as file:
        file.write(b"more")
    shard(store, 2, "lag").unlink()
    assert readable(store.path) == {4, 5}
    assert [f.file for f in verify(store.path).faults] == ["commits/00000001.json", "commits/00000002.json"]
    assert sorted(repair(store.path).lost) == sorted(samples.key(n) for n in (2, 3))
    assert readable(store.path) == {0, 1, 4, 5}


def test_damaged_tracks_come_back_by_extracting_again(store: Store) -> None:
    os.truncate(shard(store, 2), 10)
    fresh = Store.open(store.path)
    assert fresh.commit(samples.tracks(store.spec, range(6))).added == (samples.key(2), samples.key(3))
    assert readable(store.path) == set(range(6))
    repair(store.path)
    assert readable(store.path) == set(range(6))


def test_rows_of_another_segment_are_noticed(store: Store) -> None:
    """A file of the right length with sound checksums, but not the one that was committed."""
    of = store.spec
    a = store.commit([("a", samples.features(of, 50, 20_000))])
    b = store.commit([("b", samples.features(of, 51, 20_000))])
    shutil.copy(shard(store, a.number), shard(store, b.number))
    snapshot = Store.open(store.path).snapshot()
    with pytest.raises(StoreError, match=r"'stats' rows of track b are damaged"):
        snapshot.read("b")
    assert not verify(store.path, full=True).sound


def test_damage_in_a_layer_is_noticed_where_that_layer_is_read(store: Store) -> None:
    """Layers have checksums of their own: a bit in layer 1 harms nobody who reads layer 3."""
    flip(shard(store, 1), 8 * 3)
    keys = [samples.key(0), samples.key(4)]
    expected = np.concatenate([samples.features(store.spec, n).pooled["stats"].values for n in (0, 4)])
    snapshot = store.snapshot()
    for check in ("never", "first", "always", "first"):
        found = snapshot.load(keys, "stats", layers=[3], check=check).values  # type: ignore[arg-type]
        np.testing.assert_array_equal(found, expected[:, 2:])
    damaged = rf"'stats' rows of track {keys[0]} are damaged in .*stats/c.0.0.0.0: checksums differ"
    for layers in ([1], [3, 1], None):
        for check in ("first", "always", "first"):
            with pytest.raises(StoreError, match=damaged):
                snapshot.load(keys, "stats", layers=layers, check=check)  # type: ignore[arg-type]
    found = snapshot.load(keys[1:], "stats", layers=[3, 1]).values
    np.testing.assert_array_equal(found, expected[-len(found) :, [2, 0]])


def layer_sums(store: Store, number: int, pooling: str = "stats") -> Path:
    return shard(store, number, pooling).with_name("layers.crc32c")


def test_a_store_without_checksums_of_layers_is_checked_by_whole_rows(store: Store) -> None:
    """As earlier versions wrote it: a bit in layer 1 is noticed when layer 3 is asked for, unless nobody
    wants to know; one note says so, and compaction adds what is missing."""
    for number in (1, 2, 3):
        layer_sums(store, number).unlink()
    report = verify(store.path, full=True)
    assert report.sound
    assert [(f.level, f.remedy) for f in report.faults] == [("note", "`beatmeter cache compact` adds them")]
    assert "3 segments without checksums of single layers" in report.faults[0].fault
    flip(shard(store, 1), 8 * 3)
    keys = [samples.key(0), samples.key(4)]
    expected = np.concatenate([samples.features(store.spec, n).pooled["stats"].values[:, 2:] for n in (0, 4)])
    snapshot = store.snapshot()
    found = snapshot.load(keys, "stats", layers=[3], check="never").values
    np.testing.assert_array_equal(found, expected)
    for check in ("first", "always", "first"):
        with pytest.raises(StoreError, match=rf"'stats' rows of track {keys[0]} are damaged"):
            snapshot.load(keys, "stats", layers=[3], check=check)  # type: ignore[arg-type]
    found = snapshot.load(keys[1:], "stats", layers=[3]).values
    np.testing.assert_array_equal(found, expected[-len(found) :])
    flip(shard(store, 1), 8 * 3)
    before = store.snapshot().id
    assert compact(Store.open(store.path)).copied == 6
    collect(Store.open(store.path), 0.0)
    assert verify(store.path, full=True).faults == ()
    assert compact(Store.open(store.path)).copied == 0
    assert Store.open(store.path).snapshot().id == before
    assert readable(store.path) == set(range(6))


def test_one_old_segment_is_rewritten_by_compaction(store: Store) -> None:
    """Alone in its store, so that there is nothing to join it with."""
    compact(Store.open(store.path))
    collect(Store.open(store.path), 0.0)
    assert compact(Store.open(store.path)).copied == 0
    layer_sums(store, 4).unlink()
    assert compact(Store.open(store.path)).copied == 6
    assert readable(store.path) == set(range(6))


@pytest.mark.parametrize("damage", ["a bit", "cut", "another's"])
def test_damaged_checksums_of_layers_cost_nothing(store: Store, damage: str) -> None:
    """Whole rows tell then, and a repair writes them again."""
    victim = layer_sums(store, 2)
    if damage == "a bit":
        flip(victim, 8 * 5)
    elif damage == "cut":
        os.truncate(victim, 7)
    else:
        victim.write_bytes(
            layer_sums(store, 1).read_bytes()[: victim.stat().st_size].ljust(victim.stat().st_size)
        )
    keys = [samples.key(n) for n in range(6)]
    expected = np.concatenate(
        [samples.features(store.spec, n).pooled["stats"].values[:, 1:2] for n in range(6)]
    )
    for check in ("first", "always"):
        found = Store.open(store.path).snapshot().load(keys, "stats", layers=[2], check=check).values  # type: ignore[arg-type]
        np.testing.assert_array_equal(found, expected)
    name = victim.relative_to(store.path).as_posix()
    assert [(f.level, f.file) for f in verify(store.path, full=True).faults] == [("error", name)]
    assert repair(store.path).lost == []
    assert verify(store.path, full=True).sound
    assert readable(store.path) == set(range(6))


def test_one_layer_is_all_that_one_layer_takes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[tuple[str, int, int]] = []
    fetch = MappedFile.fetch

    def watched(self: MappedFile, first: int, count: int, stride: int, begin: int, end: int) -> Any:
        taken.append((self.path.name, begin, end))
        return fetch(self, first, count, stride, begin, end)

    monkeypatch.setattr(MappedFile, "fetch", watched)
    snapshot, array = store.snapshot(), store.layout.arrays["stats"]
    snapshot.load(None, "stats", layers=[2])
    size = array.layer_bytes
    assert set(taken) == {("c.0.0.0.0", size, 2 * size), ("layers.crc32c", 0, 12)}
    taken.clear()
    snapshot.load(None, "stats", layers=[2])  # checked already
    assert set(taken) == {("c.0.0.0.0", size, 2 * size)}
    snapshot.load(None, "stats", layers=[3])  # that one was not
    assert ("layers.crc32c", 0, 12) in taken


@pytest.mark.skipif(not hasattr(os, "preadv"), reason="this system reads no vectors")
def test_rows_that_are_read_without_a_stop_are_checked_like_others(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way of long runs that are not in memory, here for every run: the same numbers, the same errors."""
    snapshot = store.snapshot()
    expected = snapshot.load(None, "stats").values
    poured: list[int] = []
    pour = MappedFile.pour

    def watched(self: MappedFile, first: int, stride: int, rows: np.ndarray) -> np.ndarray | None:
        tail = pour(self, first, stride, rows)
        poured.append(0 if tail is None else len(rows))
        return tail

    monkeypatch.setattr(MappedFile, "pour", watched)
    monkeypatch.setattr(MappedFile, "_resident", lambda self, at: False)
    monkeypatch.setattr(mapped, "_LONG", 1)
    monkeypatch.setattr(mapped, "_LEAST_ROW", 1)
    monkeypatch.setattr(mapped, "_VECTORS", 2)
    for check in ("first", "always", "never"):
        found = store.snapshot().load(None, "stats", check=check).values  # type: ignore[arg-type]
        np.testing.assert_array_equal(found, expected)
    assert sum(poured) == 3 * len(expected)
    flip(shard(store, 2), 8 * 3)
    with pytest.raises(StoreError, match=rf"'stats' rows of track {samples.key(2)} are damaged"):
        store.snapshot().load(None, "stats")
    os.truncate(shard(store, 3), 10)
    with pytest.raises(StoreError, match="has 10 bytes, its record says"):
        snapshot.load(None, "stats", check="never")


def test_root_lost(store: Store) -> None:
    (store.path / "zarr.json").unlink()
    with pytest.raises(StoreError, match=r"zarr.json is missing.*cache repair"):
        Store.open(store.path)
    repair(store.path)
    assert Store.open(store.path, store.spec).spec == store.spec
    shutil.rmtree(store.path / "segments")
    (store.path / "zarr.json").unlink()
    with pytest.raises(StoreError, match="no segment tells"):
        repair(store.path)


def test_record_lost(store: Store) -> None:
    segment = f"segments/{store.catalog.read(2).segment}"
    (store.path / "commits/00000002.json").unlink()
    assert readable(store.path) == {0, 1, 4, 5}
    assert [(f.level, f.file) for f in verify(store.path).faults] == [("error", segment)]
    assert repair(store.path).lost == []
    assert readable(store.path) == set(range(6))


def test_foreign_files_are_ignored_and_mentioned(store: Store) -> None:
    commits = store.path / "commits"
    for name in (".DS_Store", "notes.txt", "1.json", "00000004.json.tmp", "._00000001.json"):
        (commits / name).write_text("{}")
    (commits / "folder").mkdir()
    shutil.copy(commits / "00000001.json", commits / "00000009.json")  # a copy changes nothing
    assert readable(store.path) == set(range(6))
    report = verify(store.path, full=True)
    assert report.sound
    assert report.tracks == 6
    assert {f.file for f in report.faults if f.level == "note"} >= {
        "commits/.DS_Store",
        "commits/folder",
        "commits/1.json",
    }
    assert Store.open(store.path).commit(samples.tracks(store.spec, [7])).number == 10
    assert readable(store.path) == {*range(6), 7}


def test_names_that_are_almost_a_records(store: Store) -> None:
    """Digits, but of no file that a number names: maintenance goes on and the next commit is seen."""
    commits = store.path / "commits"
    names = ("000000007.json", "٠٠٠٠٠٠٠٩.json", "999999999999999999.json")
    for name in names:
        (commits / name).write_text("{}")
    assert Store.open(store.path).commit(samples.tracks(store.spec, [7])).number == 4
    assert readable(store.path) == {*range(6), 7}
    assert collect(store, 0.0) == []
    assert repair(store.path).actions == []
    assert {f.file for f in verify(store.path, full=True).faults} == {f"commits/{name}" for name in names}
    assert verify(store.path).sound


def test_files_nested_too_deeply_are_damaged(store: Store) -> None:
    """JSON that no reader's stack can hold, its checksum right: an error like any other."""
    body = b'{"a":' + b"[" * 100_000 + b"]" * 100_000
    (store.path / "commits/00000002.json").write_bytes(
        body + b',"crc32c":"%08x"}\n' % google_crc32c.value(body)
    )
    assert readable(store.path) == {0, 1, 4, 5}
    assert next((f.level, f.file) for f in verify(store.path).faults) == ("error", "commits/00000002.json")
    assert repair(store.path).lost == []
    assert readable(store.path) == set(range(6))
    (store.path / "zarr.json").write_bytes(body + b"}")
    with pytest.raises(StoreError, match=r"zarr.json is damaged.*cache repair"):
        Store.open(store.path)


def test_record_of_other_features(store: Store, tmp_path: Path) -> None:
    other = Store.create(tmp_path / "other", samples.spec(weights="1" * 64))
    other.commit(samples.tracks(other.spec, [8]))
    segment = other.catalog.read(1).segment
    shutil.copytree(other.path / "segments" / segment, store.path / "segments" / segment)
    shutil.copy(other.path / "commits/00000001.json", store.path / "commits/00000004.json")
    assert readable(store.path) == set(range(6))
    faults = [f for f in verify(store.path).faults if f.level == "error"]
    assert len(faults) == 1
    assert "fingerprint" in faults[0].fault
    with pytest.raises(StoreError, match="Repair first"):
        collect(store, 0.0)
    repair(store.path)
    assert verify(store.path, full=True).sound
    assert readable(store.path) == set(range(6))


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(leaf for k, v in items for leaf in leaves(v, (*path, k)))]


HOSTILE = st.one_of(
    st.integers(-(2**70), 2**70), st.sampled_from([-1, 0, 1, 2**31, 2**48, 2**63]), st.text(max_size=3),
    st.none(), st.booleans(), st.floats(-1e30, 1e30), st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=1),
)  # fmt: skip


@settings(max_examples=300)
@given(data=st.data())
def test_hostile_records_are_refused_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Any value in the place of any other, the checksum made to fit: refused, or nothing that reading depends
    on changed."""
    of = samples.spec()
    layout = StoreLayout(of)
    path = _shared_store(tmp_path_factory)
    record = unseal((path / "commits/00000001.json").read_bytes())
    where = data.draw(st.sampled_from([p for p in leaves(record) if p and p[0] != "provenance"]))
    at = record
    for step in where[:-1]:
        at = at[step]
    before, at[where[-1]] = at[where[-1]], data.draw(HOSTILE)
    if at[where[-1]] == before and type(at[where[-1]]) is type(before):
        return
    try:
        found = Record.from_json(unseal(seal(record)), layout)
    except RecordError:
        return
    sound = Record.from_json(unseal((path / "commits/00000001.json").read_bytes()), layout)
    assert {n: (e.rows, e.bytes, e.first, e.counts) for n, e in found.extents.items()} == {
        n: (e.rows, e.bytes, e.first, e.counts) for n, e in sound.extents.items()
    }
    assert all(s < 2**22 for s in found.samples)  # no length that would make reading allocate the earth


_SHARED: list[Path] = []


def _shared_store(factory: pytest.TempPathFactory) -> Path:
    if not _SHARED:
        of = samples.spec()
        made = Store.create(factory.mktemp("shared") / "s", of)
        made.commit(samples.tracks(of, range(3)))
        _SHARED.append(made.path)
    return _SHARED[0]


@given(
    value=st.dictionaries(
        st.text(max_size=9),
        st.none() | st.integers() | st.text(max_size=9) | st.lists(st.text(max_size=3), max_size=3),
        min_size=1,
        max_size=4,
    ),
    data=st.data(),
)
def test_sealed_records(value: dict[str, Any], data: st.DataObject) -> None:
    """What is sealed is JSON, comes back, and does not survive a changed bit or a missing end."""
    assume("crc32c" not in value)
    sealed = seal(value)
    assert unseal(sealed) == value
    assert json.loads(sealed).items() >= value.items()
    bit = data.draw(st.integers(0, 8 * len(sealed) - 1))
    changed = bytearray(sealed)
    changed[bit // 8] ^= 1 << bit % 8
    for bad in (bytes(changed), sealed[: bit // 8], sealed + b"\n", sealed + sealed, b""):
        with pytest.raises(RecordError):
            unseal(bad)


def test_a_track_whose_length_contradicts_its_rows(store: Store) -> None:
    """A forged but possible length: times would be wrong, so reading refuses."""
    path = store.path / "commits/00000001.json"
    record = unseal(path.read_bytes())
    rows = record["tracks"]["rows"]["stats"]["count"][0]
    record["tracks"]["samples"][0] = rows * samples.CHUNK.hop + (
        -samples.CHUNK.hop if rows > 2 else samples.CHUNK.hop
    )
    path.write_bytes(seal(record))
    snapshot = Store.open(store.path).snapshot()
    with pytest.raises(StoreError, match="samples give"):
        snapshot.read(record["tracks"]["key"][0])


def test_disk_full(store: Store) -> None:
    """No root is needed to fill a disk: no file may grow beyond a few kilobytes. The commit fails in one
    line, nothing of it shows, and with space again it succeeds."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (0, 100, 2_000, 6_000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            with pytest.raises(StoreError, match=r"failed at .*File too large.*free space"):
                store.commit(samples.tracks(store.spec, range(10, 20)))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert readable(store.path) == set(range(6))
        assert verify(store.path, full=True).sound
        assert store.backend.list("tmp") == []
    assert len(store.commit(samples.tracks(store.spec, range(10, 20))).added) == 10
    assert readable(store.path) == {*range(6), *range(10, 20)}


def no_room_for(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """The disk is full from this step of writing a record on: its bytes, or the flush of its name, which is
    there by then."""
    real = getattr(folder, step)

    def full(path: Path, *data: bytes) -> None:
        if path.name == "commits" or (data and path.parent.name == "tmp"):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, *data)

    monkeypatch.setattr(folder, step, full)


def test_a_disk_too_full_for_a_record_is_left_as_it_was(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = set(store.path.rglob("*"))
    no_room_for(monkeypatch, "write_synced")
    for _ in range(3):
        with pytest.raises(StoreError, match=r"No space left.*free space"):
            store.commit(samples.tracks(store.spec, range(10, 20)))
    draft = store.draft(samples.key(20), 5000)
    draft.append(
        {name: pooled.values for name, pooled in samples.features(store.spec, 20, 5000).pooled.items()}
    )
    with pytest.raises(StoreError, match="No space left"):
        store.commit_draft(draft)
    assert {path for path in store.path.rglob("*") if path.name != "lock"} == before
    monkeypatch.undo()
    assert len(store.commit(samples.tracks(store.spec, range(10, 20))).added) == 10
    assert verify(store.path, full=True).faults == ()


@pytest.mark.parametrize("seen_by", ["a record", "a record that cannot be read", "maintenance"])
def test_a_segment_that_somebody_may_have_seen_stays(
    store: Store, monkeypatch: pytest.MonkeyPatch, seen_by: str
) -> None:
    with contextlib.ExitStack() as stack:
        if seen_by == "maintenance":
            stack.enter_context(store.backend.lock("a test"))
            no_room_for(monkeypatch, "write_synced")
        else:
            no_room_for(monkeypatch, "sync_folder")
        if seen_by == "a record that cannot be read":
            monkeypatch.setattr(store.catalog, "read", Journal(store.backend, "nowhere").read)
        with pytest.raises(StoreError, match="No space left"):
            store.commit(samples.tracks(store.spec, [10]))
    monkeypatch.undo()
    assert len(store.backend.list("segments")) == 3 + 1 + 1  # and zarr.json
    assert readable(store.path) == {*range(6), *([10] if seen_by != "maintenance" else [])}
    assert repair(store.path).lost == []
    assert readable(store.path) == {*range(6), 10}


def test_disk_full_at_the_record(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last write of a commit: its segment was there, and is taken back."""

    def full(path: Path, data: bytes) -> None:
        path.write_bytes(data[:100])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("beatmeter.store.folder.write_synced", full)
        with pytest.raises(
            StoreError,
            match=r"writing failed at .*commits/00000004.json: No space left on device.*free space",
        ):
            store.commit(samples.tracks(store.spec, range(10, 20)))
    assert len(store.backend.list("segments")) == 1 + 3
    assert store.backend.list("tmp") == []
    assert readable(store.path) == set(range(6))
    assert verify(store.path, full=True).faults == ()
    assert len(store.commit(samples.tracks(store.spec, range(10, 20))).added) == 10
    assert collect(Store.open(store.path), 0.0) == []
    assert verify(store.path, full=True).faults == ()
    assert readable(store.path) == {*range(6), *range(10, 20)}


READ_ONLY = """
import os, sys
import store_samples as s
from beatmeter.errors import StoreError
from beatmeter.store import Store, folder, mapped
from beatmeter.store.verify import verify
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
store = Store.open(sys.argv[1])
snapshot = store.snapshot()
assert all(s.same(snapshot.read(s.key(n)), s.features(store.spec, n)) for n in range(6))
assert verify(store.path, full=True).sound
try:
    store.commit(s.tracks(store.spec, [9]))
except StoreError as error:
    print(error)
"""


def test_read_only_folder(store: Store) -> None:
    """Readers need no permission to write; writers are told what to do. Run as another user when this one is
    root."""
    place = Path("/tmp") / f"beatmeter-read-only-{os.getpid()}"
    shutil.copytree(store.path, place)
    try:
        for path in (place, *place.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        search = os.pathsep.join([str(Path(__file__).parent), *sys.path])
        done = subprocess.run(
            [sys.executable, "-c", READ_ONLY, str(place)],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": search},
        )
        assert done.returncode == 0, done.stderr
        assert "cannot be written by this user" in done.stdout
        assert "Reading works" in done.stdout
    finally:
        for path in (place, *place.rglob("*")):
            path.chmod(0o755)
        shutil.rmtree(place)


def test_clocks_that_disagree(store: Store) -> None:
    """Order is by number, ages by the file system's clock: a machine that lives in 1970 or in 2100 changes
    nothing."""
    now = store.backend.now()
    for number, shift in ((1, 1e9), (2, -1e9)):
        for path in (store.path / f"commits/{number:08d}.json", shard(store, number).parent):
            os.utime(path, (now + shift, now + shift))
    assert readable(store.path) == set(range(6))
    other = Store.open(store.path)
    assert other.commit(samples.tracks(store.spec, [0])).added == ()
    assert collect(other, 3600.0) == []
    compact(other)
    assert collect(other, 3600.0) == []  # the compaction is young, whatever the segments say
    assert readable(store.path) == set(range(6))


def test_damage_in_compaction_stops_it(store: Store) -> None:
    flip(shard(store, 2), 100)
    with pytest.raises(StoreError, match=rf"track {samples.key(2)} is damaged.*cache repair"):
        compact(store)
    assert readable(store.path) == {0, 1, 3, 4, 5}
    assert repair(store.path).lost == [samples.key(2)]
    assert np.isin([0, 1, 3, 4, 5], list(readable(store.path))).all()
    assert compact(Store.open(store.path)).after == 1
    assert readable(store.path) == {0, 1, 3, 4, 5}


def test_only_one_maintains_at_a_time(store: Store) -> None:
    with (
        store.backend.lock("a test"),
        pytest.raises(StoreError, match=r'being maintained by .*"doing": "a test".*Wait'),
    ):
        compact(Store.open(store.path))
    compact(Store.open(store.path))


@pytest.mark.parametrize("damage", ["a bit", "cut", "gone"])
def test_repair_finds_tracks_in_segments_that_were_replaced(store: Store, damage: str) -> None:
    """Until they are collected, what compaction joined is still there: a damaged copy of it costs nothing."""
    before = store.snapshot().id
    compact(Store.open(store.path))
    joined = shard(store, 4)
    if damage == "a bit":
        flip(joined, 100)
    elif damage == "cut":
        os.truncate(joined, joined.stat().st_size // 2)
    else:
        shutil.rmtree(joined.parent.parent)
    done = repair(store.path)
    assert done.lost == []
    assert any("from other segments" in action for action in done.actions)
    collect(Store.open(store.path), 0.0)
    assert verify(store.path, full=True).faults == ()
    assert readable(store.path) == set(range(6))
    assert Store.open(store.path).snapshot().id == before


def test_repair_finds_tracks_in_segments_without_a_record(store: Store) -> None:
    """A garbage collection that died after the records: the segments carry them, and are the only sound
    ones."""
    compact(Store.open(store.path))
    flip(shard(store, 4), 100)
    for number in (1, 2, 3):
        (store.path / f"commits/{number:08d}.json").unlink()
    assert repair(store.path).lost == []
    assert readable(store.path) == set(range(6))


def test_repair_of_a_copy_that_lost_changes_no_track(store: Store) -> None:
    """Other features of a track that was there before do not count, before and after their segment is
    repaired."""
    late = Store.open(store.path)
    late.catalog.holds = lambda keys: set()  # type: ignore[method-assign]  # a writer that looked just before the others
    other = samples.features(store.spec, 99, samples.features(store.spec, 0).samples)
    number = late.commit([(samples.key(0), other), *samples.tracks(store.spec, [9])]).number
    before = store.snapshot().id
    (shard(store, number).parent / "zarr.json").unlink()
    assert repair(store.path).lost == []
    assert store.snapshot().id == before
    assert readable(store.path) == {*range(6), 9}
