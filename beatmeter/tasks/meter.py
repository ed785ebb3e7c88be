"""Meter: several classes may be true at once (polyrhythm), one of them is primary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from beatmeter import diagnostics, metrics
from beatmeter.artifacts import require
from beatmeter.errors import RunError
from beatmeter.heads import Head
from beatmeter.schema import FeatureSpec, Finding, Predictions, Track, label_table
from beatmeter.settings import RunConfig
from beatmeter.tasks.base import Task
from beatmeter.tasks.losses import LOSSES, floor_of_negative


class MeterTask(Task):
    """Multi-hot targets with smoothed negatives, one sigmoid per class, primary answer by argmax."""

    legend = "right, balanced: of validation clips; gap: first score minus second;\npair: the scores that rise together most"

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config)
        self.classes = config.task.classes
        self.weight = np.ones(len(self.classes))

    def targets(self, tracks: Sequence[Track]) -> tuple[Float[np.ndarray, "track klass"], Int[np.ndarray, " track"]]:
        return label_table(tracks, self.classes)

    def fit_to(self, train: Sequence[Track]) -> list[Finding]:
        hard = self.targets(train)[0] > 0
        positives = hard.sum(axis=0)
        empty = [name for name, n in zip(self.classes, positives, strict=True) if n == 0]
        if self.config.task.weighting == "balanced":
            weight = (len(train) - positives) / np.maximum(positives, 1)
            self.weight = np.where(positives == 0, 1.0, np.clip(weight, 1.0, self.config.task.weight_cap))
        findings = []
        if empty:
            findings.append(
                Finding(
                    "classes without examples",
                    "warning",
                    f"no training track of class {', '.join(empty)}: its scores mean nothing",
                    {"classes": empty},
                )
            )
        floors = floor_of_negative(self.config.task.loss, self.weight, self.config.task.smoothing)
        findings.append(diagnostics.floor_warning(self.classes, [float(f) for f in floors]))
        return findings

    def head(self, spec: FeatureSpec) -> Head:
        return Head(spec, self.config.head, len(self.classes))

    def loss(self, logits: Float[Tensor, "track klass"], targets: Float[Tensor, "track klass"]) -> Float[Tensor, " track"]:
        weight = torch.as_tensor(self.weight, dtype=logits.dtype, device=logits.device)
        return LOSSES[self.config.task.loss](logits, targets, weight, self.config.task.smoothing).mean(dim=1)

    def predictions(self, tracks: Sequence[Track], logits: Float[np.ndarray, "track klass"], split: str, meta: Mapping[str, Any]) -> Predictions:
        return Predictions.of_tracks(tracks, self.classes, 1 / (1 + np.exp(-logits.astype(float))), split, meta=meta)

    def figures(self, predictions: Predictions) -> dict[str, Any]:
        p = predictions
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

    def state(self) -> dict[str, Any]:
        floors = floor_of_negative(self.config.task.loss, self.weight, self.config.task.smoothing)
        return {"weight": [float(w) for w in self.weight], "floors": [float(f) for f in floors]}

    def load_state(self, state: Mapping[str, Any]) -> None:
        require(state, {"weight": [float], "?floors": [float]}, "the state of the task")
        if len(state["weight"]) != len(self.classes):
            raise RunError(f"the state of the task has {len(state['weight'])} weights for {len(self.classes)} classes")
        self.weight = np.asarray(state["weight"], dtype=float)
