"""The convolutional front end of HuBERT: waveforms to one vector per frame.

The stack pads nothing, so a convolution is a matrix product over overlapping windows of a (row, channel) layout, and
chunks can lie one after the other in one long row axis: rows that mix two chunks are computed and dropped at the end.

The GroupNorm after the first convolution (one channel per group, over time) is a scale and an offset per chunk and
channel. The mean and the covariance of the waveform's windows give both without running the convolution first, in
double precision, so that convolution, norm and GELU are one product.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from beatmeter.backbones.hubert_config import HubertConfig
from beatmeter.backbones.kernels import gelu, linear

BLOCK = 1 << 21  # values of the first layer kept at once without gradients: 8 MB, about what the caches of a core hold


class ConvLayer(nn.Module):
    """One convolution, its norm if it has one, and GELU; the parameters are named as in the hub's checkpoints."""

    def __init__(self, channels: int, dim: int, kernel: int, stride: int, bias: bool, norm: nn.Module | None) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, dim, kernel, stride, bias=bias)
        self.kernel, self.stride, self.dim = kernel, stride, dim
        if norm is not None:
            self.layer_norm = norm

    def taps(self) -> Float[Tensor, "dim taps_channels"]:
        """The kernel as a matrix over windows: taps first, then channels."""
        return self.conv.weight.transpose(1, 2).flatten(1)

    def forward(self, x: Float[Tensor, "row channel"]) -> Float[Tensor, "fewer dim"]:
        return self.apply_to(x, self.taps(), self.conv.bias)

    def apply_to(self, x: Float[Tensor, "row channel"], taps: Tensor, bias: Tensor | None) -> Float[Tensor, "fewer dim"]:
        """The layer with this kernel and bias in place of its own."""
        windows = x.unfold(0, self.kernel, self.stride).transpose(1, 2).flatten(1)
        norm = getattr(self, "layer_norm", None)
        if not isinstance(norm, nn.LayerNorm):
            return linear(windows, taps, bias, activate=True)
        y = linear(windows, taps, bias)
        return gelu(F.layer_norm(y, norm.normalized_shape, norm.weight.to(y.dtype), norm.bias.to(y.dtype), norm.eps))


class FeatureExtractor(nn.Module):
    """(chunk, sample) waveforms to (chunk, frame, dim). The first layer computes in float32: it sees raw samples."""

    def __init__(self, config: HubertConfig) -> None:
        super().__init__()
        self.hop, self.span = config.hop, config.span
        layers: list[nn.Module] = []
        channels = 1
        for i, (dim, kernel, stride) in enumerate(zip(config.conv_dim, config.conv_kernel, config.conv_stride, strict=True)):
            norm: nn.Module | None = None
            if config.feat_extract_norm == "layer":
                norm = nn.LayerNorm(dim)
            elif i == 0:
                norm = nn.GroupNorm(dim, dim)
            layers.append(ConvLayer(channels, dim, kernel, stride, config.conv_bias, norm))
            channels = dim
        self.conv_layers = nn.ModuleList(layers)

    def forward(self, waves: Float[Tensor, "chunk sample"]) -> Float[Tensor, "chunk frame dim"]:
        first, *rest = (layer for layer in self.conv_layers if isinstance(layer, ConvLayer))
        n, samples = waves.shape
        frames = (samples - self.span) // self.hop + 1
        used = (frames - 1) * self.hop + self.span
        per_chunk = -(-used // self.hop)  # frames from the start of one chunk to the start of the next

        needed = [n * per_chunk]  # rows out of every layer, last layer first
        for layer in reversed(rest):
            needed.append((needed[-1] - 1) * layer.stride + layer.kernel)
        flat = waves.new_zeros(max(n * per_chunk * self.hop, (needed[-1] - 1) * first.stride + first.kernel))
        flat[: n * per_chunk * self.hop].view(n, -1)[:, :used] = waves[:, :used]

        weight, bias = self._first(first, waves)
        y = self._first_two(first, rest[0], flat, weight, bias, per_chunk * self.hop, needed[-2])
        for layer in rest[1:]:
            y = layer(y)
        return y.view(n, per_chunk, -1)[:, :frames]

    def _first_two(self, first: ConvLayer, second: ConvLayer, flat: Tensor, weight: Tensor, bias: Tensor, step: int, total: int) -> Tensor:
        """`total` rows out of the second layer, block by block: the widest array of the network stays in cache.

        Chunks start every `step` samples of `flat`; the last one also gives the few rows after its end.
        """
        n, stride = len(weight), first.stride * second.stride
        taps, dtype = second.taps().contiguous(), second.conv.weight.dtype
        learning = torch.is_grad_enabled() and (flat.requires_grad or taps.requires_grad or weight.requires_grad)
        block = max(1, BLOCK // first.dim // second.stride) if flat.device.type == "cpu" and not learning else total
        done = []
        for chunk in range(n):
            start, stop = chunk * step // stride, (chunk + 1) * step // stride if chunk + 1 < n else total
            for a in range(start, stop, block):
                b = min(a + block, stop)
                rows = (b - a - 1) * second.stride + second.kernel
                part = flat[a * stride :][: (rows - 1) * first.stride + first.kernel]
                with torch.autocast(flat.device.type, enabled=False):
                    y = first.apply_to(part[:, None], weight[chunk], bias[chunk])
                done.append(second.apply_to(y.to(dtype), taps, second.conv.bias))
        return torch.cat(done)

    def _first(self, first: ConvLayer, waves: Float[Tensor, "chunk sample"]) -> tuple[Float[Tensor, "chunk dim tap"], Float[Tensor, "chunk dim"]]:
        """Kernel and bias of the first convolution per chunk, its GroupNorm folded in.

        With window mean m and covariance C, channel w has mean w.m and variance w'Cw; the bias of the convolution cancels.
        """
        n, norm = len(waves), getattr(first, "layer_norm", None)
        if not isinstance(norm, nn.GroupNorm):
            own = first.conv.bias.float() if first.conv.bias is not None else waves.new_zeros(first.dim)
            return first.taps().float().expand(n, -1, -1), own.expand(n, -1)
        wide = torch.float32 if waves.device.type == "mps" else torch.float64
        x, w = waves.unfold(1, first.kernel, first.stride).to(wide), first.taps().to(wide)
        mean = x.mean(1)
        centred = x - mean[:, None]
        covariance = centred.transpose(1, 2) @ centred / x.shape[1]
        variance = torch.einsum("dk,nkl,dl->nd", w, covariance, w).clamp_min(0)
        scale = norm.weight.to(wide) * torch.rsqrt(variance + norm.eps)
        bias = norm.bias.to(wide) - (mean @ w.t()) * scale
        return (w * scale[:, :, None]).float(), bias.float()
