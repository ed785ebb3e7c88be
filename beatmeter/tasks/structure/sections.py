"""Sections and drops of a track: from what its bars sound like to spans with letters, and how sure each
boundary and each drop is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float
from scipy.special import expit

from beatmeter.audio.barwise import FrameFeatures
from beatmeter.schema import MarkList
from beatmeter.tasks.structure.costs import BarNetwork, Evidence, read_evidence, shipped_network
from beatmeter.tasks.structure.descriptors import descriptors
from beatmeter.tasks.structure.segmentation import LEARNED, WITHOUT_LEARNING, cut_bars, letters
from beatmeter.tasks.structure.similarity import Alike, alike_bars, bar_features

ALIKE = 0.35  # similarity from which sections share a letter; fitted on generated songs
DROP, DROPS_APART = 0.6, 4  # probability from which a bar begins a drop; bars between two
STAND_IN = 2.0  # seconds of a bar where none are known
LEAST_BAR, MOST_BARS = 0.3, 2000  # seconds; bars of a track


@dataclass(frozen=True)
class HeardBars:
    """The bars of a track as sections and drops are found in them. edges: (bar + 1,) seconds. alike:
    similarity of every two. evidence: what learned costs say, None without them."""

    edges: Float[np.ndarray, " edge"]
    alike: Alike
    evidence: Evidence | None


def hear_bars(
    frames: FrameFeatures,
    downbeats: Float[np.ndarray, " bar"],
    network: BarNetwork | Literal["shipped"] | None = "shipped",
) -> HeardBars:
    """How alike the bars of a track are, and what speaks for boundaries and drops.

    downbeats: seconds at which bars begin. Bars before the first and after the last are added; without
    two downbeats, bars of 2 s stand in. network: learned costs, None for self-similarity alone.
    """
    network = shipped_network() if network == "shipped" else network
    edges = bar_edges(downbeats, frames.seconds)
    bars = bar_features(frames, edges)
    evidence = None if network is None else read_evidence(network, descriptors(bars))
    return HeardBars(edges, alike_bars(bars), evidence)


def find_sections(heard: HeardBars) -> MarkList:
    """Marks of the kind `section` without gaps over the whole track: names are letters, scores say how sure
    the start of each is."""
    if heard.evidence is None:
        cut = cut_bars(heard.alike, None, WITHOUT_LEARNING)
    else:
        cut = cut_bars(heard.alike, heard.evidence.boundary, LEARNED)
    times = heard.edges[cut.first]
    names = letters(heard.alike, cut.first, ALIKE)
    return MarkList.spans("section", times[:-1], times[1:], names, cut.sure)


def find_drops(heard: HeardBars) -> MarkList:
    """Marks of the kind `drop` at the bars with which drops begin, with their probability as score; none
    without learned costs. Of two within DROPS_APART bars the more probable one is kept."""
    if heard.evidence is None:
        return MarkList()
    probability = expit(heard.evidence.drop)
    found: list[int] = []
    for bar in np.argsort(-probability, kind="stable").tolist():
        if probability[bar] < DROP:
            break
        if bar and all(abs(bar - other) >= DROPS_APART for other in found):
            found.append(bar)
    found.sort()
    return MarkList.moments("drop", heard.edges[found], (), probability[found])


def bar_edges(downbeats: Float[np.ndarray, " bar"], seconds: float) -> Float[np.ndarray, " edge"]:
    """(bar + 1,) seconds from 0 to the end of the track at which bars begin: the downbeats, and bars as
    long as their neighbours before the first and after the last. What is left over at either end belongs to
    the bar beside it where it is shorter than half a bar."""
    known = np.unique(np.asarray(downbeats, float))
    known = known[(known >= 0) & (known < seconds)]
    if len(known) > 1:
        known = known[np.concatenate([[True], np.diff(known) >= LEAST_BAR])]
    if len(known) < 2:
        known = np.arange(0.0, max(seconds, STAND_IN), max(STAND_IN, seconds / MOST_BARS))
        known = known if len(known) > 1 else np.array([0.0, STAND_IN])
    first, last = float(np.median(np.diff(known[:9]))), float(np.median(np.diff(known[-9:])))
    before = known[0] - first * np.arange(int(known[0] / first), 0, -1)
    after = known[-1] + last * np.arange(1, int(max(0.0, seconds - known[-1]) / last) + 1)
    edges = np.concatenate([before, known, after])
    edges = np.append(edges, seconds) if seconds - edges[-1] >= last / 2 or len(edges) < 3 else edges
    edges = np.concatenate([[0.0], edges]) if edges[0] >= first / 2 else edges
    edges[0], edges[-1] = 0.0, max(seconds, edges[-2] + 0.05)
    return edges
