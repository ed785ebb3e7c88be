"""How fast the feature store is, next to what it replaces, in one run; and how its cost grows with tracks and
commits.

Once as a test, small: `pytest benchmarks/bench_store.py`. Timed, with tables: `make bench PART=store`.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import store_growth as growth
from harness import Bench, Comparison, Fact, Growth

from beatmeter.schema import ChunkSpec, FeatureSpec, PoolingSpec
from beatmeter.store import timing as clock
from beatmeter.store.rivals import AlwaysChecked, NeverChecked, installed
from beatmeter.store.timing import Timing
from beatmeter.store.ways import FreshStore, Memcpy, Pread, Sample, Way

STATS = PoolingSpec(
    "stats",
    "stats",
    "chunk",
    tuple(range(1, 25)),
    ("pool", "dim"),
    (2, 1024),
    {"statistics": ["mean", "max"]},
)
SPEC = FeatureSpec("benchmark/330M", "", "", 24, 1024, 320, 400, True, ChunkSpec(), (STATS,))
KINDS: dict[str, type[Way]] = {
    "store": FreshStore,
    "store, checked always": AlwaysChecked,
    "store, never checked": NeverChecked,
    "pread": Pread,
    "memcpy": Memcpy,
    **installed(),
}
WARM = {
    "scan": 0.8,
    "random": 0.8,
    "one": 1.0,
}  # least speed relative to a memmap, by the first word of the pattern
COLD = {"scan": 0.9, "random": 1 / 1.5, "one": 0.66}  # to the best pread of the same bytes
FASTER = {"h5py chunked": 5.0, "zarr-python": 5.0}


def kept(folder: Path, tracks: int, *without: str) -> dict[str, Way]:
    """The same tracks, of 600 kB each, in every rival."""
    sample = Sample.made(SPEC, tracks)
    return {name: kind(folder / kind.__name__, sample) for name, kind in KINDS.items() if name not in without}


def judged(bench: Bench, timing: Timing, targets: dict[str, float]) -> Comparison:
    """Record a timing; beside targets, how far plain copies or the best pread of the same bytes get against
    the same rivals."""
    note = ""
    for floor, what in (
        ("memcpy", "copies from memory to memory, on as many threads,"),
        ("pread", "preads of the same bytes, all announced first,"),
    ):
        if targets and floor in timing.seconds:
            limits = [f"{timing.ratio(floor, name):.1f} x {name}" for name in targets if name != floor]
            spent = (
                sorted(timing.seconds[floor])[len(timing.seconds[floor]) // 2]
                / sorted(timing.seconds["store"])[len(timing.seconds["store"]) // 2]
            )
            note += f"Plain {what} reach {', '.join(limits)}, and take {spent:.0%} of the store's time. "
    title = f"{timing.pattern} ({timing.bytes / 1e6:.0f} MB)"
    return bench.judge(
        title, timing.seconds, timing.base, "store", timing.bytes / 1e9, "GB", targets, note.strip()
    )


def test_warm_reads(bench: Bench, tmp_path: Path) -> None:
    rivals = kept(tmp_path, 1000 if bench.timed else 6, "pread")
    bench.plugin(rivals["store"].scan)
    for timing in clock.warm(rivals, "memmap", *((9, 10, 0.1) if bench.timed else (1, 1, 0.0))):
        judged(bench, timing, {"memmap": WARM[timing.pattern.split()[0]], **FASTER})
    shutil.rmtree(tmp_path)


def test_cold_reads(bench: Bench, tmp_path: Path) -> None:
    rivals = kept(tmp_path, 250 if bench.timed else 6, "memcpy", "store, checked always")
    bench.plugin(lambda: rivals["store"].batch([0, 1]), rivals["store"].drop)
    for timing in clock.cold(rivals, "pread", 5 if bench.timed else 1):
        judged(bench, timing, {"pread": COLD[timing.pattern.split()[0]], **FASTER})
    shutil.rmtree(tmp_path)


def test_writing(bench: Bench, tmp_path: Path) -> None:
    kinds = {
        name: KINDS[name] for name in ("memmap", "store", "h5py contiguous", "zarr-python", ".npy per track")
    }
    sample = Sample.made(SPEC, 200 if bench.timed else 6)
    (tmp_path / "w").mkdir()
    judged(bench, clock.writing(kinds, "memmap", sample, tmp_path / "w", 5 if bench.timed else 1), {})


def test_growth_with_tracks(bench: Bench, tmp_path: Path) -> None:
    """100, 1,000 and 10,000 tracks of small features in commits of ten, flushed: time and memory of every
    step."""
    sizes = [100, 1_000, 10_000] if bench.timed else [10, 20]
    found = []
    for size in sizes:
        folder = tmp_path / str(size)
        found.append(
            {name: growth.step(name, folder, size, 10, bench.timed) for name in ("write", "open", "read")}
        )
        shutil.rmtree(folder)
    names = {"write": "write and flush", "open": "open", "read": "open, 100 random batches of 32"}
    for what, unit in (("seconds", "s"), ("MB", "MB")):
        series = {told: [one[name][what] for one in found] for name, told in names.items()}
        title = f"{'time' if unit == 's' else 'memory'} as tracks grow, ten tracks a commit"
        bench.record(Growth("store", title, tuple(map(float, sizes)), "tracks", series, unit))
    if bench.timed:
        each = found[-1]["write"]["seconds"] / sizes[-1], found[0]["write"]["seconds"] / sizes[0]
        assert each[0] < 3 * each[1], "a commit costs the same whatever is in the store"
        assert found[-1]["write"]["MB"] < found[0]["write"]["MB"] + 40


def test_opening_grows_with_commits(bench: Bench, tmp_path: Path) -> None:
    """Up to 10,000 commits of 11 tracks: opened from the records alone, from a saved index, and compacted."""
    sizes = [100, 1_000, 10_000] if bench.timed else [3, 6]
    found: dict[str, list[float]] = {"records alone": [], "index": [], "compacted": []}
    for size in sizes:
        folder, tracks = tmp_path / str(size), 11 * size
        growth.step("fill", folder, tracks, 11, bench.timed)
        for name, do in (("records alone", "records"), ("index", "index"), ("compacted", "compact")):
            growth.step(do, folder, tracks, 11, bench.timed)
            found[name].append(
                min(
                    growth.step("open", folder, tracks, 11, bench.timed)["seconds"]
                    for _ in range(3 if bench.timed else 1)
                )
            )
        shutil.rmtree(folder)
    bench.record(
        Growth(
            "store",
            "opening as commits grow, 11 tracks a commit",
            tuple(map(float, sizes)),
            "commits",
            found,
            "s",
        )
    )
    bench.record(Fact("store", "opening 10,000 commits by the index", found["index"][-1], "s", 1.0))


def test_a_million_tracks(bench: Bench, tmp_path: Path) -> None:
    """10,000, 100,000 and a million tracks, 64 tracks a commit as extraction writes them: time and memory of
    opening and reading."""
    sizes = [10_000, 100_000, 1_000_000] if bench.timed else [10, 100]
    found = []
    for size in sizes:
        folder = tmp_path / str(size)
        for name in ("fill", "index"):
            growth.step(name, folder, size, 64, bench.timed)
        found.append({name: growth.step(name, folder, size, 0) for name in ("open", "read")})
        shutil.rmtree(folder)
    names = {"open": "open", "read": "open, 100 random batches of 32"}
    for what, unit in (("seconds", "s"), ("MB", "MB")):
        series = {told: [one[name][what] for one in found] for name, told in names.items()}
        title = f"{'time' if unit == 's' else 'memory'} to a million tracks"
        bench.record(Growth("store", title, tuple(map(float, sizes)), "tracks", series, unit))
    bench.record(Fact("store", "opening a million tracks", found[-1]["open"]["seconds"], "s", 3.0))
    grown = (found[-1]["open"]["MB"] - found[0]["open"]["MB"]) * 1e6 / (sizes[-1] - sizes[0])
    bench.record(Fact("store", "memory of an open store", grown, "bytes per track", 300.0))
