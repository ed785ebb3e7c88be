"""Lag pooling: frames to the log-lag autocorrelation of a few rhythm channels, the pooling that keeps meter.

A channel map makes channels of joined layer states: scalar ones z(t), and vector ones whose autocorrelations
are summed over their dimensions. With the mean over time removed and N frames, the autocorrelation of a
channel is

    r(l) = N / (N - l) * sum_d sum_t z_d(t) z_d(t + l) / sum_d sum_t z_d(t)^2,        N / (N - l) at most 4,

read at lags that are spaced evenly in log time: there a change of tempo is a shift. Each bin is the
triangular mean of the frames that are nearer to its lag than to the next bin's, because long bins hold many
frames and a peak between two points of the grid would else be lost. Nothing here is trained; everything is
differentiable, batched and float32.

`LAG_VERSION` is part of every store's fingerprint: raise it whenever any number changes.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from beatmeter.features import portable
from beatmeter.features.lengths import even_faster_length, fast_length

LAG_VERSION = 1
TAPER_CAP = 4.0  # largest N / (N - l)
STILL = 1e-5  # standard deviation against the mean up to which a dimension does not change but by rounding
_ROWS = 32  # that go through an FFT together: they stay in a core's cache
LONGEST = 7.5  # s, the longest lag where the settings say nothing else

Json = str | int | float | list[int]


def lag_times(n: int = 160, shortest: float = 0.09, longest: float = 7.5) -> Float[Tensor, " lag"]:
    """`n` lags in seconds, float64, evenly spaced in log time from `shortest` to `longest`."""
    steps = torch.exp(torch.arange(n, dtype=torch.float64) * (math.log(longest / shortest) / max(1, n - 1)))
    return steps * shortest


def lags_until(longest: float) -> int:
    """How many lags reach `longest` seconds as densely as 160 reach 7.5 s."""
    return 1 + round(159 * math.log(longest / 0.09) / math.log(LONGEST / 0.09))


def bin_weights(
    frame_rate: float, lags: Float[Tensor, " lag"], dtype: torch.dtype = torch.float32
) -> Float[Tensor, "frames_of_lag lag"]:
    """Columns of triangular weights over whole-frame lags 0, 1, ..., one for each lag in seconds; each sums
    to 1.

    A triangle reaches as far as the next bin, at least one frame: short lags are interpolated, long ones
    averaged.
    """
    at = lags.double() * frame_rate
    ratio = float(at[-1] / at[0]) ** (1 / max(1, len(at) - 1))
    frames = torch.arange(
        math.ceil(float(at[-1] * max(ratio, 1 + 1 / float(at[-1])))) + 1, dtype=torch.float64
    )
    reach = (at * (ratio - 1)).clamp_min(1.0)
    weights: Tensor = (1 - (frames[:, None] - at[None, :]).abs() / reach).clamp_min(0)
    return (weights / weights.sum(dim=0)).to(dtype)


def autocorrelation(
    z: Float[Tensor, "sequence frame dim"], longest: int, groups: Sequence[int] | None = None
) -> Float[Tensor, "sequence channel lag"]:
    """Normalised autocorrelation at lags 0 ... `longest` frames; see the module's formula. By FFT,
    zero-padded.

    `groups` says how many neighbouring dimensions make a channel (default: each its own). Lags that do not
    fit into the sequence, and channels that never change but by rounding (`moving`), give 0.
    """
    size = fast_length(z.shape[1] + min(longest, z.shape[1]))
    return _of_power(_power(z, size, groups), z.shape[1], longest, size)


def _power(
    z: Float[Tensor, "sequence frame dim"], size: int, groups: Sequence[int] | None
) -> Float[Tensor, "sequence channel bin"]:
    """Power of the channels over the frequencies of `size` points, the mean over time removed."""
    spectrum = torch.fft.rfft(moving(z).transpose(1, 2), n=size)
    power: Tensor = spectrum.real.square() + spectrum.imag.square()
    return power if groups is None else _summed(power, groups)


def moving(z: Float[Tensor, "*batch frame dim"]) -> Float[Tensor, "*batch frame dim"]:
    """`z` without its mean over time, and 0 where a dimension is as good as constant: what a subtraction
    leaves there is rounding, and of digital silence it would be all that is left, another on each machine."""
    mean = z.mean(dim=-2, keepdim=True)
    z = z - mean
    return z * (z.square().sum(dim=-2, keepdim=True) > STILL**2 * z.shape[-2] * mean.square())


def _summed(
    power: Float[Tensor, "*sequence dim bin"], groups: Sequence[int]
) -> Float[Tensor, "*sequence channel bin"]:
    """Power of dimensions to power of the channels that `groups` of them make."""
    if len(groups) == power.shape[-2]:
        return power
    parts = torch.split(power, list(groups), dim=-2)
    return torch.cat([p if p.shape[-2] == 1 else p.sum(dim=-2, keepdim=True) for p in parts], dim=-2)


def _of_power(
    power: Float[Tensor, "sequence channel bin"], n: int, longest: int, size: int
) -> Float[Tensor, "sequence channel lag"]:
    """The autocorrelation of `n` frames that have this power over the frequencies of `size` points."""
    r = torch.fft.irfft(power, n=size)[..., : min(longest, n - 1) + 1]
    energy = r[..., :1]
    lag = torch.arange(r.shape[-1], device=r.device)
    taper = (n / (n - lag)).clamp(max=TAPER_CAP).to(r.dtype)
    floor = torch.finfo(r.dtype).tiny ** 0.5
    r = torch.where(energy > floor, r * taper / energy.clamp_min(floor), torch.zeros_like(r))
    return nn.functional.pad(r, (0, longest + 1 - r.shape[-1]))


def _row_power(z: Float[Tensor, "row frame"], size: int) -> Float[Tensor, "row bin"]:
    power = z.new_empty(len(z), size // 2 + 1)
    for block, result in zip(torch.split(z, _ROWS), torch.split(power, _ROWS), strict=True):
        spectrum = torch.view_as_real(torch.fft.rfft(block, n=size)).square_()
        torch.add(spectrum[..., 0], spectrum[..., 1], out=result)
    return power


def rise(x: Float[Tensor, "*batch frame dim"], step: int) -> Float[Tensor, "*batch frame dim"]:
    """Half-wave rectified difference over `step` frames: max(0, x(t) - x(t - step)), 0 in the first `step`
    frames."""
    return nn.functional.pad((x[..., step:, :] - x[..., :-step, :]).relu(), (0, 0, min(step, x.shape[-2]), 0))


Places = tuple[Int[Tensor, " frame"], Float[Tensor, " frame"]]  # the frames after, and the ways there


def read_between(
    z: Float[Tensor, "*sequence frame dim"], after: Int[Tensor, " place"], share: Float[Tensor, " place"]
) -> Float[Tensor, "*sequence place dim"]:
    """Between the frames of `z`, by straight lines: at `share` (0 to 1) of the way to the frame `after` each,
    at least 1, from the one before."""
    near, far = z.index_select(-2, after - 1), z.index_select(-2, after)
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
        return torch.stack([_summed(_row_power(part, size), self.groups) for part in parts])


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
                near = mixed.index_select(1, after - 1)
                torch.lerp(near, mixed.index_select(1, after), share.to(x.dtype), out=rows)
                rows -= rows.mean(dim=1, keepdim=True)
            onsets[:, :2] = 0
            torch.sub(rows[:, 2:], rows[:, :-2], out=onsets[:, 2:]).relu_()
            onsets -= onsets.mean(dim=1, keepdim=True)
            power = _row_power(z, size)
            result.append(torch.cat([power[: self.n], _summed(power, self.groups[self.n :])]))
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


class LagPooling(nn.Module):
    """Joined states (sequence, frame, dim) to log-lag autocorrelations (sequence, channel, lag), in
    float32."""

    weights: Tensor

    def __init__(
        self,
        channels: Channels,
        frame_rate: float,
        n_lags: int = 160,
        shortest: float = 0.09,
        longest: float = 7.5,
    ) -> None:
        super().__init__()
        self.channels, self.frame_rate = channels, frame_rate
        self.n_lags, self.shortest, self.longest = n_lags, shortest, longest
        self.register_buffer(
            "weights", bin_weights(frame_rate, lag_times(n_lags, shortest, longest)), persistent=False
        )

    @property
    def n_channels(self) -> int:
        """Channels of the result."""
        return self.channels.n_channels

    @property
    def settings(self) -> dict[str, Json]:
        """JSON values that decide the numbers, for the FeatureSpec."""
        lags: dict[str, Json] = {
            "n_lags": self.n_lags,
            "shortest": self.shortest,
            "longest": self.longest,
            "frame_rate": self.frame_rate,
        }
        return {"lag_version": LAG_VERSION, **lags, **self.channels.settings}

    def forward(
        self, states: Float[Tensor, "sequence frame dim"], first: int = 0
    ) -> Float[Tensor, "sequence channel lag"]:
        """`first`: how many frames after the beginning of a chunk the sequences begin (0 where whole chunks
        are joined)."""
        longest, n = len(self.weights) - 1, states.shape[1]
        if portable.is_portable():
            return self.portable_rows(self.channels(states.float(), first))
        learning, size = torch.is_grad_enabled() and states.requires_grad, fast_length(n + min(longest, n))
        parts = (
            torch.split(states, 1) if states.device.type == "cpu" and not learning else [states]
        )  # one by one they stay in a core's cache
        power = torch.cat(
            [_power(self.channels(part.float(), first), size, self.channels.groups) for part in parts]
        )
        return _of_power(power, n, longest, size) @ self.weights

    def portable_rows(
        self, z: Float[Tensor, "sequence frame all_dims"]
    ) -> Float[Tensor, "sequence channel lag"]:
        """Rows of channels as they are, in portable operations (`beatmeter.features.portable`)."""
        longest, floor = len(self.weights) - 1, torch.finfo(torch.float32).tiny ** 0.5
        z = portable.moving(z, STILL)
        return portable.autocorrelation(z, longest, self.channels.groups, TAPER_CAP, floor) @ self.weights

    def of_runs(
        self, runs: Sequence[Float[Tensor, "frame dim"]], first: int = 0
    ) -> Float[Tensor, "sequence channel lag"]:
        """`forward` of sequences of one length but for last bits, on a CPU in two thirds of its time: for
        rows that nobody stores."""
        longest, n = len(self.weights) - 1, len(runs[0])
        size = even_faster_length(n + min(longest, n))
        power = torch.cat([self.channels.powers(run.float(), first, size, (None,)) for run in runs])
        return _of_power(power, n, longest, size) @ self.weights
