"""Harmony: frames to pitch classes over time, and to the magnitudes that another key or tempo only moves.

A front end makes twelve channels of joined layer states; those of the spectral backbone are pitch classes.
Of 72 constant-Q bins C, one a semitone from C2, relative to the loudest of the sequence,

    y = log(1 + 300 C),    z_b = max(0, y_b - 0.7 * mean of y over the 13 semitones around b),

is folded to twelve classes and divided by its length in every frame. Subtracting the neighbourhood takes
out the timbre: without it alignment finds far fewer versions of a work. Frames are then averaged to
`FRAME_RATE`.

`modulations` forgets key and tempo: with F_k(t) the Fourier transform of the classes over pitch, k = 0 ...
11, and its mean over time removed, a row holds for periods p that are even in log time

    M(k, p) = root mean square over t of |sum_u w_p(u) F_k(t + u) exp(-2 pi i u / p)|

with a Hann window w_p of min(24, max(8, 2 p)) s, divided by the length of the row. A change of key turns
the phase of F_k alone, so nothing changes; a change of tempo by the factor r moves a row by log r along p;
gain is divided out. (Ellis and Bertin-Mahieux 2012 take the 2D Fourier magnitude of beat-synchronous
chroma; here no beats are needed.) Nothing is trained; everything is differentiable, batched and float32.

`HARMONY_VERSION` is part of every store's fingerprint: raise it whenever any number changes.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor, nn

from beatmeter.features.channels import signed_projection

HARMONY_VERSION = 1
CLASSES = 12
FRAME_RATE = 4.0  # Hz, of the classes that modulations are taken of
PERIODS = 32
SHORTEST, LONGEST = 1.0, 12.0  # s, of the periods
LEAST_WINDOW, MOST_WINDOW = 8.0, 24.0  # s

Json = str | int | float | list[int]


class PitchClasses(nn.Module, ABC):
    """Joined layer states to twelve channels."""

    @property
    @abstractmethod
    def settings(self) -> Mapping[str, Json]:
        """What decides the numbers, as JSON values."""

    @abstractmethod
    def forward(self, states: Float[Tensor, "sequence frame dim"]) -> Float[Tensor, "sequence frame klass"]:
        """Channels that are not negative, of length 1 (or 0, where nothing sounds) in every frame."""


class SpectralClasses(PitchClasses):
    """Pitch classes of natural-log constant-Q magnitudes: 72 bins of the states from `first` on, which is a
    C. Channel 0 is C."""

    bins, compression, share, around = 72, 300.0, 0.7, 13

    def __init__(self, first: int) -> None:
        super().__init__()
        self.first = first

    @property
    def settings(self) -> Mapping[str, Json]:
        layout = [self.first, self.bins, self.around]
        return {
            "channels": "pitch classes",
            "layout": layout,
            "compression": self.compression,
            "share": self.share,
        }

    def forward(self, states: Float[Tensor, "sequence frame dim"]) -> Float[Tensor, "sequence frame klass"]:
        logs = states[..., self.first : self.first + self.bins].float()
        loud = (self.compression * (logs - self.reference(logs)).exp()).log1p()
        edge = self.around // 2
        padded = nn.functional.pad(loud, (edge, edge), mode="reflect")
        sharp = (loud - self.share * padded.unfold(2, self.around, 1).mean(dim=3)).relu()
        return _unit(sharp.reshape(*sharp.shape[:2], -1, CLASSES).sum(dim=2))

    def reference(
        self, logs: Float[Tensor, "sequence frame bin"]
    ) -> Float[
        Tensor,
        (
            sequence  # frame #bin
        ),
    ]:
        """The log magnitude that loudness is relative to: of the loudest bin of the sequence."""
        return logs.amax(dim=(1, 2), keepdim=True)


class ProjectedClasses(PitchClasses):
    """Twelve channels of the states of any network, which have no pitches to go by: every dimension minus
    its mean over time and divided by its standard deviation plus the median one of all, mixed by a fixed
    orthogonal matrix (see `lag.signed_projection`), half-wave rectified. A change of key is not a shift of
    these."""

    matrix: Tensor

    def __init__(self, dim: int, seed: int = 1) -> None:
        super().__init__()
        self.dim, self.seed = dim, seed
        self.register_buffer(
            "matrix", signed_projection(dim, seed, 16)[:CLASSES].contiguous(), persistent=False
        )

    @property
    def settings(self) -> Mapping[str, Json]:
        return {"channels": "projection", "seed": self.seed, "dim": self.dim}

    def forward(self, states: Float[Tensor, "sequence frame dim"]) -> Float[Tensor, "sequence frame klass"]:
        x = states.float() - states.float().mean(dim=1, keepdim=True)
        deviation = (x.square().mean(dim=1, keepdim=True) + 1e-12).sqrt()
        x = x / (deviation + deviation.median(dim=2, keepdim=True).values)
        return _unit((x @ self.matrix.T).relu())


def _unit(x: Float[Tensor, "*batch klass"]) -> Float[Tensor, "*batch klass"]:
    """Of length 1 along the last axis; what is next to nothing stays next to nothing."""
    return x / (x.square().sum(dim=-1, keepdim=True) + 1e-8).sqrt()


def averaged(
    x: Float[Tensor, "sequence frame klass"], edges: Sequence[int]
) -> Float[Tensor, "sequence row klass"]:
    """Means over rows that begin and end at `edges`, frames."""
    at = torch.tensor(edges, device=x.device)
    sums = nn.functional.pad(x.double().cumsum(dim=1), (0, 0, 1, 0))[:, at]
    return (sums.diff(dim=1) / at.diff()[:, None]).to(x.dtype)


def periods(
    n: int = PERIODS, shortest: float = SHORTEST, longest: float = LONGEST
) -> Float[Tensor, " period"]:
    """`n` periods in seconds, float64, evenly spaced in log time."""
    return shortest * torch.exp(
        torch.arange(n, dtype=torch.float64) * (math.log(longest / shortest) / (n - 1))
    )


@lru_cache(maxsize=256)
def _kernel(period: float, rate: float, rows: int) -> Tensor:
    """(row,) complex weights of one period: a Hann window that sums to 1, as long as the music at most,
    times the oscillation."""
    window = min(MOST_WINDOW, max(LEAST_WINDOW, 2 * period))
    taps = max(1, min(rows, round(window * rate)))
    at = torch.arange(taps, dtype=torch.float64)
    hann = (math.pi * (at + 0.5) / taps).sin().square()
    phase = -2 * math.pi * at / (period * rate)
    return torch.polar(hann / hann.sum(), phase).to(torch.complex64)


def modulations(
    classes: Float[Tensor, "sequence row klass"], rate: float = FRAME_RATE
) -> Float[Tensor, "sequence klass period"]:
    """The formula of the module over sequences at `rate` Hz; of music that never changes, 0. Where the
    music is shorter than a window, the window is as long as the music."""
    pitch = torch.fft.fft(classes.float() - classes.float().mean(dim=1, keepdim=True), dim=2).transpose(1, 2)
    found = []
    for period in periods().tolist():
        kernel = _kernel(period, rate, classes.shape[1]).to(pitch.device)
        shifted = pitch.unfold(2, len(kernel), 1) @ kernel
        found.append((shifted.real.square() + shifted.imag.square()).mean(dim=2))
    power = torch.stack(found, dim=2)
    total = power.sum(dim=(1, 2), keepdim=True)
    # the square root has no slope at 0: what is next to nothing beside the row is raised a little
    return torch.where(
        total > 1e-10, (power / total.clamp_min(1e-10) + 1e-12).sqrt(), torch.zeros_like(power)
    )
