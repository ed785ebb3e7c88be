"""Poolings: layer states to the rows that a store keeps, and rows to one array a track. One class a file, one
line here each."""

from __future__ import annotations

from collections.abc import Mapping

from beatmeter.errors import FingerprintError
from beatmeter.features.backbones.base import Backbone
from beatmeter.features.poolings.base import Arrangement, Pooling
from beatmeter.features.poolings.frames import Frames
from beatmeter.features.poolings.harmony import Chroma, Harmony
from beatmeter.features.poolings.lag import Lag
from beatmeter.features.poolings.mel import Mel
from beatmeter.features.poolings.rhythm import Rhythm
from beatmeter.features.poolings.states import States
from beatmeter.features.poolings.stats import Stats
from beatmeter.schema import PoolingSpec

POOLINGS: Mapping[str, type[Pooling]] = {  # what settings may ask for and heads read
    pooling.kind: pooling for pooling in (Stats, Lag, Rhythm, Frames, Harmony, Chroma, Mel)
}
KINDS: Mapping[str, type[Pooling]] = {**POOLINGS, States.kind: States}


def pooling_class(spec: PoolingSpec) -> type[Pooling]:
    """The class of a spec's kind. Raises FingerprintError for a kind that this version does not know."""
    if spec.kind not in KINDS:
        raise FingerprintError(
            f"pooling {spec.name!r} is of the kind {spec.kind!r}; this version knows {', '.join(KINDS)}",
            "Update beatmeter, or extract again.",
        )
    return KINDS[spec.kind]


def pooling_of(spec: PoolingSpec, backbone: Backbone | None = None) -> Pooling:
    """The pooling of a spec; only one with a backbone can make rows."""
    return pooling_class(spec)(spec, backbone)


__all__ = ["KINDS", "POOLINGS", "Arrangement", "Pooling", "pooling_class", "pooling_of"]
