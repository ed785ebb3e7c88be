"""How much slower a command is beside programs of other people that keep cores busy, paired with its time
alone.

Once as a test, small: `pytest benchmarks/bench_beside.py`. Timed: `make bench PART=beside`, on a machine on
which nothing else runs.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness import Bench, Fact

from beatmeter.datasets.synthetic import SynthPlan, synthesise
from beatmeter.runtime.cores import usable_cores
from beatmeter.store.timing import in_turn

ROOT = Path(__file__).resolve().parents[1]
ALONE, NEIGHBOURS = "alone", {"beside one busy process": 1, "beside two busy processes": 2}
SPINNING = "beside one, threads that spin"
SPIN = {
    "OMP_WAIT_POLICY": "PASSIVE",
    "GOMP_SPINCOUNT": "300000",
}  # what GNU's runtime does when nobody tells it how to wait
ROUNDS = 3
Command = Callable[[Path, Path], list[str]]  # from the music and an empty folder


@dataclass(frozen=True)
class Program:
    """Something that people start. `most` times its time alone is promised; None: its fair share of the
    cores, and half more."""

    name: str
    command: Command
    clips: int
    most: float | None = None

    def limit(self, busy: int) -> float:
        return self.most or 1.5 * (1 + busy / usable_cores())


def beatmeter(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "beatmeter", *map(str, words)]


def lora(music: Path, out: Path) -> list[str]:
    settings = ("limit=24", "training.epochs=1", f"features.cache={out}")
    return beatmeter(
        "train",
        "--lora",
        music,
        "--recipe",
        "embedded-lora",
        *(w for s in settings for w in ("--set", s)),
        "--out",
        out / "run",
    )


SUITE = [
    ROOT / "tests" / name
    for name in (
        "evaluation",
        "store/test_histories.py",
        "tasks/test_heads.py",
        "learning/test_frozen_source.py",
    )
]


def suite(music: Path, out: Path) -> list[str]:
    pytest_alone = [sys.executable, "-m", "pytest", "-n", "2", "--rootdir", str(ROOT)]
    return [*pytest_alone, f"--basetemp={out / 'tests'}", *map(str, SUITE)]


PREDICT = Program("predict of 12 clips", lambda music, out: beatmeter("predict", music, "--json"), 12, 3.0)
PROGRAMS = [
    PREDICT,
    Program(
        "extraction of 48 clips",
        lambda music, out: beatmeter("extract", music, "--recipe", "embedded-lag", "--cache", out),
        48,
    ),
    Program("LoRA, one epoch of 24 clips", lora, 48),
    Program("demo of 36 clips", lambda music, out: beatmeter("demo", "--clips", "36", "--out", out), 0),
    Program("a part of the tests", suite, 0),
]


@contextlib.contextmanager
def busy(processes: int) -> Iterator[None]:
    """Endless loops, each in a session of its own: the scheduler shares cores among sessions first, then
    among their threads."""
    with contextlib.ExitStack() as stack:
        for _ in range(processes):
            process = stack.enter_context(
                subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True)
            )
            stack.callback(process.kill)
        yield


def test_the_part_of_the_tests_is_there() -> None:
    """The row is only run by hand, so a moved file would be noticed late."""
    assert [path.name for path in SUITE if not path.exists()] == []


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_beside_busy_processes(bench: Bench, tmp_path: Path, program: Program) -> None:
    if not bench.timed and program is not PREDICT:
        pytest.skip("one program is enough where nothing is timed")
    music, folders = tmp_path / "music", (tmp_path / f"out-{n}" for n in itertools.count())
    if program.clips:
        synthesise(
            music,
            program.clips if bench.timed else 2,
            SynthPlan(seconds=30.0 if bench.timed else 3.0),
            usable_cores(),
        )
    settled = {
        name: value
        for name, value in os.environ.items()
        if name not in (*SPIN, "KMP_BLOCKTIME", "OMP_NUM_THREADS")
    }

    def way(processes: int, environment: dict[str, str]) -> Callable[[], None]:
        def run() -> None:
            out = next(folders)
            out.mkdir()
            with busy(processes):
                done = subprocess.run(
                    program.command(music, out),
                    capture_output=True,
                    text=True,
                    env=settled | environment,
                    start_new_session=True,
                    check=False,
                )
            assert done.returncode == 0, done.stdout + done.stderr

        return run

    ways = {ALONE: way(0, {})} | {name: way(n, {}) for name, n in NEIGHBOURS.items()}
    spun = {SPINNING: way(1, SPIN)} if bench.timed and program is PREDICT else {}
    seconds = in_turn(ways | spun, ROUNDS if bench.timed else 1)
    found = bench.judge(program.name, seconds, ALONE, list(NEIGHBOURS)[-1], note=f"{usable_cores()} cores.")
    for name, processes in NEIGHBOURS.items():
        times = statistics.median(1 / ratio for ratio in found.ratios(name))
        bench.record(
            Fact("beside", f"{program.name}, {name}", times, "x its time alone", program.limit(processes))
        )
