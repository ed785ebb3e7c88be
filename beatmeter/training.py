"""One run, top to bottom: dataset, split, source, fit, predictions, findings. Names no task and no regime."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from beatmeter import atomic, checkpoints, predictions
from beatmeter.config import change
from beatmeter.datasets import Dataset, open_dataset
from beatmeter.datasets.splits import split_tracks, write_split
from beatmeter.diagnostics import diagnose
from beatmeter.errors import DataError
from beatmeter.features import Source, open_source
from beatmeter.fitting import Model, fit
from beatmeter.report import summarise
from beatmeter.runs import RunFolder, provenance
from beatmeter.schema import SPLITS, FeatureSpec, Finding, Predictions, Track
from beatmeter.settings import RunConfig
from beatmeter.tasks import TASKS

Report = Callable[[str], None]
Progress = Callable[[str, int], Any]


@dataclass(frozen=True)
class Outcome:
    """What a run gave: its folder, predictions by split, findings and figures of the last split asked for."""

    folder: RunFolder
    predictions: dict[str, Predictions]
    findings: list[Finding]
    figures: dict[str, Any]


@dataclass
class Prepared:
    """A dataset ready to be learned from: usable tracks by split, and what was left out with the reason."""

    dataset: Dataset
    splits: dict[str, list[Track]]
    excluded: list[tuple[str, str, str]]  # id, path, reason
    source: Source


def prepare(config: RunConfig, device: torch.device, report: Report, progress: Progress | None, spec: FeatureSpec | None = None) -> Prepared:
    """Open the dataset, split it by groups, make the source and let it prepare every track."""
    dataset = open_dataset(Path(config.data.path), config.data, config.task.classes)
    tracks = split_tracks(dataset.tracks, config.split)
    excluded = [(e.id, str(e.path), e.reason) for e in dataset.excluded]
    if config.limit:
        tracks = [t for split in SPLITS for t in [t for t in tracks if t.split == split][: config.limit]]
    source = open_source(config, device, report, spec)
    failed = source.prepare(tracks, report, progress)
    excluded += [(t.id, str(t.path), failed[t.id]) for t in tracks if t.id in failed]
    splits = {split: [t for t in tracks if t.split == split and t.id not in failed] for split in SPLITS}
    return Prepared(dataset, splits, excluded, source)


def run(
    config: RunConfig,
    out: Path,
    device: torch.device,
    resume: bool = False,
    predict: Sequence[str] = ("val", "test"),
    report: Report = print,
    progress: Progress | None = None,
) -> Outcome:
    """Train by `config` into the run folder `out`, then evaluate the best epoch on the splits named in `predict`."""
    torch.manual_seed(config.seed)
    ready = prepare(config, device, report, progress)
    train, val = ready.splits["train"], ready.splits["val"]
    labelled = [t for t in train if t.labels]
    if not labelled or not val:
        raise DataError(
            f"{config.data.path}: {len(labelled)} labelled tracks to train on and {len(val)} to validate on",
            "See `beatmeter data check` for what was left out and why.",
        )
    folder = RunFolder.open(out) if resume else RunFolder.create(out, config)
    about = _about(config, ready, folder)
    report(_counts(ready))
    task = TASKS[config.task.name](config)
    findings = task.fit_to(labelled)
    for finding in findings:
        if finding.level == "warning":
            report(f"warning: {finding.text}")
    torch.manual_seed(config.seed)  # the head's initial weights depend on the seed alone
    model = Model(task, ready.source, task.head(ready.source.spec).to(device))
    fit(model, labelled, val, config, folder, about, resume, report, progress)
    return evaluate(model, ready, folder, predict, findings)


def evaluate_run(
    path: Path, device: torch.device, splits: Sequence[str], dataset: str | None = None, report: Report = print, progress: Progress | None = None
) -> Outcome:
    """Predict with the best epoch of a run: splits of its own data, or all labelled tracks of another dataset as `test`."""
    folder = RunFolder.open(path)
    config = folder.config()
    tensors, about = checkpoints.read(folder.best)
    if dataset is None:
        config = change(config, {"split": {"file": str(folder.split_file)}}, str(path))
    else:
        config = change(config, {"data": {"path": dataset, "extra": ()}, "limit": 0}, str(path))
    ready = prepare(config, device, report, progress, FeatureSpec.from_json(about["spec"]))
    task = TASKS[config.task.name](config)
    task.load_state(about["task"])
    model = Model(task, ready.source, task.head(ready.source.spec).to(device))
    model.load(tensors)
    if dataset is None:
        return evaluate(model, ready, folder, splits)
    everything = [t for tracks in ready.splits.values() for t in tracks if t.labels]
    return evaluate(model, replace(ready, splits={"test": everything}), folder.elsewhere(dataset), ["test"])


def evaluate(model: Model, ready: Prepared, folder: RunFolder, splits: Sequence[str], before: Sequence[Finding] = ()) -> Outcome:
    """Predict the splits, diagnose the last of them with thresholds from validation, and write everything down."""
    size, _ = model.source.step_size(model.task.config.training)
    found: dict[str, Predictions] = {}
    for split in dict.fromkeys(["val", *splits]):
        tracks = ready.splits[split]
        if not tracks:
            continue
        found[split] = model.predict(tracks, split, size, {"run": folder.path.name, "fingerprint": ready.source.spec.fingerprint})
        predictions.write(found[split], folder.predictions(split))
    last = [s for s in splits if s in found][-1] if any(s in found for s in splits) else "val"
    findings = [*before, *diagnose(found[last], validation=found.get("val"))]
    figures = {split: summarise(p) for split, p in found.items()}
    atomic.write_text(
        folder.path / "findings.json",
        json.dumps({"split": last, "figures": figures, "findings": [vars(f) for f in findings]}, indent=1) + "\n",
    )
    return Outcome(folder, found, findings, figures)


def _about(config: RunConfig, ready: Prepared, folder: RunFolder) -> dict[str, Any]:
    """What every checkpoint and `run.json` say of where a model comes from."""
    split_hash = write_split(folder.path / "split.csv", [t for tracks in ready.splits.values() for t in tracks])
    rows = io.StringIO()
    writer = csv.writer(rows, lineterminator="\n")
    writer.writerow(["id", "path", "reason"])
    writer.writerows(sorted(ready.excluded))
    atomic.write_text(folder.path / "excluded.csv", rows.getvalue())
    about = {
        "spec": ready.source.spec.to_json(),
        "fingerprint": ready.source.spec.fingerprint,
        "data": {"path": config.data.path, "kind": ready.dataset.kind, "sha256": ready.dataset.sha256},
        "split": {"sha256": split_hash, "tracks": {s: len(t) for s, t in ready.splits.items()}},
        "excluded": len(ready.excluded),
        "seed": config.seed,
        **ready.source.provenance(),
        **provenance(),
    }
    folder.write_about(about)
    return about


def _counts(ready: Prepared) -> str:
    numbers = ", ".join(f"{len(tracks)} {split}" for split, tracks in ready.splits.items())
    left = f"; {len(ready.excluded)} left out, listed in excluded.csv" if ready.excluded else ""
    return f"tracks: {numbers}{left}"


