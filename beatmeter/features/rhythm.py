"""Rhythm pooling: log-lag autocorrelation in plain and in straightened time, and which channel leads.

Three blocks of channels over one lag axis: the autocorrelations of `beatmeter.features.lag`; the same of the
channels in straightened time (`beatmeter.features.straightening`); and, where a backbone names pairs of
channels, their cross-correlations in straightened time

    c(l) = N / (N - l) * sum_t z_a(t) z_b(t + l) / sqrt(sum_t z_a(t)^2 sum_t z_b(t)^2),     at +l and at -l.

An autocorrelation is the same played backwards, so it cannot tell 2+2+3 from 3+2+2; what follows low onsets
and what goes before them can.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from beatmeter.features.lag import (
    TAPER_CAP,
    Json,
    LagPooling,
    _of_power,
    _summed,
)
from beatmeter.features.lengths import even_faster_length
from beatmeter.features.straightening import STRAIGHTENING_VERSION, straightened, tempo_curve

RHYTHM_VERSION = 1


class RhythmPooling(nn.Module):
    """Joined states (frame, dim) to (channel, lag), in float32: plain, straightened, crossed."""

    def __init__(self, lag: LagPooling) -> None:
        super().__init__()
        self.lag = lag

    @property
    def n_channels(self) -> int:
        """Channels of the result."""
        return 2 * self.lag.n_channels + 2 * len(self.lag.channels.pairs)

    @property
    def settings(self) -> dict[str, Json]:
        """JSON values that decide the numbers, for the FeatureSpec."""
        pairs = [at for pair in self.lag.channels.pairs for at in pair]
        versions: dict[str, Json] = {
            "rhythm_version": RHYTHM_VERSION,
            "straightening_version": STRAIGHTENING_VERSION,
        }
        return {**self.lag.settings, **versions, "pairs": pairs}

    def forward(self, states: Float[Tensor, "frame dim"], first: int = 0) -> Float[Tensor, "channel lag"]:
        """`first`: how many frames after the beginning of a chunk the states begin."""
        channels = self.lag.channels
        z = channels(states[None].float(), first)[0]
        n, longest = len(z), len(self.lag.weights) - 1
        size = even_faster_length(n + min(longest, n))
        curve = tempo_curve(z[:, -channels.groups[-1] :].detach(), self.lag.frame_rate)
        rows = []
        for part in (z, straightened(z, curve)):
            spectrum = torch.fft.rfft((part - part.mean(dim=0)).T, n=size)
            power = spectrum.real.square() + spectrum.imag.square()
            rows.append(_of_power(_summed(power, channels.groups)[None], n, longest, size)[0])
        rows += [self._crossed(spectrum, a, b, n, size) for a, b in channels.pairs]
        return torch.cat(rows) @ self.lag.weights

    def _crossed(
        self, spectrum: Float[Tensor, "dim bin"], a: int, b: int, n: int, size: int
    ) -> Float[Tensor, "2 lag"]:
        """Cross-correlation of two dimensions at lags forwards and backwards."""
        longest = len(self.lag.weights) - 1
        product = spectrum[a].conj() * spectrum[b]
        both = torch.stack([product, product.conj()])
        reach = min(longest, n - 1) + 1
        r = torch.fft.irfft(both, n=size)[:, :reach]
        energy = torch.stack([torch.fft.irfft(spectrum[at].abs().square(), n=size)[0] for at in (a, b)])
        floor = torch.finfo(r.dtype).tiny ** 0.5
        scale = energy.prod().clamp_min(0).sqrt()
        taper = (n / (n - torch.arange(reach, device=r.device))).clamp(max=TAPER_CAP).to(r.dtype)
        r = torch.where(scale > floor, r * taper / scale.clamp_min(floor), torch.zeros_like(r))
        return nn.functional.pad(r, (0, longest + 1 - reach))
