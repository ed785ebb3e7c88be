"""Several tasks on frames on one encoder: their outputs side by side, their losses added by weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from beatmeter.datasets.annotations import Annotation
from beatmeter.errors import ConfigError, RunError, nearest
from beatmeter.evaluation.report import Assessment, assess
from beatmeter.schema import Items, MarkList, Marks, Track, as_curves
from beatmeter.settings import RunConfig
from beatmeter.tasks.base import LOSS, Choice, State, Targets
from beatmeter.tasks.structure.beats import BeatsTask
from beatmeter.tasks.structure.frames import FrameTask, members
from beatmeter.tasks.structure.functions import FunctionsTask
from beatmeter.tasks.structure.moments import BoundariesTask, EventsTask

PARTS: Mapping[str, type[FrameTask]] = {
    "beats": BeatsTask,
    "boundaries": BoundariesTask,
    "functions": FunctionsTask,
    "events": EventsTask,
}


class StructureTask(FrameTask):
    """`task.parts` on one encoder, at the highest of their rates. The loss is the sum of theirs, each times
    its weight in `task.weights`. A track needs to be known in one part alone."""

    tolerance = 0.0  # each part has its own
    missing = "nothing of its structure is known"
    legend = "mean over the parts of the figure that each is chosen by, on validation"
    selection: ClassVar[tuple[Choice, ...]] = (Choice("score", "higher"), LOSS)

    def __init__(self, config: RunConfig, rate: float | None = None) -> None:
        """Raises ConfigError for parts that are none, and for another number of weights."""
        names = config.task.parts
        for name in names:
            if name not in PARTS:
                raise ConfigError(f"task.parts: {name!r} is no part of structure", nearest(name, PARTS))
        if not names or len(set(names)) < len(names):
            raise ConfigError(f"task.parts = {list(names)} is not possible", "Name one or more, each once.")
        self.weights = config.task.weights or (1.0,) * len(names)
        if len(self.weights) != len(names):
            raise ConfigError(
                f"task.weights has {len(self.weights)} weights for {len(names)} parts ({', '.join(names)})"
            )
        self.own_rate = max(PARTS[name].own_rate for name in names)  # type: ignore[misc]
        self.parts = {name: PARTS[name](config, rate or self.own_rate) for name in names}
        super().__init__(config, rate)
        ends = np.cumsum([len(part.output.names) for part in self.parts.values()]).tolist()
        self.columns = [slice(a, b) for a, b in zip([0, *ends[:-1]], ends, strict=True)]

    def named(self) -> tuple[str, ...]:
        names = [name for part in self.parts.values() for name in part.output.names]
        taken = {name for name in names if names.count(name) > 1}  # a drop is an event and a function
        return tuple(
            f"{kind} {name}" if name in taken else name
            for kind, part in self.parts.items()
            for name in part.output.names
        )

    def marks_of(self, annotation: Annotation) -> MarkList:
        found = MarkList()
        for part in self.parts.values():
            found += part.marks_of(annotation)
        return found

    def positives(self, truth: MarkList) -> tuple[Float[np.ndarray, " mark"], ...]:
        return tuple(times for part in self.parts.values() for times in part.positives(truth))

    def known(self, truth: MarkList) -> tuple[Float[np.ndarray, "interval 2"], ...]:
        return tuple(spans for part in self.parts.values() for spans in part.known(truth))

    def targets(self, tracks: Sequence[Track]) -> Targets:
        found = [part.targets(tracks) for part in self.parts.values()]
        return Targets(*(np.concatenate([getattr(t, n) for t in found], axis=1) for n in ("values", "mask")))

    def rows(
        self, truth: MarkList, times: Float[np.ndarray, " time"]
    ) -> tuple[Float[np.ndarray, "time name"], Bool[np.ndarray, "time name"]]:
        found = [part.rows(truth, times) for part in self.parts.values()]
        values, mask = (np.concatenate([pair[k] for pair in found], axis=1) for k in range(2))
        return values, mask

    def study(self, train: Sequence[Track]) -> State:
        return {name: dict(part.study(train)) for name, part in self.parts.items()}

    def check_state(self, state: Any) -> None:
        if not isinstance(state, Mapping) or set(state) != set(self.parts):
            raise RunError(f"the state of the task is not one of {', '.join(self.parts)}")
        for name, part in self.parts.items():
            part.check_state(state[name])

    def loss(
        self,
        outputs: Float[Tensor, "track *time name"],
        targets: Float[Tensor, "track *time name"],
        mask: Bool[Tensor, "track *time name"],
        state: State,
    ) -> tuple[Tensor, Tensor]:
        """The sum of the losses of the parts, each times its weight, and how many there are."""
        total, count = outputs.new_zeros(()), outputs.new_zeros(())
        said = members(outputs, len(self.output.names))
        for (name, part), at, weight in zip(self.parts.items(), self.columns, self.weights, strict=True):
            own = torch.cat([one[..., at] for one in said], dim=-1)
            own, n = part.loss(own, targets[..., at], mask[..., at], state[name])
            total, count = total + weight * own, count + n
        return total, count

    def probabilities(self, logits: Float[np.ndarray, "time name"]) -> Float[np.ndarray, "time name"]:
        return np.concatenate(
            [p.probabilities(logits[:, at]) for p, at in zip(self.parts.values(), self.columns, strict=True)],
            axis=1,
        )

    def _of_parts(self, record: Items) -> dict[str, Items]:
        """The curves of each part under its own names."""
        curves = as_curves(record)
        return {
            name: replace(curves.only(self.output.names[at]), names=part.output.names)
            for (name, part), at in zip(self.parts.items(), self.columns, strict=True)
        }

    def answers(self, predictions: Items, validation: Items | None = None) -> Marks:
        """The marks of every part."""
        curves = as_curves(predictions)
        chosen = {} if validation is None else self._of_parts(validation)
        said = [MarkList()] * len(curves)
        for name, own in self._of_parts(curves).items():
            part = self.parts[name].answers(own, chosen.get(name))
            assert isinstance(part, Marks)
            said = [a + b for a, b in zip(said, part.marks, strict=True)]
        return curves.decoded(said)

    def evaluate(self, predictions: Items, validation: Items | None = None) -> Assessment:
        return assess(predictions, validation)

    def figures(self, predictions: Items) -> dict[str, Any]:
        own = self._of_parts(predictions)
        found = {name: part.figures(own[name]) for name, part in self.parts.items()}
        chosen = [found[name][part.selection[0].name] for name, part in self.parts.items()]
        return {"score": float(np.mean(chosen)), **found}

    def epoch_line(self, figures: Mapping[str, Any]) -> str:
        return "; ".join(part.epoch_line(figures[name]) for name, part in self.parts.items())

    def epoch_cells(self, figures: Mapping[str, Any]) -> dict[str, str]:
        return {name: f"{figures[name][part.selection[0].name]:.3f}" for name, part in self.parts.items()}
