"""The backbone without a neural network: log-mel and log constant-Q magnitudes, built from torch alone.

Its frames lie where the transformers' do (frame k of a chunk is centred at sample k * 320 + 200), so
everything that pools states works on it. Analysis windows are longer than a frame's span; near the edges of a
chunk, where a window would hang over, the nearest window that lies inside is repeated. Padding instead would
bend the spectrum at every join of chunks, and a bend every five seconds is a rhythm of its own.
"""

from __future__ import annotations

import hashlib
import math
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from beatmeter.errors import BackboneError
from beatmeter.features import portable
from beatmeter.features.autocorrelation import LONGEST, lags_until
from beatmeter.features.backbones.base import Backbone, Identity, Visit
from beatmeter.features.channels import SpectralChannels
from beatmeter.features.harmony import SpectralClasses
from beatmeter.features.lag import LagPooling

REVISION = "1"  # part of every fingerprint: raise it when any number changes
CACHED = 1 << 19  # samples of windows that are transformed at a time on a CPU: what stays in a core's cache
FLOOR = 1e-6  # magnitude of silence; a full-scale sine has about 0.7 in its bin


def mel_matrix(
    sample_rate: int, n_fft: int, bands: int, lowest: float = 30.0, highest: float | None = None
) -> Float[Tensor, "band bin"]:
    """Triangular mel filters of equal area over rfft bins: Slaney's scale (linear to 1 kHz, then 27 steps per
    factor of 6.4)."""
    top = highest if highest is not None else 0.479 * sample_rate

    def to_mel(hertz: Tensor) -> Tensor:
        return torch.where(
            hertz < 1000, hertz * 3 / 200, 15 + 27 * torch.log(hertz.clamp_min(1e-3) / 1000) / math.log(6.4)
        )

    def to_hertz(mel: Tensor) -> Tensor:
        return torch.where(mel < 15, mel * 200 / 3, 1000 * torch.exp((mel - 15) * math.log(6.4) / 27))

    ends = to_mel(torch.tensor([lowest, top], dtype=torch.float64))
    edges = to_hertz(torch.linspace(float(ends[0]), float(ends[1]), bands + 2, dtype=torch.float64))
    bins = torch.arange(n_fft // 2 + 1, dtype=torch.float64) * sample_rate / n_fft
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    triangle = torch.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)).clamp_min(0)
    return (triangle * 2 / (high - low)).float()


