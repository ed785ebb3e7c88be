"""Numbers against what they should be."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from beatmeter.evaluation.figures.style import BLUE, MUTED, blank, styled
from beatmeter.evaluation.metrics.checks import Array


@styled
def values(targets: Array, predicted: Array, unit: str = "") -> Figure:
    """A dot per item (item,) whose target is known: the target below, the answer at the side, in `unit`."""
    known = ~np.isnan(targets)
    figure, (axes,) = blank(3.4)
    axes.scatter(
        targets[known],
        predicted[known],
        s=max(6.0, min(30.0, 3000 / max(1, int(known.sum())))),
        color=BLUE,
        alpha=0.5,
        linewidth=0,
    )
    if known.any():
        ends = [float(f([*targets[known], *predicted[known]])) for f in (np.min, np.max)]
        axes.plot(ends, ends, color=MUTED, linewidth=0.8, dashes=(3, 3))
    axes.set_xlabel("target" + (f" ({unit})" if unit else ""))
    axes.set_ylabel("answer" + (f" ({unit})" if unit else ""))
    axes.grid(True)
    return figure
