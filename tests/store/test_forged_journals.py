"""Records that were deleted, forged or swapped with a right checksum: told, and no acknowledged track is lost
or wrong by it.

BEATMETER_FULL=1 forges ten times as many records.
"""

from __future__ import annotations

import copy
import itertools
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import store_samples as samples

from beatmeter.errors import StoreError
from beatmeter.store import Store
from beatmeter.store.commit import write_tracks
from beatmeter.store.compact import compact
from beatmeter.store.gc import collect
from beatmeter.store.journal import seal, unseal
from beatmeter.store.repair import repair
from beatmeter.store.verify import Report, verify

FORGERIES = 400 if os.environ.get("BEATMETER_FULL", "0") != "0" else 40
LENGTH = 12_000  # samples: all tracks have the same, so that any two can be swapped
KEYS = {samples.key(n): n for n in range(40)}


def tracks(store: Store, *numbers: int) -> list[tuple[str, Any]]:
    return [(samples.key(n), samples.features(store.spec, n, LENGTH)) for n in numbers]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Nine tracks of one length in three commits."""
    made = Store.create(tmp_path / "store", samples.spec())
    for n in range(0, 9, 3):
        made.commit(tracks(made, n, n + 1, n + 2))
    return made


def right(path: Path) -> set[int]:
    """Numbers of the tracks that can be read, each of them compared with what was committed."""
    snapshot = Store.open(path).snapshot()
    for key in snapshot.keys:
        assert samples.same(snapshot.read(key), samples.features(samples.spec(), KEYS[key], LENGTH)), KEYS[
            key
        ]
    return {KEYS[key] for key in snapshot.keys}


def errors(report: Report) -> dict[str, set[int]]:
    """Files with errors, and the numbers of the tracks that these name."""
    found: dict[str, set[int]] = {}
    for fault in report.faults:
        if fault.level == "error":
            found.setdefault(fault.file, set()).update(KEYS[key] for key in fault.tracks)
    return found


def without_receipts(store: Store) -> None:
    """As an earlier version would have made the store."""
    shutil.rmtree(store.path / "receipts")
    for number in store.catalog.journal.numbers():
        path = store.path / store.catalog.journal.path(number)
        record = unseal(path.read_bytes())
        del record["provenance"]["receipt"]
        path.write_bytes(seal(record))
        own = store.path / "segments" / record["segment"] / "zarr.json"
        own.write_bytes(store.layout.segment_metadata(seal(record)))
    for index in (store.path / "index").iterdir():
        index.unlink()
    assert verify(store.path, full=True).faults == ()


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Forge a record: another content, its checksum right."""
    record = unseal(path.read_bytes())
    change(record)
    path.write_bytes(seal(record))


def swap_keys(record: dict[str, Any]) -> None:
    keys = record["tracks"]["key"]
    keys[0], keys[1] = keys[1], keys[0]


@pytest.mark.parametrize("indexed", [False, True])
@pytest.mark.parametrize("gone", [[1], [2], [3], [2, 3], [1, 2, 3]])
def test_deleted_records_are_damage_and_their_tracks_come_back(
    store: Store, gone: list[int], indexed: bool
) -> None:
    """Whichever it is: the last one leaves no gap, and the next commit takes its number."""
    if indexed:
        store.catalog.save_index()
    segments = {number: store.catalog.read(number).segment for number in gone}
    lost = {number: {3 * number - 3, 3 * number - 2, 3 * number - 1} for number in gone}
    for number in gone:
        (store.path / f"commits/{number:08d}.json").unlink()
    Store.open(store.path).commit(tracks(store, 20))
    expected = {f"segments/{segments[number]}": lost[number] for number in gone}
    for full in (False, True):
        assert errors(verify(store.path, full)) == expected
    with pytest.raises(StoreError, match=r"without a record.*[Rr]epair first"):
        collect(Store.open(store.path), 0.0)
    assert repair(store.path).lost == []
    assert verify(store.path, full=True).sound
    collect(Store.open(store.path), 0.0)
    assert right(store.path) == {*range(9), 20}
    assert verify(store.path, full=True).faults == ()


def test_the_whole_journal_deleted(store: Store) -> None:
    shutil.rmtree(store.path / "commits")
    assert len(errors(verify(store.path))) == 3
    assert repair(store.path).lost == []
    assert right(store.path) == set(range(9))


def test_a_deleted_record_whose_segment_is_gone_too_names_its_tracks(store: Store) -> None:
    segment = store.catalog.read(2).segment
    (store.path / "commits/00000002.json").unlink()
    shutil.rmtree(store.path / "segments" / segment)
    assert errors(verify(store.path)) == {f"receipts/{segment}.json": {3, 4, 5}}
    assert repair(store.path).lost == sorted(samples.key(n) for n in (3, 4, 5))
    assert verify(store.path, full=True).sound
    assert right(store.path) == {0, 1, 2, 6, 7, 8}


