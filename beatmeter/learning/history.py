"""The history of a training: which epoch is best, when patience is over, and what of it lies on disk.

Epochs may take milliseconds, so files are written at most once in `EVERY` seconds for each
run that trains at the time, and at the end. What is on
disk always belongs together: the log ends with the epoch of the last checkpoint.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from beatmeter.evaluation.runs import RunFolder
from beatmeter.learning import checkpoints
from beatmeter.learning.trackers import Report, Trackers, wanted
from beatmeter.settings import TrainingConfig
from beatmeter.tasks import Choice

EVERY = 2.0

Tensors = Mapping[str, Tensor]


class History:
    """The epochs of one run: what is written of each, which is the best, when it is over. Without a folder (a
    process that does not write) it only decides."""

    def __init__(
        self,
        folder: RunFolder | None,
        about: Mapping[str, Any],
        training: TrainingConfig,
        choice: Choice,
        after: Mapping[str, Any] | None = None,
        report: Report = print,
        runs: int = 1,
    ) -> None:
        """`choice` picks the best epoch; `after` is what `write` said of the epoch to go on from; `report`
        hears of trackers that fail; of several `runs` that train together each writes files so much more
        rarely."""
        self.folder, self.about, self.training, self.choice = folder, about, training, choice
        self._runs = runs
        self.best: dict[str, Any] | None = after["best"] if after else None
        self.epoch = int(after["epoch"]) if after else 0
        self._lines: list[dict[str, Any]] = []
        self._best: tuple[Tensors, dict[str, Any]] | None = None
        self._last: tuple[Tensors, dict[str, Any]] | None = None
        self._trackers: Trackers | None = None
        self._written = time.monotonic()
        if folder is not None:
            folder.truncate_log(self.epoch)
            if names := wanted(training):
                self._trackers = Trackers(folder, names, self.epoch + 1, report)

    @property
    def over(self) -> bool:
        """Whether another epoch would be one too many."""
        return self.epoch >= self.training.epochs or self.out_of_patience

    @property
    def out_of_patience(self) -> bool:
        return self.best is not None and self.epoch - int(self.best["epoch"]) >= self.training.patience

    def add(
        self,
        line: dict[str, Any],
        task: Mapping[str, Any],
        tensors: Callable[[], Tensors],
        optimiser: Callable[[], Tensors],
    ) -> bool:
        """An epoch is over: whether it is the best so far. `tensors` and `optimiser` give the state as it is
        now."""
        better = self.best is None or rank(line, self.choice) > rank(self.best, self.choice)
        self.best, self.epoch = line if better else self.best, line["epoch"]
        if self.folder is not None:
            about = {**self.about, "epoch": self.epoch, "best": self.best, "task": task, "log": line}
            self._lines.append(line)
            due = time.monotonic() - self._written >= EVERY * self._runs
            state = tensors() if due else {name: t.detach().clone() for name, t in tensors().items()}
            moments = optimiser() if due else {name: t.detach().clone() for name, t in optimiser().items()}
            self._best = (state, about) if better else self._best
            self._last = ({**state, **moments}, about)
            if due:
                self.write()
        return better

    def write(self) -> None:
        """Put on disk what is not there yet."""
        if self.folder is None or self._last is None:
            return
        self.folder.log(self._lines)  # first: what is logged and not saved is forgotten on resuming
        for line in self._lines:
            if self._trackers is not None:
                self._trackers.epoch(line)
        if self._best is not None:
            checkpoints.write(self.folder.best, *self._best)
        checkpoints.write(self.folder.last, *self._last)
        self._lines, self._best, self._last, self._written = [], None, None, time.monotonic()

    def close(self) -> None:
        """Write the rest."""
        self.write()
        if self._trackers is not None:
            self._trackers.close()


def rank(line: Mapping[str, Any], choice: Choice) -> tuple[float, float]:
    """Sort key of an epoch: larger is better; equal figures go to the lower loss."""
    value = float(line["val"][choice.name])
    return (value if choice.better == "higher" else -value, -float(line["val"]["loss"]))
