"""What looking for copies among many tracks needs in memory, and that it finds the pairs of a whole matrix.

Once as a test, small: `pytest benchmarks/bench_copies.py`. Timed, among 10,000 and 100,000 tracks: `make
bench PART=copies`."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from harness import Bench, Fact

from beatmeter.experiments.audit import copies
from beatmeter.experiments.audit.copies import find_copies, threshold
from beatmeter.schema import Track

COLUMNS, COPIES = 256, 50


def tracks_of(n: int) -> list[Track]:
    """Tracks in groups of two."""
    return [Track(f"t{i}", Path(f"t{i}.wav"), group=f"g{i // 2}") for i in range(n)]


def filled(path: Path, n: int) -> np.ndarray:
    """A mapped file of `n` rows of features that resemble each other a little, COPIES of which return, with
    noise, as the last ones."""
    rows = np.lib.format.open_memmap(path, "w+", np.float32, (n, COLUMNS))
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(40, COLUMNS)).astype(np.float32)
    for at in range(0, n, 10_000):
        count = min(10_000, n - at)
        rows[at : at + count] = rng.normal(size=(count, 40)).astype(np.float32) @ shared
        rows[at : at + count] += 3 * rng.normal(size=(count, COLUMNS)).astype(np.float32)
    rows[-COPIES:] = rows[:COPIES] + 0.3 * rng.normal(size=(COPIES, COLUMNS)).astype(np.float32)
    rows.flush()
    return rows


def whole(rows: np.ndarray, groups: list[str]) -> set[tuple[int, int]]:
    """The pairs above the threshold by one matrix of all cosines."""
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosine = np.clip(units @ units.T, -1, 1)
    number = np.unique(groups, return_inverse=True)[1]
    cosine[number[:, None] == number[None]] = -np.inf
    limit = threshold(cosine.max(axis=1))
    return {(i, j) for i, j in np.argwhere(cosine > limit).tolist() if i < j}


def test_copies(bench: Bench, tmp_path: Path) -> None:
    n, many = (10_000, 100_000) if bench.timed else (300, 0)
    block = copies.BLOCK
    try:
        copies.BLOCK = block if bench.timed else 128
        rows, tracks = filled(tmp_path / "rows.npy", n), tracks_of(n)
        found, _ = find_copies({"stats": rows}, tracks)
    finally:
        copies.BLOCK = block
    pairs = {(p.first, p.second) for p in found}
    assert pairs == whole(rows, [t.group for t in tracks])
    assert len(pairs) >= COPIES
    if many:
        code = f"import bench_copies; bench_copies.measure({many})"
        said = subprocess.run(
            [sys.executable, "-c", code],
            check=True,
            capture_output=True,
            text=True,
            cwd=Path(__file__).parent,
        )
        result = json.loads(said.stdout)
        assert result["copies"] >= COPIES
        title = f"memory that copies among {many:,} tracks of {COLUMNS} numbers need, the whole process"
        note = f"{result['seconds']:.0f} s of processor time; n x n would be {4 * many**2 / 2**30:.0f} GB."
        bench.record(Fact("copies", title, result["bytes"] / 2**30, "GB", 2.0, note=note))


def measure(n: int) -> None:
    """Print the peak memory and the processor time of one search among `n` tracks, as JSON."""
    import resource
    import time

    with tempfile.TemporaryDirectory() as folder:
        rows = filled(Path(folder) / "rows.npy", n)
        began = time.process_time()
        found, _ = find_copies({"stats": rows}, tracks_of(n))
        spent = time.process_time() - began
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"bytes": peak, "seconds": spent, "copies": len(found)}))
