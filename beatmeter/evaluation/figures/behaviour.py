"""What the outputs do: gap against entropy, correlations between classes, and the noise floor with its
thresholds."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from beatmeter.evaluation.diagnostics import QUADRANTS, PairCorrelation, Quadrants
from beatmeter.evaluation.diagnostics.labels import ranked, right, several, single
from beatmeter.evaluation.figures.style import (
    BLUE,
    GRID,
    INK,
    MUTED,
    RED,
    SURFACE,
    blank,
    cell,
    strip,
    styled,
)
from beatmeter.evaluation.metrics import binary_entropy, confidence_gap
from beatmeter.evaluation.metrics.checks import Array
from beatmeter.schema import ClassPredictions

MOST = 1500  # points drawn at most; more are thinned out evenly


def _thinned(n: int) -> Array:
    """Positions of at most MOST of n items, spread evenly."""
    return np.unique(np.linspace(0, n - 1, min(n, MOST)).round().astype(int)) if n else np.zeros(0, dtype=int)


@styled
def plane(p: ClassPredictions, quadrants: Quadrants) -> Figure:
    """Every item by gap and entropy: blue right, red crosses wrong, open rings have several meters; the share
    of each quadrant."""
    figure, (axes,) = blank(3.9)
    x, y, where = confidence_gap(p.scores), binary_entropy(p.scores), quadrants.of(p)
    kept = np.isin(np.arange(len(p)), _thinned(len(p)))
    good, two, labelled = right(p), several(p), p.primary >= 0
    size = 9 if kept.sum() > 400 else 16
    axes.scatter(
        x[kept & good & labelled], y[kept & good & labelled], s=size, color=BLUE, alpha=0.45, linewidth=0
    )
    axes.scatter(
        x[kept & ~good & labelled],
        y[kept & ~good & labelled],
        s=size + 8,
        color=RED,
        marker="x",
        linewidth=1.1,
    )
    axes.scatter(x[kept & ~labelled], y[kept & ~labelled], s=size, color=MUTED, alpha=0.5, linewidth=0)
    axes.scatter(x[kept & two], y[kept & two], s=size + 26, facecolor="none", edgecolor=INK, linewidth=0.8)
    axes.axvline(quadrants.gap, color=MUTED, linewidth=0.9, dashes=(4, 3))
    axes.axhline(quadrants.entropy, color=MUTED, linewidth=0.9, dashes=(4, 3))
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.06)
    places = {"clear": (0.99, 0.02, "right", "bottom"), "dominant": (0.99, 0.985, "right", "top")}
    places |= {"paired": (0.012, 0.02, "left", "bottom"), "diffuse": (0.012, 0.985, "left", "top")}
    for k, name in enumerate(QUADRANTS):
        u, v, ha, va = places[name]
        box = {"facecolor": SURFACE, "edgecolor": "none", "alpha": 0.85, "pad": 1.5}
        axes.text(
            u,
            v,
            f"{name} {100 * (where == k).mean():.0f}%",
            transform=axes.transAxes,
            ha=ha,
            va=va,
            fontsize=9,
            bbox=box,
        )
    axes.set_xlabel("gap between the two highest scores")
    axes.set_ylabel("normalised binary entropy")
    axes.grid(True)
    legend = [("● right", BLUE), ("× wrong", RED)] + ([("○ several meters", INK)] if two.any() else [])
    for i, (text, color) in enumerate(legend):
        axes.text(0.23 * i, 1.02, text, transform=axes.transAxes, color=color, va="bottom")
    return figure


@styled
def correlations(classes: tuple[str, ...], pairs: list[PairCorrelation]) -> Figure:
    """Pearson's r between the outputs of classes: red together, blue apart; framed where the labels do not
    explain it."""
    n = len(classes)
    figure, (axes,) = blank(0.6 + 0.42 * n)
    at = {c: i for i, c in enumerate(classes)}
    for row in pairs:
        i, j = sorted((at[row.pair[0]], at[row.pair[1]]), reverse=True)
        ink = cell(axes, (j - 0.48, i - 0.46), (0.96, 0.92), RED if row.r > 0 else BLUE, min(1.0, abs(row.r)))
        if row.verdict == "leakage":
            axes.add_patch(
                Rectangle((j - 0.45, i - 0.43), 0.9, 0.86, fill=False, edgecolor=INK, linewidth=1.8)
            )
        text = f"{row.r:+.2f}".replace("+0.", "+.").replace("-0.", "−.")
        axes.text(j, i, text, ha="center", va="center_baseline", fontsize=9, color=ink)
    axes.set_xlim(-0.5, n - 1.5)
    axes.set_ylim(n - 0.5, 0.5)
    axes.set_xticks(range(n - 1), classes[:-1])
    axes.set_yticks(range(1, n), classes[1:])
    axes.tick_params(labelcolor=INK, length=0)
    strip(axes, "left", "bottom")
    leaking = any(row.verdict == "leakage" for row in pairs)
    note = "framed: not explained\nby the labels" if leaking else "no pair exceeds\nwhat labels explain"
    axes.text(1, 1, note, transform=axes.transAxes, ha="right", va="top", color=MUTED)
    return figure


@styled
def noise_floor(p: ClassPredictions, evaluation: Array, production: Array) -> Figure:
    """Second activations by their class: grey from single-meter items answered right (noise), blue from items
    with several meters (signal); the ticks are the evaluation and production thresholds."""
    n = len(p.classes)
    figure, (axes,) = blank(1.0 + 0.5 * n)
    order, top = ranked(p)
    noise, signal = single(p) & right(p), several(p)
    random = np.random.default_rng(0)
    axes.set_ylim(n - 0.5, -0.95)
    size = 7 if (noise | signal).sum() > 150 else 16
    for k in range(n):
        for mask, color, shift in ((noise, MUTED, -0.15), (signal, BLUE, 0.15)):
            values = top[mask & (order[:, 1] == k), 1]
            values = values[_thinned(len(values))]
            axes.scatter(
                values,
                k + shift + random.uniform(-0.1, 0.1, len(values)),
                s=size,
                color=color,
                alpha=0.5,
                linewidth=0,
            )
        axes.plot([evaluation[k]] * 2, [k - 0.36, k + 0.36], color=RED, linewidth=1.3, dashes=(2.5, 1.6))
        axes.plot([production[k]] * 2, [k - 0.36, k + 0.36], color=RED, linewidth=1.8)
        axes.axhline(k + 0.5, color=GRID, linewidth=0.6)
    axes.set_xlim(0, 1)
    axes.set_yticks(range(n), p.classes)
    axes.tick_params(axis="y", labelcolor=INK)
    axes.grid(True, axis="x")
    strip(axes, "left")
    axes.set_xlabel("second activation")
    axes.set_ylabel("its class")
    texts = [
        (0.0, "● one meter", MUTED),
        (0.25, "● several", BLUE),
        (0.46, "╎ evaluation", RED),
        (0.74, "┃ production", RED),
    ]
    for x, text, color in texts:
        axes.text(x, -0.7, text, color=color, va="center_baseline", fontsize=9)
    return figure
