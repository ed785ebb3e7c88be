"""The arithmetic of features in operations that every ONNX runtime has: matrix products in place of the FFT,
a sorted choice in place of the median, no branch that looks at data.

Inside `portable()` the spectral backbone, the transformers' kernels, lag pooling and heads compute so.
Results are those of the fast code but for last bits; nothing is stored of them.

* A Fourier transform of R * R real samples x[R a + b] is two products (Cooley and Tukey 1965):
  X[k + R m] = sum_b W(R)^(b m) W(R R)^(b k) sum_a W(R)^(a k) x[R a + b], with W(n) = exp(-2 pi i / n).
* An autocorrelation r(l) = sum_t z(t) z(t + l) is a sum over the diagonals of one product: cut into blocks of
  BLOCK frames, G[i, j] = sum over blocks and dimensions of z(block, i) z(block, j), r(l) = sum_i G[i, i + l].
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
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


@lru_cache(maxsize=8)
def fourier_tables(size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """For transforms of `size` = R * R samples: the first product (2 R, R), real above imaginary; cosine and
    sine of the twiddles (R, R) over (k, b); the second product (2 R, 2 (R / 2 + 1)) for m up to R / 2."""
    root = math.isqrt(size)
    if root * root != size or root % 2:
        raise ValueError(f"{size} is not the square of an even number")
    at = torch.arange(root, dtype=torch.float64)
    small, large = 2 * math.pi / root, 2 * math.pi / size
    first = torch.outer(at, at) * small
    twiddle = torch.outer(at, at) * large
    second = torch.outer(at, at[: root // 2 + 1]) * small
    both = torch.cat(
        [
            torch.cat([second.cos(), -second.sin()], 1),
            torch.cat([second.sin(), second.cos()], 1),
        ]
    )
    tables = (torch.cat([first.cos(), -first.sin()]), twiddle.cos(), twiddle.sin(), both)
    return tuple(table.float() for table in tables)  # type: ignore[return-value]


def power_order(size: int) -> Float[Tensor, " entry"]:
    """The frequency (rfft bin) of every entry of `power`, in its order; the last ones lie beyond size / 2."""
    root = math.isqrt(size)
    k, m = torch.arange(root), torch.arange(root // 2 + 1)
    return (k[:, None] + root * m[None, :]).flatten()


def power(windows: Float[Tensor, "*row sample"]) -> Float[Tensor, "*row entry"]:
    """Power of real windows over the frequencies of `power_order`."""
    size = windows.shape[-1]
    first, cos, sin, second = fourier_tables(size)
    root = math.isqrt(size)
    inner = first @ windows.unflatten(-1, (root, root))  # type: ignore[no-untyped-call]
    real, imaginary = inner[..., :root, :], inner[..., root:, :]
    turned = torch.cat([real * cos + imaginary * sin, imaginary * cos - real * sin], dim=-1)
    outer = turned @ second
    real, imaginary = outer[..., : root // 2 + 1], outer[..., root // 2 + 1 :]
    return (real * real + imaginary * imaginary).flatten(-2)


def ordered(filters: Float[Tensor, "bin band"]) -> Float[Tensor, "entry band"]:
    """Filters over rfft bins as filters over the entries of `power`."""
    size = 2 * (len(filters) - 1)
    at = power_order(size)
    within = (at < len(filters)).to(filters.dtype)
    return filters[at.clamp_max(len(filters) - 1)] * within[:, None]


def windows_of(
    waves: Float[Tensor, "chunk sample"], size: int, hop: int, count: int
) -> Float[Tensor, "chunk window sample"]:
    """The first `count` windows of `size` samples every `hop`, as blocks of `hop` side by side."""
    across = -(-size // hop)
    whole = F.pad(waves, (0, across * hop))[:, : (count + across - 1) * hop]
    blocks = whole.reshape(waves.shape[0], count + across - 1, hop)
    return torch.cat([blocks[:, i : i + count] for i in range(across)], dim=2)[:, :, :size]


def autocorrelation(
    z: Float[Tensor, "sequence frame dim"], longest: int, groups: Sequence[int], cap: float, floor: float
) -> Float[Tensor, "sequence channel lag"]:
    """`beatmeter.features.lag.autocorrelation` of channels of `groups` dimensions; `cap` is the largest
    N / (N - l), `floor` the energy below which a channel never changes."""
    z = z - z.mean(dim=1, keepdim=True)
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
