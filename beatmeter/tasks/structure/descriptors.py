"""What speaks for a boundary at the start of every bar: how blocks before and after differ, what is
repeated from there on, what happens to the level. Numbers from which costs of boundaries are learned."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from beatmeter.tasks.structure.similarity import Alike, BarFeatures, similarities, strips

BANDS = 10  # of mel bands side by side whose level is followed from bar to bar
REACHES = (1, 2, 4, 8)  # bars before and after that are compared
REPEATS = (2, 4, 8)  # bars of a repetition
SHORTEST_LAG = 3  # bars between a repetition and what it repeats

Columns = Float[np.ndarray, "value bar"]
Rows = Float[np.ndarray, "bar value"]


def descriptors(bars: BarFeatures) -> Rows:
    """(bar, value): the values of every bar's start, and the same as standard deviations from their mean
    over the track."""
    views = similarities(bars)
    columns = [
        np.concatenate([reads(view, *strip) for strip in strips(len(bars))], axis=1)
        for view in views.values()
        for reads in (blocks_around, repeats)
    ]
    raw = np.concatenate([*columns, _levels(bars), _courses(bars)]).T
    spread = raw.std(axis=0)
    relative = np.clip((raw - raw.mean(axis=0)) / np.maximum(spread, 1e-6), -5, 5)
    count = len(bars)
    place = np.arange(count)
    ends = np.stack([np.exp(-place / 4), np.exp(-(count - place) / 4), place / count], axis=1)
    return np.concatenate([raw, relative, ends], axis=1).astype(np.float32)


def blocks_around(s: Alike, first: int, last: int) -> Columns:
    """Mean similarity inside the k bars before, inside the k bars after, and between them, for bars from
    `first` to `last`, without that one."""
    begin, end = max(0, first - REACHES[-1]), min(len(s), last + REACHES[-1])
    total = np.zeros((end - begin + 1, end - begin + 1))
    total[1:, 1:] = s[begin:end, begin:end].cumsum(axis=0).cumsum(axis=1)
    at = np.arange(first, last) - begin

    def mean(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
        area = (b - a) * (d - c)
        sums = total[b, d] - total[a, d] - total[b, c] + total[a, c]
        result: np.ndarray = np.where(area > 0, sums / np.maximum(area, 1), 0.0)
        return result

    columns = []
    for k in REACHES:
        low, high = np.maximum(0, at - k), np.minimum(end - begin, at + k)
        before, after, across = mean(low, at, low, at), mean(at, high, at, high), mean(low, at, at, high)
        columns += [across, before - across, after - across]
    return np.stack(columns)


def repeats(s: Alike, first: int, last: int) -> Columns:
    """How well the bars from here on repeat others, how well the bars up to here do, and how much of that
    begins or ends here, for bars from `first` to `last`, without that one."""
    count = len(s)
    begin, end = max(0, first - REPEATS[-1]), min(count, last + REPEATS[-1])
    sums, size = s[begin:end, :], 1  # of `size` bars and those that lie opposite
    to = np.arange(count + 1)[None, :] - np.arange(first, last)[:, None]  # from every bar to the others
    near = np.abs(to) < SHORTEST_LAG
    columns = []
    for k in REPEATS:
        # mean similarity of bars [i, i + k), and of [i - k, i), to as many from or up to every other bar
        ahead, behind = np.full((2, last - first, count + 1), -1.0)
        if count >= k:
            while size < k:
                sums = sums[:-size, :-size] + sums[size:, size:]
                size *= 2
            inside = min(last, count - k + 1) - first
            ahead[: max(0, inside), : count - k + 1] = sums[first - begin :][: max(0, inside)] / k
            skip = min(last, max(first, k))
            behind[skip - first :, k:] = sums[skip - k - begin : last - k - begin] / k
        ahead[near] = behind[near] = -1.0
        starts = ahead - behind
        columns += [ahead.max(axis=1), behind.max(axis=1), starts.max(axis=1), -starts.min(axis=1)]
    return np.stack(columns)


def _levels(bars: BarFeatures) -> list[Float[np.ndarray, " bar"]]:
    """Changes of level in bass, mid, high and overall; the last parts of the bar before against that bar;
    the first part of this one."""
    mel = bars.mel
    bands = np.stack(
        [mel[..., :5].mean(-1), mel[..., 5:25].mean(-1), mel[..., 25:].mean(-1), mel.mean(-1)]
    )  # (band, bar, part)
    level = bands.mean(axis=2)
    count = len(bars)
    at = np.arange(count)
    sums = np.concatenate([np.zeros((4, 1)), np.cumsum(level, axis=1)], axis=1)
    columns: list[np.ndarray] = []
    for k in (1, 2, 4):
        low, high = np.maximum(0, at - k), np.minimum(count, at + k)
        after = (sums[:, high] - sums[:, at]) / np.maximum(high - at, 1)
        before = np.where(at > low, (sums[:, at] - sums[:, low]) / np.maximum(at - low, 1), after)
        columns += [*(after - before)]
    columns += [*(level - level.mean(axis=1, keepdims=True))]
    before = np.roll(bands, 1, axis=1)
    before[:, 0] = bands[:, 0]
    columns += [*(before[:, :, -2:].mean(axis=2) - before.mean(axis=2))]  # a fill, a roll or a silence
    columns += [*(before[:, :, -4:].mean(axis=2) - before.mean(axis=2))]
    columns += [*(bands[:, :, 0] - bands.mean(axis=2))]  # a crash
    columns += [
        np.abs(np.diff(mel, axis=1)).mean(axis=(1, 2)),
        np.abs(np.diff(before, axis=2)).mean(axis=(0, 2)),
    ]
    return columns


def _courses(bars: BarFeatures) -> list[Float[np.ndarray, " bar"]]:
    """The level of each bar in BANDS bands and how it runs from the first to the last part, and how much
    rises in every part of it: what swells, rolls and comes in over several bars."""
    mel = bars.mel.reshape(*bars.mel.shape[:2], BANDS, -1).mean(axis=3)
    half = mel.shape[1] // 2
    level, run = mel.mean(axis=1), mel[:, half:].mean(axis=1) - mel[:, :half].mean(axis=1)
    rise = bars.rise.reshape(len(bars), -1)
    return [*level.T, *run.T, *rise.T]
