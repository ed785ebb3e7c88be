"""The arithmetic of features in operations that every ONNX runtime has: matrix products in place of the FFT,
a sorted choice in place of the median, no branch that looks at data.

Inside `portable()` the spectral backbone, the transformers' kernels, lag pooling and heads compute so.
Results are those of the fast code but for last bits; nothing is stored of them.

* A Fourier transform of A * B real samples x[B a + b] is two products (Cooley and Tukey 1965):
  X[k + A m] = sum_b W(A B)^(b (k + A m)) sum_a W(A)^(a k) x[B a + b], with W(n) = exp(-2 pi i / n). The first
  is a convolution over rows of B samples, whose taps have the analysis window in them; for real samples k up
  to A / 2 is enough.
* An autocorrelation r(l) = sum_t z(t) z(t + l) is a sum over the diagonals of one product: cut into blocks of
  BLOCK frames, G[i, j] = sum over blocks and dimensions of z(block, i) z(block, j), r(l) = sum_i G[i, i + l].
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

BLOCK = 75  # frames of a block of the autocorrelation: a second

_PORTABLE: ContextVar[bool] = ContextVar("portable", default=False)


@contextlib.contextmanager
def portable() -> Iterator[None]:
    """Compute in portable operations, for a graph that is written or a comparison with one."""
    before = _PORTABLE.set(True)
    try:
        yield
    finally:
        _PORTABLE.reset(before)


def is_portable() -> bool:
    """Whether `portable` is on."""
    return _PORTABLE.get()


@dataclass(frozen=True)
class Fourier:
    """Tables for Hann windows of A rows of B samples: `taps` (B 2 K, 1, A), for each b the real and imaginary
    parts of k up to A / 2 = K - 1; `second` (K, 2 M, 2 B), real above imaginary; `bins` (K M) of rfft that
    the entries are, and `counts` (K M), 0 for entries that are of no use."""

    rows: int
    width: int
    taps: Tensor
    second: Tensor
    bins: Tensor
    counts: Tensor


@lru_cache(maxsize=8)
def fourier_tables(size: int, hop: int, top: int) -> Fourier:
    """Tables for the bins up to `top`. `size` is a power of 2."""
    width = math.gcd(hop, 1 << (size.bit_length() // 2))  # the root or half of it, where whole rows are a hop
    rows = size // width
    if size & (size - 1) or rows % 2:
        raise ValueError(f"{size} is no power of 2, or {hop} samples are no whole rows of it")
    k, a, b = (torch.arange(n, dtype=torch.float64) for n in (rows // 2 + 1, rows, width))
    window = torch.hann_window(size, dtype=torch.float64).reshape(rows, width)
    turn = 2 * math.pi / rows * torch.outer(k, a)
    taps = torch.stack([turn.cos(), -turn.sin()])[None] * window.T[:, None, None]
    entry = torch.arange(rows // 2 + 1)[:, None] + rows * torch.arange(width)[None, :]
    bins = torch.minimum(entry, size - entry)
    twice = (2 * entry % rows == 0) & (entry > size // 2)  # of these k, mirrored entries are there too
    useful = (bins <= top) & ~twice
    columns = useful.any(dim=0)
    angle = 2 * math.pi / size * entry[:, columns, None].double() * b
    second = torch.cat(
        [torch.cat([angle.cos(), angle.sin()], 2), torch.cat([-angle.sin(), angle.cos()], 2)], 1
    )
    return Fourier(
        rows,
        width,
        taps.flatten(0, 2)[:, None].float(),
        second.float(),
        bins[:, columns].flatten(),
        useful[:, columns].flatten().float(),
    )


def band_power(
    waves: Float[Tensor, "chunk sample"],
    filters: Float[Tensor, "bin band"],
    hop: int,
    count: int,
    top: int | None = None,
) -> Float[Tensor, "chunk window band"]:
    """What `filters` gather from the power of `count` Hann windows every `hop` samples; above the bin `top`
    they are 0."""
    size = 2 * (len(filters) - 1)
    tables = fourier_tables(size, hop, len(filters) - 1 if top is None else top)
    step, width = hop // tables.width, tables.width
    n = (count - 1) * step + tables.rows
    x = waves[:, : n * width].reshape(waves.shape[0], n, width).transpose(1, 2)
    inner = F.conv1d(x, tables.taps, stride=step, groups=width)
    inner = inner.reshape(waves.shape[0], width, 2, -1, count).permute(0, 3, 2, 1, 4).flatten(2, 3)
    outer = tables.second @ inner
    squares, half = outer * outer, outer.shape[2] // 2
    power = (squares[:, :, :half] + squares[:, :, half:]).flatten(1, 2)
    ordered = filters[tables.bins] * tables.counts[:, None]
    return (ordered.T @ power).transpose(1, 2)


def moving(z: Float[Tensor, "sequence frame dim"], still: float) -> Float[Tensor, "sequence frame dim"]:
    """`moving` of `beatmeter.features.autocorrelation`. The first frame goes first: some runtimes add a
    thousand equal numbers one after the other, and their mean is then not that number."""
    first = z[:, :1]
    z = z - first
    mean = z.mean(dim=1, keepdim=True)
    z = z - mean
    energy, level = (z * z).sum(dim=1, keepdim=True), first + mean
    return z * (energy > still**2 * z.shape[1] * level * level)


def autocorrelation(
    z: Float[Tensor, "sequence frame dim"], longest: int, groups: Sequence[int], cap: float, floor: float
) -> Float[Tensor, "sequence channel lag"]:
    """`autocorrelation` of `beatmeter.features.autocorrelation`, of what `moving` leaves of channels of
    `groups` dimensions; `cap` is the largest N / (N - l), `floor` the energy below which a channel never
    changes."""
    n, parts, at = z.shape[1], [], 0
    for width, same in itertools.groupby(groups):
        channels = len(list(same))
        part = z[:, :, at : at + channels * width].unflatten(2, (channels, width)).transpose(1, 2)  # type: ignore[no-untyped-call]
        parts.append(_diagonal_sums(part, longest))
        at += channels * width
    r = torch.cat(parts, dim=1)
    energy = r[..., :1]
    left = n - torch.arange(longest + 1, device=z.device)
    taper = (n / left.clamp_min(1)).clamp(max=cap) * (left > 0)
    return torch.where(energy > floor, r * taper / energy.clamp_min(floor), torch.zeros_like(r))


def _diagonal_sums(
    z: Float[Tensor, "sequence channel frame width"], longest: int
) -> Float[Tensor, "sequence channel lag"]:
    """sum over frames t and dimensions of z(t) z(t + l), for l from 0 to `longest`."""
    reach = -(-longest // BLOCK) + 1  # blocks that a block is multiplied with, itself among them
    blocks = (
        z.shape[2] + BLOCK - 1
    ) // BLOCK + 1  # one is empty: tracing takes a single block for a constant
    padded = F.pad(z, (0, 0, 0, (reach + 2) * BLOCK))
    cut = [padded[:, :, k * BLOCK : (k + blocks) * BLOCK].unflatten(2, (blocks, BLOCK)) for k in range(reach)]  # type: ignore[no-untyped-call]
    own = cut[0].transpose(2, 3).flatten(3)  # (sequence, channel, frame of block, block and dimension)
    near = torch.cat(cut, dim=3).transpose(3, 4).flatten(2, 3)
    products = own @ near  # (sequence, channel, frame of block, frame from the beginning of that block)
    wide = reach * BLOCK
    skewed = F.pad(products.flatten(2), (0, BLOCK)).unflatten(2, (BLOCK, wide + 1))  # type: ignore[no-untyped-call]
    sums: Tensor = skewed.sum(dim=2)[..., : longest + 1]
    return sums


def lower_median(x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch 1"]:
    """The median over the last axis, the lower one of two, as `Tensor.median` gives it."""
    size = x.shape[-1]
    return x.topk(size - (size - 1) // 2, dim=-1).values[..., -1:]
