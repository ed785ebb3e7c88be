"""Bars to sections: dynamic programming over all ways to cut a track, and letters for what returns.

A cut is as good as the sum of what speaks for its boundaries (log-odds, learned or none) and of how alike
the bars of each section are, minus a weak price for lengths that are not 8 or 4 bars. After A. Marmoret et
al., "Barwise compression schemes for audio-based music structure analysis" (2022), with boundary costs
added.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.special import logsumexp

from beatmeter.tasks.structure.similarity import Alike, strips

NEVER = -1e9


@dataclass(frozen=True)
class Prices:
    """What a way to cut is worth. alike: for each unit of similarity inside sections; boundary: for each
    unit of log-odds; start: of every section; odd, even, four, eight: of a length that is odd, even, a
    multiple of 4, exactly 8 or 16.

    near: bars at most apart whose similarity counts. longest: bars of a section. The defaults are fitted on
    generated songs.
    """

    alike: float = 1.0
    boundary: float = 1.0
    start: float = 0.8
    odd: float = 0.5
    even: float = 0.3
    four: float = 0.1
    eight: float = 0.0
    near: int = 12
    longest: int = 48


WITHOUT_LEARNING = Prices()
LEARNED = Prices(alike=0.4, start=-0.5)  # beside learned costs


@dataclass(frozen=True)
class Cut:
    """first: (section + 1,) bar at which each section begins, and the number of bars. sure: (section,)
    share of all ways to cut, by their worth, that have a boundary there; 1 for the first."""

    first: Int[np.ndarray, " edge"]
    sure: Float[np.ndarray, " section"]


def cut_bars(similarity: Alike, evidence: Float[np.ndarray, " bar"] | None, prices: Prices) -> Cut:
    """The best way to cut. similarity: of bars, in [-1, 1]. evidence: (bar,) log-odds that a section
    begins with the bar."""
    count = len(similarity)
    worth = worth_of_sections(similarity, prices)
    gain = np.zeros(count) if evidence is None else prices.boundary * np.asarray(evidence, float)
    best, back = np.full(count + 1, NEVER), np.zeros(count + 1, dtype=int)
    ahead, behind = (
        np.full(count + 1, NEVER),
        np.full(count + 1, NEVER),
    )  # log of the summed worth of all cuts up to, and from, a bar
    best[0] = ahead[0] = behind[count] = 0.0
    for end in range(1, count + 1):
        starts = np.arange(max(0, end - prices.longest), end)
        step = worth[starts, end - starts] + np.where(starts > 0, gain[starts], 0.0)
        values = best[starts] + step
        at = int(values.argmax())
        best[end], back[end] = values[at], starts[at]
        ahead[end] = logsumexp(ahead[starts] + step)
    for start in range(count - 1, -1, -1):
        ends = np.arange(start + 1, min(count, start + prices.longest) + 1)
        behind[start] = logsumexp(behind[ends] + worth[start, ends - start]) + (gain[start] if start else 0.0)
    first = [count]
    while first[-1]:
        first.append(int(back[first[-1]]))
    chosen = np.array(first[::-1])
    sure = np.exp(np.minimum(0.0, ahead[chosen[:-1]] + behind[chosen[:-1]] - ahead[count]))
    return Cut(chosen, sure)


def worth_of_sections(similarity: Alike, prices: Prices) -> Float[np.ndarray, "start length"]:
    """Worth of a section of so many bars, at most `prices.longest`, from bar `start` on: similarity between
    its bars, a pair for each of its bars, and its length. NEVER where it would be longer than the track."""
    count, near = len(similarity), prices.near
    before = np.zeros((count, near + 1))  # (bar, bars): similarity to so many bars before
    for first, last in strips(count):
        low = max(0, first - near)
        block = similarity[low:last, low:last]
        for apart in range(1, near + 1):
            line = np.diagonal(block, apart)[max(0, first - low - apart) :]
            before[last - len(line) : last, apart] = line
    before = before.cumsum(axis=1)
    price = np.full(prices.longest + 1, prices.odd)
    price[::2] = prices.even
    price[::4] = prices.four
    price[[bars for bars in (8, 16) if bars <= prices.longest]] = prices.eight
    worth = np.full((count, prices.longest + 1), NEVER)
    inside = np.zeros(count)
    for length in range(1, min(prices.longest, count) + 1):
        inside = inside[: count - length + 1] + 2 * before[length - 1 :, min(length - 1, near)]
        worth[: len(inside), length] = prices.alike * inside / length - prices.start - price[length]
    return worth


def letters(similarity: Alike, first: Int[np.ndarray, " edge"], alike: float) -> tuple[str, ...]:
    """A letter for every section, A for the first: sections share one when their bars, side by side, are
    `alike` on average.

    Average linkage; the similarity of two sections is the best mean over ways to lay the shorter along the
    longer, at multiples of two bars.
    """
    count = len(first) - 1
    between = np.eye(count)
    for a in range(count):
        start = first[a + 1]
        later = similarity[first[a] : start, start : first[-1]]
        for b in range(a + 1, count):
            block = later[:, first[b] - start : first[b + 1] - start]
            between[a, b] = between[b, a] = _along(block)
    groups = [[section] for section in range(count)]
    while len(groups) > 1:
        pairs = [
            (float(between[np.ix_(x, y)].mean()), i, j)
            for i, x in enumerate(groups)
            for j, y in enumerate(groups)
            if i < j
        ]
        value, i, j = max(pairs)
        if value < alike:
            break
        groups[i] += groups.pop(j)
    names: dict[int, str] = {}
    owner = {section: number for number, group in enumerate(groups) for section in group}
    for section in range(count):
        names.setdefault(owner[section], letter(len(names)))
    return tuple(names[owner[section]] for section in range(count))


def _along(block: Float[np.ndarray, "bar bar"]) -> float:
    """Best mean similarity along diagonals of a block that hold the whole of its shorter side."""
    rows, columns = block.shape
    if rows > columns:
        block, rows, columns = block.T, columns, rows
    return max(
        float(np.mean(block[np.arange(rows), np.arange(rows) + shift]))
        for shift in range(0, columns - rows + 1, 2)
    )


def letter(number: int) -> str:
    """A, B, ... Z, AA, AB ..."""
    name = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        name = chr(ord("A") + rest) + name
    return name
