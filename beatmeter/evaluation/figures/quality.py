"""How good and how sure: confusion matrix, recall and precision per class, reliability, accuracy against
coverage."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from beatmeter.evaluation.calibration import selective_curve, selective_table
from beatmeter.evaluation.figures.style import (
    BLUE,
    GRID,
    INK,
    MUTED,
    RED,
    SURFACE,
    blank,
    cell,
    percent_axis,
    strip,
    styled,
)
from beatmeter.evaluation.metrics import ClassRow, Estimate, correct, reliability, share
from beatmeter.evaluation.metrics.checks import Array
from beatmeter.schema import ClassPredictions


@styled
def confusion(classes: tuple[str, ...], counts: Array) -> Figure:
    """Counts of labels (rows) against answers (columns); colour is the share of the row, blue right, red
    wrong."""
    n = len(classes)
    figure, (axes,) = blank(0.9 + 0.36 * n)
    totals = counts.sum(axis=1)
    for i in range(n):
        for j in range(n):
            part = counts[i, j] / totals[i] if totals[i] else 0.0
            strength = 0.15 + 0.85 * part if counts[i, j] else 0.0
            ink = cell(axes, (j - 0.48, i - 0.46), (0.96, 0.92), BLUE if i == j else RED, strength)
            if counts[i, j]:
                axes.text(j, i, f"{counts[i, j]:d}", ha="center", va="center_baseline", color=ink)
    axes.set_xlim(-0.5, n - 0.5)
    axes.set_ylim(n - 0.5, -0.5)
    axes.set_xticks(range(n), classes)
    axes.set_yticks(range(n), [f"{c}  ({t})" for c, t in zip(classes, totals, strict=True)])
    axes.tick_params(labelcolor=INK, length=0)
    axes.set_xlabel("answer")
    axes.set_ylabel("label (items)")
    strip(axes, "left", "bottom")
    return figure


def _interval(axes: Axes, y: float, e: Estimate, color: str, marker: str) -> None:
    axes.plot([e.low, e.high], [y, y], color=color, linewidth=1.4)
    axes.plot(
        [e.value], [y], marker=marker, color=color, markersize=6, markeredgecolor=SURFACE, markeredgewidth=0.8
    )


@styled
def per_class(rows: tuple[ClassRow, ...]) -> Figure:
    """Recall (bar and dot, blue) and precision (diamond, grey) of every class, with 95 % intervals."""
    figure, (axes,) = blank(0.75 + 0.48 * len(rows))
    for i, r in enumerate(rows):
        if r.items:
            axes.barh(i - 0.14, r.recall.value, height=0.3, color=BLUE, alpha=0.22, linewidth=0)
            _interval(axes, i - 0.14, r.recall, BLUE, "o")
            axes.text(1.02, i - 0.14, f"{100 * r.recall.value:.0f}", va="center_baseline", color=BLUE)
        else:
            axes.text(0.01, i - 0.14, "not in the labels", va="center_baseline", color=MUTED, fontsize=8.5)
        if r.answers:
            _interval(axes, i + 0.2, r.precision, MUTED, "D")
            axes.text(1.02, i + 0.2, f"{100 * r.precision.value:.0f}", va="center_baseline", color=MUTED)
    percent_axis(axes)
    axes.set_ylim(len(rows) - 0.5, -0.95)
    axes.set_yticks(range(len(rows)), [f"{r.name}  ({r.items})" for r in rows])
    axes.tick_params(axis="y", labelcolor=INK)
    axes.text(0, -0.66, "● recall", color=BLUE, va="center_baseline")
    axes.text(0.24, -0.66, "◆ precision", color=MUTED, va="center_baseline")
    strip(axes, "left")
    axes.set_ylabel("class (items)")
    return figure


def _reliability(axes: Axes, confidence: Array, outcome: Array, groups: tuple[str, ...], bins: int) -> None:
    """One curve: mean score against share of outcomes, with the number of items as a faint histogram
    below."""
    curve = reliability(confidence, outcome, bins)
    filled = curve.items > 0
    tall = curve.items / max(1, curve.items.max()) * 0.28
    axes.bar(curve.edges[:-1], tall, width=np.diff(curve.edges), align="edge", color=GRID, linewidth=0)
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, dashes=(3, 3))
    at = np.minimum((confidence * bins).astype(int), bins - 1)
    for k in np.flatnonzero(filled):
        e = share(np.where(at == k, outcome, np.nan), groups)
        axes.plot([curve.confidence[k]] * 2, [e.low, e.high], color=BLUE, linewidth=1, alpha=0.6)
    axes.plot(curve.confidence[filled], curve.outcome[filled], color=BLUE, marker="o", markersize=3.5)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_aspect("equal")


@styled
def answer_reliability(p: ClassPredictions) -> Figure:
    """Score of the answer against how often it is right, with intervals; the histogram shows how many items
    have that score."""
    figure, (axes,) = blank(3.9)
    outcome = correct(p.scores, p.primary)
    _reliability(axes, p.scores.max(axis=1), outcome, p.groups, 10)
    percent_axis(axes, "x")
    percent_axis(axes, "y")
    axes.set_xlabel("score of the answer")
    axes.set_ylabel("answer is right")
    axes.text(0.03, 0.95, "above the line: too modest", color=MUTED, fontsize=8.5, va="top")
    axes.text(0.97, 0.33, "below: too sure", color=MUTED, fontsize=8.5, ha="right")
    return figure


@styled
def class_reliability(p: ClassPredictions) -> Figure:
    """The same for the sigmoid of every class: score against how often the class is there."""
    n = len(p.classes)
    columns = min(3, n)
    rows = math.ceil(n / columns)
    figure, panels = blank(0.45 + 1.3 * rows, rows, columns, sharex=True, sharey=True)
    labelled = (p.targets > 0).any(axis=1)
    for k, axes in enumerate(panels):
        if k >= n:
            axes.set_visible(False)
            continue
        outcome = np.where(labelled, (p.targets[:, k] > 0).astype(np.float64), np.nan)
        _reliability(axes, p.scores[:, k], outcome, p.groups, 8)
        axes.set_title(p.classes[k], fontsize=9.5, pad=3)
        axes.set_xticks([0, 0.5, 1], ["0", "", "100%"])
        axes.set_yticks([0, 0.5, 1], ["0", "", "100%"])
        axes.grid(True)
    figure.supxlabel("score of the class", fontsize=9.5, color=MUTED)
    figure.supylabel("class is there", fontsize=9.5, color=MUTED)
    return figure


@styled
def selective(p: ClassPredictions) -> Figure:
    """Accuracy of the answered items when the least sure ones are left out, with intervals."""
    figure, (axes,) = blank(2.9)
    coverage, accuracy = selective_curve(p)
    rows = selective_table(p)
    axes.fill_between(
        [r.coverage for r in rows],
        [r.low for r in rows],
        [r.high for r in rows],
        color=BLUE,
        alpha=0.15,
        linewidth=0,
    )
    steady = coverage >= min(0.05, coverage.max())
    axes.plot(coverage[steady], accuracy[steady], color=BLUE)
    for wanted in (1.0, 0.8):
        row = min(rows, key=lambda r: abs(r.coverage - wanted))
        axes.plot([row.coverage], [row.accuracy], "o", color=BLUE, markersize=6, markeredgecolor=SURFACE)
        text = f"all: {100 * row.accuracy:.0f}%" if wanted == 1 else f"surest 80%: {100 * row.accuracy:.0f}%"
        axes.annotate(
            text,
            (row.coverage, row.accuracy),
            (0, -9),
            textcoords="offset points",
            ha="right",
            va="top",
            color=INK,
        )
    low = math.floor(20 * min(r.low for r in rows)) / 20
    axes.set_xlim(0, 1.02)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100%"])
    axes.set_ylim(max(0.0, low - 0.05), 1.005)
    axes.yaxis.set_major_formatter(lambda v, _: f"{100 * v:.0f}%")
    axes.grid(True, axis="y")
    axes.set_xlabel("items answered, surest first")
    axes.set_ylabel("right")
    return figure
