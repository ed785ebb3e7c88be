"""The figure of an ablation: the headline metric of every system, its interval, every seed, and the baseline
as a line."""

from __future__ import annotations

from matplotlib.figure import Figure

from beatmeter.evaluation.figures.style import INK, blank, styled
from beatmeter.evaluation.figures.systems import COLOURS, name_rows, system_row
from beatmeter.evaluation.metrics import METRICS
from beatmeter.experiments.ablation.result import Ablation


@styled
def ablation_figure(a: Ablation) -> Figure:
    """Blue is better than the baseline, orange worse, grey not distinguishable from it; rings are single
    seeds."""
    head = a.metrics[0]
    figure, (axes,) = blank(0.95 + 0.36 * len(a.rows), width=6.0)
    for i, r in enumerate(a.rows):
        m, test = r.metrics[head], r.tests.get(head)
        color = COLOURS[test.verdict] if test else INK
        if test is None:
            axes.axvline(m.mean.value, color=INK, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
        system_row(axes, i, m, color, f"{m.mean.value:.3f}")
    name_rows(axes, [r.system for r in a.rows], 32)
    axes.margins(x=0.06)
    axes.locator_params(axis="x", nbins=6)
    axes.set_xlabel(f"{METRICS[head].title}, {a.split} split, {a.items} items")
    axes.set_title(a.plan.title)
    return figure
