"""Log-lag autocorrelation in plain and straightened time with cross-correlations. The arithmetic is
`beatmeter.features.rhythm`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from beatmeter.features.backbones.base import Backbone
from beatmeter.features.poolings.base import Arrangement, Pooling
from beatmeter.features.poolings.lag import joined_windows, require_same
from beatmeter.features.rhythm import RhythmPooling
from beatmeter.schema import PoolingSpec
from beatmeter.settings import FeatureConfig


class Rhythm(Pooling):
    """One row a window of joined chunks, (channel, lag)."""

    kind = "rhythm"
    tempo_axis = True
    joins = True

    def __init__(self, spec: PoolingSpec, backbone: Backbone | None = None) -> None:
        """Raises FingerprintError where this version makes other rows of the backbone than the spec says."""
        super().__init__(spec, backbone)
        self.rhythm: RhythmPooling | None = None
        if backbone is not None:
            self.rhythm = RhythmPooling(backbone.lag_pooling(float(spec.parameters["longest"])))
            require_same(spec, self.rhythm.settings)

    @classmethod
    def make_spec(
        cls, name: str, backbone: Backbone, layers: tuple[int, ...], config: FeatureConfig
    ) -> PoolingSpec:
        rhythm = RhythmPooling(backbone.lag_pooling(config.longest_lag))
        settings = {"window": config.window, **rhythm.settings}
        shape = (rhythm.n_channels, rhythm.lag.n_lags)
        return PoolingSpec(name, cls.kind, "window", layers, ("channel", "lag"), shape, settings)

    def forward(
        self, states: Float[Tensor, "chunk frame dim"], arrangement: Arrangement
    ) -> Float[Tensor, "row channel lag"]:
        assert self.rhythm is not None
        return torch.stack([self.rhythm(joined) for joined in joined_windows(states, arrangement)])

    def pool_runs(
        self,
        states: Mapping[int, Float[Tensor, "frame dim"]],
        runs: Sequence[tuple[int, int]],
        first: int,
        chunk: int,
    ) -> Float[Tensor, "run layer channel lag"]:
        assert self.rhythm is not None
        period = self.rhythm.lag.channels.period
        rows = [
            torch.stack([self.rhythm(states[n][a - first : b - first], a % period) for n in self.spec.layers])
            for a, b in runs
        ]
        return torch.stack(rows)

    def count(self, arrangement: Arrangement, frames: int) -> int:
        return len(arrangement.windows)
