"""The tasks by name. A new task is one class and one line here."""

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
from beatmeter.tasks.meter import MeterTask
from beatmeter.tasks.multiclass import MulticlassTask
from beatmeter.tasks.multilabel import MultilabelTask
from beatmeter.tasks.regression import RegressionTask
from beatmeter.tasks.similarity.task import SimilarityTask
from beatmeter.tasks.structure.beats import BeatsTask
from beatmeter.tasks.structure.energy import EnergyTask
from beatmeter.tasks.structure.functions import FunctionsTask
from beatmeter.tasks.structure.moments import BoundariesTask, EventsTask
from beatmeter.tasks.structure.several import StructureTask

TASKS: dict[str, type[Task]] = {
    "meter": MeterTask,
    "multiclass": MulticlassTask,
    "multilabel": MultilabelTask,
    "regression": RegressionTask,
    "beats": BeatsTask,
    "similarity": SimilarityTask,
    "boundaries": BoundariesTask,
    "functions": FunctionsTask,
    "events": EventsTask,
    "structure": StructureTask,
    "energy": EnergyTask,
}


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
