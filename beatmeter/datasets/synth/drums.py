"""Percussion parts: drawn from the pattern table, or composed from metrical weights."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from beatmeter.datasets.synth.clip import FloatArray
from beatmeter.datasets.synth.draws import one_of, pick
from beatmeter.datasets.synth.notes import Dynamics, Notes
from beatmeter.datasets.synth.patterns import PATTERNS, Pattern
from beatmeter.datasets.synth.structure import Phrase
from beatmeter.datasets.synth.timing import Layout

Bars = dict[str, FloatArray]  # stroke -> (bar, tick) level


@dataclass(frozen=True)
class Ensemble:
    """Which strokes take which job in a composed pattern; each job draws one of its strokes."""

    low: tuple[str, ...]
    back: tuple[str, ...]
    keep: tuple[str, ...]
    color: tuple[str, ...] = ()
    fill: tuple[str, ...] = ()
    crash: tuple[str, ...] = ()
    patterns: bool = True


ENSEMBLES: dict[str, Ensemble] = {
    "kit": Ensemble(
        ("kick",), ("snare", "snare", "rim"), ("hat", "hat", "ride"), ("open", "cowbell", "tambourine"),
        ("snare", "tom_low", "tom_high"), ("crash",),
    ),
    "machine": Ensemble(
        ("kick808", "kick"), ("clap", "snare", "rim"), ("hat", "shaker"), ("open", "blip", "zap", "block"),
        ("tom_high", "zap", "snare"), ("crash",),
    ),
    "hands": Ensemble(
        ("conga_low", "frame_low", "tom_low"), ("conga_high", "slap", "frame_high"),
             ("shaker", "tambourine", "block"),
        ("cowbell", "block", "triangle", "clap"), ("conga_high", "conga_low", "slap"),
    ),
    "darbuka": Ensemble(("doum",), ("tek",), ("ka", "tek"), ("tambourine", "clap", "frame_high"),
         ("tek", "doum", "ka")),
    "frame": Ensemble(("frame_low",), ("frame_high",), ("frame_high", "shaker"), ("tambourine",),
         ("frame_high", "frame_low")),
    "orchestral": Ensemble(("timpani",), ("snare", "timpani"), ("triangle", "snare"), ("crash",),
         ("timpani", "snare"), ("crash",), False),
    "foley": Ensemble(("zap", "frame_low", "bayan"), ("block", "clap", "blip"), ("shaker", "blip", "hat"),
         ("triangle", "zap")),
}  # fmt: skip


def compose_pattern(rng: np.random.Generator, layout: Layout, ensemble: Ensemble, pulse: float) -> Bars:
    """Compose one or two bars from metrical weights: low strokes on strong places, an answer, a
    time-keeper."""
    weights = layout.weights()
    division = layout.division
    bars = 2 if rng.random() < 0.3 else 1
    pulses = np.arange(len(weights)) % division == 0
    groups = weights >= 2
    half = (np.arange(len(weights)) % division) * 2 == division
    fast = pulse / division < 0.11
    voices: Bars = {}
    cells = len(layout.groups) > 1 and rng.random() < 0.4

    def draw(on_bar: float, on_group: float, on_pulse: float, on_half: float, on_tick: float) -> FloatArray:
        chance = np.full((bars, len(weights)), on_tick)
        chance[:, half] = on_half
        chance[:, pulses] = on_pulse
        chance[:, groups] = on_group
        chance[:, 0] = on_bar
        level = np.clip(rng.normal(0.85, 0.1, chance.shape), 0.3, 1.0)
        drawn = np.where(rng.random(chance.shape) < chance, level, 0.0)
        return _as_cells(rng, drawn, layout) if cells else drawn

    ticks = 0.0 if fast else 0.12
    ahead = rng.random() < 0.15  # a hand that plays before and after the beat rather than on it
    low = draw(
        0.96 if not ahead else rng.uniform(0.4, 0.9),
        rng.uniform(0.1, 0.9),
        rng.uniform(0, 0.35),
        rng.uniform(0, 0.6 if ahead else 0.25),
        rng.uniform(0, 0.1),
    )
    if bars == 2 and rng.random() < 0.7:
        low[1, 0] = low[0, 0] = 0.9
    voices[one_of(rng, ensemble.low)] = low
    if rng.random() < 0.88:
        back = draw(
            0.04, rng.uniform(0.2, 1.0), rng.uniform(0, 0.5), rng.uniform(0, 0.2), rng.uniform(0, ticks)
        )
        if rng.random() < 0.45:  # a backbeat: one fixed place, such as the last group or the second pulse
            back *= rng.uniform(0, 0.4)
            inner = np.flatnonzero(groups)[1:] if groups.sum() > 1 else np.flatnonzero(pulses)[1:]
            if len(inner):
                back[:, one_of(rng, list(inner))] = 1.0
                if rng.random() < 0.5:
                    back[:, inner[-1]] = 1.0
        voices[one_of(rng, ensemble.back)] = back
    if rng.random() < 0.85:
        kind = rng.random()
        if kind < 0.35:
            keep = draw(1, 1, 1, 1 if pulse > 0.24 else 0, 0)
        elif kind < 0.6:
            keep = draw(1, 1, 1, 0, 0)
        elif kind < 0.7:
            keep = draw(1, 1, 1, 0 if fast else 1, 0 if fast else 1)
        elif kind < 0.8:
            keep = draw(0, 0, 0.5, 1, 0)
        else:
            keep = draw(0.9, 0.9, 0.7, rng.uniform(0, 0.7), rng.uniform(0, ticks * 2))
            keep[-1] = keep[0]
        keep *= 0.75 + rng.uniform(-0.2, 0.25) * (weights >= 2)
        voices[one_of(rng, ensemble.keep)] = keep * rng.uniform(0.3, 0.9)
    if ensemble.color and rng.random() < 0.4:
        color = draw(rng.uniform(0, 0.5), 0.2, 0.2, 0.2, rng.uniform(0, ticks))
        voices[one_of(rng, ensemble.color)] = color * rng.uniform(0.4, 1.0)
    if not any(
        voice.any() for voice in voices.values()
    ):  # chance left every voice empty: one stroke a bar at least
        low[:, 0] = 0.9
    return voices


def _as_cells(rng: np.random.Generator, levels: FloatArray, layout: Layout) -> FloatArray:
    """Groups of equal length repeat one cell, but for the downbeat and perhaps the last group."""
    result = levels.copy()
    seen: dict[int, FloatArray] = {}
    edges = [*(layout.group_starts() * layout.division).tolist(), levels.shape[1]]
    for number, (start, end) in enumerate(pairwise(edges)):
        if number and number == len(edges) - 2 and rng.random() < 0.35:
            continue
        cell = seen.setdefault(end - start, levels[:, start:end])
        result[:, start:end] = cell
    if rng.random() < 0.7:
        result[:, 0] = levels[:, 0]
    return result


def drum_part(
    rng: np.random.Generator,
    layout: Layout,
    phrases: list[Phrase],
    ensemble: Ensemble,
    pulse: float,
    dynamics: Dynamics,
    strokes: dict[str, int],
) -> Notes:
    """A percussion part: a pattern for each section, small mutations, fills at phrase ends, crashes after
    them."""
    notes = Notes()
    mutation = rng.uniform(0, 0.1) if rng.random() < 0.6 else 0.0
    weak = layout.weights() < 2
    fills = rng.uniform(0, 0.9) if rng.random() < 0.6 else 0.0
    crash = bool(ensemble.crash) and rng.random() < 0.5
    sections: dict[str, Bars] = {}
    base: Bars | None = None
    for phrase in phrases:
        if phrase.section not in sections:
            fresh = _drawn(rng, layout, ensemble, pulse)
            if base is not None and rng.random() < 0.5:  # keep the groove, change its time-keeper or colour
                fresh = {**base, **dict(list(fresh.items())[2:])}
            sections[phrase.section] = fresh
            base = base or fresh
        bars = sections[phrase.section]
        for bar in range(phrase.first, phrase.first + phrase.bars):
            last = bar == phrase.first + phrase.bars - 1
            fill = last and ensemble.fill and rng.random() < fills
            for voice, levels in bars.items():
                row = levels[bar % len(levels)]
                if mutation:
                    loose = weak if len(row) == len(weak) else np.arange(len(row)) % 2 == 1
                    flip = rng.random(len(row)) < mutation * np.where(loose, 1.5, 0.3)
                    row = np.where(flip, np.where(row > 0, 0.0, 0.4), row)
                _place(
                    rng,
                    notes,
                    layout,
                    bar,
                    row[: len(row) * 2 // 3] if fill else row,
                    len(row),
                    strokes[voice],
                    dynamics,
                )
            if fill:
                _fill(rng, notes, layout, bar, ensemble, strokes, pulse)
            if crash and bar == phrase.first and phrase.first and rng.random() < 0.7:
                notes.add(layout.at(bar, 0), 1.0, strokes[one_of(rng, ensemble.crash)], 0.8)
    return notes


def _drawn(rng: np.random.Generator, layout: Layout, ensemble: Ensemble, pulse: float) -> Bars:
    fitting: list[tuple[Pattern, float]] = [
        (row, row.weight) for row in PATTERNS
        if row.groups == layout.groups and pulse / row.division > 0.075
    ]  # fmt: skip
    if ensemble.patterns and fitting and rng.random() < 0.4:
        return dict(pick(rng, fitting).voices)
    return compose_pattern(rng, layout, ensemble, pulse)


def _place(
    rng: np.random.Generator,
    notes: Notes,
    layout: Layout,
    bar: int,
    row: FloatArray,
    steps: int,
    stroke: int,
    dynamics: Dynamics,
) -> None:
    scale = layout.pulses * layout.division / steps
    for step in np.flatnonzero(row):
        jitter = 1 + dynamics.spread * float(rng.standard_normal())
        notes.add(
            layout.at(bar, float(step) * scale), 1.0, stroke, max(0.05, min(1.0, float(row[step]) * jitter))
        )


def _fill(
    rng: np.random.Generator,
    notes: Notes,
    layout: Layout,
    bar: int,
    ensemble: Ensemble,
    strokes: dict[str, int],
    pulse: float,
) -> None:
    ticks = layout.pulses * layout.division
    start = ticks * 2 // 3
    stride = 1 if pulse / layout.division > 0.09 else layout.division
    order = list(ensemble.fill)
    for count, tick in enumerate(range(start, ticks, stride)):
        if rng.random() < 0.85:
            voice = order[min(len(order) - 1, count * len(order) // max(1, (ticks - start) // stride))]
            notes.add(layout.at(bar, tick), 1.0, strokes[voice], float(rng.uniform(0.5, 1.0)))


BOLS: tuple[tuple[tuple[str, ...], float], ...] = (
    (("bayan", "dayan_ring"), 3.0),  # dha, dhin
    (("dayan_ring",), 1.5),  # tin
    (("dayan_rim",), 3.0),  # na
    (("bayan",), 1.2),  # ge
    (("bayan_shut", "dayan_rim"), 1.0),  # ta with ke
    (("dayan_shut",), 1.2),  # te
    (("bayan_shut",), 1.0),  # ke
)


def theka_part(
    rng: np.random.Generator, layout: Layout, phrases: list[Phrase], pulse: float, strokes: dict[str, int]
) -> Notes:
    """A cycle of named strokes, one or two a pulse, with a resonant stroke on the first and an empty (khali)
    group."""
    notes = Notes()
    groups = set(layout.group_starts().tolist())
    opening = one_of(rng, [bol for bol, _ in BOLS[:2]])
    starts = sorted(groups)
    khali: set[int] = set()
    if rng.random() < 0.6 and len(starts) > 1:  # one group, or a run of them, without its low strokes
        first = int(rng.integers(1, len(starts)))
        khali = set(starts[first : first + int(rng.integers(1, 1 + len(starts) // 2))])
    cycle: list[list[tuple[float, tuple[str, ...]]]] = []
    cells: dict[int, list[tuple[float, tuple[str, ...]]]] = {}
    cellular = rng.random() < 0.55
    place = 0
    palette = [pick(rng, BOLS) for _ in range(int(rng.integers(2, 5)))]
    lead = [pick(rng, BOLS[:4]) for _ in range(2)]
    if (
        rng.random() < 0.3
    ):  # nearly one stroke throughout: only the empty groups and a turn at the end tell the cycle
        palette, lead = [opening, opening, palette[0]], [opening, opening]
    empty = False
    for at in range(layout.pulses):
        if at in groups:
            empty, place = at in khali, 0
        bol = opening if at == 0 else one_of(rng, lead if at in groups else palette)
        if cellular and (at == 0 or rng.random() < 0.85):
            bol = cells.setdefault(place, [(0.0, bol)])[0][1]
        place += 1
        if empty:
            bol = tuple(name for name in bol if not name.startswith("bayan")) or ("dayan_rim",)
        hits = [(0.0, bol)] if at == 0 or at in groups or rng.random() < 0.9 else []
        if pulse > 0.22 and rng.random() < 0.25:
            hits.append((0.5, one_of(rng, palette)))
        cycle.append(hits)
    accent = rng.uniform(0.0, 0.35)
    vary = rng.uniform(0, 0.08)
    for phrase in phrases:
        for bar in range(phrase.first, phrase.first + phrase.bars):
            for at, hits in enumerate(cycle):
                for offset, bol in hits:
                    if at and rng.random() < vary:
                        bol = one_of(rng, palette)
                    level = 0.75 + accent * (at == 0) + 0.4 * accent * (at in groups) - 0.2 * (offset > 0)
                    for name in bol:
                        velocity = min(1.0, level * float(rng.uniform(0.85, 1.1)))
                        notes.add(
                            layout.at(bar, (at + offset) * layout.division), 1.0, strokes[name], velocity
                        )
    return notes


def cycle_part(rng: np.random.Generator, layout: Layout, strokes: dict[str, int]) -> Notes:
    """A long cycle with few strokes, as usuls have: a low one on the first pulse, and on other groups a low
    one, a high one or none; every cycle alike but for a stroke now and then."""
    low, high, soft = one_of(
        rng,
        (
            ("doum", "tek", "ka"),
            ("frame_low", "frame_high", "frame_high"),
            ("bayan", "dayan_rim", "dayan_shut"),
        ),
    )
    rest, inner, lift = rng.uniform(0.0, 0.45), rng.uniform(0.0, 0.5), rng.uniform(0.0, 0.7)
    cycle: list[tuple[float, str, float]] = [(0.0, low, 1.0)]
    starts = layout.group_starts().tolist()
    for start, size in zip(starts, layout.groups, strict=True):
        if start and rng.random() >= rest:
            cycle.append((float(start), one_of(rng, (low, high, high)), 0.8))
        cycle += [
            (float(pulse), one_of(rng, (high, soft)), 0.55)
            for pulse in range(start + 1, start + size)
            if rng.random() < inner
        ]
    if rng.random() < lift:
        cycle.append((layout.pulses - 0.5, soft, 0.5))
    notes, vary = Notes(), rng.uniform(0, 0.08)
    for bar in range(layout.bars):
        for at, stroke, level in cycle:
            if at and rng.random() < vary:
                continue
            velocity = min(1.0, level * float(rng.uniform(0.85, 1.1)))
            notes.add(layout.at(bar, at * layout.division), 1.0, strokes[stroke], velocity)
    return notes


def click_part(rng: np.random.Generator, layout: Layout, beats: list[int], strokes: dict[str, int]) -> Notes:
    """A metronome: one sound on downbeats, another on the other beats, perhaps a third between."""
    notes = Notes()
    between = layout.division > 1 and rng.random() < 0.2
    pulses = list(range(layout.pulses)) if rng.random() < 0.5 else beats
    accent = rng.uniform(0.0, 0.5)
    for bar in range(layout.bars):
        for pulse in pulses:
            name = "click_high" if pulse == 0 else "click_low"
            level = 1.0 if pulse == 0 else 0.9 - accent * (0.5 if pulse in beats else 1.0)
            notes.add(layout.at(bar, pulse * layout.division), 1.0, strokes[name], level)
            if between:
                notes.add(layout.at(bar, (pulse + 0.5) * layout.division), 1.0, strokes["click_low"], 0.35)
    return notes
