"""How fast frozen heads are trained on a cache of METER2800's size, next to a DataLoader over .npy files; and
many at once.

Once as a test, small: `pytest benchmarks/bench_training.py`. Timed, with 1.7 GB of features: `make bench
PART=training`.
"""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import plain_training as plain
import pytest
import torch
from harness import Bench, Fact

from beatmeter.evaluation.runs import RunFolder
from beatmeter.experiments.sweep import fit_many
from beatmeter.learning.loop import Run
from beatmeter.learning.model import Model
from beatmeter.runtime.config import change
from beatmeter.schema import Track
from beatmeter.settings import RunConfig
from beatmeter.store import Store
from beatmeter.tasks import TASKS

EPOCHS = 30
pytestmark = pytest.mark.filterwarnings(
    "ignore:This DataLoader will create:UserWarning"
)  # two workers on one core
MEASURED = 1  # epochs of the plain loop that are timed; it is the same work in each


class Cache:
    """Features of every track as a store and as files, and a new run folder whenever one is asked for."""

    def __init__(self, size: plain.Size, folder: Path, epochs: int) -> None:
        self.size, self.folder = size, folder
        self.store, self.tracks = plain.make(size, folder)
        values = {
            "task": {"classes": plain.CLASSES},
            "training": {"epochs": epochs, "patience": epochs, "head_lr": 1e-3},
        }
        self.config = change(RunConfig(), values)
        self.number = itertools.count()

    def split(self, name: str) -> list[Track]:
        return [t for t in self.tracks if t.split == name]

    def train(
        self, seeds: int, stack: bool | None = None, hidden: int = 256, order: str = "own"
    ) -> list[float]:
        """Heads of seeds 0, 1, ... from opening the store to their best epochs on disk; their accuracies on
        validation."""
        source = plain.source(Store.open(self.store.path), self.config)
        source.prepare(self.tracks, lambda text: None)
        runs = []
        for seed in range(seeds):
            config = change(
                self.config, {"seed": seed, "head": {"hidden": hidden}, "training": {"order": order}}
            )
            task = TASKS["meter"](config)
            torch.manual_seed(seed)
            folder = RunFolder.create(self.folder / "runs" / str(next(self.number)), config)
            model = Model(task, task.study(self.split("train")), source, task.head(source.spec))
            runs.append(Run(model, config, folder, {}))
        fit_many(runs, self.split("train"), self.split("val"), lambda text: None, stack=stack)
        assert all(len(run.folder.read_log()) == self.config.training.epochs for run in runs)
        return [max(line["val"]["accuracy"] for line in run.folder.read_log()) for run in runs]

    def load(self) -> float:
        """Seconds until the features are in memory, aggregated."""
        source = plain.source(Store.open(self.store.path), self.config)
        source.prepare(self.tracks, lambda text: None)
        began = time.perf_counter()
        for split in ("train", "val"):
            next(source.batches(self.split(split), [np.arange(1)]))
        return time.perf_counter() - began


@pytest.fixture(scope="module")
def cache(timed: bool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cache]:
    folder = tmp_path_factory.mktemp("frozen")
    yield Cache(plain.METER2800 if timed else plain.SMALL, folder, EPOCHS if timed else 2)
    shutil.rmtree(folder)


def test_thirty_epochs(bench: Bench, cache: Cache) -> None:
    epochs = MEASURED if bench.timed else 2
    whole = EPOCHS / epochs if bench.timed else 1
    learned: dict[str, float] = {}

    def plainly(workers: int) -> None:
        learned["plain"] = plain.plain_training(
            cache.size, cache.folder, cache.tracks, cache.config, epochs, workers
        )

    def ours() -> None:
        learned["ours"] = cache.train(1)[0]

    ways = {
        "plain, 2 workers": lambda: plainly(2),
        "plain, no workers": lambda: plainly(0),
        "beatmeter": ours,
    }
    if not bench.timed:
        del ways["plain, 2 workers"]
    result = bench.compare(
        f"{EPOCHS} epochs of {cache.size.tracks} tracks x {cache.size.chunks} chunks x {cache.size.layers} "
        f"layers x {2 * cache.size.dim}",
        ways,
        base="plain, no workers",
        ours="beatmeter",
        rounds=2,
        amount=EPOCHS,
        unit="epochs",
        scale={name: whole for name in ways if name != "beatmeter"},
        note=f"The plain loop ran {epochs} epochs, its time is scaled to {EPOCHS}. "
        "Files and store lay in memory. Ours is from opening the store to the best epoch on disk; "
        "reading and aggregating everything took "
        f"{cache.load():.1f} s of it. "
        "Not compiled: torch.compile takes 20 s of processor time for this head, and its steps are no faster "
        "here.",
    )
    bench.record(
        Fact("training", "30 epochs of one head", float(np.median(result.seconds["beatmeter"])), "s", 60.0)
    )
    if bench.timed:
        assert learned["ours"] > 0.5, learned


def test_many_seeds(bench: Bench, cache: Cache) -> None:
    """Seeds 0 to 15 in one pass, each with its own order of tracks and all with one, next to one of them
    alone."""
    seeds = 16 if bench.timed else 3
    own, one = f"{seeds} seeds", f"{seeds} seeds, one order"
    result = bench.compare(
        f"seeds 0 to {seeds - 1} at once, heads of 530,000 parameters",
        {
            "one seed": lambda: cache.train(1),
            own: lambda: cache.train(seeds),
            one: lambda: cache.train(seeds, order="shared"),
        },
        base="one seed",
        ours=one,
        rounds=2,
    )
    for way, title, note in (
        (
            own,
            f"cost of {seeds} seeds",
            "Every seed has its own order of tracks, so nothing but reading is shared: without sharing it "
            f"would be {seeds} times.",
        ),
        (
            one,
            f"cost of {seeds} seeds that see the tracks in one order",
            "`training.order=shared`: layers are mixed for all heads in one product; what is after that, and "
            "the optimiser, costs each head what it costs alone.",
        ),
    ):
        bench.record(Fact("training", title, 1 / result.ratio(way), "times one run", 5.0, note=note))


def test_small_heads(bench: Bench, cache: Cache) -> None:
    """Where stacking pays on this machine (`beatmeter.experiments.sweep.SMALL`): heads of 33,000
    parameters."""
    seeds = 16 if bench.timed else 2
    bench.compare(
        f"seeds 0 to {seeds - 1}, heads of 33,000 parameters",
        {
            "one seed": lambda: cache.train(1, hidden=16),
            "on threads": lambda: cache.train(seeds, False, 16),
            "stacked (torch.func)": lambda: cache.train(seeds, True, 16),
        },
        base="on threads",
        ours="stacked (torch.func)",
        rounds=2,
    )
