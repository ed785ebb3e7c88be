"""Learned costs: from descriptors of bars to what speaks for a boundary, and for a drop, at each bar.

A small network over bars (dilated convolutions), trained on generated songs by `beatmeter.learning.sections`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from beatmeter.datasets.synth.songs.song import FUNCTIONS
from beatmeter.errors import RunError, shown
from beatmeter.runtime.paths import StrPath, as_path

WIDTH = 128
DILATIONS = (1, 2, 4, 8, 16)
SHIPPED = "models/sections/model.safetensors"


class BarNetwork(nn.Module):
    """(track, bar, value) and its mask (track, bar) to (track, bar, 2 + functions) logits: the boundary, the
    drop, and the function of the section, which is learned beside them and not read. Boundaries and functions
    follow from the bars around; a drop also from the mean and the maximum over the track, which say whether
    it is music that has drops. What a bar gives does not depend on the padding."""

    def __init__(self, values: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.mean = nn.Buffer(torch.zeros(values))
        self.deviation = nn.Buffer(torch.ones(values))
        self.first = nn.Linear(values, WIDTH)
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in DILATIONS)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(WIDTH, WIDTH, 3, padding="same", dilation=d) for d in DILATIONS
        )
        self.last = nn.Linear(WIDTH, 1 + len(FUNCTIONS))
        self.whole, self.drop = nn.Linear(3 * WIDTH, WIDTH), nn.Linear(WIDTH, 1)
        self.dropout, self.dropout_first = nn.Dropout(dropout), nn.Dropout(dropout / 2)

    def forward(
        self, x: Float[Tensor, "track bar value"], mask: Bool[Tensor, "track bar"]
    ) -> Float[Tensor, "track bar output"]:
        kept = mask[:, :, None]
        x = ((x - self.mean) / self.deviation).clamp(-4, 4)
        x = self.first(self.dropout_first(x)) * kept
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            y = nn.functional.gelu(norm(x)) * kept
            x = x + self.dropout(convolution(y.transpose(1, 2)).transpose(1, 2)) * kept
        x = nn.functional.gelu(x)
        mean = (x * kept).sum(dim=1, keepdim=True) / kept.sum(dim=1, keepdim=True)
        most = x.masked_fill(~kept, -1.0).amax(dim=1, keepdim=True)
        around = torch.cat([x, mean.expand_as(x), most.expand_as(x)], dim=2)
        drop = self.drop(nn.functional.gelu(self.whole(self.dropout(around))))
        outputs = self.last(x)
        return torch.cat([outputs[..., :1], drop, outputs[..., 1:]], dim=2)


@dataclass(frozen=True)
class Evidence:
    """Log-odds that a section begins with a bar, and that the bar is the first of a drop."""

    boundary: Float[np.ndarray, " bar"]
    drop: Float[np.ndarray, " bar"]


def read_evidence(network: BarNetwork, rows: Float[np.ndarray, "bar value"]) -> Evidence:
    """What speaks for boundaries and drops, as a network hears the bars of one track."""
    with torch.inference_mode():
        x = torch.from_numpy(np.asarray(rows, np.float32))[None]
        outputs = network(x, torch.ones(x.shape[:2], dtype=torch.bool))[0].double().numpy()
    return Evidence(outputs[:, 0], outputs[:, 1])


def save_network(network: BarNetwork) -> dict[str, Tensor]:
    """Its tensors as float16, as they are shipped."""
    return {name: tensor.half().contiguous() for name, tensor in network.state_dict().items()}


@cache
def shipped_network() -> BarNetwork | None:
    """The network that ships with the package, None where it was left out."""
    file = resources.files("beatmeter") / SHIPPED
    return load_network(Path(str(file))) if file.is_file() else None


def load_network(path: StrPath) -> BarNetwork:
    """The network of a file. Raises RunError for a file that is none, or that holds values that are not
    finite."""
    path = as_path(path)
    hint = "`make models` makes it anew."
    try:
        tensors = load_tensors(path.read_bytes())
        network = BarNetwork(len(tensors["mean"]))
        network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    except (OSError, SafetensorError, KeyError, RuntimeError) as error:
        raise RunError(
            f"{shown(path)} holds no costs of sections: {str(error).splitlines()[0]}", hint
        ) from None
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        raise RunError(f"{shown(path)} holds values that are not finite", hint)
    return network.eval()
