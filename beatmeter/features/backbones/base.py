"""What every backbone is: audio chunks in, the states of its layers out, one layer at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from beatmeter.audio.chunking import frame_count
from beatmeter.errors import BackboneError
from beatmeter.features.backbones.sharing import Latest

if TYPE_CHECKING:
    from beatmeter.features.activations import BeatActivations
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
    chunk_seconds: float = 5.0  # how much audio it takes at a time
    resumes: bool = False  # whether it can go on from the states of a layer
    _shared: Latest | None = None  # with the backbones that begin alike

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
    def lag_pooling(self, longest: float = 7.5) -> LagPooling:
        """The lag pooling that suits these states, to lags of `longest` seconds: which rhythm channels are
        made of them (`beatmeter.features.lag`).

        A module without trainable parameters, called per layer: joined states (sequence, frame, dim) of equal
        length to log-lag autocorrelations (sequence, channel, lag). Its `n_channels`, `n_lags` and `settings`
        (JSON values that decide its numbers, with a version and the hash of any random matrix) go into the
        FeatureSpec.
        """

    def beat_activations(self) -> BeatActivations | None:
        """What tells beats in the states of the last layer; None where nothing learned it."""
        return None

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
        padding would change them. One that `resumes` visits with 0 what the first layer takes, when `last`
        is 0."""

    def twin_of(self, other: Backbone) -> bool:
        """Whether both begin alike, so that they may share that part."""
        return False

    def share(self, other: Backbone) -> None:
        """Compute what both begin with once for the same tensor of waves."""
        self._shared = other._shared = other._shared or Latest()


class LayeredBackbone(Backbone):
    """A neural network of `n_layers` layers, of which fewer may be held, and which can be trained.

    With `checkpointing`, layers are computed again in the backward pass.
    """

    checkpointing: bool = False
    layer_prefix: str  # of the names of everything in the layers
    own_projections: Mapping[str, str] = {}  # what it calls q_proj, v_proj and the others

    @property
    @abstractmethod
    def depth(self) -> int:
        """How many layers are held."""

    @abstractmethod
    def keep(self, depth: int) -> None:
        """Drop every layer after `depth`: they take no memory, and nothing in them can be trained."""

    @abstractmethod
    def top(self, n: int) -> list[nn.Module]:
        """The last `n` of the held layers (1 to `depth`), with the norm that follows them."""

    def frozen_layers(self) -> int | None:
        """How many layers come before the first that trains; None where what is below all layers trains too.
        Only of a backbone that `resumes`."""
        return None

    def drops_below(self, layers: int) -> bool:
        """Whether training drops states, or weights of attention, before the end of so many layers. Only of
        a backbone that `resumes`."""
        return True

    def resume(
        self, states: Float[Tensor, "chunk frame dim"], visit: Visit, after: int, last: int | None = None
    ) -> None:
        """Go on from the states of the layer `after` (0: what the first layer takes): `visit` as in
        `forward`, from the next layer on."""
        raise NotImplementedError(f"{type(self).__name__} cannot go on from the states of a layer")

    def _require_layer(self, last: int) -> None:
        if not 1 <= last <= self.depth:
            raise BackboneError(
                f"layer {last} was asked of {self.identity.name}, which holds layers 1 to "
                f"{self.depth} of {self.n_layers}"
            )

    def _require_waves(self, waves: Tensor) -> None:
        if waves.ndim != 2 or waves.shape[1] < self.span:
            raise BackboneError(
                f"waves of shape {tuple(waves.shape)}; expected (chunk, sample) with at least "
                f"{self.span} samples"
            )


VARIANCE_FLOOR = 1e-7  # of the input normalisation, as in the hub's feature extractors


def normalised(waves: Float[Tensor, "chunk sample"]) -> Float[Tensor, "chunk sample"]:
    """Zero mean and unit variance per chunk, as the hub's feature extractors do it."""
    variance, mean = torch.var_mean(waves, 1, correction=0, keepdim=True)
    return (waves - mean) * torch.rsqrt(variance + VARIANCE_FLOOR)
