"""How fast the feature store is, next to what it replaces, in one run.

Once as a test, small:        pytest benchmarks/test_store.py
Timed, with tables:           pytest benchmarks/test_store.py --benchmark-enable -s
"""

from __future__ import annotations

import dataclasses
import os
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import store_rivals as rivals
from pytest_benchmark.fixture import BenchmarkFixture

from beatmeter.chunking import Layout, rows
from beatmeter.schema import Features, Pooled, PoolingSpec
from beatmeter.store import Store
from beatmeter.store.compact import compact


@pytest.fixture(scope="module")
def timed(request: pytest.FixtureRequest) -> bool:
    return not request.config.getoption("--benchmark-disable") or bool(request.config.getoption("--benchmark-enable"))


@pytest.fixture(scope="module")
def kept(timed: bool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, rivals.Rival]]:
    """The same tracks in every rival: 600 MB when timed, 6 tracks otherwise."""
    folder = tmp_path_factory.mktemp("rivals")
    tracks = rivals.Tracks(1000 if timed else 6)
    yield {name: kind(folder / kind.__name__, tracks) for name, kind in {**rivals.RIVALS, "pread": rivals.Pread}.items()}
    shutil.rmtree(folder)


def report(benchmark: BenchmarkFixture, title: str, seconds: dict[str, list[float]], base: str) -> None:
    benchmark.extra_info.update({f"{name} x {base}": round(r, 3) for name, r in rivals.ratios(seconds, base).items()})
    if not benchmark.disabled:
        print(rivals.table(title, seconds, base))


PATTERNS: dict[str, Callable[[rivals.Rival, list[list[int]]], np.ndarray]] = {
    "scan of everything": lambda rival, batches: rival.scan(),
    "random batches of 32 tracks": lambda rival, batches: [rival.batch(batch) for batch in batches][-1],
    "one layer of everything": lambda rival, batches: rival.layer(7),
}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_warm_reads(benchmark: BenchmarkFixture, kept: dict[str, rivals.Rival], timed: bool, pattern: str) -> None:
    read = PATTERNS[pattern]
    tracks = kept["memmap"].tracks
    rng = np.random.default_rng(1)
    batches = [rng.choice(len(tracks), min(32, len(tracks)), replace=False).tolist() for _ in range(10 if timed else 1)]
    expected = read(kept["memmap"], batches)
    ways: dict[str, Callable[[], Any]] = {}
    for name in rivals.RIVALS:
        np.testing.assert_array_equal(read(kept[name], batches), expected)  # the same numbers, and warm from here on
        ways[name] = lambda name=name: read(kept[name], batches)  # type: ignore[misc]
    seconds = rivals.in_turn(ways, 7 if timed else 1)
    report(benchmark, f"{pattern}, warm ({tracks.values.nbytes / 1e6:.0f} MB)", seconds, "memmap")
    benchmark.pedantic(ways["store"], rounds=7, warmup_rounds=1)


def test_cold_batches(benchmark: BenchmarkFixture, kept: dict[str, rivals.Rival], timed: bool) -> None:
    names = ["pread", "store", "memmap", "h5py chunked", "zarr-python", ".npy per track"]
    rng = np.random.default_rng(2)
    batches = {name: iter(rng.choice(len(kept[name].tracks), (100, min(32, len(kept[name].tracks)))).tolist()) for name in names}
    ways = {name: lambda name=name: kept[name].batch(next(batches[name])) for name in names}  # type: ignore[misc]
    seconds = rivals.in_turn(ways, 15 if timed else 1, before=lambda name: kept[name].drop())
    report(benchmark, "random batches of 32 tracks, cold", seconds, "pread")
    benchmark.pedantic(ways["store"], setup=kept["store"].drop, rounds=7)


def test_writing(benchmark: BenchmarkFixture, timed: bool, tmp_path: Path) -> None:
    tracks = rivals.Tracks(200 if timed else 6)
    names = ["memmap", "store", "h5py contiguous", "zarr-python", ".npy per track"]
    number = iter(range(10_000))

    def write(name: str) -> None:
        folder = tmp_path / str(next(number))
        rivals.RIVALS[name](folder, tracks)
        if name != "store":  # which does so itself
            for path in folder.rglob("*"):
                if path.is_file():
                    with path.open("rb") as file:
                        os.fsync(file.fileno())
        shutil.rmtree(folder)

    seconds = rivals.in_turn({name: lambda name=name: write(name) for name in names}, 5 if timed else 1)  # type: ignore[misc]
    report(benchmark, f"writing {tracks.values.nbytes / 1e6:.0f} MB durably", seconds, "memmap")
    benchmark.pedantic(write, args=("store",), rounds=3)


SMALL = PoolingSpec("stats", "stats", "chunk", (1,), ("dim",), (4,), {})


@pytest.mark.parametrize("size", [1, 10, 100])
def test_opening_grows_with_commits(benchmark: BenchmarkFixture, timed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Up to 10,000 commits of 11 tracks: opened from the records alone, from a saved index, and compacted."""
    commits = 100 * size if timed else 1 + size // 10
    spec = dataclasses.replace(rivals.SPEC, poolings=(SMALL,))
    store = Store.create(tmp_path / "s", spec)
    samples = 5 * spec.chunk.hop
    times, frames = rows(Layout.of(samples, spec), SMALL)
    features = Features(spec, samples, {"stats": Pooled(np.zeros((len(times), 1, 4), np.float16), times, frames)})
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # what is measured is reading
    for c in range(commits):
        store.commit([(f"{c * 11 + i:064x}", features) for i in range(11)])
    monkeypatch.undo()

    def opened() -> int:
        return len(Store.open(store.path).snapshot())

    def seconds(times: int = 3) -> float:
        best = float("inf")
        for _ in range(times):
            began = time.perf_counter()
            assert opened() == 11 * commits
            best = min(best, time.perf_counter() - began)
        return best

    shutil.rmtree(store.path / "index")
    found = {"records": seconds()}
    store.catalog.save_index()
    found["index"] = seconds()
    benchmark.pedantic(opened, rounds=3)
    compact(store)
    found["compacted"] = seconds()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    benchmark.extra_info.update({f"open from {name}, s": round(s, 4) for name, s in found.items()} | {"peak memory, MB": round(memory)})
    if timed:
        told = ", ".join(f"{name} {s * 1e3:.0f} ms" for name, s in found.items())
        print(f"\nopening {commits} commits, {11 * commits} tracks: {told}; peak memory of the process {memory:.0f} MB")
        if size == 100:
            assert found["index"] < 1.0  # the promise
