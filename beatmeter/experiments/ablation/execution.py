"""Bringing the cells of a plan to their end: heads of one shape together, the others in processes; what fails
costs itself.

Features and waveforms are made first, once. Every cell is a run folder of its own, so finished cells are
kept, stopped ones go on from their last epoch, and a process that dies takes one cell with it.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from beatmeter.datasets.dataset import JOINED
from beatmeter.errors import BeatmeterError, DataError, RunError
from beatmeter.evaluation.comparison.compare import ALPHA
from beatmeter.evaluation.runs import RunFolder
from beatmeter.experiments.cells import Cell
from beatmeter.experiments.sweep import run_cells, state_of, together
from beatmeter.features.model import FeatureModel
from beatmeter.learning.training import Prepared, Report, evaluate_run, prepare
from beatmeter.runtime import atomic
from beatmeter.runtime.display import count
from beatmeter.runtime.memory import free_bytes
from beatmeter.runtime.parallel import Crash, ordered
from beatmeter.runtime.progress import SILENT, Reporter
from beatmeter.schema import FeatureSpec
from beatmeter.settings import RunConfig

FAILED = "failed.txt"
PROCESS = 4e9  # bytes that a process may need
Unit = tuple[Cell, ...]  # cells that train together


@dataclass(frozen=True)
class Failure:
    """A cell that came to no end, and why; where there was an exception, its trace is in `failed.txt` of the
    run folder."""

    cell: str
    reason: str


@dataclass(frozen=True)
class Executed:
    """The run folders of the finished cells by system and the cells that failed."""

    runs: Mapping[str, tuple[RunFolder, ...]]
    failures: tuple[Failure, ...]


def execute(
    systems: Mapping[str, Sequence[Cell]],
    folder: Path,
    device: torch.device,
    split: str = "val",
    jobs: int = 0,
    report: Report = print,
    progress: Reporter = SILENT,
) -> Executed:
    """Train what is not finished yet in `folder`/`cell.name` and predict `split` with every cell; `val` is
    always predicted. Cells whose training starts from the run of another cell come after it.

    `jobs` processes work at a time; 0 takes one for each GPU, or for each core that torch may use while
    memory lasts. Raises DataError when the split is too small for any difference to be found, and RunError
    when a folder holds a run of other settings or features.
    """
    cells = [cell for own in systems.values() for cell in own]
    waiting = [cell for cell in cells if _unfinished(cell, folder, split)]
    _require_same_features([cell for cell in cells if cell not in waiting], folder, device)
    report(
        f"{count(len(cells), 'run')} in {folder}: {len(cells) - len(waiting)} finished, {len(waiting)} to do"
    )
    if waiting:
        for config in _sources(cells):
            ready = prepare(config, device, report, progress)
            require_enough(ready, split, len(systems) - 1)
            require_joined(ready, config)
    devices = _devices(device)
    room = (
        min(torch.get_num_threads(), 1 + int(free_bytes(device) / PROCESS))
        if device.type == "cpu"
        else len(devices)
    )
    jobs = min(jobs or room, len(units_of(waiting, folder)))
    failures: list[Failure] = []
    folders = {str(folder / cell.name) for cell in waiting}
    later = [cell for cell in waiting if cell.config.training.start in folders]  # they start where others end
    todo = [units_of([cell for cell in waiting if cell not in later], folder), units_of(later, folder)]
    with (progress if jobs > 1 else SILENT).track("runs", len(waiting)) as tick:
        while todo:
            units = todo.pop(0)
            again: list[Unit] = []
            outcomes = _outcomes(units, folder, devices, split, jobs, report, progress)
            for unit, reason in zip(units, outcomes, strict=True):
                if reason and len(unit) > 1:
                    report(f"{reason}; its {count(len(unit), 'run')} are tried one by one")
                    again += [(cell,) for cell in unit]
                    continue
                failures += [Failure(cell.name, reason) for cell in unit] if reason else []
                report(
                    f"{'failed' if reason else 'finished'}: {', '.join(cell.name for cell in unit)}"
                    + (f": {reason}" if reason else "")
                )
                tick(len(unit))
            if again:
                todo.insert(0, again)
    lost = {failure.cell for failure in failures}
    return Executed(
        {
            name: tuple(RunFolder(folder / c.name) for c in own if c.name not in lost)
            for name, own in systems.items()
        },
        tuple(failures),
    )


def units_of(cells: Sequence[Cell], folder: Path) -> list[Unit]:
    """What is done in one go: frozen cells that have not begun, by the features and heads they share; every
    other cell alone."""
    fresh = [c for c in cells if c.config.regime == "frozen" and state_of(folder / c.name, c.config) == "new"]
    groups = together([(cell, folder / cell.name) for cell in fresh])
    return [tuple(cell for cell, _ in group) for group in groups] + [
        (cell,) for cell in cells if cell not in fresh
    ]


def require_enough(ready: Prepared, split: str, comparisons: int) -> None:
    """Raise DataError when `split` has so few groups that no difference could be found, however large.

    Of g groups that all favour one system, the sign-flip test gives p = 2 / 2^g, and Holm's correction
    multiplies the smallest p by the number of comparisons.
    """
    groups = len({t.group for t in ready.split(split)})
    needed = 1
    while 2.0 ** (1 - needed) * comparisons >= ALPHA:
        needed += 1
    if groups < needed:
        raise DataError(
            f"the {split} split has {groups} groups with labels; with {comparisons} comparisons it takes "
            f"{needed} for any difference to be found",
            "Use more tracks, or a larger split.val (see `beatmeter data check`).",
        )


def require_joined(ready: Prepared, config: RunConfig) -> None:
    """Raise DataError when further data were named and none of their tracks may train: the comparison would
    be of nothing."""
    if config.data.extra and not any(JOINED in t.extra for t in ready.split("train")):
        kinds = Counter(e.kind for e in ready.dataset.excluded)
        left = (
            ", ".join(f"{n} {kind}" for kind, n in kinds.most_common())
            or "nothing was left out, but they hold no labelled tracks"
        )
        raise DataError(
            f"no track of {', '.join(config.data.extra)} joins the training of {config.data.path} ({left})",
            f"beatmeter data check {config.data.path} --extra-data {config.data.extra[0]} names every "
            "reason; ids must differ.",
        )


def _unfinished(cell: Cell, folder: Path, split: str) -> bool:
    run = RunFolder(folder / cell.name)
    return state_of(run.path, cell.config) != "finished" or not run.predictions(split).exists()


def _require_same_features(cells: Iterable[Cell], folder: Path, device: torch.device) -> None:
    """Raise RunError when a finished run was trained on features that its settings do not give any more: new
    weights of a backbone, a new pooling."""
    now: dict[object, FeatureSpec] = {}
    for cell in cells:
        c = cell.config
        key = (c.features, c.head.poolings)
        if key not in now:
            now[key] = FeatureModel(c.features, device).spec.only(c.head.poolings)
        saved = RunFolder(folder / cell.name).about().get("spec")
        if saved is None or not now[key].agrees(FeatureSpec.from_json(saved)):
            raise RunError(
                f"{folder / cell.name} was trained on other features than {c.features.backbone} gives now",
                "Choose another --out.",
            )


def _sources(cells: Iterable[Cell]) -> list[RunConfig]:
    """One config for each way in which tracks are served, those that ask for most layers first: the others
    find theirs there."""
    found: dict[object, RunConfig] = {}
    for c in (cell.config for cell in cells):
        found.setdefault((c.data, c.split, c.limit, c.regime, c.features, c.head.poolings, c.task.meters), c)
    return sorted(found.values(), key=lambda c: c.features.layers != "all")


def _devices(device: torch.device) -> list[torch.device]:
    """Where cells may run: on every GPU, when one is meant without its number."""
    if str(device) == "cuda":
        return [torch.device("cuda", i) for i in range(torch.cuda.device_count())]
    return [device]


def _outcomes(
    units: Sequence[Unit],
    folder: Path,
    devices: Sequence[torch.device],
    split: str,
    jobs: int,
    report: Report,
    progress: Reporter,
) -> Iterator[str]:
    """Why each unit failed, in order; empty for those that did not."""
    todo = [(unit, str(devices[i % len(devices)])) for i, unit in enumerate(units)]
    if jobs <= 1:
        yield from (_work(folder, split, 0, report, progress, what) for what in todo)
        return
    report(f"{jobs} processes at a time")
    for outcome in ordered(
        partial(_work, folder, split, max(1, torch.get_num_threads() // jobs), _silent, SILENT),
        todo,
        jobs,
        depth=jobs,
    ):
        yield "its process died; is there enough memory?" if isinstance(outcome, Crash) else outcome


def _work(
    folder: Path, split: str, threads: int, report: Report, progress: Reporter, what: tuple[Unit, str]
) -> str:
    """Bring a unit to its end: why it failed, or nothing. `threads` of 0 leaves torch as it is."""
    unit, place = what
    if threads:
        torch.set_num_threads(threads)
    device = torch.device(place)
    predict = tuple(dict.fromkeys(("val", split)))
    try:
        for path in run_cells(unit, folder, device, predict, report, progress):
            if not RunFolder(path).predictions(split).exists():
                evaluate_run(path, device, predict, report=report, progress=progress)
            (path / FAILED).unlink(missing_ok=True)
    except Exception as error:  # whatever it is, the other cells can be done
        if len(unit) == 1:
            atomic.write_text(folder / unit[0].name / FAILED, traceback.format_exc())
        return _reason(error)
    return ""


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, BeatmeterError) else f"{type(error).__name__}: {error}".strip(": ")


def _silent(_: str) -> None:
    pass
