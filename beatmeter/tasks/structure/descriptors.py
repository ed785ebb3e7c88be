"""What speaks for a boundary at the start of every bar: how blocks before and after differ, what is
repeated from there on, what happens to the level. Numbers from which costs of boundaries are learned."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from beatmeter.tasks.structure.similarity import BarFeatures, Matrix, similarities

BANDS = 10  # of mel bands side by side whose level is followed from bar to bar
REACHES = (1, 2, 4, 8)  # bars before and after that are compared
REPEATS = (2, 4, 8)  # bars of a repetition
SHORTEST_LAG = 3  # bars between a repetition and what it repeats

Rows = Float[np.ndarray, "bar value"]


def descriptors(bars: BarFeatures) -> Rows:
    """(bar, value): the values of every bar's start, and the same as standard deviations from their mean
    over the track."""
    views = similarities(bars)
    columns = [column for view in views.values() for column in (*_blocks(view), *_repeats(view))]
    columns += [*_levels(bars), *_courses(bars)]
    raw = np.stack(columns, axis=1)
    spread = raw.std(axis=0)
    relative = np.clip((raw - raw.mean(axis=0)) / np.maximum(spread, 1e-6), -5, 5)
    count = len(bars)
    place = np.arange(count)
    ends = np.stack([np.exp(-place / 4), np.exp(-(count - place) / 4), place / count], axis=1)
    return np.concatenate([raw, relative, ends], axis=1).astype(np.float32)


def _blocks(s: Matrix) -> list[Float[np.ndarray, " bar"]]:
    """Mean similarity inside the k bars before, inside the k bars after, and between them."""
    count = len(s)
    total = np.zeros((count + 1, count + 1))
    total[1:, 1:] = s.cumsum(axis=0).cumsum(axis=1)
    at = np.arange(count)

    def mean(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
        area = (b - a) * (d - c)
        sums = total[b, d] - total[a, d] - total[b, c] + total[a, c]
        result: np.ndarray = np.where(area > 0, sums / np.maximum(area, 1), 0.0)
        return result

    columns = []
    for k in REACHES:
        low, high = np.maximum(0, at - k), np.minimum(count, at + k)
        before, after, across = mean(low, at, low, at), mean(at, high, at, high), mean(low, at, at, high)
        columns += [across, before - across, after - across]
    return columns


def _repeats(s: Matrix) -> list[Float[np.ndarray, " bar"]]:
    """How well the bars from here on repeat others, how well the bars up to here do, and how much of that
    begins or ends here."""
    count = len(s)
    columns: list[np.ndarray] = []
    lags = [lag for lag in range(-count + 2, count - 1) if abs(lag) >= SHORTEST_LAG]
    for k in REPEATS:
        if not lags:
            columns += [np.full(count, -1.0)] * 4
            continue
        best = np.full((4, count), -np.inf)  # over the lags, so that no matrix of lags and bars is held
        for lag in lags:
            # mean similarity of bars [i, i + k) to the same shifted by the lag, for i and for i + k
            ahead, behind = np.full((2, count), -1.0)
            line = np.diagonal(s, lag)
            first = max(0, -lag)
            if len(line) >= k:
                sums = np.concatenate([[0.0], np.cumsum(line)])
                means = (sums[k:] - sums[:-k]) / k
                ahead[first : first + len(means)] = means
                inside = min(len(means), count - first - k)
                behind[first + k : first + k + inside] = means[:inside]
            np.maximum(best, [ahead, behind, ahead - behind, behind - ahead], out=best)
        columns += [*best]
    return columns


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
