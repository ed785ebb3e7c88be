"""How a training ends, in ten lines: the answer with its interval, the errors, the confidence, and what to
run next."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from beatmeter.evaluation.diagnostics.limits import percent
from beatmeter.evaluation.report.assessment import Assessment
from beatmeter.evaluation.report.assessment_text import assessment_closing
from beatmeter.evaluation.report.evaluation import Evaluation
from beatmeter.evaluation.report.text import verdict_text
from beatmeter.runtime.display import count, cut, fill

LABEL = 14  # columns of what a line is about


def closing_text(
    run: Path,
    evaluation: Evaluation | Assessment | None,
    history: Sequence[Mapping[str, Any]],
    best: int | None,
    width: int = 100,
) -> str:
    """The end of a training for the terminal, in lines of at most `width` columns where the names of folders
    allow it.

    `evaluation` is that of the test split, or of another where there is none; `best` the epoch whose weights
    were kept. Everything else is in the report.
    """
    kept = f", best epoch {best} of {len(history)}" if best and history else ""
    lines = [(str(run), f"finished{kept}")]
    if isinstance(evaluation, Assessment):
        lines += assessment_closing(evaluation)
    elif evaluation is not None:
        lines += [
            (evaluation.predictions.split or "items", _right(evaluation)),
            ("errors", _errors(evaluation)),
            ("confidence", _confidence(evaluation, run)),
            ("second meter", _second(evaluation)),
            ("verdict", verdict_text(evaluation.verdict)),
        ]
        warned = [f.title for f in evaluation.findings[1:] if f.level == "warning"]
        lines += [("warnings", f"{', '.join(warned)}: see the report")] if warned else []
    if evaluation is not None and evaluation.predictions.split:
        lines += [("numbers", f"{run}/evaluation/{evaluation.predictions.split}.txt")]
    lines += [("look", f"beatmeter report {run} --open"), ("use", f"beatmeter predict {run} song.mp3")]
    first = max(LABEL, len(lines[0][0]) + 2) if len(lines[0][0]) + 2 <= width // 3 else LABEL
    text: list[str] = []
    for name, sentence in lines:
        room = max(20, width - first)
        parts = (
            [sentence]
            if name in ("look", "use", "numbers")
            else textwrap.wrap(sentence, room, break_on_hyphens=False, break_long_words=False)
        )
        if len(name) + 2 > first:
            text += [name, *(" " * first + part for part in parts)]
        else:
            text += [fill(name, first) + parts[0], *(" " * first + part for part in parts[1:])]
    return "\n".join(text) + "\n"


def _right(e: Evaluation) -> str:
    accuracy, balanced = e.measures.overall["accuracy"], e.measures.overall["balanced_accuracy"]
    performance = e.finding("performance")
    chance = f", chance {percent(performance.values['chance'])}" if performance else ""
    span = f"[{100 * accuracy.low:.0f}, {100 * accuracy.high:.0f}]"
    return (
        f"{percent(accuracy.value)} right {span} of {count(accuracy.n, 'clip')} (balanced "
        f"{percent(balanced.value)}){chance}"
    )


def _errors(e: Evaluation) -> str:
    names, confusion = e.predictions.classes, e.measures.confusion
    wrong = sorted(
        (
            (int(n), i, j)
            for i, row in enumerate(confusion.tolist())
            for j, n in enumerate(row)
            if i != j and n
        ),
        key=lambda t: -t[0],
    )
    if not wrong:
        return "none: every answer is right"
    return ", ".join(f"{cut(names[i], 20)} heard as {cut(names[j], 20)} ({n})" for n, i, j in wrong[:3])


def _confidence(e: Evaluation, run: Path) -> str:
    finding = e.finding("reliability")
    if finding is None or math.isnan(surplus := float(finding.values["surplus"])):
        return "unknown"
    if finding.level == "ok":
        return "honest: probabilities are about as high as answers are often right"
    word = "over-confident" if surplus > 0 else "under-confident"
    if e.verdict == "chance":
        return f"{word} by {abs(surplus):.2f}, which calibrating cannot mend while answers are guesses"
    return f"{word} by {abs(surplus):.2f}: run `beatmeter calibrate {run}`"


def _second(e: Evaluation) -> str:
    finding = e.finding("polyrhythm")
    if finding is None:
        return "unknown: no clips of two meters to test on"
    heard = "heard" if finding.values["verdict"] == "heard" else "not heard reliably"
    return f"{heard} (area {finding.values['area']['value']:.2f}; 0.5 is chance)"
