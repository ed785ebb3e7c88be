"""The controlled comparison: trained systems beside baselines, on the run's own test split and on other data,
broken down."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from beatmeter.datasets import Dataset
from beatmeter.datasets.splits import read_split
from beatmeter.evaluation.comparison.compare import Comparison, SystemMetric, compare
from beatmeter.evaluation.predictions import read_predictions, write_predictions
from beatmeter.evaluation.runs import RunFolder
from beatmeter.experiments.baselines import BASELINES, Baseline
from beatmeter.learning.training import evaluate_run
from beatmeter.runtime.progress import SILENT, Reporter
from beatmeter.schema import ClassPredictions, Track

Report = Callable[[str], None]

OWN = "test"  # the split of the training data's own clips
BREAKDOWN = ("class", "kind", "source")
FEWEST = 5  # items of a part that are worth a figure


@dataclass(frozen=True)
class Part:
    """Some items of a set: those whose `column` is `value`; accuracy by system, with intervals."""

    column: str
    value: str
    items: int
    accuracy: Mapping[str, SystemMetric]


@dataclass(frozen=True)
class OnSet:
    """All systems on one test set: every metric, tests against the first system, and accuracy in parts of the
    set."""

    name: str
    comparison: Comparison
    parts: tuple[Part, ...]

    @property
    def items(self) -> int:
        return len(self.comparison.systems[0].runs[0])

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        parts = [
            {
                "column": p.column,
                "value": p.value,
                "items": p.items,
                "accuracy": {n: [m.mean.value, m.mean.low, m.mean.high] for n, m in p.accuracy.items()},
            }
            for p in self.parts
        ]
        return {"set": self.name, **self.comparison.to_json(), "parts": parts}


def predict_elsewhere(
    runs: Sequence[RunFolder], data: Path, other: Dataset, device: torch.device, report: Report = print
) -> None:
    """Predict the labelled tracks of another dataset, `other` at the path `data`, with every run that has not
    done so yet."""
    for run in runs:
        if not _elsewhere(run, other).exists():
            evaluate_run(run.path, device, [OWN], str(data), lambda line: None)
            report(f"{run.path.name}: {data}")


def run_baselines(
    like: RunFolder,
    own: Dataset,
    others: Sequence[Dataset],
    classes: Sequence[str],
    out: Path,
    jobs: int,
    progress: Reporter = SILENT,
) -> dict[str, dict[str, ClassPredictions]]:
    """Fit every baseline on the train split of the run `like`, and predict what it predicted; by baseline and
    set, kept in `out`/baselines."""
    split = read_split(like.split_file)
    train = [t for t in own.tracks if split.get(t.id) == "train"]
    sets = {OWN: _predicted(like.predictions(OWN), own)} | {
        other.name: _predicted(_elsewhere(like, other), other) for other in others
    }
    found: dict[str, dict[str, ClassPredictions]] = {}
    for name, kind in BASELINES.items():
        files = {s: out / "baselines" / name / "predictions" / f"{s}.csv" for s in sets}
        todo = [s for s in sets if not files[s].exists()]
        if todo:
            baseline = _fitted(kind(classes), train, jobs, progress)
            for s in todo:
                with progress.track(f"{name} on {s}", len(sets[s])) as tick:
                    write_predictions(files[s], baseline.predictions(sets[s], OWN, jobs, tick))
        found[name] = {s: read_predictions(file) for s, file in files.items()}
    return found


def _predicted(file: Path, dataset: Dataset) -> list[Track]:
    """The tracks of a dataset that a predictions file is about: those whose audio can be used."""
    ids = set(read_predictions(file).ids)
    return [t for t in dataset.tracks if t.id in ids]


def _fitted(baseline: Baseline, train: Sequence[Track], jobs: int, progress: Reporter) -> Baseline:
    with progress.track(f"fitting {type(baseline).__name__.lower()}", len(train)) as tick:
        baseline.fit(train, jobs, tick)
    return baseline


def judge(
    runs: Mapping[str, Sequence[RunFolder]],
    baselines: Mapping[str, Mapping[str, ClassPredictions]],
    own: Dataset,
    others: Sequence[Dataset],
    metrics: Sequence[str],
    first: str,
) -> tuple[OnSet, ...]:
    """Every system on every set. `first` is the system that the others are tested against."""
    found = []
    for dataset in (own, *others):
        elsewhere = dataset is not own
        name = dataset.name if elsewhere else OWN
        systems = {
            s: [read_predictions(_elsewhere(r, dataset) if elsewhere else r.predictions(OWN)) for r in own]
            for s, own in runs.items()
            if own
        }
        systems |= {s: [by_set[name]] for s, by_set in baselines.items()}
        systems = {first: systems.pop(first), **systems}
        comparison = compare(systems, metrics, common=True)
        tracks = {t.id: t for t in dataset.tracks}
        aligned = {system.name: system.runs for system in comparison.systems}
        found.append(
            OnSet(
                name if elsewhere else f"{dataset.name} test split",
                comparison,
                tuple(_parts(aligned, tracks)),
            )
        )
    return tuple(found)


def _parts(systems: Mapping[str, Sequence[ClassPredictions]], tracks: Mapping[str, Track]) -> list[Part]:
    """The set cut by class, kind and source, where there is more than one value."""
    items = next(iter(systems.values()))[0]
    parts = []
    for column in BREAKDOWN:
        values = np.array([_value(column, tracks[id]) for id in items.ids])
        names = [v for v in dict.fromkeys(values) if v and (values == v).sum() >= FEWEST]
        if column == "class":
            names = [c for c in items.classes if c in names]
        for value in names if len(names) > 1 else ():
            chosen = values == value
            part = compare(
                {name: [p.take(chosen) for p in own] for name, own in systems.items()},
                ("accuracy",),
                replicates=500,
            )
            parts.append(
                Part(
                    column,
                    value,
                    int(chosen.sum()),
                    {name: m["accuracy"] for name, m in part.metrics.items()},
                )
            )
    return parts


def _value(column: str, track: Track) -> str:
    if column == "class":
        return track.primary or ""
    return track.source if column == "source" else str(track.extra.get(column, ""))


def _elsewhere(run: RunFolder, dataset: Dataset) -> Path:
    """Where `evaluate_run` keeps predictions of other data."""
    return run.predictions(f"{dataset.name}-{OWN}")


def to_csv(sets: Sequence[OnSet]) -> str:
    """One line for every set, part, system and metric: the mean over seeds with its interval."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["set", "part", "items", "system", "seeds", "metric", "mean", "low", "high", "spread"])
    for s in sets:
        seeds = {system.name: system.seeds for system in s.comparison.systems}
        for name, by_metric in s.comparison.metrics.items():
            for metric, m in by_metric.items():
                writer.writerow([s.name, "all", s.items, name, seeds[name], metric, *_numbers(m)])
        for part in s.parts:
            for name, m in part.accuracy.items():
                writer.writerow(
                    [
                        s.name,
                        f"{part.column}={part.value}",
                        part.items,
                        name,
                        seeds[name],
                        "accuracy",
                        *_numbers(m),
                    ]
                )
    return text.getvalue()


def _numbers(m: SystemMetric) -> list[str]:
    return [f"{x:.4f}" for x in (m.mean.value, m.mean.low, m.mean.high, m.spread)]
