"""The history of a training: which epoch is best, when patience is over, and what of it lies on disk.

Epochs may take milliseconds, so files are written at most once in `EVERY` seconds, and at the end. What is on
disk always belongs together: the log ends with the epoch of the last checkpoint.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from beatmeter.errors import ConfigError
from beatmeter.evaluation.runs import RunFolder
from beatmeter.learning import checkpoints
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
    ) -> None:
        """`choice` picks the best epoch; `after` is what `write` said of the epoch to go on from."""
        self.folder, self.about, self.training, self.choice = folder, about, training, choice
        self.best: dict[str, Any] | None = after["best"] if after else None
        self.epoch = int(after["epoch"]) if after else 0
        self._lines: list[dict[str, Any]] = []
        self._best: tuple[Tensors, dict[str, Any]] | None = None
        self._last: tuple[Tensors, dict[str, Any]] | None = None
        self._board: Board | None = None
        self._written = time.monotonic()
        if folder is not None:
            folder.truncate_log(self.epoch)
            if training.tensorboard:
                self._board = Board(folder.tensorboard, self.epoch + 1)

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
            due = time.monotonic() - self._written >= EVERY
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
            if self._board is not None:
                self._board.epoch(line)
        if self._best is not None:
            checkpoints.write(self.folder.best, *self._best)
        checkpoints.write(self.folder.last, *self._last)
        self._lines, self._best, self._last, self._written = [], None, None, time.monotonic()

    def close(self) -> None:
        """Write the rest."""
        self.write()
        if self._board is not None:
            self._board.close()


def rank(line: Mapping[str, Any], choice: Choice) -> tuple[float, float]:
    """Sort key of an epoch: larger is better; equal figures go to the lower loss."""
    value = float(line["val"][choice.name])
    return (value if choice.better == "higher" else -value, -float(line["val"]["loss"]))


def require_board(training: TrainingConfig) -> None:
    """Raise ConfigError when TensorBoard is to be written and is not installed: before hours of work."""
    if training.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise ConfigError(
            "training.tensorboard is set, and TensorBoard is not installed",
            "pip install 'beatmeter[tensorboard]', or leave it out: epochs.jsonl holds every figure.",
        )


class Board:
    """Epoch lines as TensorBoard scalars."""

    def __init__(self, path: Path, first_epoch: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(path), purge_step=first_epoch)

    def epoch(self, line: dict[str, Any]) -> None:
        """Numbers of `line` under their paths, `val/accuracy` and so on."""
        for name, value in _scalars(line):
            self.writer.add_scalar(name, value, line["epoch"])
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


def _scalars(value: Any, path: str = "") -> list[tuple[str, float]]:
    if isinstance(value, dict):
        return [
            pair
            for key, item in value.items()
            if key != "epoch"
            for pair in _scalars(item, f"{path}/{key}" if path else key)
        ]
    if isinstance(value, list) and value and isinstance(value[0], float):
        return [(f"{path}/{i + 1:02d}", item) for i, item in enumerate(value)]
    return [(path, float(value))] if isinstance(value, int | float) else []
