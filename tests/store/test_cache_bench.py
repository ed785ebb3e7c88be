"""beatmeter cache bench: everything is measured, nothing changes, nothing stays."""

from __future__ import annotations

import itertools
import json
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import store_samples as samples
from click.testing import CliRunner
from waiting import PATIENCE, until

from beatmeter.cli.cache import cache
from beatmeter.errors import SchemaError, StoreError
from beatmeter.schema import FeatureSpec
from beatmeter.store import Store, rivals, timing
from beatmeter.store.ways import FreshStore, Memcpy, OwnStore, Pread, Sample


def both() -> FeatureSpec:
    """Two poolings of three layers and of two."""
    return samples.spec(samples.STATS, samples.LAG)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two stores, the second the larger."""
    for of, n in ((samples.spec(samples.FRAMES), 1), (both(), 12)):
        store = Store.for_spec(tmp_path / "cache", of)
        for first in range(0, n, 4):
            store.commit(samples.tracks(of, range(first, first + 4)))
    return tmp_path / "cache"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("kind", [FreshStore, Pread, Memcpy])
def test_every_way_of_keeping_gives_the_same_numbers(kind: type[FreshStore], tmp_path: Path) -> None:
    store = Store.create(tmp_path / "s", both())
    store.commit(samples.tracks(both(), range(5)))
    sample = Sample.of(store.snapshot(), "stats", 1 << 30)
    assert len(sample) == 5
    way = kind(tmp_path / "kept", sample)
    for _ in range(2):
        np.testing.assert_array_equal(way.scan(), sample.values)
        np.testing.assert_array_equal(
            way.batch([3, 0, 2]), np.concatenate([sample.of_track(i) for i in (3, 0, 2)])
        )
        np.testing.assert_array_equal(way.layer(1), sample.values[:, 1:2])
        way.drop()
    assert way.scan().base is None or not np.shares_memory(way.scan(), sample.values)


def test_a_part_of_a_large_store_is_taken_as_it_lies_on_disk(folder: Path) -> None:
    store = Store.for_spec(folder, both())
    whole = store.snapshot().load(None, "stats").values.nbytes
    part = Sample.of(store.snapshot(), "stats", 1)
    assert 1 <= len(part) <= 12
    assert part.values.nbytes <= whole
    first = store.snapshot().files([part.keys[0]], "stats")
    assert [(store.path / name).is_file() for name in first] == [True]
    np.testing.assert_array_equal(OwnStore(store.path, part).scan(), part.values)


def test_the_largest_store_is_read_and_nothing_changes(folder: Path) -> None:
    before = contents(folder)
    result = CliRunner().invoke(
        cache, ["bench", str(folder), "--rounds", "1", "--pooling", "stats"], catch_exceptions=False
    )
    assert result.exit_code == 0
    for pattern in (
        "writing, durably",
        "scan of everything, warm",
        "random batches of 12 tracks, warm",
        "one layer of everything, cold",
    ):
        assert pattern in result.output
    assert "this store" in result.output
    assert contents(folder) == before
    assert list(folder.glob(".bench-*")) == []


def test_json_holds_what_the_table_shows(folder: Path) -> None:
    found = CliRunner().invoke(
        cache, ["bench", "--cache", str(folder), "--rounds", "2", "--json"], catch_exceptions=False
    )
    told = json.loads(found.stdout)
    assert told["store"] == str(Store.for_spec(folder, both()).path)
    assert told["pooling"] == "lag"
    warm = next(p for p in told["patterns"] if p["pattern"] == "scan of everything, warm")
    assert set(warm["ways"]) == {"memcpy", "store", "this store"}
    assert warm["ways"]["memcpy"]["x memcpy"] == 1.0
    cold = next(p for p in told["patterns"] if p["pattern"] == "scan of everything, cold")
    assert set(cold["ways"]) == {"pread", "store", "this store"}
    assert set(told["patterns"][0]["ways"]) == {"store", "one file"}
    assert len(warm["ways"]["this store"]["seconds"]) == 2


def test_rivals_are_measured_beside_the_store(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(rivals.NEEDS, "LMDB", "a_package_that_nobody_has")
    before = contents(folder)
    arguments = ["bench", str(folder), "--pooling", "stats", "--rounds", "1", "--rivals", "--json"]
    found = CliRunner().invoke(cache, arguments, catch_exceptions=False)
    others = {"memmap", "h5py contiguous", "h5py chunked", "zarr-python", ".npy per track"}
    ways = {p["pattern"]: set(p["ways"]) for p in json.loads(found.stdout)["patterns"]}
    assert ways["writing, durably"] == {"store", "one file", *others}
    assert ways["scan of everything, warm"] == {"memcpy", "store", "this store", *others}
    assert ways["one layer of everything, cold"] == {"pread", "store", "this store", *others}
    assert "left out: LMDB, which is not installed (pip install a_package_that_nobody_has)" in found.stderr
    assert contents(folder) == before


def test_without_a_store_features_are_made_up(tmp_path: Path) -> None:
    found = CliRunner().invoke(
        cache, ["bench", str(tmp_path), "--size", "1", "--rounds", "1", "--json"], catch_exceptions=False
    )
    told = json.loads(found.stdout)
    assert told["store"] is None
    assert told["folder"] == str(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_without_a_word_a_cache_that_is_yet_to_come_is_measured_where_it_would_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = CliRunner().invoke(
        cache, ["bench", "--size", "1", "--rounds", "1", "--json"], catch_exceptions=False
    )
    assert json.loads(found.stdout)["folder"] == str(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_path_that_is_not_there_is_not_made_up_for(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for arguments in (
        [f"{folder}-typo"],
        ["--cache", f"{folder}-typo"],
        [f"{next(folder.iterdir())}0"],
        [str(tmp_path / "file")],
    ):
        with pytest.raises(StoreError, match=r"there is no folder .*Give a store"):
            CliRunner().invoke(cache, ["bench", *arguments], catch_exceptions=False)


def test_stores_that_cannot_be_opened_are_named(folder: Path) -> None:
    small, large = (Store.for_spec(folder, of).path for of in (samples.spec(samples.FRAMES), both()))
    (small / "zarr.json").write_text("{}")
    found = CliRunner().invoke(
        cache, ["bench", str(folder), "--rounds", "1", "--json"], catch_exceptions=False
    )
    assert json.loads(found.stdout)["store"] == str(large)
    assert f"left out: {small}/zarr.json is damaged" in found.stderr
    (large / "zarr.json").write_text("{}")
    for path in (folder, large):
        with pytest.raises(StoreError, match=r"zarr.json is damaged"):
            CliRunner().invoke(cache, ["bench", str(path)], catch_exceptions=False)


def heed_interrupts() -> None:
    """A test run that was started in the background ignores Ctrl-C, and hands that on."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "beatmeter",
        "cache",
        "bench",
        str(tmp_path),
        "--size",
        "1",
        "--rounds",
        "100000",
    ]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=heed_interrupts
    ) as process:
        until(lambda: list(tmp_path.glob(".bench-*/kept/*")), process=process)
        process.send_signal(signal.SIGINT)
        try:
            _, errors = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "stopped"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_that_falls_into_a_destructor_is_heeded() -> None:
    """Python only prints what is raised there, and would measure on."""

    class Closing:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    rounds: list[Closing] = []
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), timing.stoppable():
            timing.in_turn({"a": lambda: rounds.append(Closing()) or rounds.clear()}, 1000)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert len(timing.in_turn({"a": lambda: None}, 3)["a"]) == 3
    finally:
        signal.signal(signal.SIGINT, before)


