"""How fast features are made, from audio files to committed store, next to the plain loop and to matrix
products alone.

Once as a test, small: `pytest benchmarks/bench_extraction.py`. Timed, with the full-size networks: `make
bench PART=extraction`.
"""

from __future__ import annotations

import itertools
import os
import resource
import shutil
import statistics
from pathlib import Path

import numpy as np
import plain_extraction as plain
import pytest
from harness import Bench, Growth
from stages import stages

from beatmeter.features.extraction import Extractor, Outcome
from beatmeter.features.pooling import Encoder
from beatmeter.features.service import FeatureService
from beatmeter.runtime.device import choose_device
from beatmeter.schema import Track
from beatmeter.settings import FeatureConfig
from beatmeter.store import Store

SECONDS = 30.0
CLIPS = {"95M": {"cpu": 8, "cuda": 256}, "330M": {"cpu": 4, "cuda": 128}}  # enough to be worth timing
WINDOWS = 5  # in which memory is looked at
TARGETS = {
    "cpu": {"plain loop": 2.0, "bf16 products": 0.75},
    "cuda": {"plain loop": 10.0, "bf16 products": 0.5},
}
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*slated for removal:DeprecationWarning"
)  # what librosa.load imports


class Ours:
    """Our extraction of some files into a store of its own, which `reset` empties."""

    def __init__(self, weights: Path, cache: Path, jobs: int = 2, **settings: object) -> None:
        config = FeatureConfig(backbone=str(weights), cache=str(cache), **settings)  # type: ignore[arg-type]
        self.service = FeatureService(config, choose_device(), jobs)
        self.encoder = Encoder(self.service.backbone, self.service.spec)
        self.cache = cache
        self.outcome = Outcome()

    def reset(self) -> None:
        shutil.rmtree(self.cache, ignore_errors=True)

    def extract(self, paths: list[Path]) -> Store:
        store = Store.for_spec(self.cache, self.service.spec)
        todo = [(path.stem, Track(path.stem, path)) for path in paths]
        self.outcome = Extractor(self.encoder, store, self.service.device, self.service.jobs).run(todo)
        return store


@pytest.mark.parametrize(("timed_size", "small"), [("95M", "post-LN"), ("330M", "pre-LN")])
def test_extraction(bench: Bench, tmp_path: Path, timed_size: str, small: str) -> None:
    size = timed_size if bench.timed else small
    device = choose_device()
    model = plain.make_model(size, tmp_path / "weights").to(device)
    n = CLIPS[size].get(device.type, 16) if bench.timed else 2
    paths = plain.make_clips(tmp_path / "clips", n, SECONDS if bench.timed else 11.0)
    ours = Ours(tmp_path / "weights", tmp_path / "cache", dtype="auto" if bench.timed else "float32")
    expected = plain.plain_loop(model, paths[:1])[0]
    found = ours.extract(paths[:1]).snapshot().read(paths[0].stem).pooled["stats"].values
    same = slice(0, len(expected) - 1)  # librosa may give one sample more, which moves the last chunk
    relative = np.linalg.norm(found[same] - expected[same]) / np.linalg.norm(expected[same])
    assert relative < (0.02 if ours.service.dtype == "bfloat16" else 0.002), relative
    products = plain.Products(plain.multiply_adds(model, plain.CHUNK.length) * len(expected) * n, device)
    ways = {
        "plain loop": lambda: plain.plain_loop(model, paths),
        "bf16 products": products,
        "beatmeter": lambda: ours.extract(paths),
    }
    ours.reset()
    profile = stages(ours.encoder, Store.for_spec(ours.cache, ours.service.spec), paths[0], device)
    result = bench.compare(
        f"MERT-{size}: {n} stereo MP3s of {SECONDS:g} s to a committed store",
        ways,
        base="plain loop",
        ours="beatmeter",
        rounds=3,
        amount=n,
        unit="clips",
        targets=TARGETS.get(device.type, TARGETS["cpu"]),
        before=lambda name: ours.reset(),
        note=f"Where the time goes, one clip through one stage after the other: {profile.text()}.",
    )
    if bench.timed:
        rate = 2e-9 * products.multiply_adds / min(result.seconds["bf16 products"])
        print(f"  products reach {rate:.0f} GF/s; last extraction: {ours.outcome.profile()}")


def resident_megabytes() -> float:
    """Memory of this process now (the most it ever had, where the system cannot tell)."""
    try:
        line = next(
            line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS")
        )
        return int(line.split()[1]) / 1024
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def test_memory_stays_flat(bench: Bench, tmp_path: Path) -> None:
    """Resident memory over many chunks, looked at after every track: 10,000 when timed (BEATMETER_CHUNKS
    changes that)."""
    plain.make_model("pre-LN", tmp_path / "weights")
    chunks = int(os.environ.get("BEATMETER_CHUNKS", "10000")) if bench.timed else 30
    paths = plain.make_clips(
        tmp_path / "clips", 5 if bench.timed else 2, SECONDS if bench.timed else 6.0, "wav"
    )
    each = 6 if bench.timed else 2
    ours = Ours(tmp_path / "weights", tmp_path / "cache", jobs=1)
    store = Store.for_spec(tmp_path / "cache", ours.service.spec)
    n = chunks // each
    resident: list[float] = []
    todo = [(f"{i:064d}", Track(f"{i}", paths[i % len(paths)])) for i in range(n)]
    Extractor(ours.encoder, store, ours.service.device).run(
        todo, lambda tracks: resident.append(resident_megabytes())
    )
    edges = [n * i // WINDOWS for i in range(WINDOWS + 1)]
    windows = [resident[a:b] for a, b in itertools.pairwise(edges)]
    seen = {"median": [statistics.median(w) for w in windows], "most": [max(w) for w in windows]}
    bench.record(
        Growth(
            "extraction",
            "memory of the process",
            tuple(float(b * each) for b in edges[1:]),
            "chunks",
            seen,
            "MB",
        )
    )
    if bench.timed:
        stays = (
            (seen["median"][-1] - seen["median"][WINDOWS // 2])
            * 1e3
            / (each * (edges[-1] - edges[WINDOWS // 2 + 1]))
        )
        assert stays < 2, f"{stays:.1f} kB of every chunk stay"
