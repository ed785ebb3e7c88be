"""Stores on object storage: the same promises as in a folder, against a local server that speaks S3's
protocol."""

from __future__ import annotations

import datetime
import itertools
import math
import os
import pickle
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import objectserver
import pytest
import store_children
import store_samples as samples
from click.testing import CliRunner
from waiting import PATIENCE, Lines, until

from beatmeter.cli.cache import cache
from beatmeter.errors import StoreError
from beatmeter.schema import PoolingSpec
from beatmeter.store import Store, list_stores
from beatmeter.store.backend import UnreadableError
from beatmeter.store.compact import compact
from beatmeter.store.gc import collect
from beatmeter.store.repair import repair
from beatmeter.store.store import backend_of
from beatmeter.store.verify import verify

pytest.importorskip("obstore", reason="object stores need obstore: pip install 'beatmeter[cloud]'")
ADDRESS = "s3://music/caches"
# of two writers, each time both: 20 in full, or as many as one wants
KILLS = int(os.environ.get("BEATMETER_KILLS", "20" if os.environ.get("BEATMETER_FULL", "0") != "0" else "2"))


@pytest.fixture
def objects(monkeypatch: pytest.MonkeyPatch) -> Iterator[objectserver.Objects]:
    with objectserver.serving() as (held, environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield held


@pytest.fixture
def store(objects: objectserver.Objects) -> Store:
    made = Store.for_spec(ADDRESS, samples.spec())
    for n in range(0, 6, 2):
        made.commit(samples.tracks(made.spec, [n, n + 1]))
    return made


def require_right(store: Store, numbers: set[int]) -> None:
    snapshot = Store.open(store.where).snapshot()
    assert set(snapshot.keys) == {samples.key(n) for n in numbers}
    for n in numbers:
        assert samples.same(snapshot.read(samples.key(n)), samples.features(samples.spec(), n))


def test_what_is_read_is_what_was_committed(store: Store) -> None:
    require_right(store, set(range(6)))
    assert store.commit(samples.tracks(store.spec, [0, 9])).added == (samples.key(9),)
    require_right(store, {*range(6), 9})
    assert pickle.loads(pickle.dumps(store.snapshot())).id == store.snapshot().id
    one = store.snapshot().load(None, "stats", layers=[2], check="never").values
    np.testing.assert_array_equal(one, store.snapshot().load(None, "stats").values[:, [1]])
    found = Store.find_covering(ADDRESS, store.spec.only(["lag"]))
    assert found is not None
    assert found.where == store.where
    assert [s.where for s in list_stores(ADDRESS) if isinstance(s, Store)] == [store.where]
    with pytest.raises(StoreError, match="is no folder"):
        _ = store.path
    with pytest.raises(StoreError, match="no feature store in s3://music/nowhere"):
        Store.open("s3://music/nowhere")


def test_the_bytes_are_those_of_a_folder(store: Store, objects: objectserver.Objects, tmp_path: Path) -> None:
    """Downloaded as it is, the store is a store in a folder, which verifies."""
    prefix = store.where.removeprefix("s3://music/")
    for name, (data, _) in objects.held.items():
        path = tmp_path / name.removeprefix(prefix + "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    assert verify(tmp_path, full=True).sound
    assert Store.open(tmp_path).snapshot().id == store.snapshot().id


def test_requests_of_a_batch_a_commit_and_an_opening(store: Store, objects: objectserver.Objects) -> None:
    """What docs/scale.md plans with: one range request per run of neighbouring tracks, nothing to find
    them."""
    snapshot = Store.open(store.where).snapshot()
    objects.requests.clear()
    snapshot.load([samples.key(n) for n in (5, 0, 2)], "stats")
    assert objects.requests == {"GET": 3}
    objects.requests.clear()
    snapshot.load(None, "lag", check="always")
    assert objects.requests["GET"] <= 6
    writer = Store.open(store.where)
    writer.keys()
    objects.requests.clear()
    writer.commit(samples.tracks(store.spec, [20, 21]))
    assert objects.requests == {
        "LIST": 2,
        "PUT": 8,
        "HEAD": 1,
    }  # 2 shards, checksums of one's layers, 2 arrays' metadata, the segment's, the record, its receipt
    store.catalog.state()
    store.catalog.save_index()
    objects.requests.clear()
    assert len(Store.open(store.where).snapshot()) == 8
    assert objects.requests["GET"] == 2  # the root and the index
    assert objects.requests["LIST"] <= 4


def test_requests_of_a_commit_among_others(store: Store, objects: objectserver.Objects) -> None:
    """Each record since the writer's last commit, its own included, is read, and the sizes of its two shards
    are asked for."""
    writer = Store.open(store.where)
    writer.keys()

    def commit(n: int) -> dict[str, int]:
        objects.requests.clear()
        writer.commit(samples.tracks(store.spec, [n]))
        return dict(objects.requests)

    commit(20)
    assert commit(21) == {"LIST": 2, "PUT": 8, "HEAD": 1 + 2, "GET": 1}
    for n in range(30, 33):
        store.commit(samples.tracks(store.spec, [n]))
    assert commit(22) == {"LIST": 2, "PUT": 8, "HEAD": 1 + 2 * 4, "GET": 4}
    for n in range(40, 52):
        store.commit(samples.tracks(store.spec, [n]))
    assert commit(23) == {"LIST": 2 + 1, "PUT": 8, "HEAD": 1, "GET": 13}  # so many sizes are listed


def test_requests_of_a_large_shard(objects: objectserver.Objects) -> None:
    """Above 5 MiB a file goes up in parts of 5 MiB, between a request that begins and one that ends."""
    of = samples.spec(PoolingSpec("stats", "stats", "chunk", (1,), ("dim",), (1 << 20,), {}))
    large = Store.for_spec(ADDRESS, of)
    large.keys()
    objects.requests.clear()
    large.commit([(samples.key(1), samples.features(of, 1, 30_000))])
    size = max(len(data) for data, _ in objects.held.values())
    assert size > 10 << 20
    assert objects.requests["PUT"] == math.ceil(size / (5 << 20)) + 4
    assert objects.requests["POST"] == 2
    assert samples.same(
        Store.open(large.where).snapshot().read(samples.key(1)), samples.features(of, 1, 30_000)
    )


def test_listings_come_in_pages(
    store: Store, objects: objectserver.Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An opening lists all commits and all that lies in segments; who is open already lists no segments older
    than the new ones."""
    for n in range(100, 130):
        store.commit(samples.tracks(store.spec, [n]))
    store.catalog.save_index()
    objects.page = 10
    objects.requests.clear()
    reader = Store.open(store.where)
    assert len(reader.keys()) == 36
    assert objects.requests == {"GET": 2, "LIST": math.ceil(33 / 10) + math.ceil((33 * 6 + 1) / 10) + 1}
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(
        seconds=2
    )  # names of segments tell seconds
    clock = SimpleNamespace(UTC=datetime.UTC, datetime=SimpleNamespace(now=lambda zone: later))
    monkeypatch.setattr("beatmeter.store.commit.datetime", clock)
    for n in range(130, 145):
        store.commit(samples.tracks(store.spec, [n]))
    objects.requests.clear()
    assert len(reader.keys()) == 51
    assert objects.requests == {"GET": 15, "LIST": math.ceil(48 / 10) + math.ceil((15 * 6 + 1) / 10)}
    require_right(store, {*range(6), *range(100, 145)})


def test_many_commits_are_opened_with_few_requests(store: Store, objects: objectserver.Objects) -> None:
    for n in range(100, 130):
        store.commit([(samples.key(n), samples.features(store.spec, n))])
    store.catalog.save_index()
    objects.requests.clear()
    assert len(Store.open(store.where).snapshot()) == 36
    assert objects.requests["HEAD"] == 0
    assert objects.requests["LIST"] <= 3


def test_an_answer_that_got_lost(store: Store, objects: objectserver.Objects) -> None:
    """The client repeats a conditional put whose answer it never heard: the record that is there is its
    own."""
    objects.lose_answers = 1
    receipt = store.commit(samples.tracks(store.spec, [10, 11]))
    assert receipt.added == (samples.key(10), samples.key(11))
    assert len(store.backend.list("commits")) == 4
    require_right(store, {*range(6), 10, 11})


def test_a_busy_server_is_asked_again(store: Store, objects: objectserver.Objects) -> None:
    objects.refuse = 2
    assert len(store.commit(samples.tracks(store.spec, [10])).added) == 1
    require_right(store, {*range(6), 10})


def test_a_server_that_refuses_to_write_is_named(store: Store, objects: objectserver.Objects) -> None:
    objects.deny = True
    with pytest.raises(StoreError, match=r"writing failed at s3://.*AWS_ACCESS_KEY_ID"):
        store.commit(samples.tracks(store.spec, [10]))
    objects.deny = False
    require_right(store, set(range(6)))


def test_a_full_folder_for_temporary_files_is_named(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Segments are prepared there. It is full before anything is begun, or in the middle."""
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
        with pytest.raises(StoreError, match=r"writing failed at .*TMPDIR.*run the same command again"):
            store.commit(samples.tracks(store.spec, [10]))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(StoreError, match=rf"writing a segment failed at {tmp_path}.*free space"):
            store.commit(samples.tracks(store.spec, [10]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []
    require_right(store, set(range(6)))


def test_a_commit_whose_segment_cannot_be_asked_for_stands(
    store: Store, objects: objectserver.Objects
) -> None:
    """Access that went away after the record was put is not garbage collection; and that is told when it
    happens."""
    objects.forbidden |= {("HEAD", "/zarr.json"), ("GET", "/zarr.json")}
    with pytest.raises(StoreError, match=r"commit 4 stands .*could not be asked.*same command again"):
        store.commit(samples.tracks(store.spec, [10]))
    objects.forbidden.clear()
    assert store.commit(samples.tracks(store.spec, [10])).present == (samples.key(10),)
    require_right(store, {*range(6), 10})

    def collect_now(kind: str, name: str) -> None:
        if kind == "HEAD" and name.endswith("/zarr.json"):
            objects.held.pop(name, None)

    objects.before = collect_now
    with pytest.raises(StoreError, match=r"was collected as garbage.*Commit these tracks again"):
        store.commit(samples.tracks(store.spec, [12]))


def test_damage_and_repair(store: Store, objects: objectserver.Objects) -> None:
    prefix = store.where.removeprefix("s3://music/")
    flipped = f"{prefix}/segments/{store.catalog.read(2).segment}/{store.layout.arrays['stats'].shard}"
    cut = f"{prefix}/segments/{store.catalog.read(3).segment}/{store.layout.arrays['lag'].shard}"
    snapshot = store.snapshot()
    data = bytearray(objects.held[flipped][0])
    data[5] ^= 1
    objects.held[flipped] = (bytes(data), 0.0)
    objects.held[cut] = (objects.held[cut][0][:10], 0.0)
    with pytest.raises(StoreError, match=r"rows of track .* are damaged"):
        snapshot.read(samples.key(2))
    with pytest.raises(StoreError, match="was cut or written over"):
        snapshot.read(samples.key(5))
    report = verify(store.where, full=True)
    assert not report.sound
    assert len(report.faults) == 2
    lost = repair(store.where).lost
    assert samples.key(2) in lost
    assert verify(store.where, full=True).sound
    require_right(store, set(range(6)) - {n for n in range(6) if samples.key(n) in lost})


def test_objects_that_may_not_be_read_are_not_missing(store: Store, objects: objectserver.Objects) -> None:
    before = dict(objects.held)
    for name in before:
        objects.closed = {name}
        with pytest.raises(UnreadableError, match=rf"reading failed at s3://music/{name}.*AWS_ACCESS_KEY_ID"):
            repair(store.where)
        assert objects.held == before
    objects.closed = set()
    assert repair(store.where).lost == []
    require_right(store, set(range(6)))


def test_compaction_and_garbage(store: Store) -> None:
    before = store.snapshot()
    assert compact(Store.open(store.where)).after == 1
    assert store.snapshot().id == before.id
    assert samples.same(before.read(samples.key(3)), samples.features(store.spec, 3))
    assert collect(Store.open(store.where), 3600.0) == []
    assert len(collect(Store.open(store.where), -1.0)) > 3
    require_right(store, set(range(6)))
    assert verify(store.where, full=True).faults == ()
    with pytest.raises(StoreError, match="open the store again"):
        before.read(samples.key(1))
    place = backend_of(store.where)
    with (
        place.lock("a test"),
        pytest.raises(StoreError, match=r'maintained by .*"doing": "a test".*remove the object'),
    ):
        compact(Store.open(store.where))
    compact(Store.open(store.where))


def lock_name(store: Store) -> str:
    return f"{store.where.removeprefix('s3://music/')}/lock"


def test_a_lock_whose_holder_cannot_be_read_is_not_entered(
    store: Store, objects: objectserver.Objects
) -> None:
    objects.forbidden.add(("GET", "/lock"))
    objects.held[lock_name(store)] = (b"another", time.time())
    with pytest.raises(StoreError, match=r"failed at s3://.*/lock"), store.backend.lock("a test"):
        pytest.fail("two hold it")
    objects.forbidden.clear()
    assert objects.held[lock_name(store)][0] == b"another"
    with pytest.raises(StoreError, match="maintained by another"), store.backend.lock("a test"):
        pytest.fail("two hold it")


@pytest.mark.parametrize("times", [1, 100])
def test_a_lock_whose_holder_has_just_finished_is_asked_for_again(
    store: Store, objects: objectserver.Objects, times: int
) -> None:
    """The put finds a lock, the look at whose it is finds none: somebody else may be quicker with the next
    put."""
    left = [times]

    def meddle(kind: str, name: str) -> None:
        if name == lock_name(store) and kind == "PUT" and left[0]:
            left[0] -= 1
            objects.held[name] = (b"another", time.time())
        elif name == lock_name(store) and kind == "GET" and objects.held.get(name, (b"",))[0] == b"another":
            del objects.held[name]

    objects.before = meddle
    if times > 1:
        with pytest.raises(StoreError, match="one process after the other"), store.backend.lock("a test"):
            pytest.fail("it was never held")
        return
    with store.backend.lock("a test"):
        assert b'"a test"' in objects.held[lock_name(store)][0]
    assert lock_name(store) not in objects.held


def test_only_the_own_lock_is_removed(store: Store, objects: objectserver.Objects) -> None:
    with store.backend.lock("a test"):
        objects.held[lock_name(store)] = (b"another, after ours was removed by hand", time.time())
    assert lock_name(store) in objects.held


WRITER = (
    "import sys, store_samples as s\n"
    "from beatmeter.store import Store\n"
    "of = s.spec(); store = Store.create(sys.argv[1], of)\n"
    "first = int(sys.argv[2])\n"
    "for n in range(first, first + 16, 4):\n"
    "    print(*store.commit(s.tracks(of, range(n, n + 8))).added, flush=True)\n"
)


def test_four_writers_at_once(objects: objectserver.Objects) -> None:
    where = f"{ADDRESS}/shared"
    search = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    children = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, where, str(4 * (i % 2))],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": search},
        )
        for i in range(4)
    ]
    added = [key for child in children for key in child.communicate(timeout=PATIENCE)[0].split()]
    assert all(child.returncode == 0 for child in children)
    wanted = set(range(24))
    assert sorted(added) == sorted(map(samples.key, wanted))  # each added by exactly one
    require_right(Store.open(where), wanted)


def test_two_writers_killed_in_the_middle_of_requests(objects: objectserver.Objects) -> None:
    """kill -9, before or after the server does what the request asks: what was acknowledged is there,
    everything that is there is whole, and the next writers go on."""
    where, rng = f"{ADDRESS}/killed", random.Random(0)
    Store.create(where, samples.spec())
    acknowledged: set[str] = set()
    for number in range(max(1, KILLS // 2)):
        first = 200 * number
        children = [
            subprocess.Popen(
                [sys.executable, store_children.__file__, "write", where, str(first + i), "2"],
                stdout=subprocess.PIPE,
                text=True,
            )
            for i in range(2)
        ]
        told = [Lines(child) for child in children]
        until(lambda told=told: all(lines.seen for lines in told))  # both are at it
        due = sorted(rng.randint(1, 60) for _ in children)  # requests from now on
        seen = itertools.count(1)

        def strike(*_: object, due: list[int] = due, children: Any = children, seen: Any = seen) -> None:
            request = next(seen)
            for child, last in zip(children, due, strict=True):
                if request >= last:
                    child.kill()

        objects.before = strike
        until(lambda children=children: all(child.poll() is not None for child in children))
        objects.before = lambda kind, name: None
        assert [child.returncode for child in children] == [-signal.SIGKILL] * 2
        acknowledged |= {
            word
            for lines in told
            for line in lines.all()
            if line.startswith("acknowledged") and line.endswith("\n")
            for word in line.split()[1:]
        }
        snapshot = Store.open(where).snapshot()
        numbers = {samples.key(n): n for n in range(first, first + 200)}
        assert acknowledged <= set(snapshot.keys)
        for key in numbers.keys() & set(snapshot.keys):
            assert samples.same(snapshot.read(key), samples.features(samples.spec(), numbers[key]))
    assert acknowledged
    assert verify(where, full=True).sound


def test_the_cache_commands_take_addresses(store: Store) -> None:
    for command in (
        ["info", ADDRESS],
        ["verify", ADDRESS, "--full"],
        ["compact", store.where],
        ["gc", ADDRESS],
        ["repair", ADDRESS],
    ):
        result = CliRunner().invoke(cache, command)
        assert result.exit_code == 0, (command, result.output, result.exception)
        assert store.where in result.output
