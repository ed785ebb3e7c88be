"""Moments at 5 Hz: where sections begin, and what happens between them.

Peaks of a curve above a threshold are its answers. The threshold is the one that does best on the
validation split, by the mean F over its tracks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from beatmeter.datasets.annotations import Annotation
from beatmeter.evaluation.metrics.events import moment_f
from beatmeter.evaluation.report import Assessment, assess
from beatmeter.schema import Curves, Items, MarkList, Marks, as_curves
from beatmeter.tasks.base import LOSS, Choice
from beatmeter.tasks.structure.decoding import peaks
from beatmeter.tasks.structure.frames import FrameTask, known_spans

RATE = 5.0  # Hz
THRESHOLDS = np.round(np.arange(0.1, 0.96, 0.05), 2)
UNJUDGED = 0.5  # threshold where no truth can choose one
TEMPO = "tempo"  # kind of a mark whose name is beats a minute


class MomentsTask(FrameTask):
    """Curves whose peaks are moments. A subclass says how moments become marks (`answer`)."""

    own_rate = RATE
    tolerance = 0.4  # seconds
    window = 0.5  # seconds within which a moment is found
    apart = 2.0  # seconds between two of a kind

    @abstractmethod
    def answer(self, moments: tuple[np.ndarray, ...], curves: Curves, item: int) -> MarkList:
        """Marks of one track from moments by output, (mark, 2) seconds and height of the peak."""

    def moments(
        self, curves: Curves, item: int, thresholds: Float[np.ndarray, " name"]
    ) -> tuple[Float[np.ndarray, "moment 2"], ...]:
        """Seconds and height of the peaks of each curve of one track."""
        apart = max(1, round(self.apart * curves.rate))
        found = []
        for curve, threshold in zip(curves.values[item].T, thresholds, strict=True):
            rows = peaks(curve, float(threshold), apart)
            heights = np.interp(rows, np.arange(len(curve)), curve)
            found.append(np.stack([curves.starts[item] + rows / curves.rate, heights], axis=1))
        return tuple(found)

    def thresholds(self, curves: Curves) -> tuple[Float[np.ndarray, " name"], Float[np.ndarray, " name"]]:
        """The best threshold of each output on these tracks, and the mean F that it reaches. Where nothing is
        known of an output its threshold is UNJUDGED and its F nan."""
        scores = np.full((len(THRESHOLDS), len(curves), len(curves.names)), np.nan)
        for t, threshold in enumerate(THRESHOLDS):
            for i, truth in enumerate(curves.truth):
                found = self.moments(curves, i, np.full(len(curves.names), threshold))
                for k, (right, said) in enumerate(zip(self.positives(truth), found, strict=True)):
                    if len(self.known(truth)[k]):
                        scores[t, i, k] = moment_f(right, said[:, 0], self.window)
        known = ~np.isnan(scores)
        means = np.where(known, scores, 0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
        best, judged = means.argmax(axis=0), known.any(axis=(0, 1))
        f = np.where(judged, means[best, np.arange(means.shape[1])], np.nan)
        return np.where(judged, THRESHOLDS[best], UNJUDGED), f

    def answers(self, predictions: Items, validation: Items | None = None) -> Marks:
        """Peaks above the thresholds of the `validation` curves, of its own where there are none."""
        curves = as_curves(predictions)
        chosen, _ = self.thresholds(curves if validation is None else as_curves(validation))
        return curves.decoded(
            [self.answer(self.moments(curves, i, chosen), curves, i) for i in range(len(curves))]
        )

    def evaluate(self, predictions: Items, validation: Items | None = None) -> Assessment:
        return assess(predictions, validation)

    def figures(self, predictions: Items) -> dict[str, Any]:
        _, f = self.thresholds(as_curves(predictions))
        return {
            "f": float(np.nanmean(f)) if not np.isnan(f).all() else 0.0,
            "f_of": {n: float(np.nan_to_num(x)) for n, x in zip(self.output.names, f, strict=True)},
        }

    def epoch_line(self, figures: Mapping[str, Any]) -> str:
        return ", ".join(f"{name} F {value:.3f}" for name, value in figures["f_of"].items())

    def epoch_cells(self, figures: Mapping[str, Any]) -> dict[str, str]:
        return {f"{name} F": f"{value:.3f}" for name, value in figures["f_of"].items()}


class BoundariesTask(MomentsTask):
    """Where sections meet: a curve that rises at every inner boundary of an annotation."""

    missing = "no sections are known of it"
    legend = "boundary: mean F within half a second on validation, at its best threshold"
    selection: ClassVar[tuple[Choice, ...]] = (Choice("f", "higher"), LOSS)

    def named(self) -> tuple[str, ...]:
        return ("boundary",)

    def marks_of(self, annotation: Annotation) -> MarkList:
        spans = annotation.sections
        if spans is None or not len(spans):
            return MarkList()
        return MarkList.spans("section", spans.starts, spans.ends, spans.labels) + known_spans(
            "boundary", spans.known
        )

    def positives(self, truth: MarkList) -> tuple[Float[np.ndarray, " mark"], ...]:
        starts = truth.of("section").starts
        return (starts[1:],)

    def answer(self, moments: tuple[np.ndarray, ...], curves: Curves, item: int) -> MarkList:
        """The boundaries, and the sections between them without gaps and without letters: a curve does not
        say what comes back."""
        rows = curves.seconds(item)
        if not len(rows):
            return MarkList()
        end = float(rows[-1]) + 0.5 / curves.rate
        inner = moments[0][(moments[0][:, 0] > 0) & (moments[0][:, 0] < end)]
        starts = np.concatenate([[0.0], inner[:, 0]])
        sure = np.concatenate([[1.0], np.clip(inner[:, 1], 0, 1)])
        sections = MarkList.spans("section", starts, np.append(starts[1:], end), (), sure)
        return sections + MarkList.moments("boundary", starts[1:], (), sure[1:])


class EventsTask(MomentsTask):
    """Drops, and where build-ups begin."""

    missing = "no events are known of it"
    legend = "drop, build-up: mean F within half a second on validation, at the best threshold"
    selection: ClassVar[tuple[Choice, ...]] = (Choice("f", "higher"), LOSS)

    def named(self) -> tuple[str, ...]:
        return "drop", "build-up"

    def marks_of(self, annotation: Annotation) -> MarkList:
        events = annotation.events
        if events is None:
            return MarkList()
        found = MarkList()
        for name in self.output.names:
            at = np.array([kind == name for kind in events.kinds], bool)
            ends = events.times[at] + events.lengths[at]
            found += MarkList.spans(name, events.times[at], ends) + known_spans(name, events.known)
        grid = annotation.grid
        if grid is not None and len(grid) > 1:
            found += MarkList.spans(TEMPO, grid.times[:1], grid.times[-1:], [f"{grid.tempo:.3f}"])
        return found

    def positives(self, truth: MarkList) -> tuple[Float[np.ndarray, " mark"], ...]:
        return tuple(truth.of(name).starts for name in self.output.names)

    def answer(self, moments: tuple[np.ndarray, ...], curves: Curves, item: int) -> MarkList:
        """A mark for every peak; a build-up lasts until the next drop, where there is one."""
        drops, ups = moments
        marks = MarkList.moments("drop", drops[:, 0], (), np.clip(drops[:, 1], 0, 1))
        ends = [min([t for t in drops[:, 0] if t > start], default=start) for start in ups[:, 0]]
        return marks + MarkList.spans("build-up", ups[:, 0], np.array(ends), (), np.clip(ups[:, 1], 0, 1))
