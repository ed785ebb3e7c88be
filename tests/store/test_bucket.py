"""Stores on object storage: the same promises as in a folder, against a local server that speaks S3's protocol."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import objectserver
import pytest
import store_samples as samples
from click.testing import CliRunner

from beatmeter.cli.cache import cache
from beatmeter.errors import StoreError
from beatmeter.store import Store, list_stores
from beatmeter.store.compact import compact
from beatmeter.store.gc import collect
from beatmeter.store.place import UnreadableError
from beatmeter.store.repair import repair
from beatmeter.store.store import place_of
from beatmeter.store.verify import verify

pytest.importorskip("obstore", reason="object stores need obstore: pip install 'beatmeter[cloud]'")
ADDRESS = "s3://music/caches"


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
    """What docs/scale.md plans with: one range request per run of neighbouring tracks, nothing to find them."""
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
    assert objects.requests == {"LIST": 2, "PUT": 6, "HEAD": 1}  # 2 shards, 2 arrays' metadata, the segment's, the record
    store.catalog.state()
    store.catalog.save_index()
    objects.requests.clear()
    assert len(Store.open(store.where).snapshot()) == 8
    assert objects.requests["GET"] == 2  # the root and the index
    assert objects.requests["LIST"] <= 4


def test_many_commits_are_opened_with_few_requests(store: Store, objects: objectserver.Objects) -> None:
    for n in range(100, 130):
        store.commit([(samples.key(n), samples.features(store.spec, n))])
    store.catalog.save_index()
    objects.requests.clear()
    assert len(Store.open(store.where).snapshot()) == 36
    assert objects.requests["HEAD"] == 0
    assert objects.requests["LIST"] <= 3


def test_an_answer_that_got_lost(store: Store, objects: objectserver.Objects) -> None:
    """The client repeats a conditional put whose answer it never heard: the record that is there is its own."""
    objects.lose_answers = 1
    receipt = store.commit(samples.tracks(store.spec, [10, 11]))
    assert receipt.added == (samples.key(10), samples.key(11))
    assert len(store.place.list("commits")) == 4
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
    place = place_of(store.where)
    with place.lock("a test"), pytest.raises(StoreError, match=r'maintained by .*"doing": "a test".*remove the object'):
        compact(Store.open(store.where))
    compact(Store.open(store.where))


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
            [sys.executable, "-c", WRITER, where, str(4 * (i % 2))], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": search}
        )
        for i in range(4)
    ]
    added = [key for child in children for key in child.communicate(timeout=120)[0].split()]
    assert all(child.returncode == 0 for child in children)
    wanted = set(range(24))
    assert sorted(added) == sorted(map(samples.key, wanted))  # each added by exactly one
    require_right(Store.open(where), wanted)


def test_the_cache_commands_take_addresses(store: Store) -> None:
    for command in (["info", ADDRESS], ["verify", ADDRESS, "--full"], ["compact", store.where], ["gc", ADDRESS], ["repair", ADDRESS]):
        result = CliRunner().invoke(cache, command)
        assert result.exit_code == 0, (command, result.output, result.exception)
        assert store.where in result.output