def constant_q_matrix(
    sample_rate: int, n_fft: int, bins: int, lowest: float = 55.0, per_octave: int = 12
) -> Float[Tensor, "bin rfft_bin"]:
    """Gaussian filters over rfft bins, one per semitone from `lowest` Hz, half a semitone wide or 0.6 rfft
    bins; rows have unit energy."""
    centre = lowest * 2 ** (torch.arange(bins, dtype=torch.float64)[:, None] / per_octave)
    hertz = torch.arange(n_fft // 2 + 1, dtype=torch.float64)[None, :] * sample_rate / n_fft
    width = (centre * (2 ** (0.5 / per_octave) - 1)).clamp_min(0.6 * sample_rate / n_fft)
    gauss = torch.exp(-0.5 * ((hertz - centre) / width) ** 2)
    return (gauss / gauss.square().sum(dim=1, keepdim=True).sqrt()).float()


def log_spectra(
    waves: Float[Tensor, "chunk sample"],
    filters: Float[Tensor, "bin band"],
    hop: int,
    span: int,
    top: int | None = None,
) -> Float[Tensor, "chunk frame band"]:
    """Natural log of the magnitudes that `filters` gather from the power of a Hann window centred on each
    frame.

    The window nearest to the frame that lies inside the chunk is taken. A full-scale sine has power about 1
    in its rfft bin. Chunks shorter than a window are padded with zeros at both ends. Above the bin `top`
    filters are 0.
    """
    n_fft = 2 * (len(filters) - 1)
    frames = (waves.shape[1] - span) // hop + 1
    before = -(-(n_fft - span) // (2 * hop))  # frames whose window would begin before the chunk
    first = before * hop + span // 2 - n_fft // 2
    whole = (waves.shape[1] - first - n_fft) // hop + 1
    if portable.is_portable():  # of waves that are longer than a window, see below
        scaled = filters * (4 / n_fft) ** 2  # the sum of a Hann window is half its length
        power = portable.band_power(waves[:, first:], scaled, hop, whole, top)
        return (0.5 * (power + FLOOR**2).log())[:, _nearest(frames, before, whole, waves.device)]
    if whole < 1 or frames <= 2 * before:
        short = n_fft - span
        waves = nn.functional.pad(waves, (short // 2, short - short // 2))
        before, first, whole = 0, 0, frames
    count = min(whole, frames - before)
    window = torch.hann_window(n_fft, device=waves.device, dtype=waves.dtype)
    at = _nearest(frames, before, count, waves.device)
    cut = waves[:, first:].unfold(1, n_fft, hop)[:, :count]
    scale = (2 / window.sum()).square()

    def logs(windows: Float[Tensor, "*row sample"]) -> Float[Tensor, "*row band"]:
        spectrum = torch.fft.rfft(windows * window)
        power = (spectrum.real.square() + spectrum.imag.square()) * scale
        found: Tensor = 0.5 * (power @ filters + FLOOR**2).log()
        return found

    if waves.device.type != "cpu":
        return logs(cut)[:, at]
    parts = -(-count * n_fft // CACHED)
    return torch.stack([torch.cat([logs(rows) for rows in chunk.tensor_split(parts)])[at] for chunk in cut])


def _nearest(frames: int, before: int, count: int, device: torch.device) -> Int[Tensor, " frame"]:
    """Which of `count` windows is nearest to each frame; the first one belongs to the frame `before`."""
    return (torch.arange(frames, device=device) - before).clamp(0, count - 1)


@lru_cache(maxsize=8)
def _mel(sample_rate: int, n_fft: int, bands: int) -> Tensor:
    return mel_matrix(sample_rate, n_fft, bands).T.contiguous()


def log_mel(
    waves: Float[Tensor, "chunk sample"], sample_rate: int, bands: int = 64, hop: int = 320, span: int = 400
) -> Float[Tensor, "chunk frame band"]:
    """Natural log of mel magnitudes from a 43-ms window, at the frames of the transformers."""
    n_fft = 1 << round(math.log2(0.043 * sample_rate))
    return log_spectra(waves.float(), _mel(sample_rate, n_fft, bands).to(waves.device), hop, span)


class SpectralBackbone(Backbone):
    """One layer of 64 log-mel bands (30 Hz to 11.5 kHz, 1024-sample window) beside 84 log constant-Q bins (55
    Hz to 6.6 kHz, 4096)."""

    sample_rate = 24000
    hop = 320
    span = 400
    n_layers = 1
    normalise = False
    bands = 64
    bins = 84
    window = 4096  # samples, of the constant-Q bins
    constant_q: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.dim = self.bands + self.bins
        constants = (
            f"{REVISION} {self.sample_rate} {self.hop} {self.span} {self.bands} {self.bins} {self.window} "
            f"{FLOOR}"
        )
        digest = hashlib.sha256(constants.encode()).hexdigest()
        self.identity = Identity("spectral", REVISION, digest, "MIT")
        filters = constant_q_matrix(self.sample_rate, self.window, self.bins).square().T.contiguous()
        self.top = int(filters.any(dim=1).nonzero().max())  # the highest rfft bin that they read
        self.register_buffer("constant_q", filters, persistent=False)

    @property
    def settings(self) -> dict[str, Any]:
        sizes = {"bands": self.bands, "bins": self.bins, "window": self.window, "floor": FLOOR}
        return {"architecture": "spectral", "version": int(REVISION), **sizes}

    def lag_pooling(self, longest: float = LONGEST) -> LagPooling:
        """Bands and bins by name; the joins of 5-s chunks are known to it."""
        edges = [-(-(n_fft - self.span) // (2 * self.hop)) for n_fft in (1024, self.window)]
        channels = SpectralChannels(self.bands, self.bins, 375, edges[0], edges[1])
        return LagPooling(channels, self.sample_rate / self.hop, lags_until(longest), longest=longest)

    def pitch_classes(self) -> SpectralClasses:
        """The bins from C2 on: the third semitone above the lowest, which is an A."""
        return SpectralClasses(self.bands + 3)

    def forward(self, waves: Float[Tensor, "chunk sample"], visit: Visit, last: int | None = None) -> None:
        """Call `visit(1, states)` with log magnitudes (chunk, frame, 148)."""
        if waves.ndim != 2 or waves.shape[1] < self.span:
            raise BackboneError(
                f"waves of shape {tuple(waves.shape)}; expected (chunk, sample) with at least {self.span} "
                "samples"
            )
        if last is not None and last != 1:
            raise BackboneError(
                f"layer {last} was asked of the spectral backbone, which has one layer",
                "Set features.layers to 1.",
            )
        visit(1, self._spectra(waves) if self._shared is None else self._shared(self._spectra, waves))

    def twin_of(self, other: Backbone) -> bool:
        """Whether both compute the same spectra."""
        return isinstance(other, SpectralBackbone) and self.settings == other.settings

    def _spectra(self, waves: Float[Tensor, "chunk sample"]) -> Float[Tensor, "chunk frame 148"]:
        waves = waves.float()
        mel = log_mel(waves, self.sample_rate, self.bands, self.hop, self.span)
        semitones = log_spectra(waves, self.constant_q, self.hop, self.span, self.top)
        return torch.cat([mel, semitones], dim=-1)
