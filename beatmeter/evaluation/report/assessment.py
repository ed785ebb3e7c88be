"""The evaluation of any family of records but meter: every metric with its interval beside null systems,
classes, and findings."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from beatmeter.errors import EvaluationError
from beatmeter.evaluation.diagnostics.answers import performance, sources
from beatmeter.evaluation.diagnostics.limits import LIMITS, Limits, plain
from beatmeter.evaluation.metrics import ClassRow, Estimate, correct, per_class, share
from beatmeter.evaluation.metrics.families import (
    FamilyMetric,
    constant_of,
    estimate_of,
    metrics_of,
    null_systems,
    null_values,
)
from beatmeter.evaluation.metrics.primary import confusion_matrix
from beatmeter.evaluation.metrics.retrieval import hubness, rank
from beatmeter.evaluation.report.evaluation import Evaluation, findings_json
from beatmeter.evaluation.similarity import likeness_of_views, selectivity
from beatmeter.schema import ClassPredictions, Embeddings, Finding, Items, Marks, ValuePredictions

COLLAPSED = 0.9  # mean cosine above which vectors say little
HEARD = 0.6  # area above which vectors are surely said to listen to a column
HUBS = 2.0  # hubness above which a few items crowd the lists of the others
NULLS = {
    "constant": "the constant answer of the train split",
    "shuffled": "its own answers in random order",
    "steady": "a metronome: a beat every half second, bars of four",
}


@dataclass(frozen=True)
class MetricRow:
    """One metric: its value with the interval, and what each null system comes to."""

    metric: FamilyMetric
    estimate: Estimate
    nulls: dict[str, float]

    @property
    def title(self) -> str:
        """Of what, which metric, in which unit."""
        of = f"{self.metric.of}: " if self.metric.of else ""
        return f"{of}{self.metric.title}" + (f" ({self.metric.unit})" if self.metric.unit else "")

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        m = self.metric
        return {
            "name": m.name,
            "of": m.of,
            "unit": m.unit,
            "better": m.better,
            **plain(self.estimate),
            "nulls": plain(self.nulls),
        }

    @property
    def beats_nulls(self) -> bool:
        """Whether the whole interval is better than every null system."""
        nulls = [value for value in self.nulls.values() if not math.isnan(value)]
        if self.metric.better == "higher":
            return all(self.estimate.low > value for value in nulls)
        return all(self.estimate.high < value for value in nulls)


@dataclass(frozen=True)
class Assessment:
    """A record with what was measured and found. `classes` and `confusion` (class, class) are of records of
    classes; the confusion matrix is of those in which one class is right."""

    predictions: Items
    rows: tuple[MetricRow, ...]
    findings: tuple[Finding, ...]
    classes: tuple[ClassRow, ...] = ()
    confusion: np.ndarray | None = None

    @property
    def verdict(self) -> str:
        """The word of the summary."""
        return str(self.findings[0].values["verdict"])

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values of all of it, without the record itself."""
        p = self.predictions
        return {
            "split": p.split,
            "record": "value"
            if isinstance(p, ValuePredictions)
            else "marks"
            if isinstance(p, Marks)
            else "embeddings"
            if isinstance(p, Embeddings)
            else "class",
            "names": list(names_of(p)),
            "items": len(p),
            "groups": len(set(p.groups)),
            "verdict": self.verdict,
            "metrics": [r.to_json() for r in self.rows],
            "per_class": plain(self.classes),
            "confusion": plain(self.confusion) if self.confusion is not None else [],
            "findings": findings_json(self.findings),
        }


def names_of(record: Items) -> tuple[str, ...]:
    """The classes of a record, the names of its values, or what its vectors are judged by."""
    if isinstance(record, Embeddings):
        return (str(record.meta.get("column") or record.meta.get("label") or "labels"),)
    return tuple(getattr(record, "classes", ())) or tuple(getattr(record, "names", ()))


def of_meter(record: Items) -> bool:
    """Whether a record is one of meter: scores of classes that no other task claims."""
    return (
        isinstance(record, ClassPredictions)
        and not record.exclusive
        and record.meta.get("task", "meter") == "meter"
    )


def evaluation_of(
    record: Items, validation: Items | None = None, limits: Limits = LIMITS, seed: int = 0
) -> Evaluation | Assessment:
    """The evaluation that fits a record: that of meter with its diagnostics, or the general one."""
    if (
        isinstance(record, ClassPredictions)
        and of_meter(record)
        and (validation is None or isinstance(validation, ClassPredictions))
    ):
        return Evaluation.of(record, validation, limits, seed)
    return assess(record, validation, limits, seed)


