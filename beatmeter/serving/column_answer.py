"""What a model over a column of a dataset says of one piece of audio: a class, several labels, numbers with
units, or a vector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from beatmeter.errors import RunError
from beatmeter.evaluation.calibration import Calibration
from beatmeter.runtime.display import count
from beatmeter.schema import Items, MarkList, Marks, ValuePredictions
from beatmeter.serving.answer import Answer, Scored
from beatmeter.serving.judge import Judge
from beatmeter.tasks import Task

POSITIVE = 0.5  # a label is predicted above this


@dataclass(frozen=True)
class ColumnAnswer(Answer):
    """`scores` (name,) are probabilities of the classes, or the values themselves where `kind` is value or
    embedding; `units` are theirs."""

    kind: str = "multiclass"
    units: tuple[str, ...] = ()

    @property
    def predicted(self) -> tuple[str, ...]:
        """The class, or the labels above 0.5; nothing for values and vectors."""
        if self.kind == "multiclass":
            return (self.classes[self.order[0]],)
        return (
            tuple(self.classes[i] for i in self.order if self.scores[i] > POSITIVE)
            if self.kind == "multilabel"
            else ()
        )

    @property
    def words(self) -> str:
        """The answer in words."""
        if self.kind == "embedding":
            return f"a vector of {count(len(self.scores), 'number')}"
        if self.kind == "value":
            parts = zip(self.classes, self.scores, self.units, strict=True)
            return ", ".join(f"{name} {value:.4g} {unit}".rstrip() for name, value, unit in parts)
        if self.kind == "multiclass":
            return f"{self.predicted[0]} ({self.scores.max():.2f})"
        return (
            ", ".join(f"{name} ({self.scores[self.classes.index(name)]:.2f})" for name in self.predicted)
            or "none of the labels"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        if self.kind == "embedding":
            return {"vector": self.scores.tolist(), "seconds": round(self.seconds, 3)}
        numbers = {name: float(s) for name, s in zip(self.classes, self.scores, strict=True)}
        seconds = {"seconds": round(self.seconds, 3)}
        if self.kind == "value":
            return {"values": numbers, "units": dict(zip(self.classes, self.units, strict=True)), **seconds}
        if self.kind == "multiclass":
            return {"answer": self.predicted[0], "scores": numbers, **seconds}
        return {"labels": list(self.predicted), "scores": numbers, **seconds}


@dataclass(frozen=True)
class RecordAnswer(ColumnAnswer):
    """What a model of frames says: a `record` of items in time. `scores` (name,) are the means of its
    values, of marks how many there are."""

    record: Items | None = None

    @property
    def predicted(self) -> tuple[str, ...]:
        return ()

    @property
    def words(self) -> str:
        if isinstance(self.record, Marks):
            found = [f"{s:.0f} {name}" for name, s in zip(self.classes, self.scores, strict=True) if s]
            return ", ".join(found) or "nothing was found"
        parts = zip(self.classes, self.scores, self.units or ("",) * len(self.classes), strict=True)
        means = ", ".join(f"{name} {value:.4g} {unit}".rstrip() for name, value, unit in parts)
        return f"{means} (mean of {count(len(self.record or ()), 'row')})"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values: the rows, or the marks, with their times."""
        seconds = {"seconds": round(self.seconds, 3)}
        if isinstance(self.record, Marks):
            return {"marks": [_mark(own, i) for own in self.record.marks for i in range(len(own))], **seconds}
        rows = []
        if isinstance(self.record, ValuePredictions):
            for (start, end), values in zip(
                self.record.times.tolist(), self.record.values.tolist(), strict=True
            ):
                rows.append({"start": start, "end": end, **dict(zip(self.record.names, values, strict=True))})
        return {"rows": rows, "units": dict(zip(self.classes, self.units, strict=False)), **seconds}


def _mark(marks: MarkList, i: int) -> dict[str, Any]:
    times = {"start": round(float(marks.starts[i]), 3), "end": round(float(marks.ends[i]), 3)}
    score = None if np.isnan(marks.scores[i]) else round(float(marks.scores[i]), 3)
    return {"kind": marks.kinds[i], "name": marks.names[i], **times, "score": score}


@dataclass(frozen=True)
class ColumnJudge(Judge):
    """Outputs of any task but meter to answers; there is nothing to calibrate or to abstain by."""

    kind: str = "multiclass"
    units: tuple[str, ...] = ()

    def __call__(self, classes: tuple[str, ...], scored: Scored, seconds: float) -> ColumnAnswer:
        if scored.record is not None:
            return RecordAnswer(
                classes, scored.scores, seconds, kind="value", units=self.units, record=scored.record
            )
        return ColumnAnswer(classes, scored.scores, seconds, kind=self.kind, units=self.units)


def judge_of(
    task: Task, calibration: Calibration | None, priors: Mapping[str, float] | None, abstain: float
) -> Judge:
    """The judge of a task; one over a column has no calibration. Raises RunError for priors or abstention,
    which need one."""
    if task.config.task.name == "meter":
        return Judge(calibration, priors, abstain)
    if priors or abstain:
        raise RunError(
            f"priors and abstention are for meters, and this model answers {task.config.task.name}"
        )
    return ColumnJudge(kind=task.output.kind, units=task.output.units)
