"""Rhythm pooling: log-lag autocorrelation in plain and in straightened time, and which channel leads.

Three blocks of channels over one lag axis: the autocorrelations of `beatmeter.features.lag`; the same of the
channels in straightened time (`beatmeter.features.straightening`); and, where a backbone names pairs of
channels, their cross-correlations in straightened time

    c(l) = N / (N - l) * sum_t z_a(t) z_b(t + l) / sqrt(sum_t z_a(t)^2 sum_t z_b(t)^2),     at +l and at -l.

An autocorrelation is the same played backwards, so it cannot tell 2+2+3 from 3+2+2; what follows low onsets
and what goes before them can.

All layers are straightened by one tempo curve: that of the beat activations of the last layer, where the
backbone has some and its last layer is among those that are read, else that of the onsets of the first one.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from beatmeter.features import portable
from beatmeter.features.activations import BeatActivations
from beatmeter.features.autocorrelation import TAPER_CAP, moving, of_power, power_of
from beatmeter.features.channels import Json, Places
from beatmeter.features.lag import LagPooling
from beatmeter.features.lengths import even_faster_length
from beatmeter.features.straightening import STRAIGHTENING_VERSION, even_places, local_weights, tempo_curve

RHYTHM_VERSION = 2


class RhythmPooling(nn.Module):
    """Joined states (layer, frame, dim) to (layer, channel, lag), float32: plain, straightened, crossed."""

    def __init__(self, lag: LagPooling, activations: BeatActivations | None = None, lowest: int = 1) -> None:
        """`activations` read the last of the layers, `lowest` is the number of the first."""
        super().__init__()
        self.lag, self.activations, self.lowest = lag, activations, lowest
        local_weights(lag.frame_rate)  # before any graph is traced

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
        curve = self.activations.digest if self.activations else f"onsets of layer {self.lowest}"
        return {**self.lag.settings, **versions, "pairs": pairs, "curve": curve}

    def forward(
        self, states: Float[Tensor, "layer frame dim"], first: int = 0
    ) -> Float[Tensor, "layer channel lag"]:
        """`first`: how many frames after the beginning of a chunk the states begin."""
        channels = self.lag.channels
        if self.activations:
            onsets = self.activations(states[-1])
        else:
            onsets = channels(states[:1].float(), first)[0][:, -channels.groups[-1] :]
        places = even_places(tempo_curve(onsets.detach(), self.lag.frame_rate))
        if portable.is_portable():
            both = (channels(states.float(), first), channels.even(states.float(), first, places))
            return torch.cat([self.lag.portable_rows(z) for z in both], dim=1)
        return torch.stack([self._row(layer.float(), first, places) for layer in states])

    def _row(
        self, states: Float[Tensor, "frame dim"], first: int, places: Places
    ) -> Float[Tensor, "channel lag"]:
        channels, n, longest = self.lag.channels, len(states), len(self.lag.weights) - 1
        size = even_faster_length(n + min(longest, n))
        if torch.is_grad_enabled() and states.requires_grad:
            both = torch.cat([channels(states[None], first), channels.even(states[None], first, places)])
            power = power_of(both, size, channels.groups)
        else:
            power = channels.powers(states, first, size, (None, places))
        rows = [*of_power(power, n, longest, size)]
        if channels.pairs:
            even = channels.even(states[None], first, places)[0]
            rows += [self._crossed(even, a, b, size) for a, b in channels.pairs]
        return torch.cat(rows) @ self.lag.weights

    def _crossed(self, z: Float[Tensor, "frame dim"], a: int, b: int, size: int) -> Float[Tensor, "2 lag"]:
        """Cross-correlation of two dimensions at lags forwards and backwards."""
        n, longest = len(z), len(self.lag.weights) - 1
        spectrum = torch.fft.rfft(moving(z[:, [a, b]]).T, n=size)
        product = spectrum[0].conj() * spectrum[1]
        both = torch.stack([product, product.conj()])
        reach = min(longest, n - 1) + 1
        r = torch.fft.irfft(both, n=size)[:, :reach]
        energy = torch.stack([torch.fft.irfft(own.abs().square(), n=size)[0] for own in spectrum])
        floor = torch.finfo(r.dtype).tiny ** 0.5
        scale = energy.prod().clamp_min(0).sqrt()
        taper = (n / (n - torch.arange(reach, device=r.device))).clamp(max=TAPER_CAP).to(r.dtype)
        r = torch.where(scale > floor, r * taper / scale.clamp_min(floor), torch.zeros_like(r))
        return nn.functional.pad(r, (0, longest + 1 - reach))
