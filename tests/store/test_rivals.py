"""What the store is compared with holds the same numbers, or the comparison says nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from beatmeter.schema import ChunkSpec, FeatureSpec, PoolingSpec
from beatmeter.store.rivals import RIVALS, AlwaysChecked, NeverChecked
from beatmeter.store.ways import Sample, Way

STATS = PoolingSpec(
    "stats", "stats", "chunk", (3, 6, 9), ("pool", "dim"), (2, 16), {"statistics": ["mean", "max"]}
)
SPEC = FeatureSpec("noise", "", "", 12, 16, 320, 400, True, ChunkSpec(), (STATS,))


@pytest.mark.parametrize("kind", [AlwaysChecked, NeverChecked, *RIVALS.values()])
def test_every_rival_gives_the_same_numbers(kind: type[Way], tmp_path: Path) -> None:
    sample = Sample.made(SPEC, 5)
    rival = kind(tmp_path / "kept", sample)
    for _ in range(2):
        np.testing.assert_array_equal(rival.scan(), sample.values)
        np.testing.assert_array_equal(
            rival.batch([3, 0, 2]), np.concatenate([sample.of_track(i) for i in (3, 0, 2)])
        )
        np.testing.assert_array_equal(rival.layer(1), sample.values[:, 1:2])
        rival.drop()
    assert rival.scan().base is None or not np.shares_memory(rival.scan(), sample.values)
