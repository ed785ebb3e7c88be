"""What it costs to spread extraction: four workers of Dask, of Ray and of our own next to one process on the
same cores; and what a worker costs that is killed, or that stands still for a while.

Once as a test, in this very process: `pytest benchmarks/bench_engines.py`. Timed: `make bench PART=engines`.
"""

from __future__ import annotations

import itertools
import os
import signal
import statistics
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import Bench, Fact

from beatmeter.datasets.synthetic import SynthPlan, synthesise
from beatmeter.features.engines import Engine, open_engine, spread
from beatmeter.features.service import FeatureService
from beatmeter.runtime.cores import usable_cores
from beatmeter.schema import Track
from beatmeter.settings import FeatureConfig

CPU = torch.device("cpu")
WORKERS = 4
STILL = 10.0  # seconds for which a worker is stopped
ALONE = "one process"
NAMES = {"local": "processes of our own", "dask": "Dask", "ray": "Ray"}


class Disturbed:
    """An engine whose first worker that reports is disturbed once, by its process."""

    def __init__(self, engine: Engine, disturb: Callable[[int], object]) -> None:
        self._engine, self._disturb, self.slots = engine, disturb, engine.slots
        self.scheduler, self.workers = engine.scheduler, engine.workers

    def run(self, function: Any, items: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
        for item, report in self._engine.run(function, items):
            if self._disturb is not None and hasattr(report, "worker"):
                disturb, self._disturb = self._disturb, None  # type: ignore[assignment]
                disturb(int(report.worker.rpartition(":")[2]))
            yield item, report


def kill(process: int) -> None:
    os.kill(process, signal.SIGKILL)


def stop_for_a_while(process: int) -> None:
    os.kill(process, signal.SIGSTOP)
    threading.Timer(STILL, os.kill, (process, signal.SIGCONT)).start()


def test_workers_next_to_one_process(bench: Bench, tmp_path: Path) -> None:
    clips, seconds = (128, 30.0) if bench.timed else (3, 3.0)
    synthesise(tmp_path / "music", clips, SynthPlan(seconds=seconds), usable_cores() if bench.timed else 1)
    tracks = [Track(path.stem, path) for path in sorted((tmp_path / "music" / "audio").iterdir())]
    caches = (str(tmp_path / f"cache-{n}") for n in itertools.count())

    def service() -> FeatureService:
        return FeatureService(FeatureConfig(cache=next(caches), backbone="embedded"), CPU)

    def alone() -> None:
        _, _, failed = service().ensure(tracks, report=lambda text: None)
        assert failed == {}

    def by(engine: Any) -> Callable[[], None]:
        def run() -> None:
            outcome = spread(service(), tracks, engine, "cpu")
            assert outcome.failed == {}
            assert len(outcome.store.keys()) == clips

        return run

    with ExitStack() as started:
        if not bench.timed:
            ways = {ALONE: alone, "here": by(started.enter_context(open_engine("local", 1)))}
            bench.compare("workers", ways, ALONE, "here")
            return
        for module in ("distributed", "ray"):
            pytest.importorskip(module)
        ways = {ALONE: alone}
        for name, called in NAMES.items():
            engine = started.enter_context(open_engine(name, WORKERS))
            ways[called] = by(engine)
            if name != "local":
                ways[f"{called}, one killed"] = lambda e=engine: by(Disturbed(e, kill))()
                ways[f"{called}, one still for {STILL:g} s"] = lambda e=engine: by(
                    Disturbed(e, stop_for_a_while)
                )()
        found = bench.compare(
            f"{clips} clips of {seconds:g} s through the embedded backbone, {WORKERS} workers",
            ways,
            base=ALONE,
            ours="Dask",
            rounds=2,
            amount=clips,
            unit="clips",
            note=f"On {usable_cores()} cores, which one process keeps busy: more workers cannot be "
            "faster. Dask and Ray were started before; processes of our own start in their time.",
        )
    for called in ("Dask", "Ray"):
        whole = statistics.median(found.seconds[called])
        for what in ("one killed", f"one still for {STILL:g} s"):
            more = statistics.median(found.seconds[f"{called}, {what}"]) - whole
            bench.record(Fact("engines", f"{called}, {WORKERS} workers, {what}: time on top", more, "s"))
