"""The whole line on synthetic music, offline: data, features, frozen heads, LoRA, one evaluation, one
answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch

from beatmeter.datasets.synthetic import SynthPlan, synthesise
from beatmeter.errors import BeatmeterError
from beatmeter.evaluation.report import Evaluation
from beatmeter.learning.training import Outcome, run
from beatmeter.runtime.config import change
from beatmeter.runtime.display import count
from beatmeter.runtime.progress import SILENT, Reporter
from beatmeter.serving.answer import Answer
from beatmeter.serving.predictor import Predictor
from beatmeter.settings import RunConfig

CLIPS = 180
SECONDS = 20.0


@dataclass(frozen=True)
class Entry:
    """One row of the table: a name, the recipe's settings, and what came of it."""

    name: str
    outcome: Outcome
    seconds: float

    @property
    def test(self) -> Evaluation:
        return self.of("test")

    def of(self, split: str) -> Evaluation:
        """The evaluation of a split; every row learns meter."""
        found = self.outcome.evaluations[split]
        assert isinstance(found, Evaluation)
        return found


def demo(
    out: Path,
    configs: Sequence[tuple[str, RunConfig]],
    device: torch.device,
    clips: int = CLIPS,
    starts: Mapping[str, str] = MappingProxyType({}),
    seconds: float = SECONDS,
    jobs: int = 1,
    report: Callable[[str], None] = print,
    progress: Reporter = SILENT,
) -> tuple[list[Entry], tuple[Path, Answer]]:
    """Make `clips` synthetic clips in `out`/data (kept when they are there), train and evaluate every named
    config on them, and ask the best by validation about one test clip. `starts` names for a config the one
    whose head it begins with."""
    data = out / "data"
    with progress.track("synthesising music", clips) as tick:
        made = synthesise(data, clips, SynthPlan(seconds=seconds), jobs, tick)
    report(f"music: {count(made.made, 'clip')} made, {made.kept} kept, {seconds:g} s each, in {data}")

    def brief(line: str) -> None:
        if not line.startswith("epoch "):  # they are in the run's epochs.jsonl, and too many to read here
            report(line)

    entries: list[Entry] = []
    for name, config in configs:
        report(f"\n{name}")
        began = time.monotonic()
        if name in starts:
            config = change(
                config,
                {
                    "training": {
                        "start": str(next(e for e in entries if e.name == starts[name]).outcome.folder.path)
                    }
                },
            )
        outcome = run(config, unused(out / "runs", name), device, report=brief, progress=progress)
        entries.append(Entry(name, outcome, time.monotonic() - began))
        report(f"{count(len(outcome.folder.read_log()), 'epoch')} in {outcome.folder.epochs}")
    best = max(entries, key=lambda e: e.of("val").measures.overall["balanced_accuracy"].value)
    clip = data / "audio" / f"{clips - 1:06d}.flac"
    _, answer = next(Predictor.load(best.outcome.folder.path, device).predict_files([clip]))
    if isinstance(answer, BeatmeterError):
        raise answer
    return entries, (clip, answer)


def unused(folder: Path, name: str) -> Path:
    """`folder`/`name`, numbered when it is taken: nothing is overwritten."""
    path, n = folder / name, 1
    while path.exists():
        n += 1
        path = folder / f"{name}-{n}"
    return path


def table(entries: Sequence[Entry]) -> str:
    """One row per run: test accuracy with its interval, chance, and where it lies."""
    from beatmeter.evaluation.report.text import percents
    from beatmeter.evaluation.report.text import table as columns

    rows = []
    for e in entries:
        overall = e.test.measures.overall
        rows.append(
            [
                e.name,
                percents(overall["accuracy"]),
                percents(overall["balanced_accuracy"]),
                f"{overall['primary_ece'].value:.2f}",
                str(len(e.test.predictions)),
                f"{e.seconds:.0f}",
                e.test.verdict,
                str(e.outcome.folder.path),
            ]
        )
    header = ["run", "test accuracy %", "balanced %", "ECE", "clips", "s", "verdict", "folder"]
    return "\n".join(columns(header, rows))
