"""How the pulses of additive bars are grouped, from a track folded by its bars.

A small circular network reads the parts of one mean bar and says of every pulse how much speaks for a bar
to begin there, for a group of two and for a group of three. A grouping that begins at some pulse of some
reading collects what is said of its groups; probabilities are over all of these, and that of a grouping is
the sum over where bars may begin and how long they may be."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from beatmeter.datasets.groupings import ADDITIVE as METERS
from beatmeter.datasets.groupings import GROUPINGS, kind_of, read_grouping
from beatmeter.errors import RunError, shown
from beatmeter.runtime.paths import StrPath, as_path
from beatmeter.tasks.structure.folding import PARTS, Reading

WIDTH, CHANNELS, LAYERS = 24, 8, 2
USUAL = 2.3  # seconds of a bar
MOST = 8.0  # log-odds
SHIPPED = "models/groupings/model.safetensors"
# the groupings of each additive meter whose pulses are counted by its name (10/8 is not)
ADDITIVE: dict[str, tuple[tuple[int, ...], ...]] = {
    meter: tuple(
        groups
        for name in names
        if kind_of(name) == "additive" and sum(groups := read_grouping(name)) == int(meter)
    )
    for meter, names in GROUPINGS.items()
    if meter in METERS
}


class GroupingNetwork(nn.Module):
    """Mean bars (reading, part, value), PARTS parts a pulse, of one meter to logits (reading, pulse,
    grouping) of the groupings in `ADDITIVE`, each beginning at each pulse. `about` (reading, 2): log of the
    length of the bar against USUAL, and 1 where it is not the one that was found."""

    def __init__(self, values: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.mean = nn.Buffer(torch.zeros(values))
        self.deviation = nn.Buffer(torch.ones(values))
        self.parts = nn.Linear(values, CHANNELS)
        self.first = nn.Linear(PARTS * CHANNELS, WIDTH)
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(LAYERS))
        self.convolutions = nn.ModuleList(
            nn.Conv1d(WIDTH, WIDTH, 3, dilation=d) for d in range(1, LAYERS + 1)
        )
        self.last = nn.LayerNorm(WIDTH)
        self.starts = nn.Linear(WIDTH, 3)  # of a bar, of a group of two, of a group of three
        self.reading = nn.Linear(2 * WIDTH + 2, 1)
        self.usual = nn.ParameterDict({m: nn.Parameter(torch.zeros(len(g))) for m, g in ADDITIVE.items()})
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, bars: Float[Tensor, "reading part value"], about: Float[Tensor, "reading 2"], meter: str
    ) -> Float[Tensor, "reading pulse grouping"]:
        x = (bars - self.mean) / self.deviation
        x = nn.functional.gelu(self.parts(x)).reshape(len(x), -1, PARTS * CHANNELS)
        x = self.first(self.dropout(x))
        for depth, (norm, convolution) in enumerate(zip(self.norms, self.convolutions, strict=True), 1):
            y = nn.functional.gelu(norm(x)).transpose(1, 2)
            y = torch.cat([y[:, :, -depth:], y, y[:, :, :depth]], dim=2)  # a bar has no end
            x = x + self.dropout(convolution(y).transpose(1, 2))
        x = nn.functional.gelu(self.last(x))
        starts = self.starts(x)
        whole = self.reading(torch.cat([x.mean(dim=1), x.amax(dim=1), about], dim=1))
        found = []
        for groups, usual in zip(ADDITIVE[meter], self.usual[meter], strict=True):
            total, at = starts[:, :, 0] + usual + whole, 0
            for pulses in groups:
                total = total + torch.roll(starts[:, :, pulses - 1], -at, dims=1)
                at += pulses
            found.append(total)
        return torch.stack(found, dim=2)


def frames_of(states: Float[np.ndarray, "time channel"]) -> Float[np.ndarray, "time channel"]:
    """What is folded of the outputs (beat, downbeat) and states of the beats model: all, outputs within
    MOST."""
    frames: np.ndarray = np.concatenate([np.clip(states[:, :2], -MOST, MOST), states[:, 2:]], axis=1)
    return frames


def about(found: Sequence[Reading]) -> Float[np.ndarray, "reading 2"]:
    """What a network reads of readings beside their bars."""
    return np.array([[np.log(r.seconds / USUAL), float(r.scaled)] for r in found], np.float32)


def group(networks: Sequence[GroupingNetwork], found: Sequence[Reading], meter: str) -> dict[str, float]:
    """The probability of every grouping, the mean over networks; empty without a reading."""
    if not found:
        return {}
    bars = torch.from_numpy(np.stack([r.rows.mean(axis=0) for r in found]).astype(np.float32))
    beside, names = torch.from_numpy(about(found)), ["+".join(map(str, g)) for g in ADDITIVE[meter]]
    with torch.inference_mode():
        each = [network(bars, beside, meter) for network in networks]
        mean = torch.stack([x.flatten().softmax(0).view_as(x).sum(dim=(0, 1)) for x in each]).mean(dim=0)
    return dict(zip(names, mean.tolist(), strict=True))


def save_networks(networks: Sequence[GroupingNetwork], threshold: float) -> dict[str, Tensor]:
    """Their tensors as float16, as they are shipped, and from which probability on a grouping is named."""
    tensors = {f"{k}.{n}": t.half() for k, net in enumerate(networks) for n, t in net.state_dict().items()}
    return {**{name: t.contiguous() for name, t in tensors.items()}, "threshold": torch.tensor([threshold])}


def load_networks(path: StrPath) -> tuple[list[GroupingNetwork], float]:
    """The networks of a file and the threshold. Raises RunError for a file that holds none, or values that
    are not finite."""
    path, hint = as_path(path), "Install beatmeter again, or run tools/groupings_model.py."
    try:
        tensors = load_tensors(path.read_bytes())
        threshold = float(tensors.pop("threshold"))
        networks = []
        for number in sorted({name.partition(".")[0] for name in tensors}):
            own = {n.partition(".")[2]: t.float() for n, t in tensors.items() if n.startswith(f"{number}.")}
            network = GroupingNetwork(len(own["mean"]))
            network.load_state_dict(own)
            networks.append(network.eval())
    except (OSError, SafetensorError, KeyError, RuntimeError, ValueError) as error:
        raise RunError(f"{shown(path)} holds no groupings: {str(error).splitlines()[0]}", hint) from None
    if not networks or not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        raise RunError(f"{shown(path)} holds no groupings, or values that are not finite", hint)
    return networks, threshold


@cache
def shipped_networks() -> tuple[list[GroupingNetwork], float]:
    """The networks that ship with the package, and the threshold. Raises RunError where they are missing."""
    return load_networks(Path(str(resources.files("beatmeter") / SHIPPED)))
