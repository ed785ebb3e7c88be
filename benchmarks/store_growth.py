"""One step in the life of a store of small features, in a process of its own: `python store_growth.py STEP
FOLDER TRACKS PER_COMMIT`.

Steps are `write` (real commits, flushed to the disk), `fill` (the same tracks, quickly: only what is read
later counts), `records`, `index` and `compact`, then `open` and `read`. Prints seconds and the megabytes by
which the process grew.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import numpy as np

from beatmeter.audio.chunking import Layout, rows
from beatmeter.schema import ChunkSpec, Features, FeatureSpec, Pooled, PoolingSpec
from beatmeter.store import Store
from beatmeter.store.commit import SegmentWriter, encode_track
from beatmeter.store.compact import compact

SMALL = PoolingSpec(
    "stats", "stats", "chunk", (1, 2), ("pool", "dim"), (2, 8), {"statistics": ["mean", "max"]}
)
SPEC = FeatureSpec("benchmark/small", "", "", 2, 8, 320, 400, True, ChunkSpec(), (SMALL,))
CHUNKS = 3  # of every track


def step(name: str, folder: Path, tracks: int, per_commit: int, alone: bool = True) -> dict[str, float]:
    """Run a step in a process of its own (or, not `alone`, in this one): seconds, and MB by which the process
    grew."""
    if not alone:
        return run(name, folder, tracks, per_commit)
    command = [sys.executable, __file__, name, str(folder), str(tracks), str(per_commit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, float] = json.loads(done.stdout)
    return found


def features() -> Features:
    samples = CHUNKS * SPEC.chunk.hop + 80
    times, frames = rows(Layout.of(samples, SPEC), SMALL)
    values = np.random.default_rng(0).standard_normal((len(times), *SMALL.row_shape)).astype(np.float16)
    return Features(SPEC, samples, {"stats": Pooled(values, times, frames)})


def keys(first: int, count: int) -> list[str]:
    """Track keys as hashes are: in no order."""
    return [f"{(first + i) * 0x9E3779B97F4A7C15 % 2**64:016x}{first + i:048x}" for i in range(count)]


def write(folder: Path, tracks: int, per_commit: int) -> None:
    store, each = Store.create(folder, SPEC), features()
    for first in range(0, tracks, per_commit):
        store.commit([(key, each) for key in keys(first, min(per_commit, tracks - first))])


def fill(folder: Path, tracks: int, per_commit: int) -> None:
    store, each = Store.create(folder, SPEC), features()
    stored = encode_track("key", each, store.layout)
    with mock.patch("os.fsync"):
        for first in range(0, tracks, per_commit):
            with SegmentWriter(store.backend, store.layout) as writer:
                for key in keys(first, min(per_commit, tracks - first)):
                    writer.add(key, each.samples, stored)
                record = writer.publish()
            store.catalog.journal.append(record.to_json())


def read(folder: Path, tracks: int, _: int) -> None:
    """A hundred random batches of 32 tracks."""
    snapshot, rng = Store.open(folder).snapshot(), np.random.default_rng(1)
    for _ in range(100):
        batch = [key for i in rng.integers(0, tracks, 32).tolist() for key in keys(i, 1)]
        assert len(snapshot.load(batch, "stats").values) == 32 * len(
            rows(Layout.of(features().samples, SPEC), SMALL)[1]
        )


def opened(folder: Path, tracks: int, _: int) -> None:
    assert len(Store.open(folder).snapshot()) == tracks


STEPS = {
    "write": write,
    "fill": fill,
    "records": lambda folder, tracks, _: shutil.rmtree(folder / "index", ignore_errors=True),
    "index": lambda folder, tracks, _: Store.open(folder).catalog.save_index(),
    "compact": lambda folder, tracks, _: compact(Store.open(folder)),
    "open": opened,
    "read": read,
}


def peak() -> float:
    """Megabytes that this process had in memory at most."""
    line = next(
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")
    )
    return int(line.split()[1]) / 1e3


def run(name: str, folder: Path, tracks: int, per_commit: int) -> dict[str, float]:
    before, began = peak(), time.perf_counter()
    STEPS[name](folder, tracks, per_commit)
    return {"seconds": time.perf_counter() - began, "MB": peak() - before}


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))))
