"""Beat activations: for every frame of a backbone's last layer the probability of a beat and of a downbeat,
and the beat phase: where the frame lies between two beats.

A backbone that learned beats brings them along, in a file beside its weights: one norm and one linear map.
Poolings that follow the tempo read them (`beatmeter.features.rhythm`); nothing decodes them.
"""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from beatmeter.errors import BackboneError
from beatmeter.runtime import atomic

FILE = "beats.safetensors"
OUTPUTS = 4
PLACE = 0.5
NAMES = ("norm.weight", "norm.bias", "linear.weight", "linear.bias")


class BeatActivations(nn.Module):
    """States (frame, dim) of the last layer to what returns with the beat (frame, 4), float32: the
    probabilities of a beat and of a downbeat, divided by the standard deviation of all their values together,
    and the beat phase as (cosine, sine) times PLACE."""

    def __init__(self, norm: nn.LayerNorm, linear: nn.Linear) -> None:
        super().__init__()
        self.norm, self.linear = norm, linear
        self.requires_grad_(False)

    @classmethod
    def read(cls, file: Path, dim: int) -> BeatActivations:
        """What `write` wrote, for states of `dim`. Raises BackboneError for a file that is damaged or of
        another backbone."""
        try:
            found = {name: value.float() for name, value in load_file(file).items()}
        except (SafetensorError, OSError, ValueError) as error:
            raise BackboneError(
                f"{file} is not a whole safetensors file: {error}", "Fetch it again."
            ) from None
        result = cls(nn.LayerNorm(dim), nn.Linear(dim, OUTPUTS))
        shapes = {name: tuple(value.shape) for name, value in found.items()}
        wanted = {name: tuple(value.shape) for name, value in result.state_dict().items()}
        if shapes != wanted or not all(bool(value.isfinite().all()) for value in found.values()):
            raise BackboneError(
                f"{file} holds no activations of beats for states of {dim} dimensions",
                "It belongs to another backbone: fetch the folder again.",
            )
        result.load_state_dict(found)
        return result.eval()

    def write(self, file: Path) -> None:
        """For `read`, in float32."""
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
        atomic.write_bytes(file, save(tensors, {"format": "pt"}))

    @property
    def digest(self) -> str:
        """16 hex digits of the sha256 of the values, for the FeatureSpec."""
        state = self.state_dict()
        values = struct.pack("<f", PLACE) + b"".join(
            state[name].cpu().numpy().astype("<f4").tobytes() for name in NAMES
        )
        return hashlib.sha256(values).hexdigest()[:16]

    def forward(self, states: Float[Tensor, "frame dim"]) -> Float[Tensor, "frame 4"]:
        said: Tensor = self.linear(self.norm(states.float()))
        likely, place = said[:, :2].sigmoid(), said[:, 2:]
        spread = (likely - likely.mean()).square().mean().sqrt().clamp_min(1e-6)
        length = place.square().sum(dim=1, keepdim=True).sqrt().clamp_min(1e-6)
        return torch.cat([likely / spread, PLACE * place / length], dim=1)
