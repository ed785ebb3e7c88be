"""Multiclass: exactly one class of a column is right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from beatmeter.datasets.columns import one_class
from beatmeter.evaluation import metrics
from beatmeter.schema import ClassPredictions, Items, Track, as_classes
from beatmeter.tasks.base import LOSS, Choice, State
from beatmeter.tasks.column import LabelTask


class MulticlassTask(LabelTask):
    """Softmax over the classes, cross-entropy weighted by how rare a class is in the train split."""

    kind = "multiclass"
    read = staticmethod(one_class)
    legend = "right, balanced: of validation clips; sure: mean score of the answer"
    selection: ClassVar[tuple[Choice, ...]] = (
        Choice("balanced_accuracy", "higher"),
        Choice("accuracy", "higher"),
        LOSS,
    )

    def study(self, train: Sequence[Track]) -> State:
        """Class weights n / (classes x tracks of the class), at most `task.weight_cap`, and the share of
        every class."""
        counts = self.counts(train)
        weight = np.ones(len(counts))
        if self.config.task.weighting == "balanced":
            weight = np.minimum(
                len(train) / (len(counts) * np.maximum(counts, 1)), self.config.task.weight_cap
            )
        return {
            "weight": weight.tolist(),
            "constant": (counts / counts.sum()).tolist(),
            "classes": list(self.classes),
        }

    def loss(
        self,
        outputs: Float[Tensor, "track klass"],
        targets: Float[Tensor, "track klass"],
        mask: Bool[Tensor, "track klass"],
        state: State,
    ) -> tuple[Tensor, Tensor]:
        """Weighted cross-entropy; the count is the sum of the weights, so that the mean is a weighted one."""
        weight = torch.as_tensor(state["weight"], dtype=outputs.dtype, device=outputs.device)
        known = mask.any(dim=1)
        of_track = weight[targets.argmax(dim=1)] * known
        losses = nn.functional.cross_entropy(
            outputs, targets.argmax(dim=1), reduction="none", label_smoothing=self.config.task.smoothing
        )
        return (losses * of_track).sum(), of_track.sum()

    def decode(
        self,
        outputs: Float[np.ndarray, "track klass"],
        tracks: Sequence[Track],
        split: str = "",
        meta: Mapping[str, Any] | None = None,
    ) -> ClassPredictions:
        raised = np.exp(outputs.astype(float) - outputs.astype(float).max(axis=1, keepdims=True))
        scores = raised / raised.sum(axis=1, keepdims=True)
        return ClassPredictions.of_tracks(
            tracks, self.classes, scores, split, meta=self.about(meta), exclusive=True
        )

    def figures(self, predictions: Items) -> dict[str, Any]:
        p = as_classes(predictions)
        return {
            "accuracy": float(metrics.accuracy(p.scores, p.primary)),
            "balanced_accuracy": float(metrics.balanced_accuracy(p.scores, p.primary)),
            "sure": float(p.scores.max(axis=1).mean()),
        }

    def epoch_line(self, figures: Mapping[str, Any]) -> str:
        return f"{100 * figures['accuracy']:.1f} % right, balanced {100 * figures['balanced_accuracy']:.1f} %"

    def epoch_cells(self, figures: Mapping[str, Any]) -> dict[str, str]:
        shares = {"right %": "accuracy", "balanced %": "balanced_accuracy", "sure %": "sure"}
        return {heading: f"{100 * figures[name]:5.1f}" for heading, name in shares.items()}
