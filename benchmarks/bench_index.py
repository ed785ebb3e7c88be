"""What a search costs next to a plain product and top-k, in processor seconds of one thread, and its recall.

Once as a test, small: `pytest benchmarks/bench_index.py`. Timed, over a million vectors: `make bench
PART=index`."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from harness import Bench, Fact

from beatmeter.serving.index import Entries, Index

DIM, QUERIES, K, ROUNDS = 128, 100, 10, 5
CENTRES = 4000
SEARCHED = """
import sys
from pathlib import Path
import numpy as np, torch
from beatmeter.serving.index import Index
def kib(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))
torch.set_num_threads(1)
folder, queries = Path(sys.argv[1]), np.load(sys.argv[2])
torch.ones(64, 64, dtype=torch.bfloat16) @ torch.ones(64, 64, dtype=torch.bfloat16)
before = kib("VmRSS")
index = Index.open(folder)
for _ in range(2):
    index.search(queries, int(sys.argv[3]))
print(1024 * (kib("VmHWM") - before))
"""


def held(index: Path, queries: Path) -> float:
    """MB that two exact searches add at most to a process that has imported everything."""
    words = [sys.executable, "-c", SEARCHED, str(index), str(queries), str(K)]
    return float(subprocess.run(words, capture_output=True, text=True, check=True).stdout) / 1e6


def clustered(n: int, seed: int) -> np.ndarray:
    """Unit vectors around CENTRES directions: half of the variance is between them, half around them."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(7).normal(size=(CENTRES, DIM)).astype(np.float32)
    x = centres[rng.integers(0, CENTRES, n)] + rng.normal(size=(n, DIM)).astype(np.float32)
    result: np.ndarray = x / np.linalg.norm(x, axis=1, keepdims=True)
    return result


def spent(way: Callable[[], object]) -> float:
    began = time.process_time()
    way()
    return time.process_time() - began


@pytest.mark.parametrize("size", [100_000, 1_000_000], ids=["1e5", "1e6"])
def test_search(bench: Bench, tmp_path: Path, size: int) -> None:
    if not bench.timed and size > 100_000:
        pytest.skip("only when timed")
    n = size if bench.timed else 3000
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        _measure(bench, tmp_path, n)
    finally:
        torch.set_num_threads(threads)


def _measure(bench: Bench, folder: Path, n: int) -> None:
    index = Index.create(folder / "index", DIM)
    for at in range(0, n, 250_000):
        block = min(250_000, n - at)
        index.add(Entries([f"{at + i}" for i in range(block)], clustered(block, at + 1)))
    built = spent(index.build_cells)
    vectors = torch.from_numpy(index.entries(range(n)).vectors)
    queries = clustered(QUERIES, 99)
    wanted = torch.from_numpy(queries)
    ways: dict[str, Callable[[], object]] = {
        "torch.topk, float32": lambda: (wanted @ vectors.T).topk(K, dim=1),
        "exact": lambda: index.search(queries, K),
        "inverted lists": lambda: index.search(queries, K, exact=False),
    }
    truth = (wanted @ vectors.T).topk(K, dim=1).indices.tolist()
    recall = {
        exact: _shared(index.search(queries, K, exact=exact).rows.tolist(), truth) for exact in (True, False)
    }
    assert recall[True] == 1.0
    assert recall[False] > 0.8
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way()
    for _ in range(ROUNDS if bench.timed else 1):
        for name, way in ways.items():
            seconds[name].append(spent(way))
    title = f"{QUERIES} queries among {n:,} vectors of {DIM} numbers, processor seconds of one thread"
    note = (
        f"Recall@{K}: exact 1.000, inverted lists {recall[False]:.3f} ({index.cells['probes']} lists read)."
        if index.cells
        else ""
    )
    for ours in ("exact", "inverted lists"):
        bench.judge(
            title if ours == "exact" else f"{title}: inverted lists",
            seconds,
            "torch.topk, float32",
            ours,
            QUERIES,
            "queries",
            note=note,
        )
    for name, most in (("exact", 6.0), ("inverted lists", 1.5)) if n == 1_000_000 else ():
        bench.record(Fact("index", f"one of {title}: {name}", 1e3 * min(seconds[name]) / QUERIES, "ms", most))
    np.save(folder / "queries.npy", queries)
    memory = held(folder / "index", folder / "queries.npy")
    assert memory < 300
    if n == 1_000_000:
        bench.record(Fact("index", f"memory of the exact search among {n:,} vectors", memory, "MB", 300.0))
        bench.record(
            Fact(
                "index", f"building the inverted lists of {n:,} vectors, processor seconds", built, "s", 60.0
            )
        )
        bench.record(
            Fact(
                "index",
                f"recall@{K} of the inverted lists, {n:,} vectors",
                recall[False],
                "",
                0.95,
                "at least",
            )
        )


def _shared(found: list[list[int]], right: list[list[int]]) -> float:
    return float(np.mean([len(set(a) & set(b)) / K for a, b in zip(found, right, strict=True)]))
