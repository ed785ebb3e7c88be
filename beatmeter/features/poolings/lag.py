"""Log-lag autocorrelation of joined chunks: the pooling that keeps the order of time. The arithmetic is
`beatmeter.features.lag`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from beatmeter.errors import FingerprintError
from beatmeter.features.backbones.base import Backbone
from beatmeter.features.channels import Json
from beatmeter.features.lag import LagPooling
from beatmeter.features.poolings.base import Arrangement, Pooling
from beatmeter.schema import PoolingSpec
from beatmeter.settings import FeatureConfig


def require_same(spec: PoolingSpec, settings: Mapping[str, Json]) -> None:
    """Raise FingerprintError unless a spec was made with these settings of its pooling."""
    if {"window": spec.parameters["window"], **settings} != dict(spec.parameters):
        raise FingerprintError(
            f"these features have {spec.kind} pooling {dict(spec.parameters)}, this version makes "
            f"{dict(settings)}",
            "Use another cache folder: the old features stay readable by the version that made them.",
        )


def joined_windows(
    states: Float[Tensor, "chunk frame dim"], arrangement: Arrangement
) -> list[Float[Tensor, "frame dim"]]:
    """The states of every window, its chunks joined."""
    return [
        torch.cat([states[c, s:] for c, s in zip(range(*w.chunks), w.skip, strict=True)])
        for w in arrangement.windows
    ]


class Lag(Pooling):
    """One row a window of joined chunks, (channel, lag)."""

    kind = "lag"
    tempo_axis = True
    joins = True

    def __init__(self, spec: PoolingSpec, backbone: Backbone | None = None) -> None:
        """Raises FingerprintError where this version makes other rows of the backbone than the spec says."""
        super().__init__(spec, backbone)
        self.lag: LagPooling | None = None
        if backbone is not None:
            self.lag = backbone.lag_pooling(float(spec.parameters["longest"]))
            require_same(spec, self.lag.settings)

    @classmethod
    def make_spec(
        cls, name: str, backbone: Backbone, layers: tuple[int, ...], config: FeatureConfig
    ) -> PoolingSpec:
        lag = backbone.lag_pooling(config.longest_lag)
        settings = {"window": config.window, **lag.settings}
        return PoolingSpec(
            name, cls.kind, "window", layers, ("channel", "lag"), (lag.n_channels, lag.n_lags), settings
        )

    def forward(
        self, states: Float[Tensor, "chunk frame dim"], arrangement: Arrangement
    ) -> Float[Tensor, "row channel lag"]:
        assert self.lag is not None
        joined = joined_windows(states, arrangement)
        result: list[Tensor | None] = [None] * len(joined)
        for length in {len(j) for j in joined}:  # equal lengths go through the FFT together
            at = [i for i, j in enumerate(joined) if len(j) == length]
            rows = self.lag(torch.stack([joined[i] for i in at]).float())
            for i, row in zip(at, rows, strict=True):
                result[i] = row
        return torch.stack([r for r in result if r is not None])

    def pool_runs(
        self,
        states: Mapping[int, Float[Tensor, "frame dim"]],
        runs: Sequence[tuple[int, int]],
        first: int,
        chunk: int,
    ) -> Float[Tensor, "run layer channel lag"]:
        assert self.lag is not None
        period, parts = self.lag.channels.period, [torch.empty(0)] * len(runs)
        for length, phase in sorted({(b - a, a % period) for a, b in runs}):
            at = [i for i, (a, b) in enumerate(runs) if (b - a, a % period) == (length, phase)]
            slices = [slice(runs[i][0] - first, runs[i][1] - first) for i in at]
            rows = torch.stack(
                [self._equal_runs([states[n][s] for s in slices], phase) for n in self.spec.layers], dim=1
            )
            for i, row in zip(at, rows, strict=True):
                parts[i] = row
        return torch.stack(parts)

    def _equal_runs(
        self, states: Sequence[Float[Tensor, "frame dim"]], phase: int
    ) -> Float[Tensor, "run channel lag"]:
        assert self.lag is not None
        plain = states[0].device.type == "cpu" and not (torch.is_grad_enabled() and states[0].requires_grad)
        return self.lag.of_runs(states, phase) if plain else self.lag(torch.stack([*states]).float(), phase)

    def count(self, arrangement: Arrangement, frames: int) -> int:
        return len(arrangement.windows)
