"""Systems that learned nothing, to stand beside: boundaries from the grid alone, from novelty, from
clustering. Numpy only."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float, Int
from sklearn.cluster import AgglomerativeClustering

from beatmeter.tasks.structure.similarity import BarFeatures, Matrix, similarities

Starts = Int[np.ndarray, " section"]
SECTION_SECONDS = 18.0  # mean length of a section where one is asked for
REACH = 8  # bars on either side of a novelty kernel


def every_bars(count: int, bars: int = 8) -> Starts:
    """Sections of `bars` bars from the first bar on: what the grid alone gives away."""
    return np.arange(0, count, bars)


def random_bars(count: int, sections: int, rng: np.random.Generator) -> Starts:
    """As many sections as there are, on random bars."""
    inner = rng.choice(np.arange(1, count), min(sections - 1, count - 1), replace=False)
    return np.sort(np.concatenate([[0], inner]))


def foote(similarity: Matrix, reach: int = REACH) -> Starts:
    """Peaks, above their mean, of a checkerboard kernel with a Gaussian taper along the diagonal (J. Foote,
    "Automatic audio segmentation using a measure of audio novelty", 2000); no two within half its reach."""
    at = np.arange(-reach, reach) + 0.5
    taper = np.exp(-0.5 * (at / (reach / 2)) ** 2)
    kernel = np.outer(np.sign(at) * taper, np.sign(at) * taper)
    padded = np.pad(similarity, reach, mode="edge")
    novelty = np.array(
        [(padded[i : i + 2 * reach, i : i + 2 * reach] * kernel).sum() for i in range(len(similarity))]
    )
    half = reach // 2
    peaks = [
        i
        for i in range(1, len(novelty))
        if novelty[i] > novelty.mean() and novelty[i] >= novelty[max(1, i - half) : i + half + 1].max()
    ]
    return np.array([0, *peaks])


def clustering(bars: BarFeatures) -> Starts:
    """Ward clustering of neighbouring bars by mel bands, chroma and level; one section for every 18 s."""
    count = len(bars)
    sections = min(count, max(1, round(float(bars.edges[-1] - bars.edges[0]) / SECTION_SECONDS)))
    parts = [bars.mel.reshape(count, -1), bars.chroma.reshape(count, -1)]
    scaled = [x / max(1e-9, float(np.linalg.norm(x - x.mean(axis=0)))) for x in parts]
    chain = np.eye(count, k=1) + np.eye(count, k=-1)
    found = AgglomerativeClustering(sections, connectivity=chain).fit_predict(np.concatenate(scaled, axis=1))
    return np.concatenate([[0], np.flatnonzero(np.diff(found)) + 1])


def null_systems(
    bars: BarFeatures, sections: int, rng: np.random.Generator
) -> Mapping[str, Float[np.ndarray, " boundary"]]:
    """Boundaries in seconds, first and last included, by system. `sections` is the true number, for the
    random one."""
    count = len(bars)
    systems: dict[str, Callable[[], Starts]] = {
        "every 8 bars": lambda: every_bars(count),
        "random downbeats, true number": lambda: random_bars(count, sections, rng),
        "Foote, mel, 8 bars": lambda: foote(similarities(bars)["mel"][:, :]),
        "clustering, one section per 18 s": lambda: clustering(bars),
    }
    return {name: np.append(bars.edges[starts()], bars.edges[-1]) for name, starts in systems.items()}
