"""A collection as a map: every track at its first two principal axes, tracks of one label joined."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from beatmeter.evaluation.figures.style import BLUE, MUTED, RED, SURFACE, blank, strip, styled

NAMES = 40  # labels that are written on a map at most


def principal_axes(
    vectors: Float[np.ndarray, "item dim"], axes: int = 2
) -> tuple[Float[np.ndarray, "item axis"], Float[np.ndarray, " axis"]]:
    """Coordinates on the first principal axes, and the share of the variance that each holds (0 where there
    is none). Signs are such that the largest part of every axis is positive: the same vectors give the same
    map."""
    x = np.asarray(vectors, np.float64)
    x = x - x.mean(axis=0)
    _, sizes, directions = np.linalg.svd(x, full_matrices=False)
    kept = directions[:axes]
    largest = kept[np.arange(len(kept)), np.abs(kept).argmax(axis=1)]
    points = x @ (kept * np.sign(largest)[:, None]).T
    shares = np.square(sizes[:axes]) / max(float(np.square(sizes).sum()), 1e-12)
    missing = axes - len(kept)  # of fewer items or numbers than axes
    return np.pad(points, ((0, 0), (0, missing))), np.pad(shares, (0, missing))


@styled
def collection_map(
    points: Float[np.ndarray, "item 2"],
    shares: Float[np.ndarray, " 2"],
    labels: Sequence[str],
    marked: str = "",
) -> Figure:
    """Every item as a point; items of one label are joined with their middle, which carries the label where
    there are at most NAMES of them; the label `marked` is red."""
    figure, (axes,) = blank(6.2, width=6.6)
    names = np.array(labels, dtype=object)
    several = [name for name in dict.fromkeys(labels) if name and (names == name).sum() > 1]
    chosen = (names == marked) & (names != "")
    size = 5 if len(points) > 2000 else 12
    x, y = points.T
    axes.scatter(x[~chosen], y[~chosen], s=size, color=MUTED, alpha=0.55, linewidth=0)
    for name in several:
        mine = points[names == name]
        middle = mine.mean(axis=0)
        u, v = middle.tolist()
        color, width = (RED, 1.2) if name == marked else (BLUE, 0.6)
        for point in mine:
            axes.plot([u, point[0]], [v, point[1]], color=color, linewidth=width, alpha=0.6, zorder=1)
        if len(several) <= NAMES or name == marked:
            box = {"facecolor": SURFACE, "edgecolor": "none", "alpha": 0.7, "pad": 0.6}
            axes.text(u, v, name[:24], fontsize=6.5, color=color, ha="center", va="center", bbox=box)
    axes.scatter(x[chosen], y[chosen], s=size + 14, color=RED, linewidth=0, zorder=3)
    for name, share, put in (
        ("first", shares[0], axes.set_xlabel),
        ("second", shares[1], axes.set_ylabel),
    ):
        put(f"{name} principal axis, {100 * share:.0f} % of the variance")
    strip(axes, "left", "bottom")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_aspect("equal", adjustable="datalim")
    return figure
