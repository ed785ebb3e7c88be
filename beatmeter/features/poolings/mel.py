"""Log-mel bands at a lower rate, taken from the audio itself and not from a layer of the backbone.

A backbone may normalise every chunk, and then a build-up and a drop look alike to it. These bands are of
the audio as it is: their level is the level of the music. Beside it stands how much it rises, which tells
an onset better than a mean does."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from beatmeter.features.backbones.base import Backbone
from beatmeter.features.backbones.spectral import REVISION, log_mel
from beatmeter.features.poolings.base import Arrangement
from beatmeter.features.poolings.frames import Frames
from beatmeter.schema import PoolingSpec
from beatmeter.settings import FeatureConfig

VERSION = 1
BANDS = 64


class Mel(Frames):
    """One row every `step` frames, (dim,): the mean level of BANDS mel bands (natural log of magnitudes),
    then how much each rises from one frame to the next, 0 where it falls, as a mean too. The first frame of
    a chunk has no rise."""

    kind = "mel"
    of_waves = True

    def __init__(self, spec: PoolingSpec, backbone: Backbone | None = None) -> None:
        super().__init__(spec, backbone)
        self._frames = (
            (backbone.sample_rate, backbone.hop, backbone.span) if backbone is not None else (0, 0, 0)
        )

    @classmethod
    def make_spec(
        cls, name: str, backbone: Backbone, layers: tuple[int, ...], config: FeatureConfig
    ) -> PoolingSpec:
        frames = super().make_spec(name, backbone, layers, config)
        settings = {
            "step": frames.parameters["step"],
            "version": VERSION,
            "bands": BANDS,
            "spectra": REVISION,
        }
        return PoolingSpec(name, cls.kind, "frame", (1,), ("dim",), (2 * BANDS,), settings)

    def forward(
        self, states: Float[Tensor, "chunk sample"], arrangement: Arrangement
    ) -> Float[Tensor, "row dim"]:
        """Rows of chunks of audio."""
        return super().forward(self.levels(states), arrangement)

    def levels(self, waves: Float[Tensor, "chunk sample"]) -> Float[Tensor, "chunk frame dim"]:
        """Bands and their rises at every frame."""
        rate, hop, span = self._frames
        level = log_mel(waves, rate, BANDS, hop, span)
        rise = nn.functional.pad((level[:, 1:] - level[:, :-1]).clamp_min(0), (0, 0, 1, 0))
        return torch.cat([level, rise], dim=2)