def test_a_deleted_record_whose_segment_does_not_describe_itself(store: Store) -> None:
    """The receipt is a whole copy of the record."""
    segment = store.catalog.read(2).segment
    (store.path / "commits/00000002.json").unlink()
    (store.path / "segments" / segment / "zarr.json").write_bytes(b"{}")
    assert errors(verify(store.path)) == {f"segments/{segment}": {3, 4, 5}}
    assert repair(store.path).lost == []
    assert right(store.path) == set(range(9))
    assert verify(store.path, full=True).sound


def test_the_record_of_a_compaction_deleted(store: Store) -> None:
    """Before the old segments are collected nothing is lost by it, afterwards everything would be."""
    compact(Store.open(store.path))
    collect(Store.open(store.path), 0.0)
    (store.path / "commits/00000004.json").unlink()
    (report,) = errors(verify(store.path)).values()
    assert report == set(range(9))
    with pytest.raises(StoreError, match="without a record"):
        collect(Store.open(store.path), 0.0)
    assert repair(store.path).lost == []
    assert right(store.path) == set(range(9))


def test_what_was_never_acknowledged_is_no_damage(store: Store) -> None:
    """A writer that died before its record, beside the gaps that a collection leaves."""
    compact(Store.open(store.path))
    collect(Store.open(store.path), 0.0)
    dead = write_tracks(store.backend, store.layout, tracks(store, 30), None)
    assert [(fault.level, fault.file) for fault in verify(store.path).faults] == [
        ("garbage", f"segments/{dead.segment}")
    ]
    assert [garbage.file for garbage in collect(Store.open(store.path), 0.0)] == [f"segments/{dead.segment}"]
    assert right(store.path) == set(range(9))


@pytest.mark.parametrize("told_by", ["a gap", "an index"])
def test_deleted_records_of_stores_without_receipts(store: Store, told_by: str) -> None:
    without_receipts(store)
    if told_by == "an index":
        Store.open(store.path).catalog.save_index()
    number = 2 if told_by == "a gap" else 3
    segment = store.catalog.read(number).segment
    (store.path / f"commits/{number:08d}.json").unlink()
    assert set(errors(verify(store.path))) == {f"segments/{segment}"}
    with pytest.raises(StoreError, match="without a record"):
        collect(Store.open(store.path), 0.0)
    assert repair(store.path).lost == []
    assert verify(store.path, full=True).sound
    assert right(store.path) == set(range(9))


def test_a_store_without_receipts_is_read_and_written_as_before(store: Store) -> None:
    without_receipts(store)
    assert right(store.path) == set(range(9))
    assert repair(store.path).actions == []
    Store.open(store.path).commit(tracks(store, 20))
    assert len(list((store.path / "receipts").iterdir())) == 1
    compact(Store.open(store.path))
    collect(Store.open(store.path), 0.0)
    assert right(store.path) == {*range(9), 20}
    assert verify(store.path, full=True).faults == ()


def test_a_receipt_that_cannot_be_written_fails_no_commit(store: Store) -> None:
    shutil.rmtree(store.path / "receipts")
    (store.path / "receipts").write_text("in the way")
    assert store.commit(tracks(store, 20)).added == (samples.key(20),)
    (store.path / "receipts").unlink()
    assert right(store.path) == {*range(9), 20}
    assert verify(store.path, full=True).faults == ()


def test_swapped_keys_are_told_and_come_right(store: Store) -> None:
    """Rows fit their checksums, the record fits its own: only the segment and the receipt know whose they
    are."""
    rewrite(store.path / "commits/00000002.json", swap_keys)
    report = verify(store.path, full=True)
    assert errors(report)[f"segments/{store.catalog.read(2).segment}"] == {3, 4}
    with pytest.raises(StoreError, match=r"its record disagree about track .*cache repair"):
        compact(Store.open(store.path))
    assert repair(store.path).lost == []
    assert verify(store.path, full=True).sound
    assert right(store.path) == set(range(9))
    assert repair(store.path).actions == []
    collect(Store.open(store.path), 0.0)
    assert right(store.path) == set(range(9))


