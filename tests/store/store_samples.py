"""Small specs and features for the store's tests, made from seeds so that any process can make the same ones
again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from beatmeter.audio.chunking import Layout, rows
from beatmeter.schema import ChunkSpec, Features, FeatureSpec, Pooled, PoolingSpec

CHUNK = ChunkSpec(sample_rate=1000, length=5000, hop=5000, tail_min=500, minimum=1000)
STATS = PoolingSpec(
    "stats", "stats", "chunk", (1, 2, 3), ("pool", "dim"), (2, 8), {"statistics": ["mean", "max"]}
)
LAG = PoolingSpec("lag", "lag", "window", (2, 3), ("channel", "lag"), (2, 5), {"window": 3})
FRAMES = PoolingSpec("frames", "frames", "frame", (3,), ("dim",), (8,), {"step": 25})


def spec(*poolings: PoolingSpec, store_dtype: str = "float16", **changes: object) -> FeatureSpec:
    """A small spec; STATS and LAG unless told otherwise."""
    fields: dict[str, object] = {
        "backbone": "hub/Tiny-v1",
        "revision": "r1",
        "weights": "0" * 64,
        "n_layers": 3,
        "dim": 8,
        "frame_hop": 20,
        "frame_span": 25,
        "normalise": True,
        "chunk": CHUNK,
        "poolings": poolings or (STATS, LAG),
        "store_dtype": store_dtype,
    }
    return FeatureSpec(**{**fields, **changes})  # type: ignore[arg-type]


def key(number: int) -> str:
    """A track key as extraction makes them: a sha256 in hex."""
    return hashlib.sha256(b"track %d" % number).hexdigest()


def features(of: FeatureSpec, number: int, samples: int | None = None) -> Features:
    """The features of track `number`: the same in every process."""
    rng = np.random.default_rng(number)
    samples = int(rng.integers(1000, 40_000)) if samples is None else samples
    layout = Layout.of(samples, of)
    pooled = {}
    for p in of.poolings:
        times, frames = rows(layout, p)
        values = rng.normal(size=(len(times), *p.row_shape)).astype(of.store_dtype)
        pooled[p.name] = Pooled(values, times, frames)
    return Features(of, samples, pooled)


def tracks(of: FeatureSpec, numbers: Sequence[int]) -> list[tuple[str, Features]]:
    """(key, features) of several tracks."""
    return [(key(n), features(of, n)) for n in numbers]


def same(a: Features, b: Features) -> bool:
    """Bit for bit equal, times and frames too."""
    return a.samples == b.samples and all(
        np.array_equal(a.pooled[n].values, b.pooled[n].values)
        and np.array_equal(a.pooled[n].times, b.pooled[n].times)
        and np.array_equal(a.pooled[n].frames, b.pooled[n].frames)
        for n in a.pooled
    )
