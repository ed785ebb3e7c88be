"""Straightened time: a tempo that bends is followed, and what bends with it is read at an even tempo.

The autocorrelation of a performance whose tempo moves smears: at lag l it adds bars of all lengths. Here the
local autocorrelation of the onsets is taken every half second on a log-lag axis, where another tempo is a
shift; the path of shifts that makes all of them alike (dynamic programming, against their own aligned mean,
a few times over) is the tempo curve, up to a constant. Channels are then read where an even tempo would have
them. Nothing is trained, and no beat is named.

`STRAIGHTENING_VERSION` is part of every store's fingerprint that holds straightened rows: raise it whenever
any number changes.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from beatmeter.features.lag import autocorrelation, bin_weights, lag_times

STRAIGHTENING_VERSION = 1
WINDOW, HOP = 3.5, 0.4  # s of local autocorrelations
LAGS = (0.15, 2.2)  # s, shortest and longest
STEP = 0.0125  # between bins, of log time
REACH = 40  # bins, the farthest that the tempo goes from its middle: half as fast again
FASTEST = 10  # bins a hop
BLUR = 4  # bins either way, so that near is better than far
PENALTY = 0.0012  # for a change of one bin a hop, grows with its square; a perfect match is worth 1
ROUNDS = 4


def tempo_curve(onsets: Float[Tensor, "frame dim"], rate: float) -> Float[Tensor, " frame"]:
    """Log of the local period against its median over time, at every frame; 0 where there is too little to
    tell. `onsets`, `rate` frames a second, are what rises at each."""
    n, window, hop = len(onsets), round(WINDOW * rate), round(HOP * rate)
    count = (n - window) // hop + 1 if n >= window else 0
    if count < 4:
        return onsets.new_zeros(n)
    rhythms = _local_rhythms(onsets, rate, window, hop)
    path = _path(rhythms.double().cpu().numpy())
    centres = (np.arange(count) * hop + window / 2).astype(np.float64)
    curve = np.interp(np.arange(n), centres, path * STEP)
    return torch.from_numpy(curve).to(onsets)


def straightened(z: Float[Tensor, "frame dim"], curve: Float[Tensor, " frame"]) -> Float[Tensor, "frame dim"]:
    """The same frames where the local period is always the median one: as many frames, read between those
    that there are."""
    pace = torch.exp(-curve.double())
    even = torch.cumsum(pace, 0) - pace / 2
    even = (even - even[0]) / (even[-1] - even[0]).clamp_min(1e-9) * (len(z) - 1)
    grid = torch.arange(len(z), dtype=torch.float64, device=z.device)
    after = torch.searchsorted(even, grid).clamp(1, len(z) - 1)
    share = ((grid - even[after - 1]) / (even[after] - even[after - 1]).clamp_min(1e-9)).clamp(0, 1)
    share = share.to(z.dtype)[:, None]
    return z[after - 1] * (1 - share) + z[after] * share


@cache
def _weights(rate: float) -> Tensor:
    count = round(float(np.log(LAGS[1] / LAGS[0])) / STEP) + 1
    return bin_weights(rate, lag_times(count, *LAGS))


def _local_rhythms(
    onsets: Float[Tensor, "frame dim"], rate: float, window: int, hop: int
) -> Float[Tensor, "window lag"]:
    """Local autocorrelations by log lag, without their slow part, each of length 1."""
    weights = _weights(rate).to(onsets)
    parts = onsets.unfold(0, window, hop).transpose(1, 2)  # (window, frame, dim)
    r = autocorrelation(parts, len(weights) - 1, (parts.shape[2],))[:, 0] @ weights
    blur = nn.functional.avg_pool1d(r[:, None], 2 * BLUR + 1, stride=1, padding=BLUR, count_include_pad=False)
    r = nn.functional.avg_pool1d(blur, BLUR + 1, stride=1, padding=BLUR // 2, count_include_pad=False)[:, 0]
    wide = 2 * round(0.2 / STEP) + 1
    padded = nn.functional.pad(r[:, None], (wide // 2, wide // 2), mode="replicate")
    r = r - nn.functional.avg_pool1d(padded, wide, stride=1)[:, 0]
    unit: Tensor = r / r.norm(dim=1, keepdim=True).clamp_min(1e-9)
    return unit


def _path(rhythms: Float[np.ndarray, "window lag"]) -> Float[np.ndarray, " window"]:
    """The shift in bins of every window, against the median."""
    count, lags = rhythms.shape
    padded = np.pad(rhythms, ((0, 0), (REACH, REACH)))
    moved = np.lib.stride_tricks.sliding_window_view(padded, lags, axis=1)  # (window, shift, lag)
    template = rhythms[int((rhythms @ rhythms.T).sum(axis=1).argmax())]
    path = np.zeros(count, dtype=int)
    for _ in range(ROUNDS):
        path = _best_path(moved @ template)
        path = np.clip(path - int(np.median(path)), -REACH, REACH)
        template = moved[np.arange(count), path + REACH].mean(axis=0)
        template = template / max(1e-9, float(np.linalg.norm(template)))
    return path.astype(np.float64)


def _best_path(scores: Float[np.ndarray, "window shift"]) -> Float[np.ndarray, " window"]:
    """Viterbi: the shifts of highest score, less what changes cost."""
    states = scores.shape[1]
    step = np.arange(states)[:, None] - np.arange(states)[None, :]
    cost = np.where(np.abs(step) <= FASTEST, PENALTY * step.astype(float) ** 2, np.inf)
    total, back = scores[0].copy(), np.zeros(scores.shape, dtype=int)
    for at in range(1, len(scores)):
        ways = total[None, :] - cost  # (to, from)
        back[at] = ways.argmax(axis=1)
        total = scores[at] + ways[np.arange(states), back[at]]
    path = np.zeros(len(scores), dtype=int)
    path[-1] = int(total.argmax())
    for at in range(len(scores) - 1, 0, -1):
        path[at - 1] = back[at, path[at]]
    moved: np.ndarray = path - states // 2
    return moved