def test_a_quick_check_compares_records_with_segments_and_reads_no_rows(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_rows(*_: object) -> None:
        raise AssertionError("rows were read")

    monkeypatch.setattr("beatmeter.store.segment._read_rows", no_rows)
    assert verify(store.path).faults == ()
    segments = {number: f"segments/{store.catalog.read(number).segment}" for number in (1, 2, 3)}
    rewrite(store.path / "commits/00000002.json", swap_keys)
    shard = store.path / segments[1] / store.layout.arrays["stats"].shard
    flip = bytearray(shard.read_bytes())
    flip[-9] ^= 1  # in the index, behind the rows
    shard.write_bytes(flip)
    (store.path / segments[3] / "zarr.json").write_bytes(b"{}")
    found = errors(verify(store.path))
    assert found[segments[2]] == {3, 4}
    assert {str(shard.relative_to(store.path)), f"{segments[3]}/zarr.json"} <= found.keys()
    monkeypatch.undo()
    assert errors(verify(store.path, full=True)) == found
    assert repair(store.path).lost == []
    assert verify(store.path).sound


def test_swapped_keys_without_a_receipt_cost_the_two_tracks(store: Store) -> None:
    """Two say different things and nobody can tell who is right: wrong rows are worse than none."""
    without_receipts(store)
    rewrite(store.path / "commits/00000002.json", swap_keys)
    assert repair(store.path).lost == sorted([samples.key(3), samples.key(4)])
    assert right(store.path) == set(range(9)) - {3, 4}
    assert verify(store.path, full=True).sound
    assert repair(store.path).actions == []
    Store.open(store.path).commit(tracks(store, 3, 4))
    collect(Store.open(store.path), 0.0)
    assert right(store.path) == set(range(9))


def test_a_segment_that_was_forged_does_not_mislead_a_repair(store: Store) -> None:
    """Its own copy of the record is swapped; the journal and the receipt are not."""
    own = store.path / "segments" / store.catalog.read(2).segment / "zarr.json"
    record = store.catalog.read(2).to_json()
    record["tracks"]["key"] = [*reversed(record["tracks"]["key"])]
    own.write_bytes(store.layout.segment_metadata(seal(record)))
    assert errors(verify(store.path, full=True))
    assert repair(store.path).lost == []
    assert right(store.path) == set(range(9))
    assert verify(store.path, full=True).sound


def test_a_record_that_replaces_what_it_does_not_hold(store: Store) -> None:
    """Forged: two segments would be collected with all their tracks."""
    others = [store.catalog.read(n).segment for n in (1, 2)]
    rewrite(store.path / "commits/00000003.json", lambda record: record.update(replaces=others))
    assert right(store.path) == {6, 7, 8}
    assert {*range(6)} <= errors(verify(store.path, full=True))["commits/00000003.json"]
    with pytest.raises(StoreError, match=r"3 tracks that the store lacks, sound.*[Rr]epair first"):
        collect(Store.open(store.path), 0.0)
    assert repair(store.path).lost == []
    assert right(store.path) == set(range(9))
    collect(Store.open(store.path), 0.0)
    assert right(store.path) == set(range(9))
    assert verify(store.path, full=True).faults == ()


def test_a_record_without_a_segment_that_replaces_others(store: Store) -> None:
    nothing = {
        **store.catalog.read(1).to_json(),
        "segment": "",
        "arrays": {},
        "replaces": [store.catalog.read(2).segment],
    }
    nothing["tracks"] = {"key": [], "samples": [], "rows": {}}
    (store.path / "commits/00000004.json").write_bytes(seal(nothing))
    assert right(store.path) == {0, 1, 2, 6, 7, 8}
    assert errors(verify(store.path, full=True)) == {"commits/00000004.json": {3, 4, 5}}
    with pytest.raises(StoreError, match=r"3 tracks that the store lacks, sound"):
        collect(Store.open(store.path), 0.0)
    assert repair(store.path).lost == []
    assert right(store.path) == set(range(9))
    assert verify(store.path, full=True).sound


def forgeries(record: dict[str, Any], other: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """A record with something in it moved, copied from another one, or changed to another possible value."""
    forged = copy.deepcopy(record)
    told, pooling = forged["tracks"], rng.choice(sorted(forged["tracks"]["rows"]))
    column = rng.choice([told["key"], told["samples"], *told["rows"][pooling].values()])
    kind = rng.choice(
        ["swap", "reverse", "other's", "other's segment", "other's tracks", "all columns", "replaces"]
    )
    if kind == "swap":
        i, j = rng.sample(range(len(column)), 2)
        column[i], column[j] = column[j], column[i]
    elif kind == "reverse":
        column.reverse()
    elif kind == "other's":
        column[0] = {
            id(told["key"]): other["tracks"]["key"],
            id(told["samples"]): other["tracks"]["samples"],
        }.get(id(column), column[1:])[0]
    elif kind == "other's segment":
        forged["segment"] = other["segment"]
    elif kind == "other's tracks":
        forged["tracks"] = copy.deepcopy(other["tracks"])
    elif kind == "all columns":
        for name, wanted in itertools.product(sorted(told["rows"]), ["crc32c"]):
            told["rows"][name][wanted].reverse()
    else:
        forged["replaces"] = [other["segment"]]
    return forged


@pytest.mark.parametrize("receipts", [True, False])
def test_no_forged_record_survives_a_repair_with_wrong_rows(
    store: Store, tmp_path: Path, receipts: bool
) -> None:
    if not receipts:
        without_receipts(store)
    rng = random.Random(7)
    for i in range(FORGERIES):
        path = tmp_path / f"copy{i}" / store.path.name
        shutil.copytree(store.path, path)
        victim, other = rng.sample(range(1, 4), 2)
        names = [path / f"commits/{number:08d}.json" for number in (victim, other)]
        sound, another = (unseal(name.read_bytes()) for name in names)
        forged = forgeries(sound, another, rng)
        names[0].write_bytes(seal(forged))
        if forged != sound:
            assert not verify(path, full=True).sound, forged
        done = repair(path)
        there = right(path)
        assert {samples.key(n) for n in set(range(9)) - there} <= set(done.lost)
        assert verify(path, full=True).sound
        if receipts:
            assert there == set(range(9)), forged
        collect(Store.open(path), 0.0)
        assert right(path) == there
        assert repair(path).actions == []
        shutil.rmtree(path)
