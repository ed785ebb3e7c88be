"""All frames of a chunk as they are: what training takes up again above the layers that are frozen."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from beatmeter.features.backbones.base import Backbone
from beatmeter.features.poolings.base import Arrangement, Pooling
from beatmeter.schema import PoolingSpec
from beatmeter.settings import FeatureConfig

VERSION = 1
NAME = "below.states"  # no pooling of settings has a dot in its name


def dtype_of(compute_dtype: str) -> str:
    """What states, and pooled rows beside them, are stored in: all that was computed in float32, and
    float16, which has more digits, of what was computed in bfloat16."""
    return "float32" if compute_dtype == "float32" else "float16"


class States(Pooling):
    """One row a chunk, (frame, dim), also the frames that the chunk before covers; zeros after the frames of
    a track that is shorter than a chunk. No head reads it, so settings cannot ask for it. Layer 0 is what
    the first layer takes."""

    kind = "states"
    per_track = False

    def __init__(self, spec: PoolingSpec, backbone: Backbone | None = None) -> None:
        super().__init__(spec, backbone)
        self.frames = spec.shape[0]

    @classmethod
    def make_spec(
        cls, name: str, backbone: Backbone, layers: tuple[int, ...], config: FeatureConfig
    ) -> PoolingSpec:
        frames = round(backbone.chunk_seconds * backbone.sample_rate / backbone.hop)
        shape = (frames, backbone.dim)
        return PoolingSpec(name, cls.kind, "chunk", layers, ("frame", "dim"), shape, {"version": VERSION})

    def forward(
        self, states: Float[Tensor, "chunk frame dim"], arrangement: Arrangement
    ) -> Float[Tensor, "chunk full dim"]:
        return nn.functional.pad(states.float(), (0, 0, 0, self.frames - states.shape[1]))

    def count(self, arrangement: Arrangement, frames: int) -> int:
        return len(arrangement.kept)
