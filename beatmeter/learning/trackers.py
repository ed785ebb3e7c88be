"""Where the figures of a run go besides its folder: TensorBoard, Weights & Biases, MLflow.

A tracker hears of epochs once they are on disk. Its package is imported when it is asked for and not before;
one that fails while a run trains is told of once and left alone, because the folder holds every figure and
`beatmeter track` sends a finished run.
"""

from __future__ import annotations

import importlib.util
import os
import textwrap
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from beatmeter.errors import ConfigError, shown
from beatmeter.evaluation.runs import RunFolder
from beatmeter.runtime import artifacts
from beatmeter.runtime.config import flatten
from beatmeter.settings import TrainingConfig

PROJECT = "beatmeter"
IDS = "trackers.json"  # in the run folder: by which name each tracker knows the run
MODULES = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow"}

Report = Callable[[str], object]


class Tracker(Protocol):
    """One program that keeps the figures of one run."""

    def figures(self, values: Mapping[str, float], epoch: int) -> None:
        """Figures by name, such as val/accuracy, of an epoch."""
        ...

    def summary(self, values: Mapping[str, float]) -> None:
        """Figures of the finished run, such as test/accuracy."""
        ...

    def close(self, finished: bool) -> None:
        """Nothing follows; `finished` unless the run may go on."""
        ...


class Board:
    """TensorBoard's event files in the run folder."""

    def __init__(self, folder: RunFolder, first_epoch: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder.tensorboard), purge_step=first_epoch)

    def figures(self, values: Mapping[str, float], epoch: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, epoch)
        self.writer.flush()

    def summary(self, values: Mapping[str, float]) -> None:
        """TensorBoard has no place for figures of a whole run."""

    def close(self, finished: bool) -> None:
        self.writer.close()


class Wandb:
    """Weights & Biases. WANDB_PROJECT, WANDB_MODE and its other variables hold."""

    def __init__(self, folder: RunFolder) -> None:
        import wandb

        known = _ids(folder).get("wandb")
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=folder.path.resolve().name,
            id=known,
            resume="allow",
            dir=str(folder.path),
            config=_settings(folder),
        )
        if known is None:
            _remember(folder, "wandb", str(self.run.id))

    def figures(self, values: Mapping[str, float], epoch: int) -> None:
        self.run.log(dict(values), step=epoch)

    def summary(self, values: Mapping[str, float]) -> None:
        self.run.summary.update(dict(values))

    def close(self, finished: bool) -> None:
        self.run.finish()


class Mlflow:
    """MLflow, by its client alone: the run that a program of yours has open stays as it is.
    MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME hold."""

    def __init__(self, folder: RunFolder) -> None:
        from mlflow import MlflowClient

        self.client, known = MlflowClient(), _ids(folder).get("mlflow")
        if known is not None:
            self.run = known
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = self.client.get_experiment_by_name(name)
        where = experiment.experiment_id if experiment else self.client.create_experiment(name)
        self.run = self.client.create_run(where, run_name=folder.path.resolve().name).info.run_id
        _remember(folder, "mlflow", self.run)
        for key, value in _settings(folder).items():
            self.client.log_param(self.run, key, str(value)[:500])

    def figures(self, values: Mapping[str, float], epoch: int) -> None:
        for name, value in values.items():
            self.client.log_metric(self.run, name, value, step=epoch)

    def summary(self, values: Mapping[str, float]) -> None:
        self.figures(values, 0)

    def close(self, finished: bool) -> None:
        if finished:
            self.client.set_terminated(self.run)


def _ids(folder: RunFolder) -> dict[str, str]:
    file = folder.path / IDS
    return artifacts.read_json(file) if file.exists() else {}


def _remember(folder: RunFolder, tracker: str, id: str) -> None:
    artifacts.write_json(folder.path / IDS, _ids(folder) | {tracker: id})


def _settings(folder: RunFolder) -> dict[str, Any]:
    """Every setting of the run by its dotted name, as plain values."""
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in flatten(folder.config()).items()
    }


