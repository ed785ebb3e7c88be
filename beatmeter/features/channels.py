"""Rhythm channels: what is made of the states of a layer before their autocorrelation is taken, and what
straightened time makes of it."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from beatmeter.features import portable
from beatmeter.features.autocorrelation import STILL, moving, row_power, summed

Json = str | int | float | list[int]


def rise(x: Float[Tensor, "*batch frame dim"], step: int) -> Float[Tensor, "*batch frame dim"]:
    """Half-wave rectified difference over `step` frames: max(0, x(t) - x(t - step)), 0 in the first `step`
    frames."""
    return nn.functional.pad((x[..., step:, :] - x[..., :-step, :]).relu(), (0, 0, min(step, x.shape[-2]), 0))


Places = tuple[Int[Tensor, " frame"], Float[Tensor, " frame"]]  # the frames after, and the ways there


def read_between(
    z: Float[Tensor, "*sequence frame dim"], after: Int[Tensor, " place"], share: Float[Tensor, " place"]
) -> Float[Tensor, "*sequence place dim"]:
    """Between the frames of `z`, by straight lines: at `share` (0 to 1) of the way to the frame `after` each
    from the one before."""
    near, far = z.index_select(-2, (after - 1).clamp_min(0)), z.index_select(-2, after)
    return torch.lerp(near, far, share.to(z.dtype)[:, None])


class Channels(nn.Module, ABC):
    """Joined layer states to rhythm channels."""

    groups: tuple[int, ...]  # dimensions of each channel, the last one onsets
    pairs: tuple[tuple[int, int], ...] = ()  # dimensions of which the first may lead the second
    period = 1  # frames: `first` counts modulo this

    @property
    def n_channels(self) -> int:
        """How many channels the autocorrelation gives."""
        return len(self.groups)

    @property
    @abstractmethod
    def settings(self) -> Mapping[str, Json]:
        """What decides the numbers, as JSON values."""

    @abstractmethod
    def forward(
        self, states: Float[Tensor, "sequence frame dim"], first: int = 0
    ) -> Float[Tensor, "sequence frame all_dims"]:
        """The channels' dimensions side by side, sum(groups) of them. `first` is how many frames after the
        beginning of a chunk the sequences begin."""

    def even(
        self, states: Float[Tensor, "sequence frame dim"], first: int, places: Places
    ) -> Float[Tensor, "sequence frame all_dims"]:
        """`forward` in straightened time, which has its frames at `places` of the plain one."""
        return read_between(self(states, first), *places)

    def powers(
        self, states: Float[Tensor, "frame dim"], first: int, size: int, times: Sequence[Places | None]
    ) -> Float[Tensor, "time channel bin"]:
        """Power of the channels of one sequence over the frequencies of `size` points, the mean over time
        removed, in plain time (None) or at places, as of `even`. Last bits may differ from it, and no
        gradients go through."""
        z = self(states[None], first)[0]
        parts = [moving(z if t is None else read_between(z, *t)).T.contiguous() for t in times]
        return torch.stack([summed(row_power(part, size), self.groups) for part in parts])


class ProjectionChannels(Channels):
    """Channels for the states of any network, which have no bands to go by.

    Every dimension is divided by its own standard deviation over time plus the median one of all (a few
    dimensions of a transformer are a hundred times louder than the rest), then mixed by a fixed orthogonal
    matrix P (width, dim) of +-1 / sqrt(dim): rows of a Hadamard matrix with permuted and sign-flipped
    columns, exact on every machine. Channels: each of the first `n` rows of P x, all `width` rows as one
    vector, and the vector of their 2-frame rises.
    """

    matrix: Tensor

    def __init__(self, dim: int, seed: int = 0, n: int = 8, width: int = 64) -> None:
        super().__init__()
        width = min(width, 1 << (dim.bit_length() - 1))
        n = min(n, width)
        self.dim, self.seed, self.n, self.width = dim, seed, n, width
        self.register_buffer("matrix", signed_projection(dim, seed, width), persistent=False)
        self.groups = (*[1] * n, width, width)

    @property
    def settings(self) -> Mapping[str, Json]:
        exact = self.matrix.sign().to(torch.int8).cpu().contiguous()
        digest = hashlib.sha256(bytes(exact.flatten().add(1).tolist())).hexdigest()[:16]
        return {
            "channels": "projection",
            "seed": self.seed,
            "n": self.n,
            "width": self.width,
            "matrix": digest,
        }

    def forward(
        self, states: Float[Tensor, "sequence frame dim"], first: int = 0
    ) -> Float[Tensor, "sequence frame all_dims"]:
        return self._of_mixed(self._mixed(states))

    def even(
        self, states: Float[Tensor, "sequence frame dim"], first: int, places: Places
    ) -> Float[Tensor, "sequence frame all_dims"]:
        """As of any channels, but that time is straightened before the rises are taken."""
        return self._of_mixed(read_between(self._mixed(states), *places))

    def powers(
        self, states: Float[Tensor, "frame dim"], first: int, size: int, times: Sequence[Places | None]
    ) -> Float[Tensor, "time channel bin"]:
        """Each row of P x goes through the FFT once, and the matrix is scaled in place of the states."""
        x = states - states.mean(dim=0)
        deviation = (x.square().mean(dim=0) + 1e-12).sqrt()
        scaled, result = self.matrix.to(x.dtype) / (deviation + deviation.median()), []
        z, mixed = x.new_empty(2 * self.width, len(x)), scaled @ x.T
        rows, onsets = z[: self.width], z[self.width :]
        for places in times:
            if places is None:
                rows.copy_(mixed)
            else:
                after, share = places
                near = mixed.index_select(1, (after - 1).clamp_min(0))
                torch.lerp(near, mixed.index_select(1, after), share.to(x.dtype), out=rows)
            mean = rows.mean(dim=1, keepdim=True)
            rows -= mean
            rows *= rows.square().sum(dim=1, keepdim=True) > STILL**2 * len(x) * mean.square()  # as `moving`
            onsets[:, :2] = 0
            torch.sub(rows[:, 2:], rows[:, :-2], out=onsets[:, 2:]).relu_()
            onsets -= onsets.mean(dim=1, keepdim=True)
            power = row_power(z, size)
            result.append(torch.cat([power[: self.n], summed(power, self.groups[self.n :])]))
        return torch.stack(result)

    def _mixed(self, states: Float[Tensor, "sequence frame dim"]) -> Float[Tensor, "sequence frame row"]:
        x = states - states.mean(dim=1, keepdim=True)
        deviation = (x.square().mean(dim=1, keepdim=True) + 1e-12).sqrt()
        median = portable.lower_median if portable.is_portable() else _median
        x = x / (deviation + median(deviation))
        return x @ self.matrix.to(x.dtype).T

    def _of_mixed(
        self, mixed: Float[Tensor, "*sequence frame row"]
    ) -> Float[Tensor, "*sequence frame all_dims"]:
        return torch.cat([mixed[..., : self.n], mixed, rise(mixed, 2)], dim=-1)


def _median(x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch 1"]:
    return x.median(dim=-1, keepdim=True).values


def signed_projection(dim: int, seed: int, width: int) -> Float[Tensor, "width dim"]:
    """Rows of a Hadamard matrix over permuted columns with random signs, / sqrt(dim); orthogonal when width
    divides dim."""
    hadamard = torch.ones(1, 1, dtype=torch.float64)
    while len(hadamard) < width:
        hadamard = torch.cat([torch.cat([hadamard, hadamard], 1), torch.cat([hadamard, -hadamard], 1)], 0)
    state = (seed * 2 + 1) & 0xFFFFFFFFFFFFFFFF
    numbers = []
    for _ in range(2 * dim):  # splitmix64: the same on every platform and in every version
        state = (state + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        word = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        numbers.append(word ^ (word >> 31))
    order = torch.tensor(sorted(range(dim), key=lambda at: numbers[at]))
    signs = torch.tensor([1.0 if number & 1 else -1.0 for number in numbers[dim:]], dtype=torch.float64)
    return (hadamard[:, order % width] * signs / math.sqrt(dim)).float()


class SpectralChannels(Channels):
    """Channels for the log spectra of the `spectral` backbone: `mels` log-mel bands, then log constant-Q
    bins.

    Magnitudes are compressed relative to the sequence's own level, which makes them blind to gain: with R the
    root mean square magnitude over all frames and bands, x = log(1 + 10 * magnitude / R). Channels: the mean
    rise (2 frames) of log-mel in four bands and in all; the mean rise (4 frames) of constant-Q bins below and
    above 440 Hz; and as vectors log-mel, constant-Q, and the rises of log-mel.

    At the joins of chunks the first and last windows are repeated (see `SpectralBackbone`). A rise that
    reaches across a join is no onset, and one every `chunk` frames would be a rhythm: there the rises take
    their mean over the rest.
    """

    compression = 10.0
    pairs = ((0, 3), (0, 4), (5, 4), (5, 6))  # low mel rises and high ones or all; low constant-Q and others

    def __init__(
        self,
        mels: int = 64,
        bins: int = 84,
        chunk: int = 375,
        mel_edge: int = 1,
        bin_edge: int = 6,
        split: int = 36,
    ) -> None:
        super().__init__()
        self.mels, self.bins, self.chunk, self.mel_edge, self.bin_edge, self.split = (
            mels,
            bins,
            chunk,
            mel_edge,
            bin_edge,
            split,
        )
        self.groups = (1, 1, 1, 1, 1, 1, 1, mels, bins, mels)
        self.period = chunk

    @property
    def settings(self) -> Mapping[str, Json]:
        layout = [self.mels, self.bins, self.chunk, self.mel_edge, self.bin_edge, self.split]
        return {"channels": "spectral", "layout": layout, "compression": self.compression}

    def forward(
        self, states: Float[Tensor, "sequence frame dim"], first: int = 0
    ) -> Float[Tensor, "sequence frame all_dims"]:
        mel = self._compress(states[..., : self.mels])
        cqt = self._compress(states[..., self.mels :])
        mel_rise = self._without_joins(rise(mel, 2), self.mel_edge, 2, first)
        cqt_rise = self._without_joins(rise(cqt, 4), self.bin_edge, 4, first)
        bands = mel_rise.reshape(*mel_rise.shape[:2], 4, self.mels // 4).mean(dim=-1)
        low, high = cqt_rise[..., : self.split], cqt_rise[..., self.split :]
        means = [part.mean(dim=-1, keepdim=True) for part in (mel_rise, low, high)]
        return torch.cat([bands, *means, mel, cqt, mel_rise], dim=-1)

    def _compress(self, x: Float[Tensor, "sequence frame band"]) -> Float[Tensor, "sequence frame band"]:
        if portable.is_portable():
            peak = x.amax(dim=(1, 2), keepdim=True)
            level = peak + 0.5 * (2 * (x - peak)).exp().mean(dim=(1, 2), keepdim=True).log()
        else:
            count = math.log(x.shape[1] * x.shape[2])
            level = 0.5 * (torch.logsumexp(2 * x, dim=(1, 2), keepdim=True) - count)
        return torch.log1p(self.compression * (x - level).exp())

    def _without_joins(
        self, x: Float[Tensor, "sequence frame band"], edge: int, step: int, first: int
    ) -> Float[Tensor, "sequence frame band"]:
        at = torch.arange(x.shape[1], device=x.device)
        phase = (at + first) % self.chunk
        keep = (phase >= edge + step) & (phase < self.chunk - edge) & (at >= step)
        if portable.is_portable():
            kept = keep.to(x.dtype)[None, :, None]
            mean = (x * kept).sum(dim=1, keepdim=True) / kept.sum().clamp_min(1)
            return torch.where(keep[None, :, None] | ~keep.any(), x, mean)
        if not bool(keep.any()):
            return x
        mean = x[:, keep].mean(dim=1, keepdim=True)
        return torch.where(keep[None, :, None], x, mean)
