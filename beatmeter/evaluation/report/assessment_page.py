"""The page of a run over a column, or of its predictions: metrics beside null systems, answers, training,
findings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from beatmeter.evaluation import figures as draw
from beatmeter.evaluation.metrics import Estimate
from beatmeter.evaluation.records import open_records
from beatmeter.evaluation.report.assessment import NULLS, Assessment, assess, names_of, number
from beatmeter.evaluation.report.page import Card, Drawn, Table, by_level, page
from beatmeter.evaluation.runs import RunFolder
from beatmeter.runtime.artifacts import read_text
from beatmeter.runtime.display import count
from beatmeter.schema import ClassPredictions, Items, ValuePredictions


def assess_file(where: Path, record: Items, seed: int = 0) -> Assessment:
    """The assessment of a record that was read from a run folder or a file; a run's validation split stands
    in for what it did not write down."""
    folder = RunFolder(where)
    beside = where.is_dir() and record.split != "val" and folder.predictions("val").exists()
    return assess(record, open_records(where, "val") if beside else None, seed=seed)


def assessment_figures(a: Assessment, history: Sequence[Mapping[str, Any]] = ()) -> dict[str, list[Drawn]]:
    """Every figure of the page, by section."""
    p = a.predictions
    answers, training = [], []
    if isinstance(p, ClassPredictions):
        if a.confusion is not None:
            caption = "Rows are labels, columns answers. Blue is right, red is wrong."
            answers.append(
                Drawn("confusion", draw.confusion(p.classes, a.confusion), "Confusion matrix", caption)
            )
            answers.append(
                Drawn(
                    "reliability",
                    draw.answer_reliability(p),
                    "Reliability of the answer",
                    "On the dashed line a score of 80% is right in 80%.",
                )
            )
        else:
            caption = "The score of each sigmoid against how often the label is there."
            answers.append(
                Drawn("class-reliability", draw.class_reliability(p), "Reliability of every label", caption)
            )
    if isinstance(p, ValuePredictions):
        for k, (name, unit) in enumerate(zip(p.names, p.units, strict=True)):
            caption = "Every item; on the dashed line the answer is right."
            answers.append(
                Drawn(f"values-{k + 1}", draw.values(p.targets[:, k], p.values[:, k], unit), name, caption)
            )
    if any("val" in line for line in history):
        training.append(
            Drawn(
                "training",
                draw.training(history),
                "Training",
                "Loss, and what the task follows, in every epoch.",
            )
        )
    return {"answers": answers, "training": training}


def assessment_page(
    where: Path, a: Assessment, command: str = "", drawn: Mapping[str, Sequence[Drawn]] | None = None
) -> str:
    """The whole page as HTML text."""
    p = a.predictions
    folder = RunFolder(where) if where.is_dir() else None
    drawn = drawn if drawn is not None else assessment_figures(a, history_of(where))
    nulls = [name for name in NULLS if any(name in row.nulls for row in a.rows)]
    lead = f"{count(len(p), 'item')} in {count(len(set(p.groups)), 'group')}" + (
        f" of the split {p.split}" if p.split else ""
    )
    cards = [
        Card(
            "Better than chance?",
            a.verdict,
            a.findings[0].text,
            "ok" if a.findings[0].level == "ok" else "warning",
        )
    ]
    for row in a.rows[:4]:
        told = ", ".join(f"{name} {number(row.nulls[name])}" for name in nulls if name in row.nulls)
        cards.append(
            Card(
                row.title,
                number(row.estimate.value),
                f"95% interval {_span(row.estimate)}; {told}",
                "ok" if row.beats_nulls else "",
            )
        )
    return page(
        "assessment.html",
        where.resolve().name if folder else str(p.meta.get("run", where.name)),
        f"{lead}; {p.meta.get('task', 'values')} of {', '.join(names_of(p))}",
        glance=cards,
        metrics=Table(
            ["metric", "value [95% interval]", *nulls, "items"],
            [
                [
                    r.title,
                    f"{number(r.estimate.value)} {_span(r.estimate)}",
                    *(number(r.nulls.get(n, math.nan)) for n in nulls),
                    str(r.estimate.n),
                ]
                for r in a.rows
            ],
        ),
        nulls=[f"{name}: {NULLS[name]}" for name in nulls],
        classes=_class_table(a) if a.classes else None,
        drawn=drawn,
        findings=by_level(a.findings),
        config=read_text(folder.config_file) if folder and folder.config_file.exists() else "",
        commands=command,
    )


def _class_table(a: Assessment) -> Table:
    rows = [
        [
            r.name,
            str(r.items),
            *(f"{number(e.value)} {_span(e)}" for e in (r.recall, r.precision)),
            number(r.average_precision),
        ]
        for r in a.classes
    ]
    return Table(["class", "items", "recall", "precision", "average precision"], rows)


def history_of(where: Path) -> Sequence[Mapping[str, Any]]:
    """The log of a run folder; empty for a file."""
    return RunFolder(where).read_log() if where.is_dir() else ()


def _span(e: Estimate) -> str:
    return f"[{number(e.low)}, {number(e.high)}]"
