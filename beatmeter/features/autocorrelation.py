"""Autocorrelation of channels over log-spaced lags. The formula is that of `beatmeter.features.lag`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from beatmeter.features.lengths import fast_length

TAPER_CAP = 4.0  # largest N / (N - l)
STILL = 1e-5  # standard deviation against the mean up to which a dimension does not change but by rounding
LONGEST = 7.5  # s, the longest lag where the settings say nothing else
_ROWS = 32  # that go through an FFT together: they stay in a core's cache


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
    return of_power(power_of(z, size, groups), z.shape[1], longest, size)


def power_of(
    z: Float[Tensor, "sequence frame dim"], size: int, groups: Sequence[int] | None
) -> Float[Tensor, "sequence channel bin"]:
    """Power of the channels over the frequencies of `size` points, the mean over time removed."""
    spectrum = torch.fft.rfft(moving(z).transpose(1, 2), n=size)
    power: Tensor = spectrum.real.square() + spectrum.imag.square()
    return power if groups is None else summed(power, groups)


def moving(z: Float[Tensor, "*batch frame dim"]) -> Float[Tensor, "*batch frame dim"]:
    """`z` without its mean over time, and 0 where a dimension is as good as constant: what a subtraction
    leaves there is rounding, and of digital silence it would be all that is left, another on each machine."""
    mean = z.mean(dim=-2, keepdim=True)
    z = z - mean
    return z * (z.square().sum(dim=-2, keepdim=True) > STILL**2 * z.shape[-2] * mean.square())


def summed(
    power: Float[Tensor, "*sequence dim bin"], groups: Sequence[int]
) -> Float[Tensor, "*sequence channel bin"]:
    """Power of dimensions to power of the channels that `groups` of them make."""
    if len(groups) == power.shape[-2]:
        return power
    parts = torch.split(power, list(groups), dim=-2)
    return torch.cat([p if p.shape[-2] == 1 else p.sum(dim=-2, keepdim=True) for p in parts], dim=-2)


def of_power(
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


def row_power(z: Float[Tensor, "row frame"], size: int) -> Float[Tensor, "row bin"]:
    power = z.new_empty(len(z), size // 2 + 1)
    for block, result in zip(torch.split(z, _ROWS), torch.split(power, _ROWS), strict=True):
        spectrum = torch.view_as_real(torch.fft.rfft(block, n=size)).square_()
        torch.add(spectrum[..., 0], spectrum[..., 1], out=result)
    return power
