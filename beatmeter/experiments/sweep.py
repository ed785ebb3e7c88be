"""Sweeps: many runs of one question. Frozen ones share features and train together; what is finished is never
done twice.

Every cell ends as an ordinary run folder. Run the same sweep again and it goes on where it was: finished
cells are kept, those that were interrupted are resumed from one preparation (on threads, not stacked: each is
at an epoch of its own), the others start. If one cell fails, the others still finish, and the next sweep
tries it again.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from beatmeter.errors import RunError
from beatmeter.evaluation.metrics import balanced_accuracy
from beatmeter.evaluation.metrics.families import metrics_of
from beatmeter.evaluation.records import read_records
from beatmeter.evaluation.report.text import table
from beatmeter.evaluation.runs import RunFolder
from beatmeter.experiments.cells import Cell, same_but
from beatmeter.features.poolings import pooling_class
from beatmeter.learning.in_step import InStep
from beatmeter.learning.loop import Run, fit, fit_standardisation, read_by
from beatmeter.learning.stacked import Stack
from beatmeter.learning.together import FREE, fit_together
from beatmeter.learning.training import Report, begin, finish, prepare, run
from beatmeter.runtime.display import count
from beatmeter.runtime.progress import SILENT, Reporter, Tick, untold
from beatmeter.schema import ClassPredictions, Track
from beatmeter.settings import RunConfig

SMALL = 80_000  # parameters up to which a CPU is faster with stacked heads; see benchmarks/bench_training.py


class FailedRunsError(RunError):
    """Some of several runs failed: why, by run folder. The others have come to their end."""

    def __init__(self, failed: Mapping[Path, RunError], of: int) -> None:
        self.failed = dict(failed)
        named = "; ".join(f"{path.name}: {e.what}" for path, e in failed.items())
        hints = dict.fromkeys(
            [
                *(e.hint for e in failed.values() if e.hint),
                "What is finished is kept; run again to try the others again.",
            ]
        )
        super().__init__(f"{len(failed)} of {count(of, 'run')} failed: {named}", " ".join(hints))


def run_cells(
    cells: Sequence[Cell],
    folder: Path,
    device: torch.device,
    predict: Sequence[str] = ("val", "test"),
    report: Report = print,
    progress: Reporter = SILENT,
) -> list[Path]:
    """Bring every cell to its end in `folder`/`cell.name`; the run folders, in the order of the cells.

    Raises RunError when a folder holds a run of other settings, and at the end FailedRunsError when some of
    several failed.
    """
    paths = [folder / cell.name for cell in cells]
    todo: list[tuple[Cell, Path]] = []
    for cell, path in zip(cells, paths, strict=True):
        state = state_of(path, cell.config)
        if state != "finished":
            todo.append((cell, path))
        if state == "begun":
            report(f"{path.name}: resuming")
    if len(cells) > 1:
        report(
            f"{count(len(cells), 'run')} in {folder}: {len(cells) - len(todo)} finished, {len(todo)} to do"
        )
    failed: dict[Path, RunError] = {}
    for group in together(todo):
        if group[0][0].config.regime == "frozen":
            failed |= _run_group(group, device, predict, report, progress)
            continue
        for cell, path in group:
            report(f"\n{cell.name}")
            try:
                run(
                    cell.config, path, device, RunFolder(path).config_file.exists(), predict, report, progress
                )
            except RunError as error:
                failed[path] = error
                report(f"{path.name}: failed: {error.what}")
    if failed:
        first = next(iter(failed.values()))
        if len(cells) == 1:
            raise first
        raise FailedRunsError(failed, len(cells)) from first
    return paths


def state_of(path: Path, config: RunConfig) -> str:
    """`finished`, `begun` (a checkpoint lies there) or `new`. Raises RunError when the folder holds a run of
    other settings."""
    folder = RunFolder(path)
    if not folder.config_file.exists():
        return "new"
    if folder.config() != config:
        raise RunError(f"{path} holds a run with other settings", "Choose another --out.")
    return "finished" if folder.finished else "begun" if os.path.lexists(folder.last) else "new"


def together(todo: Sequence[tuple[Cell, Path]]) -> list[list[tuple[Cell, Path]]]:
    """Groups of cells that read the same features with heads of the same shape."""
    groups: dict[str, list[tuple[Cell, Path]]] = {}
    for cell, path in todo:
        groups.setdefault(same_but(cell.config, FREE), []).append((cell, path))
    return list(groups.values())


def _run_group(
    group: Sequence[tuple[Cell, Path]],
    device: torch.device,
    predict: Sequence[str],
    report: Report,
    progress: Reporter,
) -> dict[Path, RunError]:
    """Frozen cells from one preparation, those that have begun first; why some failed, by run folder. Cells
    that another process trains, or has finished by now, are left to it."""
    failed: dict[Path, RunError] = {}
    with ExitStack() as stack:
        mine = []
        for cell, path in group:
            try:
                stack.enter_context(RunFolder(path).held(report))
            except RunError as error:
                failed[path] = error
                report(f"{path.name}: {error.what}")
                continue
            if state_of(path, cell.config) != "finished":
                mine.append((cell, path))
        return failed | (_train_group(mine, device, predict, report, progress) if mine else {})


def _train_group(
    group: Sequence[tuple[Cell, Path]],
    device: torch.device,
    predict: Sequence[str],
    report: Report,
    progress: Reporter,
) -> dict[Path, RunError]:
    """`_run_group`, of cells whose folders are held."""
    ready = prepare(group[0][0].config, device, report, progress)
    begun = [state_of(path, cell.config) == "begun" for cell, path in group]
    runs = [
        begin(
            cell.config,
            ready,
            path,
            device,
            RunFolder(path).config_file.exists(),
            report if i == 0 else _silent,
        )
        for i, (cell, path) in enumerate(group)
    ]
    failed: dict[Path, RunError] = {}
    with progress.track("epochs", sum(r.config.training.epochs for r in runs)) as tick:
        for resume in (True, False):
            part = [one for one, has in zip(runs, begun, strict=True) if has is resume]
            try:
                if part:
                    fit_many(part, ready.split("train"), ready.split("val"), report, tick, resume=resume)
            except FailedRunsError as error:
                failed |= error.failed
    for one in runs:
        try:
            if one.folder.path not in failed:
                finish(one, ready, predict, report)
        except RunError as error:
            failed[one.folder.path] = error
    return failed


def fit_many(
    runs: Sequence[Run],
    train: Sequence[Track],
    val: Sequence[Track],
    report: Report = print,
    tick: Tick = untold,
    stack: bool | None = None,
    resume: bool = False,
) -> None:
    """Train runs that share a source, each as if alone. On a GPU, and where heads are small, they are stacked
    into one. On a CPU, where large products are as fast one by one, they are spread over its cores: those
    that read the same in every step go in step, others alone, and so do those that `resume`. `tick(n)`: n
    more epochs are over. Raises FailedRunsError once all are over, when some failed."""
    model = runs[0].model
    able = (
        len(runs) > 1
        and not resume
        and not any(r.config.training.start for r in runs)
        and model.task.separable
        and all(pooling_class(model.source.spec[name]).per_track for name in model.task.reads)
        and all(hasattr(model.head, name) for name in ("mix", "readout", "poolings"))
    )
    if stack is None:
        small = sum(p.numel() for p in model.head.parameters()) <= SMALL
        stack = able and (model.device.type != "cpu" or small)
    failed = (
        fit_together(runs, train, val, Stack, report, tick)
        if stack
        else _fit_on_threads(runs, train, val, report, tick, resume, able)
    )
    for path, error in failed.items():
        report(f"{path.name}: failed: {error.what}")
    if failed:
        raise FailedRunsError(failed, len(runs))


def _fit_on_threads(
    runs: Sequence[Run],
    train: Sequence[Track],
    val: Sequence[Track],
    report: Report,
    tick: Tick,
    resume: bool,
    in_step: bool,
) -> dict[Path, RunError]:
    """As many parts at a time as there are cores: each run by itself, or where they can go `in_step`, some
    that read the same; why some failed, by run folder."""
    model = runs[0].model
    if (
        runs[0].config.head.standardise and not runs[0].config.training.start and not resume
    ):  # once, before the threads
        fit_standardisation(model, train, model.source.step_size(runs[0].config.training))
    cores, stop = torch.get_num_threads(), threading.Event()
    parts = _parts(runs, cores) if in_step else [[run] for run in runs]
    workers = min(len(parts), cores)
    failed: dict[Path, RunError] = {}

    def one(part: Sequence[Run]) -> list[str]:
        torch.set_num_threads(max(1, cores // workers))
        if len(part) > 1:
            lines: list[str] = []
            heed = partial(_heed, stop)
            failed.update(fit_together(part, train, val, InStep, lines.append, tick, heed))
            return lines
        (each,) = part
        try:
            best = fit(each, train, val, resume, report=_silent, progress=_Epochs(stop, tick))
        except RunError as error:
            failed[each.folder.path] = error
            return []
        figures = each.model.task.epoch_line(best["val"])
        return [f"{each.folder.path.name}: best epoch {best['epoch']}: {figures}"]

    try:
        with ThreadPoolExecutor(workers) as pool:
            # alone, in this thread: OpenMP's threads sleep at every barrier of a second team, which halves
            # the speed
            try:
                for lines in map(one, parts) if workers == 1 else pool.map(one, parts):
                    for line in lines:
                        report(line)
            except BaseException:
                stop.set()
                raise
    finally:
        torch.set_num_threads(cores)
    return {each.folder.path: failed[each.folder.path] for each in runs if each.folder.path in failed}


def _parts(runs: Sequence[Run], cores: int) -> list[list[Run]]:
    """Runs that read the same tracks in every step, each such group in as many parts as there are cores."""
    groups: dict[tuple[int, int], list[Run]] = {}
    for each in runs:
        groups.setdefault(read_by(each), []).append(each)
    found = []
    for group in groups.values():
        size = -(-len(group) // cores)
        found += [group[at : at + size] for at in range(0, len(group), size)]
    return found


def _heed(stop: threading.Event) -> None:
    """End this thread where the others ended."""
    if stop.is_set():
        raise KeyboardInterrupt


class _Epochs:
    """A Reporter of one run among several: it counts epochs instead of tracks, and can end a thread."""

    def __init__(self, stop: threading.Event, tick: Tick) -> None:
        self.stop, self.tick = stop, tick

    @contextmanager
    def track(self, label: str, total: float, unit: str = "clips") -> Iterator[Tick]:
        """One epoch."""

        yield lambda tracks: _heed(self.stop)
        self.tick(1)


def _silent(_: Any) -> None:
    pass


def summary(cells: Sequence[Cell], paths: Sequence[Path]) -> str:
    """One line a system, best on validation first: mean and standard deviation over seeds of balanced
    accuracy, or where no classes are predicted of the first metric of what is."""
    systems: dict[str, list[RunFolder]] = {}
    for cell, path in zip(cells, paths, strict=True):
        systems.setdefault(cell.system, []).append(RunFolder(path))
    lines, title = [], "balanced %"
    for name, folders in systems.items():
        row, place = [name or "all", str(len(folders))], -math.inf
        for split in ("val", "test"):
            files = [f.predictions(split) for f in folders if f.predictions(split).exists()]
            judged = [_judged(file) for file in files]
            if not judged:
                row.append("-")
                continue
            values, (title, _, sign, digits) = [value for _, value, _, _ in judged], judged[0]
            spread = f" +- {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
            row.append(f"{np.mean(values):.{digits}f}{spread}")
            place = sign * float(np.mean(values)) if split == "val" else place
        lines.append((place, row))
    body = [row for _, row in sorted(lines, key=lambda line: -line[0])]
    return "\n".join(table(["settings", "seeds", f"val {title}", f"test {title}"], body))


def _judged(file: Path) -> tuple[str, float, int, int]:
    """What a file of predictions is ranked by, its value, 1 where more is better or -1, and its digits."""
    record = read_records(file)
    if isinstance(record, ClassPredictions):
        return "balanced %", 100 * float(balanced_accuracy(record.scores, record.primary)), 1, 1
    metric = metrics_of(record)[0]
    value = float(np.asarray(metric.value(record, None)))
    return f"{metric.of} {metric.title}".strip(), value, 1 if metric.better == "higher" else -1, 3
