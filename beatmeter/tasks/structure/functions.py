"""What sections are for (verse, chorus, drop ...): one class a row at 5 Hz, and a path that changes
seldom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from beatmeter.datasets.annotations import Annotation
from beatmeter.datasets.synth.songs.song import FUNCTIONS
from beatmeter.evaluation.metrics.events import right_share
from beatmeter.evaluation.report import Assessment, assess
from beatmeter.schema import Curves, Items, MarkList, Marks, Track, as_curves
from beatmeter.tasks.base import LOSS, Choice, State, Targets
from beatmeter.tasks.structure.decoding.path import steadiest
from beatmeter.tasks.structure.frames import FrameTask, known_spans

RATE = 5.0  # Hz
PRICES = (0.0, 2.0, 5.0, 10.0, 20.0, 40.0)  # of a change, in nats at RATE

UNJUDGED = 10.0  # price where no truth can choose one


class FunctionsTask(FrameTask):
    """The function of the section that a row lies in, by cross-entropy. The classes are `task.classes`, else
    those of generated songs; where an annotation says none of them, nothing is learned."""

    own_rate = RATE
    tolerance = 0.0
    missing = "no functions of its sections are known"
    legend = "right: mean share of the time with the right function on validation, at the best price"
    selection: ClassVar[tuple[Choice, ...]] = (Choice("right", "higher"), LOSS)

    def named(self) -> tuple[str, ...]:
        return self.config.task.classes or FUNCTIONS

    def marks_of(self, annotation: Annotation) -> MarkList:
        spans = annotation.sections
        if spans is None:
            return MarkList()
        at = np.array([function in self.named() for function in spans.functions], bool)
        inside = np.stack([spans.starts[at], spans.ends[at]], axis=1)
        names = [name for name, there in zip(spans.functions, at, strict=True) if there]
        marks = MarkList.spans("function", inside[:, 0], inside[:, 1], names)
        return marks + known_spans("function", inside)

    def known(self, truth: MarkList) -> tuple[Float[np.ndarray, "interval 2"], ...]:
        return (truth.known("function"),) * len(self.named())

    def positives(self, truth: MarkList) -> tuple[Float[np.ndarray, " mark"], ...]:
        return tuple(truth.of("function", name).starts for name in self.named())

    def rows(
        self, truth: MarkList, times: Float[np.ndarray, " time"]
    ) -> tuple[Float[np.ndarray, "time name"], Bool[np.ndarray, "time name"]]:
        """1 for the function that a row lies in; known where one is."""
        values = np.zeros((len(times), len(self.named())), np.float32)
        for k, name in enumerate(self.named()):
            of = truth.of("function", name)
            for start, end in zip(of.starts, of.ends, strict=True):
                values[(times >= start) & (times < end), k] = 1.0
        return values, np.repeat(values.any(axis=1, keepdims=True), values.shape[1], axis=1)

    def targets(self, tracks: Sequence[Track]) -> Targets:
        """The share of its known time that a track spends in each function."""
        values = np.zeros((len(tracks), len(self.named())))
        for row, track in enumerate(tracks):
            for k, name in enumerate(self.named()):
                of = self.marks(track).of("function", name)
                values[row, k] = float((of.ends - of.starts).sum())
        total = values.sum(axis=1, keepdims=True)
        return Targets(values / np.maximum(total, 1e-9), np.repeat(total > 0, values.shape[1], axis=1))

    def study(self, train: Sequence[Track]) -> State:
        """Weights of the classes: the inverse of their share of the time, 1 on average over it, none above
        `task.weight_cap`; 1 for a class that never occurs."""
        found = self.targets(train)
        share = found.values[found.mask.any(axis=1)].mean(axis=0)
        weight = np.ones(len(share))
        if self.config.task.weighting == "balanced":
            weight = np.where(share > 0, 1 / np.maximum(share * (share > 0).sum(), 1e-9), 1.0)
            weight = np.minimum(weight, self.config.task.weight_cap)
        return {"weight": weight.tolist(), "share": share.tolist()}

    def row_losses(
        self,
        outputs: Float[Tensor, "track time name"],
        targets: Float[Tensor, "track time name"],
        mask: Bool[Tensor, "track time name"],
        state: State,
    ) -> tuple[Float[Tensor, "track time name"], Bool[Tensor, "track time name"]]:
        """Cross-entropy, weighted by class, in the column of the right class; the others count for
        nothing."""
        weight = torch.as_tensor(state["weight"], dtype=outputs.dtype, device=outputs.device)
        smoothing = self.config.task.frame_smoothing
        soft = targets * (1 - smoothing) + smoothing / targets.shape[-1]
        each = -(soft * nn.functional.log_softmax(outputs, dim=-1)).sum(dim=-1, keepdim=True)
        return each * weight, mask & (targets > 0)

    def probabilities(self, logits: Float[np.ndarray, "time name"]) -> Float[np.ndarray, "time name"]:
        raised = np.exp(logits - logits.max(axis=1, keepdims=True)) if len(logits) else logits
        found: np.ndarray = raised / raised.sum(axis=1, keepdims=True) if len(logits) else raised
        return found

    def price(self, curves: Curves) -> tuple[float, float]:
        """The price of a change that does best on these tracks, and the mean share of the time that is right
        with it."""
        scores = np.full((len(PRICES), len(curves)), np.nan)
        for p, price in enumerate(PRICES):
            for i, truth in enumerate(curves.truth):
                scores[p, i] = right_share("function", truth, self.spans(curves, i, price))
        known = ~np.isnan(scores[0])
        if not known.any():
            return UNJUDGED, 0.0
        means = scores[:, known].mean(axis=1)
        best = int(means.argmax())
        return PRICES[best], float(means[best])

    def spans(self, curves: Curves, item: int, price: float) -> MarkList:
        """The best path through the functions of one track as marks; scores are mean probabilities."""
        values = curves.values[item]
        if not len(values):
            return MarkList()
        path: Int[np.ndarray, " row"] = steadiest(
            np.log(np.maximum(values, 1e-6)), price * curves.rate / RATE
        )
        first = np.flatnonzero(np.diff(path, prepend=-1))
        edges = curves.starts[item] + (np.append(first, len(path)) - 0.5) / curves.rate
        edges = np.maximum(edges, 0.0)
        scores = [values[a:b, path[a]].mean() for a, b in zip(first, [*first[1:], len(path)], strict=True)]
        return MarkList.spans(
            "function", edges[:-1], edges[1:], [curves.names[k] for k in path[first]], np.array(scores)
        )

    def answers(self, predictions: Items, validation: Items | None = None) -> Marks:
        """Spans, by the price that does best on the `validation` curves, on its own where there are none."""
        curves = as_curves(predictions)
        price, _ = self.price(curves if validation is None else as_curves(validation))
        return curves.decoded([self.spans(curves, i, price) for i in range(len(curves))])

    def evaluate(self, predictions: Items, validation: Items | None = None) -> Assessment:
        return assess(predictions, validation)

    def figures(self, predictions: Items) -> dict[str, Any]:
        return {"right": self.price(as_curves(predictions))[1]}

    def epoch_line(self, figures: Mapping[str, Any]) -> str:
        return f"{figures['right']:.3f} of the time right"

    def epoch_cells(self, figures: Mapping[str, Any]) -> dict[str, str]:
        return {"right": f"{figures['right']:.3f}"}
