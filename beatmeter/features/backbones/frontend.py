"""The convolutional front end of HuBERT: waveforms to one vector per frame.

The stack pads nothing, so a convolution is a matrix product over overlapping windows of a (row, channel)
layout. On a CPU chunks pass one after the other, and rows in blocks, so that the widest arrays stay in cache
and none is large.

The GroupNorm after the first convolution (one channel per group, over time) is a scale and an offset per
chunk and channel. The mean and the covariance of the waveform's windows give both without running the
convolution first, in double precision, so that convolution, norm and GELU are one product.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from beatmeter.features.backbones.hubert_config import HubertConfig
from beatmeter.features.backbones.kernels import gelu, linear
from beatmeter.features.portable import is_portable

ROWS = 2048  # of a block: enough for a product at full speed, few enough to stay in cache


class ConvLayer(nn.Module):
    """One convolution, its norm if it has one, and GELU; the parameters are named as in the hub's
    checkpoints."""

    def __init__(
        self, channels: int, dim: int, kernel: int, stride: int, bias: bool, norm: nn.Module | None
    ) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, dim, kernel, stride, bias=bias)
        self.kernel, self.stride, self.dim = kernel, stride, dim
        if norm is not None:
            self.layer_norm = norm

    def taps(self) -> Float[Tensor, "dim taps_channels"]:
        """The kernel as a matrix over windows: taps first, then channels."""
        return self.conv.weight.transpose(1, 2).flatten(1).contiguous()

    def windows(self, x: Float[Tensor, "chunk row channel"]) -> Float[Tensor, "chunk fewer taps_channels"]:
        """What the kernel sees at every step: a view, or copies where a gradient must come back (unfold
        returns it slowly)."""
        if not x.requires_grad:
            return x.unfold(1, self.kernel, self.stride).transpose(2, 3).flatten(2)
        last = (x.shape[1] - self.kernel) // self.stride * self.stride
        return torch.cat([x[:, tap : tap + last + 1 : self.stride] for tap in range(self.kernel)], dim=2)

    def forward(self, x: Float[Tensor, "chunk row channel"]) -> Float[Tensor, "chunk fewer dim"]:
        taps, windows = self.taps(), self.windows(x)
        size = _block(windows.shape[1], windows.requires_grad or windows.device.type != "cpu")
        done = [
            self.finish(windows[:, a : a + size], taps, self.conv.bias)
            for a in range(0, windows.shape[1], size)
        ]
        return torch.cat(done, 1) if len(done) > 1 else done[0]

    def finish(
        self, windows: Float[Tensor, "*rows taps_channels"], taps: Tensor, bias: Tensor | None
    ) -> Float[Tensor, "*rows dim"]:
        """Product with this kernel and bias, norm over channels where the layer has one, GELU."""
        norm = getattr(self, "layer_norm", None)
        if not isinstance(norm, nn.LayerNorm):
            return linear(windows, taps, bias, activate=True)
        y = linear(windows, taps, bias)
        return gelu(
            F.layer_norm(y, norm.normalized_shape, norm.weight.to(y.dtype), norm.bias.to(y.dtype), norm.eps)
        )


def _block(rows: int, whole: bool) -> int:
    """Rows per block: all of them where gradients keep them anyway, and away from the CPU."""
    return max(1, rows) if whole else ROWS


class FeatureExtractor(nn.Module):
    """(chunk, sample) waveforms to (chunk, frame, dim). The first layer computes in float32: it sees raw
    samples."""

    def __init__(self, config: HubertConfig) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for i, (dim, kernel, stride) in enumerate(
            zip(config.conv_dim, config.conv_kernel, config.conv_stride, strict=True)
        ):
            norm: nn.Module | None = None
            if config.feat_extract_norm == "layer":
                norm = nn.LayerNorm(dim)
            elif i == 0:
                norm = nn.GroupNorm(dim, dim)
            layers.append(ConvLayer(channels, dim, kernel, stride, config.conv_bias, norm))
            channels = dim
        self.conv_layers = nn.ModuleList(layers)

    def forward(self, waves: Float[Tensor, "chunk sample"]) -> Float[Tensor, "chunk frame dim"]:
        if is_portable():
            return self._plainly(waves)
        if waves.device.type == "cpu":
            return torch.cat([self._stack(wave[None]) for wave in waves])
        return self._stack(waves)

    def _plainly(self, waves: Float[Tensor, "chunk sample"]) -> Float[Tensor, "chunk frame dim"]:
        """The convolutions as they are, one after the other."""
        x = waves[:, None]
        for layer in (layer for layer in self.conv_layers if isinstance(layer, ConvLayer)):
            x, norm = layer.conv(x), getattr(layer, "layer_norm", None)
            if isinstance(norm, nn.LayerNorm):
                x = norm(x.transpose(1, 2)).transpose(1, 2)
            elif norm is not None:
                x = norm(x)
            x = F.gelu(x)
        return x.transpose(1, 2)

    def _stack(self, waves: Float[Tensor, "chunk sample"]) -> Float[Tensor, "chunk frame dim"]:
        first, second, *rest = (layer for layer in self.conv_layers if isinstance(layer, ConvLayer))
        kernel, bias = self._first(first, waves)
        taps, dtype = second.taps(), second.conv.weight.dtype
        samples = waves.unfold(1, first.kernel, first.stride)
        total = (samples.shape[1] - second.kernel) // second.stride + 1
        learning = torch.is_grad_enabled() and (
            waves.requires_grad or kernel.requires_grad or taps.requires_grad
        )
        block = _block(total, learning or waves.device.type != "cpu")
        done = []
        for a in range(
            0, total, block
        ):  # the first two layers together: what lies between them is the widest array of all
            b = min(a + block, total)
            part = samples[:, a * second.stride : (b - 1) * second.stride + second.kernel]
            with torch.autocast(waves.device.type, enabled=False):
                y = (
                    first.finish(part[0], kernel[0], bias[0])[None]
                    if len(waves) == 1
                    else _per_chunk(first, part, kernel, bias)
                )
            done.append(second.finish(second.windows(y.to(dtype)), taps, second.conv.bias))
        x = torch.cat(done, 1) if len(done) > 1 else done[0]
        for layer in rest:
            x = layer(x)
        return x

    def _first(
        self, first: ConvLayer, waves: Float[Tensor, "chunk sample"]
    ) -> tuple[Float[Tensor, "chunk dim tap"], Float[Tensor, "chunk dim"]]:
        """Kernel and bias of the first convolution per chunk, its GroupNorm folded in.

        With window mean m and covariance C, channel w has mean w.m and variance w'Cw; the bias of the
        convolution cancels.
        """
        n, norm = len(waves), getattr(first, "layer_norm", None)
        if not isinstance(norm, nn.GroupNorm):
            own = first.conv.bias.float() if first.conv.bias is not None else waves.new_zeros(first.dim)
            return first.taps().float().expand(n, -1, -1), own.expand(n, -1)
        wide = torch.float32 if waves.device.type == "mps" else torch.float64
        x, w = waves.unfold(1, first.kernel, first.stride).to(wide), first.taps().to(wide)
        mean = x.mean(1)
        covariance = x.transpose(1, 2) @ x / x.shape[1] - mean[:, :, None] * mean[:, None]
        variance = torch.einsum("dk,nkl,dl->nd", w, covariance, w).clamp_min(0)
        scale = norm.weight.to(wide) * torch.rsqrt(variance + norm.eps)
        bias = norm.bias.to(wide) - (mean @ w.t()) * scale
        return (w * scale[:, :, None]).float(), bias.float()


def _per_chunk(
    layer: ConvLayer, windows: Tensor, kernel: Tensor, bias: Tensor
) -> Float[Tensor, "chunk row dim"]:
    """`layer.finish` with a kernel and a bias of its own for every chunk."""
    y = torch.baddbmm(bias[:, None], windows, kernel.transpose(1, 2))
    norm = getattr(layer, "layer_norm", None)
    return gelu(norm(y) if isinstance(norm, nn.LayerNorm) else y)