def assess(
    record: Items, validation: Items | None = None, limits: Limits = LIMITS, seed: int = 0
) -> Assessment:
    """Measure a record against null systems. Raises EvaluationError without items that have targets.

    The constant answer is that of the train split, which the model wrote down; `validation` stands in where
    it did not, and where neither is there only the shuffled answers are left.
    """
    if not len(record):
        raise EvaluationError(
            f"there are no predictions of the split {record.split!r}", "Check that the split has items."
        )
    metrics = metrics_of(record)
    if not any(m.counts(record).any() for m in metrics):
        raise EvaluationError(
            f"none of the {len(record)} predictions has a label", "Metrics need labels or targets."
        )
    nulls = null_systems(record, constant_of(record, validation), seed)
    found = [(m, estimate_of(m, record, limits.replicates, seed)) for m in metrics]
    rows = tuple(MetricRow(m, e, null_values(m, nulls)) for m, e in found if e.n)
    findings: list[Finding | None] = []
    if isinstance(record, ClassPredictions):
        reference = (
            validation
            if isinstance(validation, ClassPredictions) and validation.classes == record.classes
            else None
        )
        findings = [performance(record, limits, seed), sources(record, reference)] if record.exclusive else []
        findings += [_reliability(record, rows, limits)] if record.exclusive else []
    if isinstance(record, Embeddings):
        findings = [_geometry(record), _selectivity(record)]
    exclusive = isinstance(record, ClassPredictions) and record.exclusive
    return Assessment(
        record,
        rows,
        tuple(f for f in (_summary(rows), *findings) if f is not None),
        _classes(record) if isinstance(record, ClassPredictions) else (),
        confusion_matrix(record.scores, record.primary).astype(np.int64)
        if exclusive and isinstance(record, ClassPredictions)
        else None,
    )


def _classes(p: ClassPredictions) -> tuple[ClassRow, ...]:
    """Recall and precision of the answer where one class is right, of every score above 0.5 where several may
    be."""
    rows = per_class(p)
    if p.exclusive:
        return tuple(rows)
    found, known = [], p.primary >= 0
    for k, row in enumerate(rows):
        present, predicted = known & (p.targets[:, k] > 0), known & (p.scores[:, k] > 0.5)
        recall, precision = (
            share(np.where(of, present & predicted, np.nan), p.groups) for of in (present, predicted)
        )
        found.append(
            replace(
                row,
                items=int(present.sum()),
                answers=int(predicted.sum()),
                recall=recall,
                precision=precision,
            )
        )
    return tuple(found)


def _reliability(p: ClassPredictions, rows: tuple[MetricRow, ...], limits: Limits) -> Finding | None:
    """Whether answers are as often right as their scores say."""
    error = next((row.estimate for row in rows if row.metric.name == "primary_ece"), None)
    if error is None:
        return None
    surplus = float(p.scores.max(axis=1)[p.primary >= 0].mean() - np.nanmean(correct(p.scores, p.primary)))
    word = (
        "over-confident"
        if surplus > limits.ece / 2
        else "under-confident"
        if surplus < -limits.ece / 2
        else "neither over- nor under-confident"
    )
    text = f"calibration error of the answer {error}, {word} (mean score minus accuracy {surplus:+.2f})."
    return Finding(
        "reliability",
        "warning" if error.value > limits.ece else "ok",
        text,
        {"surplus": surplus, "primary_ece": plain(error)},
    )


def _geometry(record: Embeddings) -> Finding:
    """How far vectors lie from each other, and whether a few are near to everything."""
    cosines = record.unit @ record.unit.T
    n = len(record)
    mean = float((cosines.sum() - np.trace(cosines)) / (n * (n - 1)))
    hubs = hubness(rank(cosines, record.labels))
    told = ["nearly all vectors point one way"] * (mean > COLLAPSED) + ["a few are near to most"] * (
        hubs > HUBS
    )
    text = f"mean cosine of two items {mean:.3f}, hubness {hubs:.2f}" + "".join(f"; {t}" for t in told) + "."
    return Finding("geometry", "warning" if told else "ok", text, {"mean_cosine": mean, "hubness": hubs})


def _selectivity(record: Embeddings) -> Finding | None:
    """Which columns the vectors, and every other view, tell apart among items of different labels."""
    told = record.meta.get("factors")
    if not told:
        return None
    factors = {f["column"]: ([f["values"].get(i, "") for i in record.ids], f["within"]) for f in told}
    views = {"vectors": record.unit @ record.unit.T} | likeness_of_views(record)
    found = selectivity(views, record.labels, factors)
    parts = [
        f"{view}: "
        + ", ".join(
            f"{name} {number(e.value)} [{number(e.low)}, {number(e.high)}]" for name, e in areas.items()
        )
        for view, areas in found.items()
    ]
    heard = [name for name, e in found["vectors"].items() if e.low > HEARD]
    text = (
        "area under the curve, two items of different labels that share a column against two that do not;"
        f" 0.5: not heard. {'; '.join(parts)}."
    )
    return Finding("selectivity", "note" if heard else "ok", text, {"areas": plain(found), "heard": heard})


def _summary(rows: tuple[MetricRow, ...]) -> Finding:
    """Whether the first metric of everything that is measured is surely better than systems that heard
    nothing."""
    first: dict[str, MetricRow] = {}
    for row in rows:
        first.setdefault(row.metric.of, row)
    beaten = [row for row in first.values() if row.beats_nulls]
    verdict = (
        "better than chance"
        if len(beaten) == len(first)
        else "partly better than chance"
        if beaten
        else "chance"
    )
    parts = []
    for row in first.values():
        nulls = ", ".join(f"{NULLS[name]} {number(value)}" for name, value in row.nulls.items())
        parts.append(
            f"{row.title} {number(row.estimate.value)} [{number(row.estimate.low)}, "
            f"{number(row.estimate.high)}]; {nulls}"
        )
    text = f"{verdict}: {'. '.join(parts)}."
    return Finding(
        "summary", "ok" if verdict == "better than chance" else "warning", text, {"verdict": verdict}
    )


def number(value: float) -> str:
    """Three digits after the point, fewer for large numbers; "-" where there is none."""
    return "-" if math.isnan(value) else f"{value:.3f}" if abs(value) < 100 else f"{value:.1f}"
