"""Evaluations for the terminal: tables and findings that fit 100 columns."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

from beatmeter.evaluation.metrics import METRICS, ClassRow, Estimate, PairRow
from beatmeter.evaluation.report.evaluation import Evaluation
from beatmeter.runtime.display import count, cut, fill, width_of
from beatmeter.schema import Finding

WIDTH = 100
MARKS = {"ok": "  ", "note": "- ", "warning": "! "}


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Lines of a table: the first `left` columns start at the left, the others end at the right."""
    cells = [list(header), *(list(row) for row in rows)]
    widths = [max(width_of(row[k]) for row in cells) for k in range(len(header))]
    return [
        "  ".join(
            fill(c, w, right=k >= left) for k, (c, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]


def number(value: float, digits: int = 3) -> str:
    """A number, or "-" where there is none."""
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def percents(e: Estimate) -> str:
    """ "84.2 [81.1, 86.9]" in percent, or "-"."""
    return "-" if math.isnan(e.value) else f"{100 * e.value:.1f} [{100 * e.low:.1f}, {100 * e.high:.1f}]"


def wrapped(text: str, first: str = "", rest: str = "") -> list[str]:
    """`text` in lines of at most 100 columns."""
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False
    ) or [first]


VERDICTS = {
    "chance": "not surely better than guessing: more tracks, more epochs or other features are needed",
    "leakage": "output leakage: scores of some meters rise together without a reason in the labels",
    "raised floor": "all scores rise together: thresholds of a second meter mean little",
    "confused": "two meters compete for clips that have one",
    "polyrhythm": "two meters compete where two are heard",
    "selective": "one meter stands out clearly in most clips",
    "partly selective": "one meter stands out in many clips",
    "not selective": "the first meter hardly stands out from the second",
}


def verdict_text(verdict: str) -> str:
    """The one word of a summary in a sentence."""
    return VERDICTS.get(verdict, verdict)


def findings_text(findings: Sequence[Finding]) -> list[str]:
    """Findings as wrapped lines: "!" marks a warning, "-" a note."""
    lines: list[str] = []
    for f in findings:
        if f.name == "summary" and "steps" in f.values:
            lines += wrapped(f"verdict: {verdict_text(f.values['verdict'])}", MARKS[f.level], "    ")
            lines += wrapped(f.values["guessing"], "    ", "    ") if f.values["guessing"] else []
            for step in f.values["steps"]:
                lines += wrapped(f"{step['question']} {step['answer']}: {step['because']}", "    ", "      ")
        else:
            lines += wrapped(f"{f.title}: {f.text}", MARKS[f.level], "    ")
    return lines


def confusion_text(classes: Sequence[str], confusion: Sequence[Sequence[int]]) -> list[str]:
    """The confusion matrix, rows are labels; a dot for zero. Matrices too wide for the terminal list their
    errors instead."""
    short = [cut(c, 8) for c in classes]
    rows = [[short[i], *("." if n == 0 else str(n) for n in row)] for i, row in enumerate(confusion)]
    lines = table(["label \\ answer", *short], rows)
    if max(map(width_of, lines)) <= WIDTH:
        return lines
    wrong = sorted(
        ((n, i, j) for i, row in enumerate(confusion) for j, n in enumerate(row) if i != j and n),
        reverse=True,
    )
    return [f"  {cut(classes[i], 40)} heard as {cut(classes[j], 40)}: {n}" for n, i, j in wrong[:20]]


def classes_text(rows: Sequence[ClassRow]) -> list[str]:
    """One line per class."""
    return table(
        ["class", "items", "recall %", "precision %", "AP", "Brier", "ECE"],
        [
            [
                cut(r.name, 12),
                str(r.items),
                percents(r.recall),
                percents(r.precision),
                number(r.average_precision, 2),
                number(r.brier),
                number(r.ece),
            ]
            for r in rows
        ],
    )


def pairs_text(pairs: Sequence[PairRow]) -> list[str]:
    """Recall of two-meter items, one line per pair of classes."""
    return table(
        ["two meters", "items", "both on top %", "both above 0.5 %"],
        [
            ["+".join(cut(c, 12) for c in r.pair), str(r.items), percents(r.top2), percents(r.above)]
            for r in pairs
        ],
    )


def evaluation_text(e: Evaluation) -> str:
    """The whole evaluation: counts, metrics with 95 % intervals, per class, confusion matrix, findings."""
    p = e.predictions
    about = f"{count(len(p), 'item')} in {count(len(set(p.groups)), 'group')}" + (
        f" of the split {p.split!r}" if p.split else ""
    )
    unlabelled = int((p.primary < 0).sum())
    about += f", {unlabelled} without a label" if unlabelled else ""
    run = p.meta.get("run")
    lines = wrapped(f"{cut(str(run), 60)}: {about}" if run else about)
    lines += [
        "",
        *table(
            ["metric", "value", "95 % interval", "items"],
            [_metric_row(name, m) for name, m in e.measures.overall.items()],
        ),
    ]
    lines += [
        "",
        *classes_text(e.measures.classes),
        "",
        *confusion_text(p.classes, e.measures.confusion.tolist()),
    ]
    if e.measures.pairs:
        lines += ["", *pairs_text(e.measures.pairs)]
    if e.sources:
        rows = [
            [
                cut(s.source or "(none)", 24),
                str(s.items),
                percents(s.accuracy),
                f"{100 * s.source_only:.1f}",
                cut(s.majority, 12),
            ]
            for s in e.sources
        ]
        lines += ["", *table(["source", "items", "accuracy %", "source alone %", "mostly"], rows)]
    lines += ["", *findings_text(e.findings)]
    return "\n".join(lines) + "\n"


def _metric_row(name: str, e: Estimate) -> list[str]:
    return [METRICS[name].title, number(e.value), f"[{number(e.low)}, {number(e.high)}]", str(e.n)]
