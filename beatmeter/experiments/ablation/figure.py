"""The figure of an ablation: the headline metric of every system, its interval, every seed, and the baseline
as a line."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from beatmeter.evaluation.figures.style import BLUE, INK, MUTED, RED, SURFACE, blank, strip, styled
from beatmeter.evaluation.metrics import METRICS
from beatmeter.experiments.ablation.result import Ablation
from beatmeter.runtime.display import cut

COLOURS = {"better": BLUE, "worse": RED, "not distinguishable": MUTED}


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
        axes.plot([m.mean.low, m.mean.high], [i, i], color=color, linewidth=1.6)
        if len(m.seeds) > 1:
            axes.scatter(
                m.seeds,
                np.full(len(m.seeds), i),
                s=20,
                facecolor=SURFACE,
                edgecolor=color,
                linewidth=1,
                zorder=3,
            )
        axes.plot([m.mean.value], [i], "o", color=color, markersize=6.5, markeredgecolor=SURFACE, zorder=4)
        axes.text(
            1.02,
            i,
            f"{m.mean.value:.3f}",
            transform=axes.get_yaxis_transform(),
            va="center_baseline",
            color=color,
        )
    axes.set_ylim(len(a.rows) - 0.5, -0.5)
    axes.set_yticks(range(len(a.rows)), [cut(r.system, 32) for r in a.rows])
    axes.tick_params(axis="y", labelcolor=INK)
    axes.margins(x=0.06)
    axes.locator_params(axis="x", nbins=6)
    axes.grid(True, axis="x")
    strip(axes, "left")
    axes.set_xlabel(f"{METRICS[head].title}, {a.split} split, {a.items} items")
    axes.set_title(a.plan.title)
    return figure
