"""The best epoch of a run, read back and checked before anything is built: settings, features, task and
weights fit together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from beatmeter.errors import RunError
from beatmeter.evaluation.runs import RunFolder
from beatmeter.learning import checkpoints
from beatmeter.learning.standardiser import PREFIXES, Standardiser
from beatmeter.runtime.artifacts import named
from beatmeter.schema import FeatureSpec
from beatmeter.settings import RunConfig
from beatmeter.tasks import State, Task, open_task

HEADER: Mapping[str, Any] = {
    "epoch": int,
    "best": {"epoch": int, "val": {"loss": float}},
    "spec": {},
    "task": {},
}


@dataclass(frozen=True)
class Restored:
    """What `restore` found: `config` names its files where they are from here, `state` is what the task found
    in its train split, `tensors` are those of the head and of the adapter by their full names."""

    folder: RunFolder
    config: RunConfig
    spec: FeatureSpec
    task: Task
    state: State
    standardiser: Standardiser
    tensors: Mapping[str, Tensor]
    epoch: int

    @property
    def adapter(self) -> dict[str, Tensor]:
        """The adapter's tensors; empty for a frozen run."""
        return part(self.tensors, "adapter.")

    def head(self, device: torch.device) -> nn.Module:
        """The trained head, in evaluation mode. It is no larger than the file: shapes are compared first."""
        with torch.device("meta"):
            outline = self.task.head(self.spec)
        found = head_tensors(self.tensors)
        require_fit(outline, found, self.folder.best)
        head = self.task.head(self.spec)
        head.load_state_dict(found)
        return head.to(device).eval()


def restore(run: Path) -> Restored:
    """The best epoch of the run folder `run`. Raises RunError or ConfigError, naming the file, for parts that
    are missing, damaged or do not belong together."""
    folder = RunFolder.open(run)
    config = folder.resolved()
    with named(folder.config_file):
        task = open_task(config)
    tensors, about = checkpoints.read(folder.best, HEADER)
    with named(folder.best):
        spec = FeatureSpec.from_json(about["spec"])
        task.check_state(about["task"])
        task = task.restored(about["task"])
        if config.regime == "streamed" and not part(tensors, "adapter."):
            raise RunError("it holds no adapter, and its run trained one")
        if not head_tensors(tensors):
            raise RunError("it holds no head")
    return Restored(
        folder, config, spec, task, about["task"], Standardiser.from_tensors(tensors), tensors, about["epoch"]
    )


def part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def head_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The head's part of a checkpoint; earlier versions kept the standardiser in it."""
    return {
        k.removeprefix("head."): v
        for k, v in tensors.items()
        if k.startswith("head.") and not k.startswith(PREFIXES)
    }


def require_fit(module: nn.Module, found: Mapping[str, Tensor], where: Path) -> None:
    """Raise RunError unless `found` are tensors for `module`, by name, shape and kind of number."""
    wanted = module.state_dict()
    odd = sorted(wanted.keys() ^ found.keys())
    if odd:
        raise RunError(
            f"{where}: the tensor {odd[0]} is {'missing' if odd[0] in wanted else 'unknown'}", _HINT
        )
    for name, value in wanted.items():
        if value.shape != found[name].shape or value.is_floating_point() != found[name].is_floating_point():
            raise RunError(
                f"{where}: the tensor {name} has the shape {tuple(found[name].shape)}, not "
                f"{tuple(value.shape)}",
                _HINT,
            )


_HINT = "It belongs to other settings than the config.toml beside it: restore both, or train again."
