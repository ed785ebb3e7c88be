"""Frames at a lower rate: means over a few neighbouring frames."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from beatmeter.errors import ConfigError
from beatmeter.features.backbones.base import Backbone
from beatmeter.features.poolings.base import Arrangement, Pooling, rows_fit
from beatmeter.schema import PoolingSpec
from beatmeter.settings import FeatureConfig

VERSION = 1


class Frames(Pooling):
    """One row every `step` frames, (dim,), of those that are kept of each chunk (`Layout.kept`)."""

    kind = "frames"
    per_track = False

    def __init__(self, spec: PoolingSpec, backbone: Backbone | None = None) -> None:
        super().__init__(spec, backbone)
        self.step = int(spec.parameters["step"])

    @classmethod
    def make_spec(
        cls, name: str, backbone: Backbone, layers: tuple[int, ...], config: FeatureConfig
    ) -> PoolingSpec:
        settings = {"step": frame_step(name, backbone, config.frame_rate, config.overlap), "version": VERSION}
        return PoolingSpec(name, cls.kind, "frame", layers, ("dim",), (backbone.dim,), settings)

    def forward(
        self, states: Float[Tensor, "chunk frame dim"], arrangement: Arrangement
    ) -> Float[Tensor, "row dim"]:
        edges = [kept.edges(self.step) for kept in arrangement.kept]
        phases = [own[0] % self.step for own in edges]
        binned = {phase: self._bins(states[:, phase:].float()) for phase in set(phases)}
        parts = [
            binned[phase][chunk, own[0] // self.step :][: len(own) - 1]
            for chunk, (own, phase) in enumerate(zip(edges, phases, strict=True))
        ]
        return torch.cat(parts)

    def _bins(self, x: Float[Tensor, "chunk frame dim"]) -> Float[Tensor, "chunk bin dim"]:
        """Means over every `step` frames; the last over what is left."""
        full, step = x.shape[1] // self.step, self.step
        bins = x[:, : full * step].reshape(x.shape[0], full, step, x.shape[2]).mean(dim=2)
        if x.shape[1] % step:
            bins = torch.cat([bins, x[:, full * step :].mean(dim=1, keepdim=True)], dim=1)
        return bins

    def count(self, arrangement: Arrangement, frames: int) -> int:
        return sum(len(kept.edges(self.step)) - 1 for kept in arrangement.kept)


def frame_step(name: str, backbone: Backbone, rate: float, overlap: float) -> int:
    """Frames per row for `rate` Hz: a whole number of them, see `rows_fit`."""
    full = backbone.sample_rate / backbone.hop
    step, seconds = full / rate, backbone.chunk_seconds
    whole = abs(step - round(step)) <= 1e-9
    if not whole or not rows_fit(round(step), full, seconds, overlap):
        steps = [s for s in range(1, round(seconds * full) + 1) if rows_fit(s, full, seconds, overlap)]
        possible = [f"{full / s:g}" for s in steps if full / s >= 1 and float(full / s).is_integer()]
        low = f"is too low for chunks that share {overlap:g} s"
        what = low if overlap and whole else f"does not divide a {seconds:g}-s chunk"
        raise ConfigError(
            f"pooling {name!r}: {rate:g} Hz {what} at {full:g} Hz", f"Choose one of: {', '.join(possible)}."
        )
    return round(step)
