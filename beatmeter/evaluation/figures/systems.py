"""Rows of systems in one metric, as every comparison draws them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from beatmeter.evaluation.comparison.compare import SystemMetric
from beatmeter.evaluation.figures.style import BLUE, INK, MUTED, RED, SURFACE, strip
from beatmeter.runtime.display import cut

COLOURS = {"better": BLUE, "worse": RED, "not distinguishable": MUTED}  # by verdict


def system_row(axes: Axes, row: int, m: SystemMetric, color: str, text: str) -> None:
    """One system: the mean with its interval, every seed as a small ring, and the value beside the axes."""
    axes.plot([m.mean.low, m.mean.high], [row, row], color=color, linewidth=1.6)
    if len(m.seeds) > 1:
        axes.scatter(
            m.seeds,
            np.full(len(m.seeds), row),
            s=20,
            facecolor=SURFACE,
            edgecolor=color,
            linewidth=1,
            zorder=3,
        )
    axes.plot([m.mean.value], [row], "o", color=color, markersize=6.5, markeredgecolor=SURFACE, zorder=4)
    axes.text(1.02, row, text, transform=axes.get_yaxis_transform(), va="center_baseline", color=color)


def name_rows(axes: Axes, names: Sequence[str], longest: int) -> None:
    """The systems' names, from top to bottom, in at most `longest` columns."""
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), [cut(name, longest) for name in names])
    axes.tick_params(axis="y", labelcolor=INK)
    axes.grid(True, axis="x")
    strip(axes, "left")
