"""Multilabel: any number of the labels of a column are right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from beatmeter.datasets.columns import several_labels
from beatmeter.evaluation import metrics
from beatmeter.schema import ClassPredictions, Items, Track, as_classes
from beatmeter.tasks.base import LOSS, Choice, State
from beatmeter.tasks.column import LabelTask
from beatmeter.tasks.losses import LOSSES


class MultilabelTask(LabelTask):
    """One sigmoid per label; a cell lists the labels of a track, separated by comma, semicolon or bar."""

    kind = "multilabel"
    read = staticmethod(several_labels)
    legend = "mAP: mean average precision over the labels; F1: mean over the labels at 0.5"
    selection: ClassVar[tuple[Choice, ...]] = (Choice("map", "higher"), Choice("macro_f1", "higher"), LOSS)

    def study(self, train: Sequence[Track]) -> State:
        """Weights of positives, negatives / positives from 1 to `task.weight_cap`, and the share of every
        label."""
        positives = self.counts(train)
        weight = np.ones(len(positives))
        if self.config.task.weighting == "balanced":
            balanced = (len(train) - positives) / np.maximum(positives, 1)
            weight = np.where(positives == 0, 1.0, np.clip(balanced, 1.0, self.config.task.weight_cap))
        return {
            "weight": weight.tolist(),
            "constant": (positives / len(train)).tolist(),
            "classes": list(self.classes),
        }

    def loss(
        self,
        outputs: Float[Tensor, "track klass"],
        targets: Float[Tensor, "track klass"],
        mask: Bool[Tensor, "track klass"],
        state: State,
    ) -> tuple[Tensor, Tensor]:
        """Mean over the labels of a track that are known."""
        weight = torch.as_tensor(state["weight"], dtype=outputs.dtype, device=outputs.device)
        losses = LOSSES[self.config.task.loss](outputs, targets, weight, self.config.task.smoothing)
        return (losses * mask).sum() / len(self.classes), mask.sum() / len(self.classes)

    def decode(
        self,
        outputs: Float[np.ndarray, "track klass"],
        tracks: Sequence[Track],
        split: str = "",
        meta: Mapping[str, Any] | None = None,
    ) -> ClassPredictions:
        scores = 0.5 * (1 + np.tanh(0.5 * outputs.astype(float)))  # a sigmoid that never overflows
        return ClassPredictions.of_tracks(tracks, self.classes, scores, split, meta=self.about(meta))

    def figures(self, predictions: Items) -> dict[str, Any]:
        p = as_classes(predictions)
        return {
            "map": float(np.nan_to_num(metrics.mean_average_precision(p.scores, p.targets))),
            "macro_f1": float(np.nan_to_num(metrics.macro_f1(p.scores, p.targets, 0.5))),
        }

    def epoch_line(self, figures: Mapping[str, Any]) -> str:
        return f"mAP {figures['map']:.3f}, macro-F1 {figures['macro_f1']:.3f}"

    def epoch_cells(self, figures: Mapping[str, Any]) -> dict[str, str]:
        return {"mAP": f"{figures['map']:.3f}", "F1": f"{figures['macro_f1']:.3f}"}
