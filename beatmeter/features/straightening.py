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

from beatmeter.features import portable, portable_tempo
from beatmeter.features.autocorrelation import STILL, TAPER_CAP, autocorrelation, bin_weights, lag_times
from beatmeter.features.channels import Places, read_between

STRAIGHTENING_VERSION = 2
WINDOW, HOP = 3.0, 0.3  # s of local autocorrelations
LAGS = (0.15, 2.2)  # s, shortest and longest
STEP = 0.0125  # between bins, of log time
REACH = 40  # bins, the farthest that the tempo goes from its middle: 65 % faster or slower
FASTEST = 10  # bins a hop
BLUR = 4  # bins either way, so that near is better than far
PENALTY = 0.0012  # for a change of one bin a hop, grows with its square; a perfect match is worth 1
ROUNDS = 4
_COST = PENALTY * np.arange(-FASTEST, FASTEST + 1.0) ** 2  # of the changes that are possible
_SHIFTS = 2 * REACH - np.arange(2 * REACH + 1)  # where a template lies in its padding, moved by each


def tempo_curve(onsets: Float[Tensor, "frame dim"], rate: float) -> Float[Tensor, " frame"]:
    """Log of the local period against its median over time, at every frame; 0 where there is too little to
    tell. `onsets`, `rate` frames a second, are what rises at each, or what else returns with the beat."""
    n, window, hop = onsets.shape[0], round(WINDOW * rate), round(HOP * rate)
    if portable.is_portable():
        return _portable_curve(onsets, rate, window, hop)
    count = (n - window) // hop + 1 if n >= window else 0
    if count < 4:
        return onsets.new_zeros(n)
    rhythms = _local_rhythms(onsets.unfold(0, window, hop).transpose(1, 2), rate)
    path = _path(rhythms.double().cpu().numpy())
    centres = (np.arange(count) * hop + window / 2).astype(np.float64)
    curve = np.interp(np.arange(n), centres, path * STEP)
    return torch.from_numpy(curve).to(onsets)


def straightened(z: Float[Tensor, "frame dim"], curve: Float[Tensor, " frame"]) -> Float[Tensor, "frame dim"]:
    """The same frames where the local period is always the median one: as many frames, read between those
    that there are."""
    return read_between(z, *even_places(curve))


def even_places(curve: Float[Tensor, " frame"]) -> Places:
    """Where an even tempo would have its frames, for `read_between`, in float64."""
    if portable.is_portable():
        return portable_tempo.even_places(curve)
    n = len(curve)
    pace = torch.exp(-curve.double())
    even = torch.cumsum(pace, 0) - pace / 2
    even = (even - even[0]) / (even[-1] - even[0]).clamp_min(1e-9) * (n - 1)
    grid = torch.arange(n, dtype=torch.float64, device=curve.device)
    after = torch.searchsorted(even, grid).clamp(min(1, n - 1), n - 1)
    before, there = even[(after - 1).clamp_min(0)], even[after]
    return after, ((grid - before) / (there - before).clamp_min(1e-9)).clamp(0, 1)


@cache
def local_weights(rate: float) -> Tensor:
    """What reads the local autocorrelations of `rate` frames a second on their log-lag axis. Computed once,
    and not while a graph is traced: ask for it before."""
    count = round(float(np.log(LAGS[1] / LAGS[0])) / STEP) + 1
    return bin_weights(rate, lag_times(count, *LAGS))


def _local_rhythms(parts: Float[Tensor, "window frame dim"], rate: float) -> Float[Tensor, "window lag"]:
    """Local autocorrelations by log lag, without their slow part, each of length 1."""
    weights = local_weights(rate).to(parts)
    longest, groups = len(weights) - 1, (parts.shape[2],)
    if portable.is_portable():
        z, floor = portable.moving(parts, STILL), torch.finfo(torch.float32).tiny ** 0.5
        r = portable.autocorrelation(z, longest, groups, TAPER_CAP, floor)[:, 0] @ weights
    else:
        r = autocorrelation(parts, longest, groups)[:, 0] @ weights
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
    at, window = np.arange(count)[:, None], np.arange(lags)
    places = _SHIFTS + np.arange(lags + 2 * REACH)[:, None]
    template = rhythms[int((rhythms @ rhythms.T).sum(axis=1).argmax())]
    path = np.zeros(count, dtype=int)
    for again in range(ROUNDS):
        shifts = np.pad(template, 2 * REACH)[places]
        before, path = path, _best_path(padded @ shifts)
        path = np.clip(path - int(np.median(path)), -REACH, REACH)
        if again and np.array_equal(path, before):
            break
        template = padded[at, (path + REACH)[:, None] + window].mean(axis=0)
        template = template / max(1e-9, float(np.linalg.norm(template)))
    return path.astype(np.float64)


def _portable_curve(
    onsets: Float[Tensor, "frame dim"], rate: float, window: int, hop: int
) -> Float[Tensor, " frame"]:
    """`tempo_curve` by `beatmeter.features.portable_tempo`, step by step as in `_path`."""
    parts, inside = portable_tempo.windows(onsets, window, hop)
    rhythms = (_local_rhythms(parts, rate) * inside[:, None]).double()
    lags = rhythms.shape[1]
    padded, cost = nn.functional.pad(rhythms, (REACH, REACH)), torch.from_numpy(_COST)
    places = torch.from_numpy(_SHIFTS) + torch.arange(lags + 2 * REACH)[:, None]
    template = rhythms[(rhythms @ rhythms.T).sum(1).argmax(0, keepdim=True)][0]
    for _ in range(ROUNDS):
        shifts = nn.functional.pad(template, (2 * REACH, 2 * REACH))[places]
        path = portable_tempo.viterbi(padded @ shifts, cost) - REACH
        path = (path - portable_tempo.middle(path, inside, REACH)).clamp(-REACH, REACH)
        template = padded.gather(1, (path + REACH)[:, None] + torch.arange(lags)).sum(0)
        template = template / template.norm().clamp_min(1e-9)
    return portable_tempo.between_windows(path * STEP, inside, onsets.shape[0], window, hop).float()


def _best_path(scores: Float[np.ndarray, "window shift"]) -> Float[np.ndarray, " window"]:
    """Viterbi: the shifts of highest score, less what changes cost."""
    states = scores.shape[1]
    padded, back = np.full(states + 2 * FASTEST, -np.inf), np.zeros(scores.shape, dtype=int)
    near = np.lib.stride_tricks.sliding_window_view(padded, len(_COST))  # (to, from)
    total = padded[FASTEST:-FASTEST]
    total[:] = scores[0]
    every = np.arange(states)
    for at in range(1, len(scores)):
        ways = near - _COST
        best = ways.argmax(axis=1)
        back[at] = every + best - FASTEST
        total[:] = scores[at] + ways[every, best]
    path = np.zeros(len(scores), dtype=int)
    path[-1] = int(total.argmax())
    for at in range(len(scores) - 1, 0, -1):
        path[at - 1] = back[at, path[at]]
    moved: np.ndarray = path - states // 2
    return moved
