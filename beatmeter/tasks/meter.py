"""Meter: several classes may be true at once (polyrhythm), one of them is primary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from beatmeter.errors import RunError
from beatmeter.evaluation import diagnostics, metrics
from beatmeter.runtime.artifacts import require
from beatmeter.schema import ClassPredictions, FeatureSpec, Finding, Items, Track, as_classes, label_table
from beatmeter.settings import RunConfig
from beatmeter.tasks.base import LOSS, Choice, Output, State, Targets, Task
from beatmeter.tasks.groupings import Groupings
from beatmeter.tasks.heads import Head
from beatmeter.tasks.losses import LOSSES, floor_of_negative

if TYPE_CHECKING:
    from beatmeter.evaluation.report import Evaluation

GROUPING_WEIGHT = 0.2  # of a track's grouping against its meter
TWO_WEIGHT = 0.2  # of whether it is in two meters


class MeterTask(Task):
    """Multi-hot targets with smoothed negatives, one sigmoid per class, primary answer by argmax; with
    `task.groupings` a softmax over the groupings of every class beside them, with `task.two_meters` a last
    output for whether two of them sound at once."""

    legend = (
        "right, balanced: of validation clips; gap: first score minus second;\npair: the scores that rise "
        "together most"
    )
    selection: ClassVar[tuple[Choice, ...]] = (
        Choice("balanced_accuracy", "higher"),
        Choice("accuracy", "higher"),
        LOSS,
    )

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config)
        self.output = Output("multilabel", config.task.meters)
        self.groupings = Groupings(config.task.meters if config.task.groupings else ())
        self.two_meters = config.task.two_meters

    @property
    def classes(self) -> tuple[str, ...]:
        """The meters, in the order of the outputs."""
        return self.output.names

    @property
    def width(self) -> int:
        return len(self.classes) + len(self.groupings.names) + self.two_meters

    def usable(self, track: Track) -> str | None:
        return None if track.labels else "it has no label"

    def targets(self, tracks: Sequence[Track]) -> Targets:
        values, primary = label_table(tracks, self.classes)
        meters = Targets(values, np.broadcast_to(primary[:, None] >= 0, values.shape))
        parts = [meters, self.groupings.targets(tracks)]
        if self.two_meters:
            two = (values > 0).sum(axis=1, keepdims=True) > 1
            parts.append(Targets(two.astype(float), primary[:, None] >= 0))
        return Targets(np.hstack([p.values for p in parts]), np.hstack([p.mask for p in parts]))

    def study(self, train: Sequence[Track]) -> State:
        positives = self._positives(train)
        weight = np.ones(len(self.classes))
        if self.config.task.weighting == "balanced":
            balanced = (len(train) - positives) / np.maximum(positives, 1)
            weight = np.where(positives == 0, 1.0, np.clip(balanced, 1.0, self.config.task.weight_cap))
        floors = floor_of_negative(self.config.task.loss, weight, self.config.task.smoothing)
        return {"weight": weight.tolist(), "floors": floors.tolist()}

    def check_state(self, state: Any) -> None:
        require(state, {"weight": [float], "?floors": [float]}, "the state of the task")
        if len(state["weight"]) != len(self.classes):
            raise RunError(
                f"the state of the task has {len(state['weight'])} weights for {len(self.classes)} classes"
            )

    def remarks(self, state: State, train: Sequence[Track]) -> list[Finding]:
        empty = [name for name, n in zip(self.classes, self._positives(train), strict=True) if n == 0]
        found = []
        if empty:
            text = f"no training track of class {', '.join(empty)}: its scores mean nothing"
            found.append(Finding("classes without examples", "warning", text, {"classes": empty}))
        return [*found, diagnostics.floor_warning(self.classes, state["floors"])]

    def _positives(self, train: Sequence[Track]) -> np.ndarray:
        """(class,) tracks that have each class."""
        found: np.ndarray = (label_table(train, self.classes)[0] > 0).sum(axis=0)
        return found

    def head(self, spec: FeatureSpec) -> nn.Module:
        return Head(spec, self.config.head, self.width)

    def loss(
        self,
        outputs: Float[Tensor, "track name"],
        targets: Float[Tensor, "track name"],
        mask: Bool[Tensor, "track name"],
        state: State,
    ) -> tuple[Tensor, Tensor]:
        """A track's loss is the mean over classes, `GROUPING_WEIGHT` times that of its grouping, and
        `TWO_WEIGHT` times that of whether it is in two meters."""
        n, last = len(self.classes), len(self.classes) + len(self.groupings.names)
        grouping = self.groupings.losses(outputs[:, n:last], targets[:, n:last], mask[:, n:last])
        two = nn.functional.binary_cross_entropy_with_logits(
            outputs[:, last:], targets[:, last:], reduction="none"
        ).sum(dim=1)
        outputs, targets, mask = outputs[:, :n], targets[:, :n], mask[:, :n]
        weight = torch.as_tensor(state["weight"], dtype=outputs.dtype, device=outputs.device)
        losses = LOSSES[self.config.task.loss](outputs, targets, weight, self.config.task.smoothing).mean(
            dim=1
        )
        labelled = mask.any(dim=1)
        losses = losses + GROUPING_WEIGHT * grouping + TWO_WEIGHT * two
        return (losses * labelled).sum(), labelled.sum()

    def decode(
        self,
        outputs: Float[np.ndarray, "track name"],
        tracks: Sequence[Track],
        split: str = "",
        meta: Mapping[str, Any] | None = None,
    ) -> ClassPredictions:
        scores = 1 / (1 + np.exp(-outputs[:, : len(self.classes)].astype(float)))
        return ClassPredictions.of_tracks(tracks, self.classes, scores, split, meta=meta)

    def grouped(self, outputs: Float[np.ndarray, "track name"]) -> list[Mapping[str, Mapping[str, float]]]:
        """For every track and class, how probable its groupings are if it is of that class."""
        n = len(self.classes)
        return self.groupings.decode(outputs[:, n : n + len(self.groupings.names)].astype(float))

    def doubled(self, outputs: Float[np.ndarray, "track name"]) -> list[float | None]:
        """For every track, how probable it is that two meters sound at once; None where that is not
        learned."""
        if not self.two_meters:
            return [None] * len(outputs)
        return [float(p) for p in 1 / (1 + np.exp(-outputs[:, -1].astype(float)))]

    def evaluate(self, predictions: Items, validation: Items | None = None) -> Evaluation:
        from beatmeter.evaluation.report import Evaluation

        return Evaluation.of(as_classes(predictions), None if validation is None else as_classes(validation))

    def figures(self, predictions: Items) -> dict[str, Any]:
        p = as_classes(predictions)
        pair, worst = diagnostics.worst_correlation(p)
        return {
            "accuracy": float(metrics.accuracy(p.scores, p.primary)),
            "balanced_accuracy": float(metrics.balanced_accuracy(p.scores, p.primary)),
            "entropy": float(metrics.binary_entropy(p.scores).mean()),
            "gap": float(metrics.confidence_gap(p.scores).mean()),
            "worst_correlation": worst,
            "worst_pair": list(pair),
        }

    def epoch_line(self, figures: Mapping[str, Any]) -> str:
        right, balanced = 100 * figures["accuracy"], 100 * figures["balanced_accuracy"]
        return f"{right:.1f} % right, balanced {balanced:.1f} %, gap {figures['gap']:.2f}"

    def epoch_cells(self, figures: Mapping[str, Any]) -> dict[str, str]:
        pair = "-".join(figures["worst_pair"])
        return {
            "right %": f"{100 * figures['accuracy']:.1f}",
            "balanced %": f"{100 * figures['balanced_accuracy']:.1f}",
            "gap": f"{figures['gap']:.2f}",
            "pair (r)": f"{pair:>4} ({figures['worst_correlation']:+.2f})",
        }
