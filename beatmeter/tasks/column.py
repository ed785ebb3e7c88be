"""Tasks over columns of a manifest or of a table of targets: what they share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np
from torch import nn

from beatmeter.datasets import Dataset, open_dataset
from beatmeter.datasets.columns import labelled_by, require_columns, with_targets
from beatmeter.errors import ConfigError, DataError, RunError
from beatmeter.evaluation.report import Assessment, assess
from beatmeter.runtime.artifacts import require
from beatmeter.schema import FeatureSpec, Finding, Items, Track, label_table
from beatmeter.settings import MOST_CLASSES, DataConfig, RunConfig
from beatmeter.tasks.base import Output, State, Targets, Task
from beatmeter.tasks.heads import Head

LEAST_GROUPS = 2  # groups that a class, or what is known at all, must be found in


class ColumnTask(Task):
    """One or several columns of the dataset (`task.column`), where `task.targets` may add some by track
    id."""

    most_columns: ClassVar[int | None] = 1
    default_columns: ClassVar[tuple[str, ...]] = ()  # where the settings name none

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config)
        columns = config.task.column or self.default_columns
        self.columns = tuple(name.strip().lower() for name in columns)
        name = config.task.name
        if not self.columns or not all(self.columns):
            raise ConfigError(
                f"the task {name} needs a column to learn", "For instance: --set task.column=composer"
            )
        if len(set(self.columns)) != len(self.columns):
            raise ConfigError("task.column names a column twice")
        if self.most_columns is not None and len(self.columns) > self.most_columns:
            raise ConfigError(f"the task {name} learns one column, not {len(self.columns)}")
        if config.data.corrections:
            raise ConfigError(
                "data.corrections hold labels of meters, or beats",
                f"Correct the column itself, or its table of targets, for the task {name}.",
            )

    def open(self, data: DataConfig) -> Dataset:
        dataset = open_dataset(data.path, data, self.config.task.meters, labelled=False)
        if self.config.task.targets:
            dataset = with_targets(dataset, self.config.task.targets)
        require_columns(dataset.tracks, self.columns, "task.column")
        bare = tuple(
            replace(t, labels={}, primary=None) for t in dataset.tracks
        )  # their meters are another task's
        return self.label(replace(dataset, tracks=bare))

    @abstractmethod
    def label(self, dataset: Dataset) -> Dataset:
        """The dataset without the tracks of which the columns say nothing."""

    def evaluate(self, predictions: Items, validation: Items | None = None) -> Assessment:
        return assess(predictions, validation)

    def head(self, spec: FeatureSpec) -> nn.Module:
        return Head(spec, self.config.head, len(self.output.names))

    def require_groups(self, train: Sequence[Track]) -> None:
        """Raise DataError when there is too little to learn from."""
        groups = len({t.group for t in train})
        if groups < LEAST_GROUPS:
            what = (
                f"{', '.join(self.columns)} is known of tracks of {groups} group{'s' * (groups != 1)} in "
                "the train split"
            )
            raise DataError(
                f"{what}: nothing can be told from one song",
                "See what was left out, or use other split.groups.",
            )


class LabelTask(ColumnTask):
    """A column of classes, one or several a track; the classes are those of the settings, or those found in
    the train split."""

    def __init__(self, config: RunConfig, classes: Sequence[str] = ()) -> None:
        super().__init__(config)
        self.output = Output(self.kind, tuple(classes) or config.task.classes)

    kind: ClassVar[Any]
    read: ClassVar[Any]

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes, in the order of the outputs."""
        return self.output.names

    def label(self, dataset: Dataset) -> Dataset:
        return labelled_by(dataset, self.columns[0], type(self).read)

    def settled(self, train: Sequence[Track]) -> Self:
        self.require_groups(train)
        found = sorted({name for t in train for name in t.labels}, key=_order)
        if len(found) > MOST_CLASSES:
            hint = "Is it a number? Use task.name=regression."
            raise DataError(
                f"{self.columns[0]} has {len(found)} values in the train split, more than {MOST_CLASSES} "
                "classes",
                hint,
            )
        classes = self.config.task.classes or found
        if len([name for name in classes if name in found]) < 2 and (self.kind == "multiclass" or not found):
            what = f"only {found[0]!r}" if found else "none of the classes"
            raise DataError(
                f"{self.columns[0]} has {what} in the train split: there is nothing to tell apart",
                "Choose another column or split.",
            )
        task = type(self)(self.config, classes)
        task.require_contrast(train)
        return task

    def require_contrast(self, train: Sequence[Track]) -> None:
        """Raise DataError when every track of the train split is labelled alike."""
        values = self.targets([t for t in train if self.usable(t) is None]).values
        if not len(values) or (values == values[0]).all():
            raise DataError(
                f"{self.columns[0]} is the same for all tracks of the train split: there is nothing to tell "
                "apart"
            )

    def restored(self, state: State) -> Self:
        return type(self)(self.config, state["classes"])

    def usable(self, track: Track) -> str | None:
        if not track.labels:
            return "it has no label"
        foreign = [name for name in track.labels if self.classes and name not in self.classes]
        return f"{self.columns[0]} {foreign[0]!r} is no class of the task" if foreign else None

    def targets(self, tracks: Sequence[Track]) -> Targets:
        values, primary = label_table(tracks, self.classes)
        return Targets(values, np.broadcast_to(primary[:, None] >= 0, values.shape))

    def counts(self, train: Sequence[Track]) -> np.ndarray:
        """(class,) tracks that have each class."""
        found: np.ndarray = (self.targets(train).values > 0).sum(axis=0)
        return found

    def check_state(self, state: Any) -> None:
        require(state, {"weight": [float], "constant": [float], "classes": [str]}, "the state of the task")
        n = len(state["classes"])
        if not n == len(set(state["classes"])) == len(state["weight"]) == len(state["constant"]):
            raise RunError(f"the state of the task has {len(state['weight'])} weights for {n} classes")

    def remarks(self, state: State, train: Sequence[Track]) -> list[Finding]:
        groups = {name: len({t.group for t in train if name in t.labels}) for name in self.classes}
        few = [name for name, n in groups.items() if n < LEAST_GROUPS]
        text = f"training tracks of one group or none of {', '.join(few)}: their scores mean little"
        return [Finding("classes without examples", "warning", text, {"classes": few})] if few else []

    def about(self, meta: Mapping[str, Any] | None) -> dict[str, Any]:
        """What predictions say of the task that made them."""
        return {**(meta or {}), "task": self.config.task.name, "column": self.columns[0]}


def _order(name: str) -> tuple[bool, float, str]:
    """Numbers by size, then names."""
    try:
        return False, float(name), name
    except ValueError:
        return True, 0.0, name
