"""Statistics over the frames of each chunk: mean, maximum, standard deviation. They forget the order of
time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from beatmeter.features.backbones.base import Backbone
from beatmeter.features.poolings.base import Arrangement, Pooling, pooled_frames, row_weights, split_run
from beatmeter.schema import PoolingSpec
from beatmeter.settings import FeatureConfig

VERSION = 1
STATISTICS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda x: x.mean(dim=1),
    "max": lambda x: x.amax(dim=1),
    "std": lambda x: x.var(dim=1, correction=0).clamp_min(1e-12).sqrt(),
}


class Stats(Pooling):
    """One row a chunk, (pool, dim)."""

    kind = "stats"

    def __init__(self, spec: PoolingSpec, backbone: Backbone | None = None) -> None:
        super().__init__(spec, backbone)
        self.statistics: tuple[str, ...] = tuple(spec.parameters["statistics"])

    @classmethod
    def make_spec(
        cls, name: str, backbone: Backbone, layers: tuple[int, ...], config: FeatureConfig
    ) -> PoolingSpec:
        settings = {"statistics": list(config.statistics), "version": VERSION}
        return PoolingSpec(
            name, cls.kind, "chunk", layers, ("pool", "dim"), (len(config.statistics), backbone.dim), settings
        )

    def forward(
        self, states: Float[Tensor, "chunk frame dim"], arrangement: Arrangement
    ) -> Float[Tensor, "row pool dim"]:
        x = states.float()
        return torch.stack([STATISTICS[name](x) for name in self.statistics], dim=1)

    def pool_runs(
        self,
        states: Mapping[int, Float[Tensor, "frame dim"]],
        runs: Sequence[tuple[int, int]],
        first: int,
        chunk: int,
    ) -> Float[Tensor, "run layer pool dim"]:
        """Rows are those of the parts of chunks that lie in a run, aggregated as those of a track are."""
        alone = Arrangement((), ())
        found = []
        for start, end in runs:
            parts = split_run(start, end, chunk)
            rows = [
                torch.cat(
                    [self(states[layer][None, a - first : b - first], alone) for layer in self.spec.layers]
                )
                for a, b in parts
            ]
            found.append(self.aggregate(torch.stack(rows), pooled_frames(parts, rows[0].device)))
        return torch.stack(found)

    def count(self, arrangement: Arrangement, frames: int) -> int:
        return len(arrangement.kept)

    def aggregate(
        self, values: Float[Tensor, "*track row layer pool dim"], frames: Int[Tensor, "*track row"]
    ) -> Float[Tensor, "*track layer pool dim"]:
        """Means are weighted by frames, the maximum is of maxima, the standard deviation that of the pooled
        frames: E[std^2 + mean^2] - E[mean]^2."""
        weight = row_weights(values, frames)[..., 0]
        parts = []
        for i, name in enumerate(self.statistics):
            part = values[..., i, :]
            if name == "max":
                parts.append(part.amax(dim=-3))
            elif name == "mean":
                parts.append((part * weight).sum(dim=-3))
            elif "mean" in self.statistics:
                mean = values[..., self.statistics.index("mean"), :]
                total = (mean * weight).sum(dim=-3)
                parts.append((((part**2 + mean**2) * weight).sum(dim=-3) - total**2).clamp_min(1e-12).sqrt())
            else:
                parts.append((part**2 * weight).sum(dim=-3).clamp_min(1e-12).sqrt())
        return torch.stack(parts, dim=-2)
