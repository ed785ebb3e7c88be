"""A collection as a map: every track at its first two principal axes, or where UMAP puts it; tracks of one
label are joined."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from beatmeter.errors import DataError
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


def neighbours_kept(vectors: Float[np.ndarray, "item dim"], seed: int = 0) -> Float[np.ndarray, "item 2"]:
    """Coordinates by UMAP of cosines (L. McInnes, J. Healy and J. Melville, arXiv:1802.03426): who is near
    whom is kept, distances between far groups say nothing. One thread, so that a seed gives one map. Raises
    DataError where umap-learn is not installed."""
    try:
        from umap import UMAP
    except ImportError:
        raise DataError("a map by UMAP needs umap-learn", "pip install 'beatmeter[umap]'") from None
    near = min(15, len(vectors) - 1)
    start = "spectral" if len(vectors) > 10 else "random"  # spectral layouts need more items than axes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        way = UMAP(n_neighbors=near, metric="cosine", init=start, random_state=seed, n_jobs=1)
        return np.asarray(way.fit_transform(np.asarray(vectors, np.float32)), np.float64)


@styled
def collection_map(
    points: Float[np.ndarray, "item 2"],
    shares: Float[np.ndarray, " 2"] | None,
    labels: Sequence[str],
    marked: str = "",
    names: Sequence[str] = (),
) -> Figure:
    """Every item as a point, on axes that hold `shares` of the variance, or on none that mean anything. Items
    of one label are joined with their middle, which carries the label where there are at most NAMES of them;
    the label `marked` is red. Where no label is shared, and there are at most NAMES items, every one carries
    its own of `names`."""
    figure, (axes,) = blank(6.2, width=6.6)
    of = np.array(labels, dtype=object)
    several = [name for name in dict.fromkeys(labels) if name and (of == name).sum() > 1]
    chosen = (of == marked) & (of != "")
    size = 5 if len(points) > 2000 else 12
    x, y = points.T
    axes.scatter(x[~chosen], y[~chosen], s=size, color=MUTED, alpha=0.55, linewidth=0)
    for name in several:
        mine = points[of == name]
        middle = mine.mean(axis=0)
        u, v = middle.tolist()
        color, width = (RED, 1.2) if name == marked else (BLUE, 0.6)
        for point in mine:
            axes.plot([u, point[0]], [v, point[1]], color=color, linewidth=width, alpha=0.6, zorder=1)
        if len(several) <= NAMES or name == marked:
            box = {"facecolor": SURFACE, "edgecolor": "none", "alpha": 0.7, "pad": 0.6}
            axes.text(u, v, name[:24], fontsize=6.5, color=color, ha="center", va="center", bbox=box)
    if not several and len(names) <= NAMES:
        for name, (u, v) in zip(names, points.tolist(), strict=True):
            side = "right" if u > np.median(x) else "left"  # names run inwards
            short = name if len(name) <= 28 else f"{name[:12]}...{name[-13:]}"
            axes.annotate(
                short, (u, v), (0, 5), textcoords="offset points", fontsize=6.5, color=MUTED, ha=side
            )
    axes.scatter(x[chosen], y[chosen], s=size + 14, color=RED, linewidth=0, zorder=3)
    if shares is None:
        axes.set_xlabel("UMAP: who is near whom is kept, distances between groups are not")
    else:
        axes.set_xlabel(f"first principal axis, {100 * shares[0]:.0f} % of the variance")
        axes.set_ylabel(f"second principal axis, {100 * shares[1]:.0f} % of the variance")
    strip(axes, "left", "bottom")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_aspect("equal", adjustable="datalim")
    return figure
