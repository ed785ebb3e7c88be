"""One run, top to bottom: dataset, split, source, fit, predictions, findings. Names no task and no regime."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from beatmeter.datasets import Dataset, Exclusion
from beatmeter.datasets.corrections import corrected
from beatmeter.datasets.splits import split_dataset, write_split
from beatmeter.errors import BeatmeterError, DataError, RunError, shown
from beatmeter.evaluation.records import read_records, write_records
from beatmeter.evaluation.report import Assessment, Evaluation, text_of
from beatmeter.evaluation.runs import RunFolder, provenance
from beatmeter.features.service import memory_in
from beatmeter.learning.loop import Run, fit
from beatmeter.learning.model import Model
from beatmeter.learning.restoring import Restored, restore
from beatmeter.learning.sources import Source, open_source
from beatmeter.learning.starting import start
from beatmeter.learning.trackers import Trackers, require_trackers, results, wanted
from beatmeter.runtime import artifacts, atomic
from beatmeter.runtime.artifacts import named
from beatmeter.runtime.config import change
from beatmeter.runtime.display import count
from beatmeter.runtime.distributed import ALONE, Ranks
from beatmeter.runtime.locations import Locations
from beatmeter.runtime.paths import StrPath, as_names, as_path, as_paths
from beatmeter.runtime.progress import SILENT, Reporter
from beatmeter.schema import SPLITS, Curves, FeatureSpec, Items, Track
from beatmeter.settings import RunConfig
from beatmeter.tasks import Task, chosen_by, open_task

Report = Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    """What a run gave: its folder, and an evaluation for every split that was asked for."""

    folder: RunFolder
    evaluations: dict[str, Evaluation | Assessment]


@dataclass(frozen=True)
class Prepared:
    """A dataset ready to be learned from: every track has a split and can be served; the rest is in
    `dataset.excluded`."""

    dataset: Dataset
    source: Source
    task: Task

    def split(self, name: str) -> list[Track]:
        """The tracks of one split that the task can use."""
        return [t for t in self.dataset.of_split(name) if self.task.usable(t) is None]


def prepare(
    config: RunConfig,
    device: torch.device,
    report: Report,
    progress: Reporter,
    saved: Restored | None = None,
) -> Prepared:
    """Open the dataset, split it by groups without leaks, make the source and let it prepare every track.
    `saved` is a run that exists; without it the train split settles the task."""
    if saved is None:
        require_trackers(wanted(config.training))
    task = open_task(config) if saved is None else saved.task
    chosen_by(task, config.training.select)
    dataset = task.open(config.data)
    memory = memory_in(config.features.cache)
    if memory is not None and not memory.exists():
        report(f"new cache: {memory}")
    dataset = split_dataset(dataset, config.split, memory)
    if config.limit:
        dataset = replace(
            dataset, tracks=tuple(t for split in SPLITS for t in dataset.of_split(split)[: config.limit])
        )
    task = task.settled(dataset.of_split("train")) if saved is None else task
    unknown = [(t, reason) for t in dataset.tracks if (reason := task.usable(t)) is not None]
    dataset = dataset.without([Exclusion.of(t, "label", reason) for t, reason in unknown])
    if saved is None:
        source = open_source(config, device, report)
    else:
        source = open_source(config, device, report, saved.spec, shown(saved.folder.best))
    failed = source.prepare(dataset.tracks, report, progress)
    dataset = dataset.without(
        [Exclusion.of(t, "unusable", failed[t.id]) for t in dataset.tracks if t.id in failed]
    )
    return Prepared(dataset, source, task)


def run(
    config: RunConfig,
    out: StrPath,
    device: torch.device,
    resume: bool = False,
    predict: str | Sequence[str] = ("val", "test"),
    report: Report = print,
    progress: Reporter = SILENT,
    ranks: Ranks = ALONE,
) -> Outcome:
    """Train by `config` into the run folder `out`, then evaluate the best epoch on the splits named in
    `predict`.

    Called by several processes (`ranks`, see `beatmeter.runtime.distributed`), they share the work and the
    first one writes. Until the end no other process can train in `out`: RunError says who does.
    """
    out = as_path(out)
    with RunFolder(out).held(report) if ranks.main else nullcontext():
        if ranks.main and not resume:
            RunFolder(out).require_new()  # before hours of extraction
        torch.manual_seed(
            config.seed
        )  # an adapter's first weights, and then the head's, depend on the seed alone
        with ranks.first():
            ready = prepare(config, device, report, progress)
        begun = begin(config, ready, out, device, resume, report, ranks)
        fit(begun, ready.split("train"), ready.split("val"), resume, report, progress)
        return finish(begun, ready, as_names(predict), report)


def begin(
    config: RunConfig,
    ready: Prepared,
    out: Path,
    device: torch.device,
    resume: bool = False,
    report: Report = print,
    ranks: Ranks = ALONE,
) -> Run:
    """Make the run folder, which the caller holds, and a fresh model. Raises DataError when there is nothing
    to train on or to validate with."""
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
    task = open_task(config).settled(
        train
    )  # of this run: cells of a sweep share what is prepared, not their settings
    state = task.study(train)
    for finding in task.remarks(state, train):
        if finding.level == "warning":
            report(f"warning: {finding.text}")
    torch.manual_seed(config.seed)
    model = Model(task, state, ready.source, task.head(ready.source.spec).to(device), ranks)
    if config.training.start and not (resume and os.path.lexists(folder.last)):
        report(start(model, Path(config.training.start), train))
    return Run(model, config, folder, about)


def finish(run: Run, ready: Prepared, predict: Sequence[str], report: Report = print) -> Outcome:
    """Evaluate a trained model, and mark its run as finished."""
    outcome = evaluate(run.model, ready, run.folder, predict)
    if run.model.ranks.main:
        run.folder.write_about({"finished": datetime.now(UTC).isoformat(timespec="seconds")})
        if run.config.training.trackers:
            trackers = Trackers(run.folder, run.config.training.trackers, report=report)
            trackers.summary(results(run.folder))
            trackers.close(finished=True)
    return outcome


def evaluate_run(
    path: StrPath,
    device: torch.device,
    splits: str | Sequence[str],
    dataset: StrPath | None = None,
    report: Report = print,
    progress: Reporter = SILENT,
    corrections: StrPath | Sequence[StrPath] = (),
    cache: StrPath | None = None,
) -> Outcome:
    """Predict with the best epoch of a run: splits of its own data, or all labelled tracks of another dataset
    as `test`. A `dataset` that is the run's own by its hash, moved perhaps, is taken as that: its training
    tracks test nothing.

    `cache` replaces the run's own. `corrections` are files of corrected labels or beats, after those of the
    run. What is written then is named `corrected-`, so that the evaluation under the run's own labels stays
    beside it.
    """
    saved, splits, corrections = (
        restore(as_path(path)),
        as_names(splits),
        tuple(map(str, as_paths(corrections))),
    )
    dataset = None if dataset is None else str(as_path(dataset))
    folder, config = (
        saved.folder,
        saved.folder.resolved(dataset, None if cache is None else str(as_path(cache))),
    )
    if dataset is not None and _is_own(folder, config, saved.task):
        report(f"{dataset} is the data set of this run: its own splits are used")
        dataset = None
    folder.say_cache(config, report)
    if dataset is None:
        folder.require_data(config, f"beatmeter evaluate {path} --data DIR")
        folder.require_split()
        files = (*config.data.corrections, *corrections)
        config = change(
            config, {"split": {"file": str(folder.split_file)}, "data": {"corrections": files}}, str(path)
        )
    else:
        config = change(
            config,
            {"data": {"path": dataset, "extra": (), "corrections": corrections}, "limit": 0},
            str(path),
        )
    head = saved.head(device)
    ready = prepare(config, device, report, progress, saved)
    model = Model(saved.task, saved.state, ready.source, head)
    ready.source.standardise(saved.standardiser)
    with named(folder.best):
        model.source.load_adapter_state(saved.adapter)
    prefix = "corrected-" if corrections else ""
    if dataset is None:
        return evaluate(model, ready, folder, splits, prefix)
    everything = tuple(replace(t, split="test") for t in ready.dataset.tracks if ready.task.usable(t) is None)
    elsewhere = replace(ready, dataset=replace(ready.dataset, tracks=everything))
    return evaluate(model, elsewhere, folder, ["test"], f"{prefix}{ready.dataset.name}-")


def _is_own(folder: RunFolder, config: RunConfig, task: Task) -> bool:
    """Whether the data set of `config` is the one that the run in `folder` was trained on."""
    known = folder.about().get("data", {}).get("sha256")
    try:
        return known is not None and task.open(replace(config.data, corrections=())).sha256 == known
    except BeatmeterError:
        return False


def evaluate(
    model: Model, ready: Prepared, folder: RunFolder, splits: Sequence[str], prefix: str = ""
) -> Outcome:
    """Predict the splits and diagnose each, with thresholds from the run's own validation split; write
    everything down.

    `prefix` marks the files of predictions on other data, or under other labels, than the run's own.
    """
    size = model.source.step_size(model.task.config.training)
    meta = {"run": folder.path.name, "fingerprint": ready.source.spec.fingerprint, "loss": model.state}
    for split in splits:
        if ready.split(split):
            predictions = model.predict(ready.split(split), split, size, meta)
            if model.ranks.main:
                _write(model.task, folder, prefix + split, predictions)
    if not model.ranks.main:
        return Outcome(folder, {})
    validation = read_records(folder.predictions("val")) if folder.predictions("val").exists() else None
    found = {}
    for split in splits:
        if folder.predictions(prefix + split).exists():
            predictions = read_records(folder.predictions(prefix + split))
            found[split] = model.task.evaluate(
                predictions, None if split == "val" and not prefix else validation
            )
            artifacts.write_json(folder.evaluation(prefix + split), found[split].to_json())
            atomic.write_text(folder.evaluation(prefix + split).with_suffix(".txt"), text_of(found[split]))
    return Outcome(folder, found)


def _write(task: Task, folder: RunFolder, name: str, predictions: Items) -> None:
    """Write what was predicted; of curves also what is decoded from them, which is what everything else
    reads."""
    if not isinstance(predictions, Curves):
        write_records(folder.predictions(name), predictions)
        return
    write_records(folder.curves(name), predictions)
    own = folder.curves("val")
    validation = read_records(own) if own.exists() and name != "val" else None
    write_records(folder.predictions(name), task.answers(predictions, validation))


def _about(config: RunConfig, ready: Prepared, folder: RunFolder) -> dict[str, Any]:
    """What every checkpoint and `run.json` say of where a model comes from."""
    rows = io.StringIO()
    writer = csv.writer(rows, lineterminator="\n")
    writer.writerow(["id", "path", "row", "kind", "reason", "split", "source"])
    writer.writerows(
        [e.id, e.path, e.row, e.kind, e.reason, e.split or "", e.source] for e in ready.dataset.excluded
    )
    atomic.write_text(folder.excluded_file, rows.getvalue())
    before = folder.about()
    about: dict[str, Any] = {
        "places": before.get("places") or Locations.now(folder.path).to_json(),
        "spec": ready.source.spec.to_json(),
        "fingerprint": ready.source.spec.fingerprint,
        "data": {
            "path": config.data.path,
            "kind": ready.dataset.kind,
            "sha256": ready.dataset.sha256,
            "corrections": list(ready.dataset.corrections),
        },
        "split": {
            "sha256": write_split(folder.split_file, ready.dataset.tracks),
            "tracks": {s: len(ready.split(s)) for s in SPLITS},
        },
        "excluded": dict(Counter(e.kind for e in ready.dataset.excluded)),
        "seed": config.seed,
        **ready.source.provenance(),
        **provenance(),
    }
    for name, what in (
        ("spec", "the features"),
        ("data", "the data set or its corrections"),
        ("split", "the usable tracks or their splits"),
    ):
        if name in before and _content(before[name]) != _content(
            about[name]
        ):  # a resumed run is the same run, or none
            if name == "spec" and ready.source.spec.agrees(FeatureSpec.from_json(before[name])):
                continue  # begun before all that is recorded today was
            raise RunError(
                f"{what} changed since {folder.path} was begun",
                "Put back what it was begun with, or train anew with another --out.",
            )
    about["data"]["path"] = before.get("data", {}).get("path", config.data.path)
    folder.write_about(about)
    return about


def _content(value: Any) -> Any:
    """A value of `run.json` without the names of files, which may have moved."""
    if isinstance(value, Mapping):
        return {key: _content(item) for key, item in value.items() if key not in ("path", "file")}
    return [_content(item) for item in value] if isinstance(value, list | tuple) else value


def _counts(ready: Prepared, folder: RunFolder) -> str:
    numbers = ", ".join(f"{len(ready.split(split))} {split}" for split in SPLITS)
    left = Counter(e.kind for e in ready.dataset.excluded)
    kinds = ", ".join(f"{n} {kind}" for kind, n in left.most_common())
    numbers += f", {corrected(ready.dataset.corrections)}" if ready.dataset.corrections else ""
    return f"tracks: {numbers}" + (
        f"; {sum(left.values())} left out ({kinds}), listed in {folder.excluded_file}" if left else ""
    )
