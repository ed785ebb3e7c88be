"""The shape of a piece in bars: sections made of phrases."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from beatmeter.datasets.synth.draws import one_of, pick
from beatmeter.datasets.synth.timing import Layout

SECTION_PLANS = ("A", "A", "AB", "ABA", "AAB", "AABA", "ABAB", "ABC")
PHRASE_BARS = ((4, 0.62), (2, 0.12), (8, 0.08), (3, 0.08), (5, 0.05), (6, 0.05))


@dataclass(frozen=True)
class Phrase:
    """Bars [first, first + bars) of a layout. closing: the last phrase of its section."""

    first: int
    bars: int
    section: str
    closing: bool


def draw_phrases(rng: np.random.Generator, layout: Layout, steady: bool) -> list[Phrase]:
    """Cut all bars of a layout into phrases and sections; `steady` keeps one section (loops)."""
    plan = "A" if steady else one_of(rng, SECTION_PLANS)
    usual = pick(rng, PHRASE_BARS)
    per_section = max(1, int(np.ceil(layout.bars / (len(plan) * usual))))
    phrases: list[Phrase] = []
    first = 0
    for index, label in enumerate(plan):
        count = per_section if index < len(plan) - 1 else 10_000
        for number in range(count):
            if first >= layout.bars:
                return phrases
            bars = usual if rng.random() < 0.88 else pick(rng, PHRASE_BARS)
            bars = min(bars, layout.bars - first)
            closing = number == count - 1 or first + bars >= layout.bars
            phrases.append(Phrase(first, bars, label, closing))
            first += bars
    return phrases


def sections_of(phrases: list[Phrase], layout: Layout) -> list[tuple[float, float, str]]:
    """(start, end, label) in pulses; neighbouring phrases of one section are joined."""
    spans: list[tuple[float, float, str]] = []
    joined = False
    for phrase in phrases:
        start = float(layout.starts[phrase.first])
        end = float(layout.starts[phrase.first + phrase.bars])
        if spans and joined:
            spans[-1] = (spans[-1][0], end, phrase.section)
        else:
            spans.append((start, end, phrase.section))
        joined = not phrase.closing
    return spans
