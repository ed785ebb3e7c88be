"""The comparison as tables for the terminal and a page, and as a figure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from beatmeter.evaluation.comparison.compare import ALPHA, SystemMetric
from beatmeter.evaluation.figures.style import INK, blank, percent_axis, styled
from beatmeter.evaluation.figures.systems import COLOURS, name_rows, system_row
from beatmeter.evaluation.metrics import METRICS
from beatmeter.evaluation.report.text import percents, table, wrapped
from beatmeter.experiments.study.judging import OnSet
from beatmeter.runtime.display import cut

SHORT = {"primary_ece": "ECE", "pair_recall": "pairs on top"}


def study_text(sets: Sequence[OnSet]) -> str:
    """One block for every set, then its parts."""
    lines: list[str] = []
    for s in sets:
        lines += ["", *wrapped(_about(s)), "", *table(_header(s), _rows(s, 34))]
        for header, rows in _part_tables(s, 34):
            lines += ["", *table(header, rows)]
    return "\n".join([*lines[1:], "", *wrapped(_note(sets))]) + "\n"


def study_markdown(sets: Sequence[OnSet]) -> str:
    """The same for a page."""
    lines: list[str] = []
    for s in sets:
        lines += [f"**{_about(s)}**", "", *_markdown(_header(s), _rows(s)), ""]
        for header, rows in _part_tables(s):
            lines += [*_markdown(header, rows), ""]
    return "\n".join([*lines, _note(sets)]) + "\n"


@styled
def study_figure(s: OnSet) -> Figure:
    """The headline metric of every system with its interval; blue is better than the first, orange worse,
    grey not distinguishable; rings are single seeds."""
    metric = next(iter(next(iter(s.comparison.metrics.values()))))
    verdicts = {
        pair.second: next(t.verdict for t in pair.tests if t.metric == metric) for pair in s.comparison.pairs
    }
    figure, (axes,) = blank(0.9 + 0.3 * len(s.comparison.metrics), width=6.4)
    for i, (name, metrics) in enumerate(s.comparison.metrics.items()):
        m, color = metrics[metric], COLOURS.get(verdicts.get(name, ""), INK)
        system_row(axes, i, m, color, f"{100 * m.mean.value:.1f}")
    name_rows(axes, list(s.comparison.metrics), 36)
    percent_axis(axes)
    axes.set_xlabel(f"{METRICS[metric].title}, %")
    axes.set_title(f"{s.name}, {s.items} items")
    return figure


def _about(s: OnSet) -> str:
    groups = len(set(s.comparison.systems[0].runs[0].groups))
    return f"{s.name}: {s.items} items in {groups} groups."


def _note(sets: Sequence[OnSet]) -> str:
    first = sets[0].comparison.systems[0].name
    return (
        "Percent, means over seeds; in brackets 95 % intervals from a bootstrap over groups, and over seeds "
        "where there are several. "
        f"Marks are against {first!r}, on the same items: + better, - worse, at {100 * ALPHA:g} % after "
        "Holm's correction; no mark is not "
        "distinguishable. Nothing was chosen on these sets."
    )


def _header(s: OnSet) -> list[str]:
    first, *others = next(iter(s.comparison.metrics.values()))
    return ["system", "seeds", METRICS[first].title, "", *(SHORT.get(m, METRICS[m].title) for m in others)]


def _rows(s: OnSet, width: int = 999) -> list[list[str]]:
    tests = {(pair.second, t.metric): t.verdict for pair in s.comparison.pairs for t in pair.tests}
    seeds = {system.name: str(system.seeds) for system in s.comparison.systems}
    rows = []
    for name, metrics in s.comparison.metrics.items():
        first, *others = metrics
        mark = {"better": "+", "worse": "-"}
        cells = [
            cut(name, width),
            seeds[name],
            percents(metrics[first].mean),
            mark.get(tests.get((name, first), ""), ""),
        ]
        rows.append(
            [*cells, *(_percent(metrics[m]) + mark.get(tests.get((name, m), ""), " ") for m in others)]
        )
    return rows


def _part_tables(s: OnSet, width: int = 999) -> list[tuple[list[str], list[list[str]]]]:
    """Accuracy by class, kind and source: systems down, values across."""
    found = []
    for column in dict.fromkeys(p.column for p in s.parts):
        parts = [p for p in s.parts if p.column == column]
        header = [f"accuracy by {column}", *(f"{cut(p.value, 18)} ({p.items})" for p in parts)]
        found.append(
            (
                header,
                [
                    [cut(name, width), *(_percent(p.accuracy[name]) for p in parts)]
                    for name in parts[0].accuracy
                ],
            )
        )
    return found


def _percent(m: SystemMetric) -> str:
    return "-" if np.isnan(m.mean.value) else f"{100 * m.mean.value:.1f}"


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]
