"""Timing that a shared machine cannot fool: all ways in turn, speeds paired with named baselines, one JSON
line a result.

A benchmark is a pytest function that takes the fixture `bench` (conftest.py). On every push it runs once,
small, as a test; `make bench` runs it timed (`--benchmark-enable`) and the lines become `README.md`
(page.py).
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from beatmeter.runtime.cores import usable_cores
from beatmeter.store.timing import Call, in_turn, paired

LINES = "BEATMETER_BENCH_LINES"  # environment variable: the file that results are appended to
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Target:
    """A promise: the speed of `ours` relative to the baseline `base` is at least `least`."""

    base: str
    least: float


@dataclass(frozen=True)
class Comparison:
    """Seconds of several ways of doing the same `amount` of work (`unit`, for rates), round by round.

    Speeds are relative to `base`, more is faster: the median over rounds of the paired ratios.
    """

    part: str
    title: str
    seconds: Mapping[str, Sequence[float]]
    base: str
    ours: str
    amount: float = 0.0
    unit: str = ""
    targets: tuple[Target, ...] = ()
    note: str = ""

    def ratios(self, name: str, base: str | None = None) -> list[float]:
        """Speed of a way relative to a baseline in every round."""
        return paired(self.seconds, name, base or self.base)

    def ratio(self, name: str, base: str | None = None) -> float:
        """The median of `ratios`."""
        return statistics.median(self.ratios(name, base))

    def verdicts(self) -> list[tuple[str, bool]]:
        """Every target in words with its number, and whether it is met."""
        told = []
        for target in self.targets:
            reached = self.ratio(self.ours, target.base)
            told.append(
                (
                    f"{self.ours}: {reached:.2f} x {target.base} (target {target.least:g})",
                    reached >= target.least,
                )
            )
        return told

    def text(self) -> str:
        """A table for the terminal: median milliseconds, 10th to 90th percentile, relative speed, rate."""
        rate = f"{self.unit}/s" if self.amount else ""
        width = max(len(n) for n in self.seconds) + 2
        lines = [
            f"\n{self.part}: {self.title}",
            f"  {'':{width}}{'ms':>10}{'p10 - p90':>22}{'x ' + self.base:>16}{rate:>14}",
        ]
        for name, times in self.seconds.items():
            low, high = np.percentile(times, [10, 90]) * 1e3
            middle = statistics.median(times)
            per_second = f"{self.amount / middle:.4g}" if self.amount else ""
            spread = f"{low:.2f} - {high:.2f}"
            lines.append(
                f"  {name:{width}}{middle * 1e3:10.2f}{spread:>22}{self.ratio(name):16.3f}{per_second:>14}"
            )
        lines += [f"  {'met   ' if met else 'NOT MET'} {text}" for text, met in self.verdicts()]
        return "\n".join([*lines, *([f"  {self.note}"] if self.note else [])])


@dataclass(frozen=True)
class Growth:
    """How cost grows with work: `series` by name, one value (of `unit`) per size."""

    part: str
    title: str
    sizes: tuple[float, ...]
    size_name: str
    series: Mapping[str, Sequence[float]]
    unit: str
    note: str = ""

    def text(self) -> str:
        names = (self.size_name, *self.series)
        wide = [max(len(name), 9) + 2 for name in names]
        rows = [names, *((size, *(s[i] for s in self.series.values())) for i, size in enumerate(self.sizes))]
        lines = [f"\n{self.part}: {self.title} ({self.unit})"]
        lines += [
            "  "
            + "".join(
                f"{cell if isinstance(cell, str) else f'{cell:.4g}':>{w}}"
                for cell, w in zip(row, wide, strict=True)
            )
            for row in rows
        ]
        return "\n".join([*lines, *([f"  {self.note}"] if self.note else [])])


@dataclass(frozen=True)
class Fact:
    """One number with, if it was promised, its bound: `at_least` or `at_most` `bound`."""

    part: str
    title: str
    value: float
    unit: str
    bound: float | None = None
    kind: Literal["at least", "at most"] = "at most"
    note: str = ""

    @property
    def met(self) -> bool:
        return self.bound is None or (
            self.value <= self.bound if self.kind == "at most" else self.value >= self.bound
        )

    def text(self) -> str:
        promise = (
            "" if self.bound is None else f" ({self.kind} {self.bound:g}: {'met' if self.met else 'NOT MET'})"
        )
        return f"\n{self.part}: {self.title}: {self.value:.4g} {self.unit}{promise}" + (
            f"\n  {self.note}" if self.note else ""
        )


Result = Comparison | Growth | Fact


@dataclass
class Bench:
    """What a benchmark measures with. `timed` tells whether numbers are wanted or only that everything runs.

    `call` is pytest-benchmark's `pedantic` for `ours`, so that its own reports and comparisons between
    commits work too.
    """

    timed: bool
    part: str
    call: Callable[..., object]
    seen: bool = False

    def compare(
        self,
        title: str,
        ways: Mapping[str, Call],
        base: str,
        ours: str,
        rounds: int = 7,
        amount: float = 0.0,
        unit: str = "",
        targets: Mapping[str, float] | None = None,
        before: Callable[[str], object] | None = None,
        scale: Mapping[str, float] | None = None,
        note: str = "",
    ) -> Comparison:
        """Time all ways in turn and record what came of it; `targets` maps a baseline to the least speed of
        `ours` relative to it. A way that does only a part of the work has its seconds multiplied by its
        `scale`; say so in the note."""
        seconds = in_turn(ways, rounds if self.timed else 1, before)
        seconds = {name: [s * (scale or {}).get(name, 1.0) for s in some] for name, some in seconds.items()}
        self.plugin(ways[ours], lambda: before(ours) if before else None)
        return self.judge(title, seconds, base, ours, amount, unit, targets, note)

    def judge(
        self,
        title: str,
        seconds: Mapping[str, Sequence[float]],
        base: str,
        ours: str,
        amount: float = 0.0,
        unit: str = "",
        targets: Mapping[str, float] | None = None,
        note: str = "",
    ) -> Comparison:
        """Record seconds that were measured elsewhere."""
        promised = tuple(Target(b, least) for b, least in (targets or {}).items())
        result = Comparison(self.part, title, seconds, base, ours, amount, unit, promised, note)
        self.record(result)
        return result

    def plugin(self, way: Call, setup: Callable[[], object] = lambda: None) -> None:
        """Let pytest-benchmark time `way` too, once a test, so that its own reports and comparisons of
        commits work."""
        if not self.seen:
            self.seen = True
            self.call(way, setup=setup, rounds=1)

    def record(self, result: Result) -> None:
        """Print a result and append it to the file of lines, when timed."""
        if self.timed:
            print(result.text())
            if os.environ.get(LINES):
                with Path(os.environ[LINES]).open("a", encoding="utf-8") as file:
                    file.write(to_line(result) + "\n")


def to_line(result: Result) -> str:
    """One JSON line: the result, what kind it is, of which commit, where and when it was measured, and how
    busy the machine was then."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    load = round(os.getloadavg()[0], 1)
    about = {"commit": commit(), "machine": machine(), "time": now, "load": load}
    return json.dumps({"result": type(result).__name__, **asdict(result), **about})


