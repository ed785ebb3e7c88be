"""Lag pooling: frames to the log-lag autocorrelation of a few rhythm channels, the pooling that keeps meter.

A channel map makes channels of joined layer states: scalar ones z(t), and vector ones whose autocorrelations
are summed over their dimensions. With the mean over time removed and N frames, the autocorrelation of a
channel is

    r(l) = N / (N - l) * sum_d sum_t z_d(t) z_d(t + l) / sum_d sum_t z_d(t)^2,        N / (N - l) at most 4,

read at lags that are spaced evenly in log time: there a change of tempo is a shift. Each bin is the
triangular mean of the frames that are nearer to its lag than to the next bin's, because long bins hold many
frames and a peak between two points of the grid would else be lost. Nothing here is trained; everything is
differentiable, batched and float32.

`LAG_VERSION` is part of every store's fingerprint: raise it whenever any number changes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from beatmeter.features import portable
from beatmeter.features.autocorrelation import (
    STILL,
    TAPER_CAP,
    bin_weights,
    lag_times,
    lags_until,
    of_power,
    power_of,
)
from beatmeter.features.channels import Channels, Json, ProjectionChannels
from beatmeter.features.lengths import even_faster_length, fast_length

LAG_VERSION = 1


class LagPooling(nn.Module):
    """Joined states (sequence, frame, dim) to log-lag autocorrelations (sequence, channel, lag), in
    float32."""

    weights: Tensor

    def __init__(
        self,
        channels: Channels,
        frame_rate: float,
        n_lags: int = 160,
        shortest: float = 0.09,
        longest: float = 7.5,
    ) -> None:
        super().__init__()
        self.channels, self.frame_rate = channels, frame_rate
        self.n_lags, self.shortest, self.longest = n_lags, shortest, longest
        self.register_buffer(
            "weights", bin_weights(frame_rate, lag_times(n_lags, shortest, longest)), persistent=False
        )

    @property
    def n_channels(self) -> int:
        """Channels of the result."""
        return self.channels.n_channels

    @property
    def settings(self) -> dict[str, Json]:
        """JSON values that decide the numbers, for the FeatureSpec."""
        lags: dict[str, Json] = {
            "n_lags": self.n_lags,
            "shortest": self.shortest,
            "longest": self.longest,
            "frame_rate": self.frame_rate,
        }
        return {"lag_version": LAG_VERSION, **lags, **self.channels.settings}

    def forward(
        self, states: Float[Tensor, "sequence frame dim"], first: int = 0
    ) -> Float[Tensor, "sequence channel lag"]:
        """`first`: how many frames after the beginning of a chunk the sequences begin (0 where whole chunks
        are joined)."""
        longest, n = len(self.weights) - 1, states.shape[1]
        if portable.is_portable():
            return self.portable_rows(self.channels(states.float(), first))
        learning, size = torch.is_grad_enabled() and states.requires_grad, fast_length(n + min(longest, n))
        parts = (
            torch.split(states, 1) if states.device.type == "cpu" and not learning else [states]
        )  # one by one they stay in a core's cache
        power = torch.cat(
            [power_of(self.channels(part.float(), first), size, self.channels.groups) for part in parts]
        )
        return of_power(power, n, longest, size) @ self.weights

    def portable_rows(
        self, z: Float[Tensor, "sequence frame all_dims"]
    ) -> Float[Tensor, "sequence channel lag"]:
        """Rows of channels as they are, in portable operations (`beatmeter.features.portable`)."""
        longest, floor = len(self.weights) - 1, torch.finfo(torch.float32).tiny ** 0.5
        z = portable.moving(z, STILL)
        return portable.autocorrelation(z, longest, self.channels.groups, TAPER_CAP, floor) @ self.weights

    def of_runs(
        self, runs: Sequence[Float[Tensor, "frame dim"]], first: int = 0
    ) -> Float[Tensor, "sequence channel lag"]:
        """`forward` of sequences of one length but for last bits, on a CPU in two thirds of its time: for
        rows that nobody stores."""
        longest, n = len(self.weights) - 1, len(runs[0])
        size = even_faster_length(n + min(longest, n))
        power = torch.cat([self.channels.powers(run.float(), first, size, (None,)) for run in runs])
        return of_power(power, n, longest, size) @ self.weights


def projection_pooling(dim: int, rate: float, longest: float) -> LagPooling:
    """The lag pooling of any network's states of `dim`, `rate` frames a second, to lags of `longest`
    seconds."""
    return LagPooling(ProjectionChannels(dim), rate, lags_until(longest), longest=longest)
