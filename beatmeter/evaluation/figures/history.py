"""What happened over time: training curves and layer weights over epochs, meter over a piece of music."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from beatmeter.evaluation.diagnostics import layer_weights, series
from beatmeter.evaluation.figures.style import (
    BLUE,
    GRID,
    INK,
    MUTED,
    RED,
    SURFACE,
    WIDTH,
    blank,
    strip,
    styled,
)
from beatmeter.evaluation.timeline import Timeline

# panel: title, curves as (path in the log, name, colour), a line to compare with
PANELS = (
    ("loss", (("train.loss", "training", MUTED), ("val.loss", "validation", BLUE)), None),
    (
        "validation accuracy",
        (("val.balanced_accuracy", "balanced", BLUE), ("val.accuracy", "plain", MUTED)),
        None,
    ),
    ("selectivity", (("val.gap", "gap", BLUE), ("val.entropy", "entropy", RED)), None),
    ("worst correlation", (("val.worst_correlation", "", RED),), 0.3),
)


@styled
def training(history: Sequence[Mapping[str, Any]], best: int | None = None) -> Figure:
    """Loss, accuracy, gap, entropy and worst correlation over the epochs; a tick marks the epoch that was
    kept."""
    found = [
        (title, [(name, color, *series(history, path)) for path, name, color in curves], line)
        for title, curves, line in PANELS
    ]
    found = [(title, [c for c in curves if len(c[3])], line) for title, curves, line in found]
    found = [panel for panel in found if panel[1]]
    figure, panels = blank(1.25 * len(found) + 0.3, len(found), 1, sharex=True)
    last = max(int(c[2][-1]) for _, curves, _ in found for c in curves)
    for axes, (title, curves, line) in zip(panels, found, strict=True):
        axes.set_title(title, pad=4)
        if best is not None:
            axes.axvline(best, color=GRID, linewidth=4, zorder=0)
        if line is not None:
            axes.axhline(line, color=MUTED, linewidth=0.8, dashes=(3, 3))
        for _, color, epochs, values in curves:
            axes.plot(epochs, values, color=color, marker="o" if len(values) < 3 else None, markersize=4)
        low, high = axes.get_ylim()
        at = -np.inf
        for name, color, _, values in sorted(
            curves, key=lambda curve: float(curve[3][-1])
        ):  # labels at the ends keep apart
            at = max(float(values[-1]), at + 0.18 * (high - low))
            axes.text(last + 0.02 * max(1, last - 1), at, name, color=color, va="center_baseline")
        axes.grid(True, axis="y")
        axes.locator_params(axis="y", nbins=4)
    panels[-1].set_xlabel("epoch" + (f" (kept: {best})" if best is not None else ""))
    panels[-1].set_xlim(1 if last > 1 else 0.5, last + max(1.0, 0.22 * last))
    panels[-1].set_xticks(_ticks(last))
    return figure


def _ticks(last: int) -> list[int]:
    """Epochs to name on the axis: 1, the last, and round numbers between them."""
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 10**9) if last / s <= 7)
    return (
        [1, *(e for e in range(step, last, step) if e > 1 and last - e >= step / 2), last]
        if last > 1
        else [1]
    )


@styled
def layers(history: Sequence[Mapping[str, Any]]) -> Figure:
    """Weight of every layer: bars at the end of training with a line at uniform, and every epoch as a row of
    shades below."""
    table = layer_weights(history)
    figure, panels = blank(2.5 * len(table), 2 * len(table), 1, height_ratios=[1.5, 1] * len(table))
    for (name, rows), top, below in zip(table.items(), panels[::2], panels[1::2], strict=True):
        shares = rows / rows.sum(axis=1, keepdims=True)
        n = shares.shape[1]
        at = np.arange(1, n + 1)
        top.bar(at, shares[-1], color=BLUE, width=0.8, linewidth=0)
        top.axhline(1 / n, color=MUTED, linewidth=0.9, dashes=(3, 3))
        best = int(shares[-1].argmax())
        top.text(
            at[best],
            shares[-1, best],
            f"{100 * shares[-1, best]:.0f}%",
            ha="center",
            va="bottom",
            fontsize=8.5,
        )
        top.set_title(f"{name}: weight of each layer (dashed: uniform)", pad=4)
        top.yaxis.set_major_formatter(lambda v, _: f"{100 * v:.0f}%")
        top.set_ylim(0, 1.2 * max(shares[-1].max(), 1 / n))
        top.locator_params(axis="y", nbins=4)
        top.grid(True, axis="y")
        shown = np.unique(np.linspace(0, len(shares) - 1, min(len(shares), 20)).round().astype(int))
        for row, epoch in enumerate(shown):
            for layer in range(n):
                strong = float(shares[epoch, layer] / shares.max())
                below.add_patch(
                    Rectangle(
                        (layer + 0.5, row), 1, 1, facecolor=BLUE, alpha=strong, linewidth=0, antialiased=False
                    )
                )
        below.set_ylim(len(shown), 0)
        named = shown[[0, -1]] if len(shown) > 1 else shown
        below.set_yticks([0.5, len(shown) - 0.5][: len(named)], [f"epoch {e + 1}" for e in named])
        below.set_xlabel("layer")
        strip(below, "left", "bottom")
        for axes in (top, below):
            axes.set_xlim(0.5, n + 0.5)
            axes.set_xticks(at if n <= 13 else at[:: 2 if n <= 26 else 4])
    return figure


@styled
def timeline(line: Timeline) -> Figure:
    """The meter of every segment along the piece, the smoothed probability of each class below, and the times
    of changes."""
    n = len(line.classes)
    figure, (axes,) = blank(0.9 + 0.34 * n, width=2 * WIDTH)
    centres = line.times.mean(axis=1)
    edges = np.concatenate([[line.times[0, 0]], (centres[1:] + centres[:-1]) / 2, [line.times[-1, 1]]])
    for w in range(len(centres)):
        for k in range(n):
            strong = float(line.posterior[w, k])
            axes.add_patch(
                Rectangle(
                    (edges[w], k - 0.42),
                    edges[w + 1] - edges[w],
                    0.84,
                    facecolor=BLUE,
                    alpha=0.75 * strong,
                    linewidth=0,
                    antialiased=False,
                )
            )
    for s in line.segments:
        if s.meter is None:
            axes.text(
                (s.start + s.end) / 2, (n - 1) / 2, "no meter\nheard", ha="center", va="center", color=MUTED
            )
            continue
        k = line.classes.index(s.meter)
        axes.plot([s.start, s.end], [k, k], color=INK, linewidth=2.2)
        text = s.meter + (f" + {s.second}" if s.second else "")
        box = {"facecolor": SURFACE, "edgecolor": "none", "pad": 1.2, "alpha": 0.9}
        axes.text(
            (s.start + s.end) / 2, k, text, ha="center", va="center_baseline", fontweight="bold", bbox=box
        )
    for change in line.changes:
        axes.axvline(change, color=RED, linewidth=1, dashes=(3, 2))
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(n - 0.5, -0.5)
    axes.set_yticks(range(n), line.classes)
    axes.tick_params(axis="y", labelcolor=INK)
    step = next(t for t in (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1e9) if (edges[-1] - edges[0]) / t <= 9)
    ticks = np.arange(np.ceil(edges[0] / step) * step, edges[-1] + 1e-9, step)
    axes.set_xticks(ticks, [f"{int(t) // 60}:{int(t) % 60:02d}" for t in ticks])
    strip(axes, "left")
    axes.set_ylabel("meter")
    return figure
