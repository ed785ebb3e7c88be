"""`beatmeter.features.straightening` in operations that every ONNX runtime has, for audio of any length: no
step depends on what the data are, and the two walks of the Viterbi algorithm are scans.

Frames of zeros follow the audio, so that there always are enough windows; those that reach into them say
nothing, so the path stays where it was.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch._higher_order_ops.scan import scan

Walk = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def windows(
    onsets: Float[Tensor, "frame dim"], window: int, hop: int
) -> tuple[Float[Tensor, "window frame dim"], Float[Tensor, " window"]]:
    """Windows of onsets, four at least, and which of them lie inside (1) or reach into the zeros (0)."""
    n = onsets.shape[0]
    padded = torch.nn.functional.pad(onsets, (0, 0, 0, window + 3 * hop))
    starts = torch.arange((n + 3 * hop) // hop + 1) * hop
    return padded[starts[:, None] + torch.arange(window)], (starts + window <= n).to(onsets.dtype)


def viterbi(scores: Float[Tensor, "window shift"], cost: Float[Tensor, " step"]) -> Int[Tensor, " window"]:
    """The way through shifts of highest score, less what a change costs."""
    shifts, reach = scores.shape[1], len(cost) // 2
    every = torch.arange(shifts)
    near = every[:, None] + torch.arange(len(cost))

    def forwards(total: Tensor, score: Tensor) -> tuple[Tensor, Tensor]:
        ways = torch.nn.functional.pad(total, (reach, reach), value=-1e9)[near] - cost
        value, best = ways.max(dim=1)
        return score + value, every + best - reach

    def backwards(state: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        before = own.gather(0, state)
        return before, before.clone()

    total, back = _walk(forwards, scores[0], scores[1:])
    last = total.argmax(0, keepdim=True)
    _, path = _walk(backwards, last, back, reverse=True)
    return torch.cat([path[:, 0], last])


def _walk(step: Walk, begin: Tensor, rows: Tensor, reverse: bool = False) -> tuple[Tensor, Tensor]:
    """A scan where a graph is written, else the loop that it is."""
    if torch.compiler.is_exporting():
        state, found = scan(step, begin, rows, reverse=reverse)
        return state, found
    state, each = begin, list[Tensor]()
    for row in rows.flip(0) if reverse else rows:
        state, made = step(state, row)
        each.append(made)
    return state, torch.stack(each[::-1] if reverse else each)


def middle(path: Int[Tensor, " window"], inside: Float[Tensor, " window"], reach: int) -> Int[Tensor, " 1"]:
    """The median of those inside, rounded towards 0; paths go from -reach to reach."""
    values = torch.arange(-reach, reach + 1)
    counted = ((path[:, None] <= values) * inside[:, None]).sum(0)  # how many are that small
    count = inside.sum()
    low, high = (
        (counted <= at).sum(0, keepdim=True) - reach
        for at in (((count - 1) / 2).floor(), (count / 2).floor())
    )
    return torch.div(low + high, 2, rounding_mode="trunc")


def between_windows(
    path: Float[Tensor, " window"], inside: Float[Tensor, " window"], n: int, window: int, hop: int
) -> Float[Tensor, " frame"]:
    """Values at the middles of windows as values at `n` frames, by straight lines; 0 where fewer than four
    windows lie inside."""
    count = inside.double().sum()
    at = ((torch.arange(n) - window / 2).double() / hop).clamp_min(0)
    at = torch.minimum(at, (count - 1).clamp_min(0))
    near = at.floor()
    low, high = path[near.long()], path[near.long() + 1]
    return (low + (high - low) * (at - near)) * (count >= 4)


def even_places(curve: Float[Tensor, " frame"]) -> tuple[Int[Tensor, " frame"], Float[Tensor, " frame"]]:
    """`straightening.even_places` without a search."""
    n = curve.shape[0]
    pace = torch.exp(-curve.double())
    even = torch.cumsum(pace, 0) - pace / 2
    even = (even - even[:1]) / (even[-1:] - even[:1]).clamp_min(1e-9) * (n - 1)
    grid = torch.arange(n).double()
    after = (even[None, :] < grid[:, None]).long().sum(1).clamp(min=1).clamp_max(n - 1)
    before, there = even[after - 1], even[after]
    return after, ((grid - before) / (there - before).clamp_min(1e-9)).clamp(0, 1)
