"""Linear maps, GELU and attention, as fast as eager PyTorch allows.

Where no gradient is wanted on a CPU, products go to oneDNN directly: bias and GELU join the product, and float32 runs
at full width on processors on which the default BLAS does not (2.2 times faster on AMD Zen 5; a tenth in bfloat16).
That operator has no public name in PyTorch, so it is tried once and compared before it is trusted. Attention in
bfloat16 is 1.8 times faster there as two plain products than as the fused kernel, and no less exact.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

KEPT = 1 << 21  # weights of frames on frames kept at once: 4 MB


def linear(
    x: Float[Tensor, "*rows taken"], weight: Float[Tensor, "given taken"], bias: Float[Tensor, " given"] | None = None, activate: bool = False
) -> Float[Tensor, "*rows given"]:
    """x W' + b, then exact GELU if `activate`."""
    if _direct(x, weight, bias):
        return _product(x, weight, bias, "gelu" if activate else "none")
    y = F.linear(x, weight, bias)
    return gelu(y) if activate else y


def gelu(x: Tensor) -> Tensor:
    """Exact GELU, in place where nothing will need `x` again: give it only what nobody else holds."""
    return F.gelu(x) if x.requires_grad else torch.ops.aten.gelu_(x)


def attention(q: Float[Tensor, "chunk head frame dim"], k: Tensor, v: Tensor, dropout: float = 0.0) -> Float[Tensor, "chunk head frame dim"]:
    """softmax(q k' / sqrt(dim)) v, all frames to all frames."""
    if q.dtype != torch.bfloat16 or dropout or not _direct(q, k, v):
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
    chunks, heads, frames, _ = q.shape
    q, k, v = (x.flatten(0, 1) for x in (q * q.shape[-1] ** -0.5, k, v))
    size = max(1, KEPT // frames**2)
    done = [
        torch.bmm(torch.bmm(q[a : a + size], k[a : a + size].transpose(1, 2)).softmax(-1), v[a : a + size]) for a in range(0, chunks * heads, size)
    ]
    return torch.cat(done).view(chunks, heads, frames, -1)


class Linear(nn.Linear):
    """`torch.nn.Linear` by the fast product."""

    def forward(self, x: Float[Tensor, "*rows taken"]) -> Float[Tensor, "*rows given"]:
        return linear(x, self.weight, self.bias)


def _direct(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    if x.device.type != "cpu" or x.dtype != weight.dtype or x.dtype not in (torch.float32, torch.bfloat16) or x.numel() == 0:
        return False
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad)):
        return False
    return not torch.is_autocast_enabled("cpu") and _trusted(x.dtype)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None, attribute: str) -> Tensor:
    # strided operands fall to a reference loop that is a thousand times slower
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x.contiguous(), weight.contiguous(), bias, attribute, [], "none")
    return y


@cache
def _trusted(dtype: torch.dtype) -> bool:
    """Whether the operator exists here and gives what F.linear and F.gelu give."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    x, w, b = (torch.linspace(-1, 1, n).reshape(shape).to(dtype) for n, shape in ((48, (3, 16)), (64, (4, 16)), (4, (4,))))
    try:
        plain, active = _product(x, w, b, "none"), _product(x, w, b, "gelu")
    except (RuntimeError, AttributeError, TypeError, NotImplementedError):
        return False
    wanted, tolerance = F.linear(x, w, b), 1e-5 if dtype == torch.float32 else 5e-2
    return torch.allclose(plain, wanted, atol=tolerance) and torch.allclose(active, F.gelu(wanted), atol=tolerance)
