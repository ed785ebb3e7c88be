"""Frames at a lower rate: means over a few neighbouring frames."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from beatmeter.errors import ConfigError
from beatmeter.features.backbones.base import Backbone
from beatmeter.features.poolings.base import Arrangement, Pooling
from beatmeter.schema import PoolingSpec
from beatmeter.settings import FeatureConfig

VERSION = 1


class Frames(Pooling):
    """One row every `step` frames, (dim,). Rows that the chunk before covers are left out."""

    kind = "frames"
    per_track = False

    def __init__(self, spec: PoolingSpec, backbone: Backbone | None = None) -> None:
        super().__init__(spec, backbone)
        self.step = int(spec.parameters["step"])

    @classmethod
    def make_spec(
        cls, name: str, backbone: Backbone, layers: tuple[int, ...], config: FeatureConfig
    ) -> PoolingSpec:
        settings = {"step": frame_step(name, backbone, config.frame_rate), "version": VERSION}
        return PoolingSpec(name, cls.kind, "frame", layers, ("dim",), (backbone.dim,), settings)

    def forward(
        self, states: Float[Tensor, "chunk frame dim"], arrangement: Arrangement
    ) -> Float[Tensor, "row dim"]:
        x, step = states.float(), self.step
        full = x.shape[1] // step
        bins = x[:, : full * step].reshape(x.shape[0], full, step, x.shape[2]).mean(dim=2)
        if x.shape[1] % step:
            bins = torch.cat([bins, x[:, full * step :].mean(dim=1, keepdim=True)], dim=1)
        return torch.cat([chunk[skip // step :] for chunk, skip in zip(bins, arrangement.skips, strict=True)])

    def count(self, arrangement: Arrangement, frames: int) -> int:
        bins = -(-frames // self.step)
        return sum(bins - skip // self.step for skip in arrangement.skips)


def frame_step(name: str, backbone: Backbone, rate: float) -> int:
    """Frames per row for `rate` Hz; the rate must divide the backbone's frame rate so that rows do not cross
    chunks."""
    full = backbone.sample_rate / backbone.hop
    step = full / rate
    chunk = round(5.0 * full)
    if abs(step - round(step)) > 1e-9 or chunk % round(step):
        possible = [
            f"{full / s:g}"
            for s in range(1, chunk + 1)
            if chunk % s == 0 and (full / s) >= 1 and float(full / s).is_integer()
        ]
        raise ConfigError(
            f"pooling {name!r}: {rate:g} Hz does not divide a 5-s chunk at {full:g} Hz",
            f"Choose one of: {', '.join(possible)}.",
        )
    return round(step)
