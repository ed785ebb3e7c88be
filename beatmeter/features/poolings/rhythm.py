"""Log-lag autocorrelation in plain and straightened time with cross-correlations. The arithmetic is
`beatmeter.features.rhythm`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from beatmeter.features.backbones.base import Backbone
from beatmeter.features.poolings.base import Arrangement, Pooling
from beatmeter.features.poolings.lag import require_same
from beatmeter.features.rhythm import RhythmPooling
from beatmeter.schema import PoolingSpec
from beatmeter.settings import FeatureConfig


class Rhythm(Pooling):
    """One row a window of joined chunks, (channel, lag)."""

    kind = "rhythm"
    tempo_axis = True
    joins = True
    together = True

    def __init__(self, spec: PoolingSpec, backbone: Backbone | None = None) -> None:
        """Raises FingerprintError where this version makes other rows of the backbone than the spec says."""
        super().__init__(spec, backbone)
        self.rhythm: RhythmPooling | None = None
        if backbone is not None:
            self.rhythm = _rhythm_of(backbone, spec.layers, float(spec.parameters["longest"]))
            require_same(spec, self.rhythm.settings)

    @classmethod
    def make_spec(
        cls, name: str, backbone: Backbone, layers: tuple[int, ...], config: FeatureConfig
    ) -> PoolingSpec:
        rhythm = _rhythm_of(backbone, layers, config.longest_lag)
        settings = {"window": config.window, **rhythm.settings}
        shape = (rhythm.n_channels, rhythm.lag.n_lags)
        return PoolingSpec(name, cls.kind, "window", layers, ("channel", "lag"), shape, settings)

    def forward(
        self, states: Float[Tensor, "layer chunk frame dim"], arrangement: Arrangement
    ) -> Float[Tensor, "row layer channel lag"]:
        assert self.rhythm is not None
        return torch.stack(
            [
                self.rhythm(
                    torch.cat([states[:, c, s:] for c, s in zip(range(*w.chunks), w.skip, strict=True)], 1)
                )
                for w in arrangement.windows
            ]
        )

    def pool_runs(
        self,
        states: Mapping[int, Float[Tensor, "frame dim"]],
        runs: Sequence[tuple[int, int]],
        first: int,
        chunk: int,
    ) -> Float[Tensor, "run layer channel lag"]:
        assert self.rhythm is not None
        period = self.rhythm.lag.channels.period
        return torch.stack(
            [
                self.rhythm(
                    torch.stack([states[n][a - first : b - first] for n in self.spec.layers]), a % period
                )
                for a, b in runs
            ]
        )

    def count(self, arrangement: Arrangement, frames: int) -> int:
        return len(arrangement.windows)


def _rhythm_of(backbone: Backbone, layers: Sequence[int], longest: float) -> RhythmPooling:
    last = layers[-1] == backbone.n_layers
    activations = backbone.beat_activations() if last else None
    return RhythmPooling(backbone.lag_pooling(longest), activations, layers[0])
