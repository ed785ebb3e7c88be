"""How figures look, on paper and on a page: two hues that colour-blind readers can tell apart, direct labels,
thin grids.

Figures are drawn in the light palette. On a page each colour becomes a CSS variable, so the same SVG follows
light and dark.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from functools import wraps
from html import escape
from typing import Any, ParamSpec

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

P = ParamSpec("P")

# name: (light, dark). The first two carry meaning: blue is right, first, gained; red is wrong, second, lost,
# a threshold.
PALETTE = {
    "blue": ("#2a69b8", "#6ea8ee"),
    "red": ("#c8501a", "#f08a4b"),
    "ink": ("#1d1d1b", "#f0efea"),
    "muted": ("#65645f", "#a3a29b"),
    "grid": ("#e3e2dd", "#3a3a37"),
    "surface": ("#fefefe", "#1b1b1a"),
    "onfill": ("#fffffe", "#10100f"),  # text on a strong fill
}
BLUE, RED, INK, MUTED, GRID, SURFACE, ONFILL = (light for light, _ in PALETTE.values())
WIDTH = 4.4  # inches: one column of a page, or a phone

RC: Any = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titlepad": 8,
    "axes.labelsize": 9.5,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.facecolor": SURFACE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.linewidth": 0.8,
    "axes.grid": False,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "text.color": INK,
    "figure.facecolor": SURFACE,
    "figure.dpi": 150,
    "savefig.dpi": 160,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "path.simplify": True,
}


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """A drawing function under the style of this project, whatever the caller's matplotlib is set to."""

    @wraps(draw)
    def inside(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with mpl.rc_context(RC):
            return draw(*args, **kwargs)

    return inside


def blank(
    height: float, rows: int = 1, columns: int = 1, width: float = WIDTH, **kwargs: Any
) -> tuple[Figure, list[Axes]]:
    """A figure of `width` x `height` inches and its axes, row by row. It belongs to no window and no global
    state."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, **kwargs)
    return figure, list(axes.ravel())


def strip(axes: Axes, *sides: str) -> None:
    """Take away spines and their ticks."""
    for side in sides:
        axes.spines[side].set_visible(False)
    if "bottom" in sides:
        axes.tick_params(bottom=False)
    if "left" in sides:
        axes.tick_params(left=False)


def cell(
    axes: Axes, corner: tuple[float, float], size: tuple[float, float], color: str, strength: float
) -> str:
    """Draw a rectangle of a matrix: `color` at `strength` (0 to 1) on a faint ground; gives the colour
    of text on it."""
    for fill, alpha in ((GRID, 0.35), (color, strength)):
        if alpha:
            axes.add_patch(Rectangle(corner, *size, facecolor=fill, alpha=alpha, linewidth=0))
    return ONFILL if strength > 0.8 else INK


def percent_axis(axes: Axes, which: str = "x", low: float = 0.0, high: float = 1.0) -> None:
    """Ticks at quarters, in percent, with a light grid."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xlim if which == "x" else axes.set_ylim)(low, high)
    ticks = [t / 100 for t in range(0, 101, 25) if low <= t / 100 <= high]
    axis.set_ticks(ticks, [f"{100 * t:.0f}%" if t == ticks[-1] else f"{100 * t:.0f}" for t in ticks])
    axes.grid(True, axis="x" if which == "x" else "y")


def to_png(figure: Figure) -> bytes:
    """PNG bytes in the light palette."""
    out = io.BytesIO()
    with mpl.rc_context(RC):
        figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


def to_svg(figure: Figure, name: str) -> str:
    """A standalone SVG file in the light palette; the same figure and name give the same text."""
    out = io.StringIO()
    with mpl.rc_context({**RC, "svg.hashsalt": name}):
        figure.savefig(
            out, format="svg", metadata={"Date": None, "Creator": None, "Type": None, "Format": None}
        )
    return out.getvalue()


def to_inline(figure: Figure, name: str, label: str) -> str:
    """An `<svg>` element for a page: as wide as its column, colours as CSS variables, `label` for those who
    cannot see it.

    `name` keeps the ids of clips and markers apart from those of other figures on the page.
    """
    svg = to_svg(figure, name)
    svg = svg[svg.index("<svg") :]
    head, body = svg[: svg.index(">")], svg[svg.index(">") + 1 :]
    box = re.search(r'viewBox="[^"]*"', head)
    for pattern, instead in _SHORTER:
        body = re.sub(pattern, instead, body, flags=re.DOTALL)
    body = re.sub(
        r' (?:d|x|y)="[^"]*"', lambda place: re.sub(r"(\.\d\d)\d+", r"\1", place[0]), body
    )  # coordinates, never text
    for key, (light, _) in PALETTE.items():
        body = body.replace(light, f"var(--{key})")
    return (
        f'<svg class="figure" role="img" aria-label="{escape(label)}" {box.group(0) if box else ""} '
        f'style="max-width:{figure.get_figwidth() * 72 * 1.6:.0f}px">{body.strip()}'
    )


_SHORTER = (
    (r"<metadata>.*?</metadata>", ""),
    (r"<!--.*?-->", ""),
    (r'<style type="text/css">.*?</style>', ""),  # it would reach the whole page
    (r'<g id="[^"]*"/>', ""),
    (r'<g id="[A-Za-z]\w*?[_.]\w+">', "<g>"),  # names of groups; ids of clips and markers are hashes
    (r"font-family: [^;\"]*;? ?", ""),
    (r' transform="rotate\(-?0 [^"]*\)"', ""),
    (r"#000000", "var(--ink)"),
    (r"\s*\n\s*", "\n"),
)
