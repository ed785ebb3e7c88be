"""Sweeps: many runs of one question. Frozen ones share features and train together; what is finished is never done twice.

Every cell ends as an ordinary run folder. Run the same sweep again and it goes on where it was: finished cells are kept,
a cell that was interrupted is resumed, the others start.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from beatmeter.cells import Cell, same_but
from beatmeter.errors import RunError
from beatmeter.fitting import Run, fit, fit_standardisation
from beatmeter.metrics import balanced_accuracy
from beatmeter.predictions import read_predictions
from beatmeter.report.text import table
from beatmeter.runs import RunFolder
from beatmeter.schema import Track
from beatmeter.settings import RunConfig
from beatmeter.stacked import FREE, fit_stacked
from beatmeter.training import Progress, Report, begin, finish, prepare, run

SMALL = 80_000  # parameters up to which a CPU is faster with stacked heads; see benchmarks/bench_training.py


def run_cells(
    cells: Sequence[Cell],
    folder: Path,
    device: torch.device,
    predict: Sequence[str] = ("val", "test"),
    report: Report = print,
    progress: Progress | None = None,
) -> list[Path]:
    """Bring every cell to its end in `folder`/`cell.name`; the run folders, in the order of the cells.

    Raises RunError when a folder holds a run of other settings.
    """
    paths = [folder / cell.name for cell in cells]
    todo: list[tuple[Cell, Path]] = []
    for cell, path in zip(cells, paths, strict=True):
        state = state_of(path, cell.config)
        if state == "finished":
            continue
        if state == "begun":  # a checkpoint lies there
            report(f"{path.name}: resuming")
            run(cell.config, path, device, True, predict, report, progress)
        else:
            todo.append((cell, path))
    if len(cells) > 1:
        report(f"{len(cells)} runs in {folder}: {len(cells) - len(todo)} finished, {len(todo)} to do")
    for group in together(todo):
        if group[0][0].config.regime == "frozen":
            _run_group(group, device, predict, report, progress)
        else:
            for cell, path in group:
                report(f"\n{cell.name}")
                run(cell.config, path, device, RunFolder(path).config_file.exists(), predict, report, progress)
    return paths


def state_of(path: Path, config: RunConfig) -> str:
    """`finished`, `begun` or `new`. Raises RunError when the folder holds a run of other settings."""
    folder = RunFolder(path)
    if not folder.config_file.exists():
        return "new"
    if folder.config() != config:
        raise RunError(f"{path} holds a run with other settings", "Choose another --out.")
    return "finished" if folder.finished else "begun" if folder.last.exists() else "new"


def together(todo: Sequence[tuple[Cell, Path]]) -> list[list[tuple[Cell, Path]]]:
    """Groups of cells that read the same features with heads of the same shape."""
    groups: dict[str, list[tuple[Cell, Path]]] = {}
    for cell, path in todo:
        groups.setdefault(same_but(cell.config, FREE), []).append((cell, path))
    return list(groups.values())


def _run_group(group: Sequence[tuple[Cell, Path]], device: torch.device, predict: Sequence[str], report: Report, progress: Progress | None) -> None:
    """Frozen cells from one preparation."""
    ready = prepare(group[0][0].config, device, report, progress)
    runs = [
        begin(cell.config, ready, path, device, RunFolder(path).config_file.exists(), report if i == 0 else _silent)
        for i, (cell, path) in enumerate(group)
    ]
    bar = progress("epochs", sum(r.config.training.epochs for r in runs)) if progress else None
    try:
        fit_many(runs, ready.split("train"), ready.split("val"), report, bar.update if bar else _silent)
    finally:
        if bar:
            bar.close()
    for one in runs:
        finish(one, ready, predict)


def fit_many(
    runs: Sequence[Run],
    train: Sequence[Track],
    val: Sequence[Track],
    report: Report = print,
    progress: Callable[[int], object] = lambda n: None,
    stack: bool | None = None,
) -> None:
    """Train runs that share a source, each as if alone. On a GPU, and where heads are small, they are stacked into one; on a
    CPU, where large products are as fast one by one, they are spread over its cores. `progress(n)`: n more epochs are over."""
    model = runs[0].model
    if stack is None:
        stack = (
            len(runs) > 1
            and not any(r.config.training.start for r in runs)
            and (model.device.type != "cpu" or sum(p.numel() for p in model.head.parameters()) <= SMALL)
        )
    if stack:
        fit_stacked(runs, train, val, report, progress)
        return
    if runs[0].config.head.standardise and not runs[0].config.training.start:  # once, before the threads
        fit_standardisation(model, train, model.source.step_size(runs[0].config.training))
        model.source.standardise(model.head.scales())
    cores, stop = torch.get_num_threads(), threading.Event()
    workers = min(len(runs), cores)

    def one(each: Run) -> str:
        torch.set_num_threads(max(1, cores // workers))
        best = fit(each, train, val, report=_silent, progress=lambda label, total: _Tick(stop, progress))
        return f"{each.folder.path.name}: best epoch {best['epoch']}: {each.model.task.epoch_line(best['val'])}"

    try:
        with ThreadPoolExecutor(workers) as pool:
            try:
                for line in pool.map(one, runs):
                    report(line)
            except BaseException:
                stop.set()
                raise
    finally:
        torch.set_num_threads(cores)


class _Tick:
    """A bar of one epoch, as `fit` wants it, which counts epochs and can end a thread."""

    def __init__(self, stop: threading.Event, progress: Callable[[int], object]) -> None:
        self.stop, self.progress = stop, progress

    def update(self, tracks: int) -> None:
        if self.stop.is_set():
            raise KeyboardInterrupt

    def close(self) -> None:
        self.progress(1)


def _silent(_: Any) -> None:
    pass


def summary(cells: Sequence[Cell], paths: Sequence[Path]) -> str:
    """One line a system, best on validation first: mean and standard deviation over seeds of balanced accuracy."""
    systems: dict[str, list[RunFolder]] = {}
    for cell, path in zip(cells, paths, strict=True):
        systems.setdefault(cell.system, []).append(RunFolder(path))
    lines = []
    for name, folders in systems.items():
        figures = []
        for split in ("val", "test"):
            files = [f.predictions(split) for f in folders if f.predictions(split).exists()]
            values = [float(balanced_accuracy(p.scores, p.primary)) for p in map(read_predictions, files)]
            figures.append((100 * float(np.mean(values)), 100 * float(np.std(values, ddof=1)) if len(values) > 1 else math.nan) if values else None)
        lines.append((figures[0][0] if figures[0] else -math.inf, name or "all", len(folders), figures))
    body = [
        [name, str(seeds), *("-" if f is None else f"{f[0]:.1f}" + ("" if math.isnan(f[1]) else f" +- {f[1]:.1f}") for f in figures)]
        for _, name, seeds, figures in sorted(lines, key=lambda line: -line[0])
    ]
    return "\n".join(table(["settings", "seeds", "val balanced %", "test balanced %"], body))
