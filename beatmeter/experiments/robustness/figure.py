"""The curves of robustness, one small panel for each."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from beatmeter.evaluation.figures.style import BLUE, MUTED, SURFACE, blank, percent_axis, strip, styled
from beatmeter.experiments.robustness.curves import Curve

COLUMNS = 2


@styled
def robustness_figure(curves: Sequence[Curve]) -> Figure:
    """Accuracy over level with 95 % intervals; a dashed line stands at untouched audio."""
    rows = -(-len(curves) // COLUMNS)
    figure, axes = blank(2.3 * rows, rows, COLUMNS)
    for curve, a in zip(curves, axes, strict=False):
        levels = [p.level for p in curve.points]
        a.fill_between(
            levels,
            [p.accuracy.low for p in curve.points],
            [p.accuracy.high for p in curve.points],
            color=BLUE,
            alpha=0.15,
            linewidth=0,
        )
        a.plot(
            levels,
            [p.accuracy.value for p in curve.points],
            "o-",
            color=BLUE,
            markersize=4,
            markeredgecolor=SURFACE,
        )
        if curve.clean is not None:
            a.axvline(curve.clean, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
        percent_axis(a, "y")
        strip(a, "left")
        a.set_title(curve.title)
        a.set_xlabel(curve.unit)
    for a in axes[len(curves) :]:
        a.set_visible(False)
    return figure
