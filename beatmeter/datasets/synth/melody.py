"""Melodies: motifs that return by the bar, phrases that breathe, chord tones where it matters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from beatmeter.datasets.synth.draws import one_of, pick
from beatmeter.datasets.synth.harmony import Harmony
from beatmeter.datasets.synth.notes import Dynamics, Notes
from beatmeter.datasets.synth.patterns import CELLS
from beatmeter.datasets.synth.structure import Phrase
from beatmeter.datasets.synth.timing import Layout

# Which bar motif each bar of a phrase takes; the last bar of a phrase may be a cadence instead.
PHRASE_FORMS = (
    ("aabc", 2.0),
    ("abac", 2.5),
    ("abab", 2.0),
    ("aaab", 1.5),
    ("abcd", 2.0),
    ("aaaa", 1.5),
    ("abcb", 1.0),
)
STEPS = ((-1, 4.0), (1, 4.0), (0, 1.5), (-2, 1.3), (2, 1.5), (3, 0.5), (-3, 0.4), (4, 0.3))


@dataclass(frozen=True)
class MelodyStyle:
    """low, high: MIDI range. density: 0-1. exact: motifs return note for note (riffs). rest: chance of a
    breath.

    pickup: chance that phrases start before their bar. legato: sounding part of a note. ornaments: chance per
    note. rhythms: bars to choose from, `x` an onset, in equal steps; none: bars are drawn.
    """

    low: int
    high: int
    density: float
    exact: bool = False
    rest: float = 0.3
    pickup: float = 0.3
    legato: float = 0.95
    ornaments: float = 0.02
    syncopation: float = 0.05
    rhythms: tuple[str, ...] = ()


def draw_rhythm(
    rng: np.random.Generator, layout: Layout, density: float, pulse: float, syncopation: float
) -> list[float]:
    """Onsets of one bar in pulses of the layout, ascending, from cells or from metrical weights."""
    onsets: list[float] = []
    if layout.division != 3 and rng.random() < 0.6:
        fixed: dict[int, str] = {}
        same = rng.random() < 0.5
        at = 0
        for group in layout.groups:
            for part in _cells_of(group):
                if part not in fixed or not same:
                    fixed[part] = _draw_cell(rng, part, density, pulse)
                cell = fixed[part]
                onsets.extend(at + part * step / len(cell) for step, mark in enumerate(cell) if mark == "x")
                at += part
    else:
        weights = layout.weights()
        on_group, on_pulse = 0.45 + 0.5 * density, 0.1 + 0.8 * density
        inside = density * rng.uniform(0, 0.5) if pulse / layout.division > 0.1 else 0.0
        chance = np.where(weights >= 2, on_group, np.where(weights >= 1, on_pulse, inside * weights * 2))
        chance[0] = 0.95
        onsets = [float(tick) / layout.division for tick in np.flatnonzero(rng.random(len(weights)) < chance)]
    if syncopation and layout.division % 2 == 0 and rng.random() < syncopation * 3:
        onsets = sorted({onset - 0.5 if onset >= 1 and rng.random() < 0.4 else onset for onset in onsets})
    return onsets or [0.0]


def _bar_rhythm(rng: np.random.Generator, layout: Layout, style: MelodyStyle, pulse: float) -> list[float]:
    if not style.rhythms:
        return draw_rhythm(rng, layout, style.density, pulse, style.syncopation)
    text = one_of(rng, style.rhythms)
    return [layout.pulses * step / len(text) for step, mark in enumerate(text) if mark == "x"]


def _cells_of(group: int) -> list[int]:
    if group <= 4:
        return [group]
    return {5: [3, 2], 6: [3, 3], 7: [4, 3]}.get(group, [3, group - 3])


def _draw_cell(rng: np.random.Generator, length: int, density: float, pulse: float) -> str:
    """A rhythm over so many pulses of `pulse` seconds; one onset where all others were too fast to play."""
    rows = []
    for cell, weight in CELLS[length]:
        if pulse * length / len(cell) < 0.085:
            continue
        rate = cell.count("x") / length
        rows.append((cell, weight * float(np.exp(-2.5 * (rate - 0.35 - 0.9 * density) ** 2))))
    return pick(rng, rows) if rows else "x".ljust(length, ".")


def melody_part(
    rng: np.random.Generator,
    layout: Layout,
    phrases: list[Phrase],
    harmony: Harmony,
    style: MelodyStyle,
    pulse: float,
    dynamics: Dynamics,
) -> Notes:
    """A melody over all phrases. Sections share motifs with their repeats; see MelodyStyle for the
    character."""
    notes = Notes()
    ladder = harmony.ladder(style.low, style.high)
    motifs: dict[tuple[str, str], tuple[list[float], list[int], int]] = {}
    pickup = rng.random() < style.pickup
    lift = one_of(rng, (1, 1, 2, 3)) if layout.pulses > 3 else 1
    snap = rng.uniform(0.3, 0.9)
    place = len(ladder) // 2
    free_until = -1e9
    for phrase in phrases:
        form = "a" if style.exact and phrase.bars < 4 else pick(rng, PHRASE_FORMS)
        if style.exact:
            form = one_of(rng, ("a", "a", "ab", "aaab"))
        breath = rng.random() < style.rest
        silent = not style.exact and rng.random() < style.rest * 0.15
        for count in range(phrase.bars):
            bar = phrase.first + count
            cadence = count == phrase.bars - 1 and not style.exact and phrase.bars > 1
            letter = form[count % len(form)]
            key = (phrase.section, letter)
            if key not in motifs:
                rhythm = _bar_rhythm(rng, layout, style, pulse)
                motifs[key] = (rhythm, [pick(rng, STEPS) for _ in rhythm], place)
            rhythm, steps, home = motifs[key]
            if silent and not cadence:
                continue
            if cadence and rng.random() < 0.8:
                rhythm, steps = rhythm[: 1 + (rng.random() < 0.3)], steps[:2]
            if style.exact or rng.random() < 0.5:
                place = home
            if not style.exact and rng.random() < 0.12:
                rhythm = _bar_rhythm(rng, layout, style, pulse)
                steps = [pick(rng, STEPS) for _ in rhythm]
            if pickup and count == 0 and bar > 0:
                for back in range(lift, 0, -1):
                    position = layout.at(bar, -back * layout.division)
                    if position > free_until:
                        level = dynamics.velocity(rng, 1.0, 0.1)
                        notes.add(
                            position, layout.unit * style.legato, ladder[(place - back) % len(ladder)], level
                        )
            end = (
                float(layout.pulses) if not (cadence and breath) else float(max(1, layout.pulses - lift - 1))
            )
            for index, (onset, step) in enumerate(zip(rhythm, steps, strict=False)):
                position = layout.at(bar, onset * layout.division)
                weight = _weight(layout, onset)
                place = _step(
                    rng, ladder, place, step, harmony, position, snap if weight >= 2 or cadence else 0.1
                )
                until = rhythm[index + 1] if index + 1 < len(rhythm) else max(end, onset + 0.5)
                length = (until - onset) * layout.unit * style.legato
                level = dynamics.velocity(rng, weight, (count + 0.5) / phrase.bars)
                if style.ornaments and rng.random() < style.ornaments:
                    _ornament(rng, notes, position, length, ladder, place, level, pulse)
                notes.add(position, length, ladder[place], level)
                free_until = position + length
    return notes


def _weight(layout: Layout, onset: float) -> float:
    if onset % 1:
        return 0.4
    if onset == 0:
        return 3.0
    return 2.0 if onset in layout.group_starts() else 1.0


def _step(
    rng: np.random.Generator,
    ladder: list[int],
    place: int,
    step: int,
    harmony: Harmony,
    position: float,
    snap: float,
) -> int:
    place += step
    if place < 0:
        place = min(len(ladder) - 1, -place)
    if place >= len(ladder):
        place = max(0, 2 * len(ladder) - 2 - place)
    if rng.random() < snap:
        tones = harmony.classes(harmony.index(position))
        for away in (0, 1, -1, 2, -2):
            if 0 <= place + away < len(ladder) and ladder[place + away] % 12 in tones:
                return place + away
    return place


def _ornament(
    rng: np.random.Generator,
    notes: Notes,
    position: float,
    length: float,
    ladder: list[int],
    place: int,
    level: float,
    pulse: float,
) -> None:
    """A grace note before the beat, or a trill on a long note."""
    upper = ladder[min(len(ladder) - 1, place + 1)]
    if length * pulse > 0.5 and rng.random() < 0.4:
        step = 0.09 / pulse
        for count in range(int(length / step / 2)):
            notes.add(position + (2 * count + 1) * step, step, upper, level * 0.8)
            notes.add(position + (2 * count + 2) * step, step, ladder[place], level * 0.8)
    else:
        notes.add(position - 0.06 / pulse, 0.06 / pulse, upper, level * 0.8)