def from_line(line: str) -> tuple[Result, dict[str, Any]]:
    """The result in a line, and the rest: commit (nothing in lines from before it was kept), machine, time,
    load."""
    value = json.loads(line)
    rest = {"commit": value.pop("commit", "")}
    rest |= {name: value.pop(name) for name in ("machine", "time", "load")}
    of = {"Comparison": Comparison, "Growth": Growth, "Fact": Fact}[value.pop("result")]
    if of is Comparison:
        value["targets"] = tuple(Target(**t) for t in value["targets"])
    if of is Growth:
        value["sizes"] = tuple(value["sizes"])
    return of(**value), rest


@cache
def commit(tree: Path = HERE) -> str:
    """The commit that is measured, in 10 digits; with a + when package or benchmarks differ from it; nothing
    outside of a repository."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=tree, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", ":(top)beatmeter", ":(top)benchmarks/*.py")
        return git("rev-parse", "--short=10", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


@cache
def machine() -> dict[str, str]:
    """What the numbers depend on: processor, cores, memory, accelerator, system, libraries."""
    import h5py
    import torch
    import zarr

    cpu = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    flags = next((set(line.split()) for line in _lines("/proc/cpuinfo") if line.startswith("flags")), set())
    fast = ", ".join(f for f in ("avx512_bf16", "amx_bf16", "avx512f", "avx2") if f in flags)
    memory = next(
        (int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0
    )
    return {
        "processor": f"{cpu}, {usable_cores()} cores ({fast}), {torch.get_num_threads()} threads in torch",
        "memory": f"{memory / 2**20:.0f} GiB",
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "system": f"{platform.system()} {platform.release()}",
        "versions": ", ".join(
            [
                f"Python {platform.python_version()}",
                *(f"{m.__name__} {m.__version__}" for m in (torch, np, zarr, h5py)),
            ]
        ),
    }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
