"""Beats and downbeats: two curves at 25 Hz."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from beatmeter.datasets.annotations import Annotation
from beatmeter.evaluation.metrics.beats import f_measure
from beatmeter.evaluation.report import Assessment, assess
from beatmeter.schema import Items, MarkList, Marks, as_curves
from beatmeter.tasks.base import LOSS, Choice
from beatmeter.tasks.structure.decoding import Beats, find_bars, peaks
from beatmeter.tasks.structure.frames import FrameTask, known_spans

RATE = 25.0  # Hz


class BeatsTask(FrameTask):
    """A curve for beats and one for downbeats, from annotations with a grid of beats."""

    own_rate = RATE
    tolerance = 0.04  # seconds: a row to either side
    missing = "no beats are known of it"
    legend = "beat, downbeat: mean F of peaks within 70 ms on validation, from second 5 on"
    selection: ClassVar[tuple[Choice, ...]] = (
        Choice("beat_f", "higher"),
        Choice("downbeat_f", "higher"),
        LOSS,
    )

    def named(self) -> tuple[str, ...]:
        return "beat", "downbeat"

    def marks_of(self, annotation: Annotation) -> MarkList:
        grid = annotation.grid
        if grid is None or not len(grid):
            return MarkList()
        names = [str(place) if place else "" for place in grid.places.tolist()]
        marks = MarkList.moments("beat", grid.times, names) + known_spans("beat", grid.known)
        return marks + known_spans("downbeat", grid.known) if (grid.places == 1).any() else marks

    def positives(self, truth: MarkList) -> tuple[Float[np.ndarray, " mark"], ...]:
        return truth.beats, truth.downbeats

    def answers(self, predictions: Items, validation: Items | None = None) -> Marks:
        """Beats with their places in the bar, by the pointer; meters are as frequent as in music."""
        curves = as_curves(predictions)
        found = [
            find_bars(values, curves.rate, start)
            for values, start in zip(curves.values, curves.starts.tolist(), strict=True)
        ]
        return curves.decoded([beat_marks(beats) for beats in found])

    def evaluate(self, predictions: Items, validation: Items | None = None) -> Assessment:
        return assess(predictions, validation)

    def figures(self, predictions: Items) -> dict[str, Any]:
        curves = as_curves(predictions)
        found: dict[str, list[float]] = {"beat_f": [], "downbeat_f": []}
        for i, truth in enumerate(curves.truth):
            for name, right, curve in zip(found, self.positives(truth), curves.values[i].T, strict=True):
                if len(right):
                    found[name].append(f_measure(right, curves.starts[i] + peaks(curve) / curves.rate))
        known = {name: [v for v in values if v == v] for name, values in found.items()}
        return {name: float(np.mean(values)) if values else 0.0 for name, values in known.items()}

    def epoch_line(self, figures: Mapping[str, Any]) -> str:
        return f"beat F {figures['beat_f']:.3f}, downbeat F {figures['downbeat_f']:.3f} (peaks)"

    def epoch_cells(self, figures: Mapping[str, Any]) -> dict[str, str]:
        return {"beat F": f"{figures['beat_f']:.3f}", "downbeat F": f"{figures['downbeat_f']:.3f}"}


def beat_marks(beats: Beats) -> MarkList:
    """Beats as marks: the name is the place in the bar."""
    return MarkList.moments("beat", beats.times, [str(p) for p in beats.places.tolist()], beats.scores)
