"""Linear maps, GELU, attention, dropout and the wide convolution, as fast as eager PyTorch allows.

Where no gradient is wanted on a CPU, products go to oneDNN directly: bias and GELU join the product, and
float32 runs at full width on processors on which the default BLAS does not (2.2 times faster on AMD Zen 5; a
tenth in bfloat16). That operator has no public name in PyTorch, so it is tried once and compared before it is
trusted. Attention in bfloat16 is 1.8 times faster there as two plain products than as the fused kernel, and
no less exact.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from beatmeter.features.portable import is_portable

KEPT = 1 << 21  # weights of frames on frames kept at once: 4 MB


def linear(
    x: Float[Tensor, "*rows taken"],
    weight: Float[Tensor, "given taken"],
    bias: Float[Tensor, " given"] | None = None,
    activate: bool = False,
) -> Float[Tensor, "*rows given"]:
    """x W' + b, then exact GELU if `activate`."""
    if _direct(x, weight, bias):
        return _product(x, weight, bias, "gelu" if activate else "none")
    y = F.linear(x, weight, bias)
    return gelu(y) if activate else y


def gelu(x: Tensor) -> Tensor:
    """Exact GELU, in place where nothing will need `x` again: give it only what nobody else holds."""
    return F.gelu(x) if x.requires_grad or is_portable() else torch.ops.aten.gelu_(x)


def dropout(x: Tensor, share: float) -> Tensor:
    """Each element is 0 with probability `share`, the others are scaled so that the mean stays.

    On a CPU, PyTorch draws one number per element, one after the other; four chances of 16 bits out of every
    number of 64 are nine times faster. `share` is rounded to a multiple of 2^-16, and the scale fits what it
    is rounded to.
    """
    dropped = round(share * 65536)
    if x.device.type != "cpu" or not 0 < dropped < 65536:
        return F.dropout(x, share)
    bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    kept = (bits.view(torch.int16)[: x.numel()] >= dropped - 32768).view(x.shape)
    return x * kept.to(x.dtype).mul_(65536 / (65536 - dropped))


def attention(
    q: Float[Tensor, "chunk head frame dim"], k: Tensor, v: Tensor, share: float = 0.0
) -> Float[Tensor, "chunk head frame dim"]:
    """softmax(q k' / sqrt(dim)) v, all frames to all frames; a `share` of the weights is dropped."""
    if q.device.type != "cpu" or (q.dtype != torch.bfloat16 and not share):
        return F.scaled_dot_product_attention(q, k, v, dropout_p=share)
    chunks, heads, frames, _ = q.shape
    q, k, v = (x.flatten(0, 1) for x in (q * q.shape[-1] ** -0.5, k, v))
    learning = torch.is_grad_enabled() and q.requires_grad  # then all weights are kept anyway
    size = chunks * heads if learning else max(1, KEPT // frames**2)
    with torch.autocast("cpu", enabled=False):
        done = [
            _mixed(q[a : a + size], k[a : a + size], v[a : a + size], share)
            for a in range(0, chunks * heads, size)
        ]
    return (torch.cat(done) if len(done) > 1 else done[0]).view(chunks, heads, frames, -1)


def _mixed(q: Tensor, k: Tensor, v: Tensor, share: float) -> Tensor:
    weights = torch.bmm(q, k.transpose(1, 2)).softmax(-1)
    return torch.bmm(dropout(weights, share) if share else weights, v)


class Dropout(nn.Dropout):
    """`torch.nn.Dropout` by the fast draw."""

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.p) if self.training and self.p else x


def wide_convolution(
    x: Float[Tensor, "chunk frame dim"], conv: nn.Conv1d
) -> Float[Tensor, "chunk frame dim"]:
    """A grouped convolution over time of as many frames as come in, the odd frame of an even kernel at the
    end cut.

    On a CPU as an image of one row whose channels lie together: twice as fast as rows of channels, and
    no copy in another order of memory is needed.
    """
    taps = conv.kernel_size[0]
    if x.device.type != "cpu" or is_portable():
        return conv(x.transpose(1, 2))[:, :, : x.shape[1]].transpose(1, 2)  # type: ignore[no-any-return]
    image = F.pad(x, (0, 0, taps // 2, (taps - 1) // 2))[:, None].permute(0, 3, 1, 2)
    return F.conv2d(image, conv.weight[:, :, None], conv.bias, groups=conv.groups)[:, :, 0].transpose(1, 2)


class Linear(nn.Linear):
    """`torch.nn.Linear` by the fast product."""

    def forward(self, x: Float[Tensor, "*rows taken"]) -> Float[Tensor, "*rows given"]:
        return linear(x, self.weight, self.bias)


def _direct(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    if (
        is_portable()
        or x.device.type != "cpu"
        or x.dtype != weight.dtype
        or x.dtype not in (torch.float32, torch.bfloat16)
        or x.numel() == 0
    ):
        return False
    if torch.is_grad_enabled() and (
        x.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad)
    ):
        return False
    return not torch.is_autocast_enabled("cpu") and _trusted(x.dtype)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None, attribute: str) -> Tensor:
    # strided operands fall to a reference loop that is a thousand times slower
    y: Tensor = torch.ops.mkldnn._linear_pointwise(
        x.contiguous(), weight.contiguous(), bias, attribute, [], "none"
    )
    return y


@cache
def _trusted(dtype: torch.dtype) -> bool:
    """Whether the operator exists here and gives what F.linear and F.gelu give."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    x, w, b = (
        torch.linspace(-1, 1, n).reshape(shape).to(dtype)
        for n, shape in ((48, (3, 16)), (64, (4, 16)), (4, (4,)))
    )
    try:
        plain, active = _product(x, w, b, "none"), _product(x, w, b, "gelu")
    except (RuntimeError, AttributeError, TypeError, NotImplementedError):
        return False
    wanted, tolerance = F.linear(x, w, b), 1e-5 if dtype == torch.float32 else 5e-2
    return torch.allclose(plain, wanted, atol=tolerance) and torch.allclose(
        active, F.gelu(wanted), atol=tolerance
    )
