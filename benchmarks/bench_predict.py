"""What an answer costs: one file from the shell, and many files next to the extraction of the same features.

Once as a test, small: `pytest benchmarks/bench_predict.py`. Timed: `make bench PART=predict`.
"""

from __future__ import annotations

import itertools
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
from harness import Bench, Fact

from beatmeter.datasets.synthetic import SynthPlan, synthesise
from beatmeter.features.extraction import Extractor
from beatmeter.features.pooling import Encoder
from beatmeter.features.service import FeatureService
from beatmeter.learning.restoring import restore
from beatmeter.runtime.config import change
from beatmeter.runtime.device import choose_device
from beatmeter.schema import Track
from beatmeter.serving.models import SHIPPED
from beatmeter.serving.predictor import Predictor
from beatmeter.store import Store

MODEL = "embedded-lag"
SECONDS = 30.0
MOST = 1.2  # processor seconds from the shell to an answer


def songs(folder: Path, n: int, seconds: float) -> list[Path]:
    """`n` files, of which some hold the same music."""
    synthesise(folder, min(n, 12), SynthPlan(seconds=seconds))
    made = sorted((folder / "audio").iterdir())
    found = []
    for i, source in zip(range(n), itertools.cycle(made)):
        found.append(folder / f"{i:04d}{source.suffix}")
        found[-1].hardlink_to(source)
    return found


def spent_by(command: list[str]) -> float:
    """Processor seconds (user and system) of a process and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_one_file_from_the_shell(bench: Bench, tmp_path: Path) -> None:
    (song,) = songs(tmp_path, 1, SECONDS if bench.timed else 5.0)
    commands = {
        "import torch": [sys.executable, "-c", "import torch"],
        "beatmeter": [sys.executable, "-m", "beatmeter", "predict", str(song)],
    }
    spent: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(7 if bench.timed else 1):
        for name, command in commands.items():
            spent[name].append(spent_by(command))
    result = bench.judge(
        f"one song of {SECONDS:g} s from the shell to its answer, processor seconds",
        spent,
        "import torch",
        "beatmeter",
    )
    took = float(np.median(result.seconds["beatmeter"]))
    note = f"`import torch` alone takes {np.median(result.seconds['import torch']):.2f} s."
    title = "one song from the shell to its answer"
    bench.record(Fact("predict", title, took, "processor seconds", MOST, note=note))


def test_many_files(bench: Bench, tmp_path: Path) -> None:
    n = int(os.environ.get("BEATMETER_FILES", "1000")) if bench.timed else 3
    paths = songs(tmp_path, n, SECONDS if bench.timed else 6.0)
    predictor = Predictor.load(SHIPPED / MODEL)
    config = restore(SHIPPED / MODEL).config.features
    service = FeatureService(change(config, {"cache": str(tmp_path / "cache")}), choose_device(), jobs=2)
    encoder, numbers = Encoder(service.backbone, service.spec), itertools.count()

    def extract() -> None:
        store = Store.create(tmp_path / "stores" / str(next(numbers)), service.spec)
        todo = [(path.stem, Track(path.stem, path)) for path in paths]
        assert Extractor(encoder, store, service.device, service.jobs).run(todo).done == n

    def predict() -> None:
        answers = [answer for _, answer in predictor.predict_files(paths, jobs=2)]
        assert len(answers) == n
        assert not any(isinstance(answer, Exception) for answer in answers)

    bench.compare(
        f"{n} songs of {SECONDS:g} s, by {MODEL}",
        {"extraction": extract, "beatmeter": predict},
        base="extraction",
        ours="beatmeter",
        rounds=2,
        amount=n,
        unit="songs",
        targets={"extraction": 0.9},
        note="Both decode in two processes; extraction writes the features that the model reads to a store, "
        "prediction makes answers of them.",
    )
