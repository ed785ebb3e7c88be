"""Two systems side by side: differences of metrics, classes won and lost, seeds, and the gate's matrix."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from beatmeter.evaluation.comparison.compare import Comparison, Pair
from beatmeter.evaluation.comparison.gate import Gate
from beatmeter.evaluation.figures.style import (
    BLUE,
    INK,
    MUTED,
    RED,
    SURFACE,
    blank,
    cell,
    strip,
    styled,
)
from beatmeter.evaluation.figures.systems import COLOURS, name_rows, system_row
from beatmeter.evaluation.metrics import METRICS


@styled
def differences(pair: Pair) -> Figure:
    """How much better the second system is in every metric (right of the line), with intervals; grey is not
    distinguishable."""
    tests = [t for t in pair.tests if not np.isnan(t.difference)]
    figure, (axes,) = blank(0.9 + 0.36 * len(tests))
    axes.axvline(0, color=MUTED, linewidth=0.9)
    for i, t in enumerate(tests):
        sign = -1 if METRICS[t.metric].better == "lower" else 1
        color = COLOURS[t.verdict]
        low, high = sorted((sign * t.low, sign * t.high))
        axes.plot([low, high], [i, i], color=color, linewidth=1.6)
        axes.plot([sign * t.difference], [i], "o", color=color, markersize=6.5, markeredgecolor=SURFACE)
        axes.text(
            1.02,
            i,
            f"{sign * t.difference:+.3f}",
            transform=axes.get_yaxis_transform(),
            color=color,
            va="center_baseline",
        )
    axes.set_ylim(len(tests) - 0.5, -0.6)
    axes.set_yticks(range(len(tests)), [METRICS[t.metric].title for t in tests])
    axes.tick_params(axis="y", labelcolor=INK)
    axes.margins(x=0.08)
    axes.locator_params(axis="x", nbins=5)
    axes.grid(True, axis="x")
    strip(axes, "left")
    axes.set_xlabel("improvement (losses and errors turned round)")
    return figure


@styled
def classes(pair: Pair) -> Figure:
    """Items of every class that only the second system answers right (blue, to the right) or only the first
    (red, to the left)."""
    figure, (axes,) = blank(0.75 + 0.36 * len(pair.classes))
    wide = max(1.0, *(max(c.gains, c.losses) for c in pair.classes))
    for i, c in enumerate(pair.classes):
        axes.barh(i, c.gains, height=0.62, color=BLUE, linewidth=0)
        axes.barh(i, -c.losses, height=0.62, color=RED, linewidth=0)
        axes.text(
            c.gains + 0.02 * wide, i, f"+{c.gains:.3g}" if c.gains else "", va="center_baseline", color=BLUE
        )
        axes.text(
            -c.losses - 0.02 * wide,
            i,
            f"−{c.losses:.3g}" if c.losses else "",
            va="center_baseline",
            ha="right",
            color=RED,
        )
    axes.axvline(0, color=MUTED, linewidth=0.9)
    axes.set_xlim(-1.2 * wide, 1.2 * wide)
    axes.set_ylim(len(pair.classes) - 0.5, -0.5)
    axes.set_yticks(range(len(pair.classes)), [f"{c.name}  ({c.items})" for c in pair.classes])
    axes.tick_params(axis="y", labelcolor=INK)
    axes.set_xticks([])
    strip(axes, "left", "bottom")
    axes.set_ylabel("class (items)")
    return figure


@styled
def systems(comparison: Comparison, metric: str = "accuracy") -> Figure:
    """One metric of every system: the mean with its interval, and every seed as a small ring."""
    rows = [(name, values[metric]) for name, values in comparison.metrics.items() if metric in values]
    figure, (axes,) = blank(0.75 + 0.36 * len(rows))
    for i, (_, m) in enumerate(rows):
        system_row(axes, i, m, BLUE, f"{m.mean.value:.3f}")
    name_rows(axes, [name for name, _ in rows], 24)
    axes.locator_params(axis="x", nbins=5)
    axes.set_xlabel(METRICS[metric].title)
    return figure


@styled
def gate(g: Gate) -> Figure:
    """The four ways in which candidate and opponent can be right or wrong, by the share of items."""
    figure, (axes,) = blank(2.3)
    cells = [
        ("both right", g.both_right, 0, 0, MUTED),
        ("gains: only the candidate", g.gains, 1, 0, BLUE),
        ("losses: only the other", g.losses, 0, 1, RED),
        ("both wrong", g.both_wrong, 1, 1, MUTED),
    ]
    most = max(n for _, n, *_ in cells)
    for text, n, x, y, color in cells:
        on = cell(axes, (x + 0.01, y + 0.02), (0.98, 0.96), color, 0.1 + 0.9 * n / most)
        axes.text(
            x + 0.5,
            y + 0.44,
            f"{n}",
            ha="center",
            va="center_baseline",
            fontsize=17,
            fontweight="bold",
            color=on,
        )
        axes.text(
            x + 0.5,
            y + 0.74,
            f"{text}, {100 * n / g.items:.0f}%",
            ha="center",
            va="center_baseline",
            fontsize=9,
            color=on,
        )
    axes.set_xlim(0, 2)
    axes.set_ylim(2, 0)
    axes.set_axis_off()
    return figure