class Trackers:
    """Several trackers as one, none of which can stop a run."""

    def __init__(
        self, folder: RunFolder, names: Sequence[str], first_epoch: int = 1, report: Report = print
    ) -> None:
        self.folder, self.report = folder, report
        self._open: dict[str, Tracker] = {}
        for name in names:
            self._try(name, partial(self._begin, name, first_epoch))

    def _begin(self, name: str, first_epoch: int) -> None:
        opened: dict[str, Callable[[], Tracker]] = {
            "tensorboard": lambda: Board(self.folder, first_epoch),
            "wandb": lambda: Wandb(self.folder),
            "mlflow": lambda: Mlflow(self.folder),
        }
        self._open[name] = opened[name]()

    def epoch(self, line: Mapping[str, Any]) -> None:
        """The figures of a line of epochs.jsonl."""
        self._each(lambda tracker: tracker.figures(scalars(line), line["epoch"]))

    def summary(self, values: Mapping[str, float]) -> None:
        """The figures of a finished run."""
        self._each(lambda tracker: tracker.summary(values))

    def close(self, finished: bool = False) -> None:
        """Close all."""
        self._each(lambda tracker: tracker.close(finished))
        self._open.clear()

    def _each(self, act: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._open.items()):
            self._try(name, partial(act, tracker))

    def _try(self, name: str, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:  # of a program of others, at the end of a network
            self._open.pop(name, None)
            said = textwrap.shorten(
                shown(str(error).strip() or type(error).__name__), 160, placeholder=" ..."
            )
            again = f"beatmeter track {self.folder.path} --to {name}"
            more = "" if name == "tensorboard" else f"; send the run when it is finished: {again}"
            self.report(f"warning: {name} takes no figures of this run any more: {said}{more}")


def wanted(training: TrainingConfig) -> list[str]:
    """The trackers that the settings name."""
    return [*(["tensorboard"] if training.tensorboard else []), *training.trackers]


def require_trackers(names: Sequence[str]) -> None:
    """Raise ConfigError when the package of a tracker is not installed: before hours of work."""
    for name in names:
        if importlib.util.find_spec(MODULES[name]) is None:
            raise ConfigError(
                f"figures are to go to {name}, and it is not installed",
                f"pip install 'beatmeter[{name}]', or leave it out: epochs.jsonl holds every figure.",
            )


def send(run: Path, names: Sequence[str], report: Report = print) -> int:
    """Send every epoch and the evaluations of a run to trackers; how many epochs. A run that was sent before
    goes to its old place. Raises ConfigError when a package lacks, RunError when this is no run."""
    folder = RunFolder.open(run)
    require_trackers(names)
    lines = folder.read_log(report)
    trackers = Trackers(folder, names, 1, report)
    for line in lines:
        trackers.epoch(line)
    trackers.summary(results(folder))
    trackers.close(folder.finished)
    return len(lines)


def results(folder: RunFolder) -> dict[str, float]:
    """The figures of every evaluation in a run folder by name, such as test/accuracy."""
    found: dict[str, float] = {}
    for file in sorted((folder.path / "evaluation").glob("*.json")):
        metrics = artifacts.read_json(file).get("metrics", {})
        rows = metrics.items() if isinstance(metrics, Mapping) else [(m["name"], m) for m in metrics]
        for name, row in rows:
            if isinstance(row.get("value"), int | float):
                found[f"{file.stem}/{name}"] = float(row["value"])
    return found


def scalars(value: Any, path: str = "") -> dict[str, float]:
    """The numbers of a line of epochs.jsonl under their paths, `val/accuracy` and so on."""
    if isinstance(value, Mapping):
        return {
            name: number
            for key, item in value.items()
            if key != "epoch"
            for name, number in scalars(item, f"{path}/{key}" if path else key).items()
        }
    if isinstance(value, list) and value and isinstance(value[0], float):
        return {f"{path}/{i + 1:02d}": item for i, item in enumerate(value)}
    return {path: float(value)} if isinstance(value, int | float) else {}