def test_what_cannot_be_measured_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def call(*arguments: str) -> None:
        CliRunner().invoke(cache, ["bench", *arguments], catch_exceptions=False)

    with pytest.raises(StoreError, match="object stores"):
        call("s3://bucket/caches")
    with pytest.raises(SchemaError, match="no pooling 'lags'"):
        call(str(folder), "--pooling", "lags")
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1, 1, 10))
    with pytest.raises(StoreError, match="Choose a smaller --size"):
        call(str(folder))


def test_a_way_that_gives_other_numbers_is_not_timed(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "s", both())
    store.commit(samples.tracks(both(), range(3)))
    sample = Sample.of(store.snapshot(), "stats", 1 << 30)
    wrong = Memcpy(tmp_path / "wrong", replace(sample, values=sample.values + np.float16(1)))
    with pytest.raises(StoreError, match="memcpy gives other numbers than store"):
        list(timing.warm({"store": OwnStore(store.path, sample), "memcpy": wrong}, "memcpy", 1, 1))


def test_the_fastest_of_quick_repeats_counts_and_every_way_has_its_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    order: list[str] = []
    slow = itertools.chain([0.03], itertools.repeat(0.001))
    clock = 0.0

    def way(name: str) -> None:
        nonlocal clock
        order.append(name)
        clock += next(slow) if name == "a" else 0.001

    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock)

    ways = {name: lambda name=name: way(name) for name in "ab"}  # type: ignore[misc]
    once = timing.in_turn(ways, 2)
    assert order == ["a", "b", "b", "a"]
    assert once["a"] == pytest.approx([0.03, 0.001])
    slow = itertools.chain([0.03], itertools.repeat(0.001))
    again = timing.in_turn(ways, 1, at_least=0.05)
    assert again["a"] == pytest.approx([0.001])
    assert order.count("a") == 2 + 21  # one of 0.03 s and twenty of 0.001 s
    assert order[4:].index("b") == order.count("a") - 2 > 1, "one after the other within a round"
    assert timing.paired({"x": [4.0, 9.0], "y": [2.0, 3.0]}, "y", "x") == [2.0, 3.0]
