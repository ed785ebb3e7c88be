"""Assessments for the terminal: the table of metrics beside null systems, classes, findings; and how such a
training ends."""

from __future__ import annotations

import math
from collections.abc import Sequence

from beatmeter.evaluation.metrics import Estimate
from beatmeter.evaluation.report.assessment import NULLS, Assessment, MetricRow, number
from beatmeter.evaluation.report.text import classes_text, confusion_text, findings_text, table, wrapped
from beatmeter.runtime.display import count, cut
from beatmeter.schema import ClassPredictions


def assessment_text(a: Assessment) -> str:
    """The whole assessment: counts, metrics with 95 % intervals beside null systems, per class, confusion
    matrix, findings."""
    p = a.predictions
    about = f"{count(len(p), 'item')} in {count(len(set(p.groups)), 'group')}" + (
        f" of the split {p.split!r}" if p.split else ""
    )
    run = p.meta.get("run")
    lines = wrapped(f"{cut(str(run), 60)}: {about}" if run else about)
    nulls = [name for name in NULLS if any(name in row.nulls for row in a.rows)]
    rows = [_cells(row, nulls) for row in a.rows]
    lines += ["", *table(["metric", "value", "95 % interval", *nulls, "items"], rows)]
    for name in nulls:
        lines += wrapped(f"{name}: {NULLS[name]}", "  ", "  ")
    if a.classes:
        lines += ["", *classes_text(a.classes)]
    if a.confusion is not None and isinstance(p, ClassPredictions):
        lines += ["", *confusion_text(p.classes, a.confusion.tolist())]
    lines += ["", *findings_text(a.findings)]
    return "\n".join(lines) + "\n"


def assessment_closing(a: Assessment) -> list[tuple[str, str]]:
    """What each of the last lines of a training is about, and what it says."""
    first: dict[str, list[str]] = {}
    for row in a.rows[:6]:
        nulls = ", ".join(f"{name} {number(value)}" for name, value in row.nulls.items())
        unit = f" {row.metric.unit}" if row.metric.unit else ""
        first.setdefault(row.metric.of, []).append(
            f"{row.metric.title} {number(row.estimate.value)}{unit} {_span(row.estimate)} ({nulls})"
        )
    lines = [
        (cut(of, 12) or a.predictions.split or "items", text)
        for of, texts in first.items()
        for text in texts[:3]
    ]
    if a.confusion is not None and isinstance(a.predictions, ClassPredictions):
        names = a.predictions.classes
        wrong = sorted(
            (
                (int(n), i, j)
                for i, r in enumerate(a.confusion.tolist())
                for j, n in enumerate(r)
                if i != j and n
            ),
            key=lambda t: -t[0],
        )
        told = ", ".join(f"{cut(names[i], 20)} taken for {cut(names[j], 20)} ({n})" for n, i, j in wrong[:3])
        lines.append(("errors", told or "none: every answer is right"))
    return [
        *lines,
        (
            "verdict",
            (
                f"{a.verdict}, by {count(len(a.predictions), 'item')} in "
                f"{count(len(set(a.predictions.groups)), 'group')}"
            ),
        ),
    ]


def _cells(row: MetricRow, nulls: Sequence[str]) -> list[str]:
    e = row.estimate
    return [
        cut(row.title, 44),
        number(e.value),
        _span(e),
        *(number(row.nulls.get(n, math.nan)) for n in nulls),
        str(e.n),
    ]


def _span(e: Estimate) -> str:
    return f"[{number(e.low)}, {number(e.high)}]"
