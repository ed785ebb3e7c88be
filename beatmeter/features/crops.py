"""Random crops of tracks in training: which one is drawn, in seconds, and which rows of a pooling it leaves.

The one owner of crops for both regimes. A track has a few views: view 0 is the whole, each other view one
crop that the track's content alone decides. Stored rows and audio that streams are cut by the same seconds to
the same rows, so frozen and streamed training see the same crops. Rows are never cut in two: a pooling that
gives one row for a track (lag, on a track of one window) gives that row for every crop of it, in both
regimes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from jaxtyping import Int

from beatmeter.audio.chunking import Layout
from beatmeter.features.poolings import pooling_of
from beatmeter.schema import FeatureSpec

Crop = tuple[float, float]  # start and end, seconds from the start of the track

# crops of a track that training chooses from; a fixed few, so that stored features are aggregated once per
# view
VIEWS = 4
SHORTEST = 0.5  # of a track


def draw_views(n: int, probability: float, seed: tuple[int, ...]) -> Int[np.ndarray, " track"]:
    """The view of each of `n` tracks: 0 with the probability 1 - `probability`, else one of 1 ... VIEWS."""
    rng = np.random.default_rng((*seed, 0, 1))  # apart from what is drawn for one track, by (*seed, track)
    views: np.ndarray = rng.integers(1, VIEWS + 1, n) * (rng.random(n) < probability)
    return views


def crop_of(key: str, view: int, seconds: float) -> Crop:
    """Start and end of a view of the track `key` (hex digits) that lasts `seconds`: all of it, or a crop
    whose length and place are uniform, at least half of the track."""
    if view == 0:
        return 0.0, seconds
    rng = np.random.default_rng((int(key[:15], 16), view))
    length = seconds * rng.uniform(SHORTEST, 1)
    start = rng.uniform(0, seconds - length)
    return start, start + length


def report_uncropped(spec: FeatureSpec, samples: Iterable[int], report: Callable[[str], object]) -> None:
    """Say which poolings no crop changes on how many tracks of these lengths, if there are such."""
    layouts = [Layout.of(int(n), spec) for n in samples]
    for pooling in spec.poolings:
        whole = sum(pooling_of(pooling).uncroppable(layout) for layout in layouts)
        if whole:
            seconds = int(pooling.parameters["window"]) * spec.chunk.hop / spec.chunk.sample_rate
            report(
                f"augment.crop: {whole} of {len(layouts)} tracks have one {pooling.name} window of "
                f"{seconds:g} s and are not cropped in it"
            )
