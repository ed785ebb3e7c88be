"""The tasks by name. A new task is one class and one line here; its module is loaded when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from importlib import import_module

from beatmeter.errors import ConfigError, nearest
from beatmeter.settings import RunConfig
from beatmeter.tasks.base import (
    LOSS,
    Choice,
    FrameOutputs,
    Output,
    State,
    Targets,
    Task,
    TrackTruth,
    Truth,
)


class _Tasks(MutableMapping[str, type[Task]]):
    """Classes by name, each given as `module:class` (below this package) or as itself."""

    def __init__(self, known: dict[str, str | type[Task]]) -> None:
        self._known = known

    def __getitem__(self, name: str) -> type[Task]:
        known = self._known[name]
        if isinstance(known, str):
            module, _, word = known.partition(":")
            known = self._known[name] = getattr(import_module(f"{__name__}.{module}"), word)
        return known

    def __setitem__(self, name: str, task: type[Task]) -> None:
        self._known[name] = task

    def __delitem__(self, name: str) -> None:
        del self._known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)


TASKS = _Tasks(
    {
        "meter": "meter:MeterTask",
        "multiclass": "multiclass:MulticlassTask",
        "multilabel": "multilabel:MultilabelTask",
        "regression": "regression:RegressionTask",
        "beats": "structure.beats:BeatsTask",
        "similarity": "similarity.task:SimilarityTask",
        "boundaries": "structure.moments:BoundariesTask",
        "functions": "structure.functions:FunctionsTask",
        "events": "structure.moments:EventsTask",
        "structure": "structure.several:StructureTask",
        "energy": "structure.energy:EnergyTask",
    }
)


def open_task(config: RunConfig) -> Task:
    """The task that the settings name. Raises ConfigError for a name that is none, and for a selection that
    it does not know."""
    name = config.task.name
    if name not in TASKS:
        raise ConfigError(f"there is no task {name!r}", nearest(name, TASKS))
    return TASKS[name](config)


def chosen_by(task: Task, select: str) -> Choice:
    """The figure that picks the best epoch: `auto` is the task's first. Raises ConfigError for one that it
    does not have."""
    known = {choice.name: choice for choice in task.selection}
    if select == "auto":
        return task.selection[0]
    if select not in known:
        raise ConfigError(
            f"training.select = {select!r} is no validation figure of the task {task.config.task.name}",
            nearest(select, known),
        )
    return known[select]


__all__ = [
    "LOSS",
    "TASKS",
    "Choice",
    "FrameOutputs",
    "Output",
    "State",
    "Targets",
    "Task",
    "TrackTruth",
    "Truth",
    "chosen_by",
    "open_task",
]
