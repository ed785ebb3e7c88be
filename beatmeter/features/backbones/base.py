"""What every backbone is: audio chunks in, the states of its layers out, one layer at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor, nn

from beatmeter.audio.chunking import frame_count

if TYPE_CHECKING:
    from beatmeter.features.harmony import PitchClasses
    from beatmeter.features.lag import LagPooling

Visit = Callable[[int, Float[Tensor, "chunk frame dim"]], None]


@dataclass(frozen=True)
class Identity:
    """Which weights these are. `weights` is the sha256 of the weight file (or of code and constants without
    weights); `revision` pins the hub commit or the code version; `licence` binds the user of the weights."""

    name: str
    revision: str
    weights: str
    licence: str
    trained: bool = True  # False: random weights, to be said wherever results are shown


class Backbone(nn.Module, ABC):
    """Audio chunks of equal length to the states of layers 1..n_layers.

    Layer k is the output of transformer layer k (1-based; layer 0, its input, is not offered). The last layer
    of a pre-LN network is taken after the final LayerNorm, as the hub's models return it.

    Backbones are recorded by `identity` and `settings`: a change that moves any number must move one of the
    two.
    """

    identity: Identity
    sample_rate: int  # Hz
    hop: int  # samples between frames
    span: int  # samples that one frame sees
    dim: int
    n_layers: int
    normalise: bool  # zero mean, unit variance per chunk, done inside forward

    def frames(self, samples: int) -> int:
        """Frames for a chunk of `samples` samples."""
        return frame_count(samples, self.hop, self.span)

    @property
    @abstractmethod
    def settings(self) -> Mapping[str, Any]:
        """What decides the states besides the weights, as JSON values for the FeatureSpec: `architecture`,
        the `version` of its code, and every setting that it reads in evaluation mode. Sample rate and
        `normalise` have fields of their own."""

    @abstractmethod
    def lag_pooling(self) -> LagPooling:
        """The lag pooling that suits these states: which rhythm channels are made of them
        (`beatmeter.features.lag`).

        A module without trainable parameters, called per layer: joined states (sequence, frame, dim) of equal
        length to log-lag autocorrelations (sequence, channel, lag). Its `n_channels`, `n_lags` and `settings`
        (JSON values that decide its numbers, with a version and the hash of any random matrix) go into the
        FeatureSpec.
        """

    def pitch_classes(self) -> PitchClasses:
        """The twelve channels that harmony is read from (`beatmeter.features.harmony`); a fixed projection
        where the states have no pitches.

        A module without trainable parameters; its `settings` go into the FeatureSpec.
        """
        from beatmeter.features.harmony import ProjectedClasses

        return ProjectedClasses(self.dim)

    @abstractmethod
    def forward(self, waves: Float[Tensor, "chunk sample"], visit: Visit, last: int | None = None) -> None:
        """Call `visit(k, states)` with the states (chunk, frame, dim) of every layer k = 1, 2, ..., `last`,
        in order, as they are computed; stop after `last` (default: all). Chunks must have equal lengths:
        padding would change them."""
