"""One run, top to bottom: dataset, split, source, fit, predictions, findings. Names no task and no regime."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from beatmeter import atomic, checkpoints
from beatmeter.config import change
from beatmeter.datasets import Dataset, Exclusion, open_dataset
from beatmeter.datasets.splits import split_dataset, write_split
from beatmeter.display import count
from beatmeter.distributed import ALONE, Ranks
from beatmeter.errors import DataError, RunError
from beatmeter.features import Source, open_source
from beatmeter.fitting import Model, Run, fit
from beatmeter.paths import StrPath, as_names, as_path, as_paths
from beatmeter.predictions import read_predictions, write_predictions
from beatmeter.report import Evaluation, evaluation_text
from beatmeter.runs import RunFolder, provenance
from beatmeter.schema import SPLITS, FeatureSpec, Track
from beatmeter.service import FeatureService
from beatmeter.settings import RunConfig
from beatmeter.tasks import TASKS

Report = Callable[[str], None]
Progress = Callable[[str, int], Any]


@dataclass(frozen=True)
class Outcome:
    """What a run gave: its folder, and an evaluation for every split that was asked for."""

    folder: RunFolder
    evaluations: dict[str, Evaluation]


@dataclass(frozen=True)
class Prepared:
    """A dataset ready to be learned from: every track has a split and can be served; the rest is in `dataset.excluded`."""

    dataset: Dataset
    source: Source

    def split(self, name: str) -> list[Track]:
        """The labelled tracks of one split."""
        return [t for t in self.dataset.of_split(name) if t.labels]


def prepare(config: RunConfig, device: torch.device, report: Report, progress: Progress | None, spec: FeatureSpec | None = None) -> Prepared:
    """Open the dataset, split it by groups without leaks, make the source and let it prepare every track."""
    dataset = open_dataset(Path(config.data.path), config.data, config.task.classes)
    dataset = split_dataset(dataset, config.split, FeatureService(config.features, device).memory)
    if config.limit:
        dataset = replace(dataset, tracks=tuple(t for split in SPLITS for t in dataset.of_split(split)[: config.limit]))
    source = open_source(config, device, report, spec)
    failed = source.prepare(dataset.tracks, report, progress)
    dataset = dataset.without([Exclusion.of(t, "unusable", failed[t.id]) for t in dataset.tracks if t.id in failed])
    return Prepared(dataset, source)


def run(
    config: RunConfig,
    out: StrPath,
    device: torch.device,
    resume: bool = False,
    predict: str | Sequence[str] = ("val", "test"),
    report: Report = print,
    progress: Progress | None = None,
    ranks: Ranks = ALONE,
) -> Outcome:
    """Train by `config` into the run folder `out`, then evaluate the best epoch on the splits named in `predict`.

    Called by several processes (`ranks`, see `beatmeter.distributed`), they share the work and the first one writes.
    """
    torch.manual_seed(config.seed)  # an adapter's first weights, and then the head's, depend on the seed alone
    with ranks.first():
        ready = prepare(config, device, report, progress)
    begun = begin(config, ready, as_path(out), device, resume, report, ranks)
    fit(begun, ready.split("train"), ready.split("val"), resume, report, progress)
    return finish(begun, ready, as_names(predict))


def begin(
    config: RunConfig, ready: Prepared, out: Path, device: torch.device, resume: bool = False, report: Report = print, ranks: Ranks = ALONE
) -> Run:
    """Make the run folder and a fresh model. Raises DataError when there is nothing to train on or to validate with."""
    train, val = ready.split("train"), ready.split("val")
    if not train or not val:
        raise DataError(
            f"{config.data.path} has {count(len(train), 'track')} to train on and {len(val)} to validate on",
            f"See what was left out and why: beatmeter data check {config.data.path}",
        )
    folder, about = RunFolder(out), {}
    if ranks.main:
        folder = RunFolder.open(out) if resume else RunFolder.create(out, config)
        about = _about(config, ready, folder)
    report(_counts(ready, folder))
    task = TASKS[config.task.name](config)
    for finding in task.fit_to(train):
        if finding.level == "warning":
            report(f"warning: {finding.text}")
    torch.manual_seed(config.seed)
    model = Model(task, ready.source, task.head(ready.source.spec).to(device), ranks)
    if config.training.start:
        report(_start(model, Path(config.training.start)))
    return Run(model, config, folder, about)


def _start(model: Model, run: Path) -> str:
    """Give a model the best epoch of another run of the same features, classes and head."""
    tensors, about = checkpoints.read(RunFolder.open(run).best)
    model.source.spec.require_same(FeatureSpec.from_json(about["spec"]), f"the run {run}, where this one is to start")
    try:
        model.load(tensors, partly=True)
    except RuntimeError as error:
        raise RunError(
            f"the head of {run} is not of the shape of this one: {error}", "Use the same head and task settings, or no training.start."
        ) from None
    return f"starting from epoch {about['epoch']} of {run}"


def finish(run: Run, ready: Prepared, predict: Sequence[str]) -> Outcome:
    """Evaluate a trained model, and mark its run as finished."""
    outcome = evaluate(run.model, ready, run.folder, predict)
    if run.model.ranks.main:
        run.folder.write_about({"finished": datetime.now(UTC).isoformat(timespec="seconds")})
    return outcome


def evaluate_run(
    path: StrPath,
    device: torch.device,
    splits: str | Sequence[str],
    dataset: StrPath | None = None,
    report: Report = print,
    progress: Progress | None = None,
    corrections: StrPath | Sequence[StrPath] = (),
) -> Outcome:
    """Predict with the best epoch of a run: splits of its own data, or all labelled tracks of another dataset as `test`.

    `corrections` are files of corrected labels, after those of the run. What is written then is named `corrected-`, so
    that the evaluation under the run's own labels stays beside it.
    """
    folder, splits, corrections = RunFolder.open(path), as_names(splits), tuple(map(str, as_paths(corrections)))
    config = folder.config()
    tensors, about = checkpoints.read(folder.best)
    if dataset is None:
        files = (*config.data.corrections, *corrections)
        config = change(config, {"split": {"file": str(folder.split_file)}, "data": {"corrections": files}}, str(path))
    else:
        config = change(config, {"data": {"path": str(as_path(dataset)), "extra": (), "corrections": corrections}, "limit": 0}, str(path))
    ready = prepare(config, device, report, progress, FeatureSpec.from_json(about["spec"]))
    task = TASKS[config.task.name](config)
    task.load_state(about["task"])
    model = Model(task, ready.source, task.head(ready.source.spec).to(device))
    model.load(tensors)
    prefix = "corrected-" if corrections else ""
    if dataset is None:
        return evaluate(model, ready, folder, splits, prefix)
    everything = tuple(replace(t, split="test") for t in ready.dataset.tracks if t.labels)
    elsewhere = replace(ready, dataset=replace(ready.dataset, tracks=everything))
    return evaluate(model, elsewhere, folder, ["test"], f"{prefix}{ready.dataset.name}-")


def evaluate(model: Model, ready: Prepared, folder: RunFolder, splits: Sequence[str], prefix: str = "") -> Outcome:
    """Predict the splits and diagnose each, with thresholds from the run's own validation split; write everything down.

    `prefix` marks the files of predictions on other data, or under other labels, than the run's own.
    """
    size = model.source.step_size(model.task.config.training)
    meta = {"run": folder.path.name, "fingerprint": ready.source.spec.fingerprint, "loss": model.task.state()}
    for split in splits:
        if ready.split(split):
            predictions = model.predict(ready.split(split), split, size, meta)
            if model.ranks.main:
                write_predictions(folder.predictions(prefix + split), predictions)
    if not model.ranks.main:
        return Outcome(folder, {})
    validation = read_predictions(folder.predictions("val")) if folder.predictions("val").exists() else None
    found = {}
    for split in splits:
        if folder.predictions(prefix + split).exists():
            predictions = read_predictions(folder.predictions(prefix + split))
            found[split] = Evaluation.of(predictions, None if split == "val" and not prefix else validation)
            atomic.write_text(folder.evaluation(prefix + split), json.dumps(found[split].to_json(), indent=1) + "\n")
            atomic.write_text(folder.evaluation(prefix + split).with_suffix(".txt"), evaluation_text(found[split]))
    return Outcome(folder, found)


def _about(config: RunConfig, ready: Prepared, folder: RunFolder) -> dict[str, Any]:
    """What every checkpoint and `run.json` say of where a model comes from."""
    rows = io.StringIO()
    writer = csv.writer(rows, lineterminator="\n")
    writer.writerow(["id", "path", "row", "kind", "reason", "split", "source"])
    writer.writerows([e.id, e.path, e.row, e.kind, e.reason, e.split or "", e.source] for e in ready.dataset.excluded)
    atomic.write_text(folder.excluded_file, rows.getvalue())
    before = folder.about()
    about = {
        "spec": ready.source.spec.to_json(),
        "fingerprint": ready.source.spec.fingerprint,
        "data": {
            "path": config.data.path,
            "kind": ready.dataset.kind,
            "sha256": ready.dataset.sha256,
            "corrections": list(ready.dataset.corrections),
        },
        "split": {"sha256": write_split(folder.split_file, ready.dataset.tracks), "tracks": {s: len(ready.split(s)) for s in SPLITS}},
        "excluded": dict(Counter(e.kind for e in ready.dataset.excluded)),
        "seed": config.seed,
        **ready.source.provenance(),
        **provenance(),
    }
    for name in ("fingerprint", "data", "split"):  # a resumed run is the same run, or none
        if name in before and before[name] != json.loads(json.dumps(about[name])):
            what = {"fingerprint": "the features", "data": "the data set or its corrections", "split": "the usable tracks or their splits"}[name]
            raise RunError(f"{what} changed since {folder.path} was begun", "Put back what it was begun with, or train anew with another --out.")
    folder.write_about(about)
    return about


def _counts(ready: Prepared, folder: RunFolder) -> str:
    numbers = ", ".join(f"{len(ready.split(split))} {split}" for split in SPLITS)
    left = Counter(e.kind for e in ready.dataset.excluded)
    kinds = ", ".join(f"{n} {kind}" for kind, n in left.most_common())
    corrected = sum(c["relabelled"] for c in ready.dataset.corrections)
    numbers += f", {count(corrected, 'label')} corrected" if ready.dataset.corrections else ""
    return f"tracks: {numbers}" + (f"; {sum(left.values())} left out ({kinds}), listed in {folder.excluded_file}" if left else "")
