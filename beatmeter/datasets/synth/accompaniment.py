"""What goes on under a melody: figures, contours, pads, blocks, basses and drones."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from beatmeter.datasets.synth.draws import one_of, pick
from beatmeter.datasets.synth.harmony import Harmony
from beatmeter.datasets.synth.melody import draw_rhythm
from beatmeter.datasets.synth.notes import Dynamics, Notes
from beatmeter.datasets.synth.patterns import CONTOURS, FIGURES, Figure
from beatmeter.datasets.synth.structure import Phrase
from beatmeter.datasets.synth.timing import Layout

# Strings of a drone over the tonic, in the order in which they are plucked.
STRINGS = (
    ((-5, 0, 0, -12), 4.0),
    ((0, 7), 2.0),
    ((-5, 0, -12), 0.7),
    ((-5, 0, 0, 0, -12), 0.7),
    ((0, 7, 12, 7), 0.7),
    ((0,), 0.4),
)
# How a bass moves: held roots, roots on every group, root and fifth, a walk, its own rhythm, a pedal.
BASSES = (("hold", 2.0), ("group", 3.0), ("fifth", 1.5), ("walk", 1.2), ("rhythm", 2.5), ("pedal", 1.0))


def figure_part(
    rng: np.random.Generator,
    layout: Layout,
    phrases: list[Phrase],
    harmony: Harmony,
    pulse: float,
    dynamics: Dynamics,
    centre: int = 57,
    contours: float = 0.45,
    wander: bool = False,
    names: tuple[str, ...] = (),
) -> Notes:
    """Chords in figures or contours, one texture for each section; cadences may stop it.

    wander: allow textures that change from bar to bar, as in through-composed music. names: the figures to
    choose from; none: all of them, and contours.
    """
    notes = Notes()
    textures: dict[str, Figure | tuple[str, int, str, str]] = {}
    pedal = rng.random() < 0.5
    restless = 0.3 if rng.random() < 0.3 else 0.0
    wandering = float(rng.uniform(0.2, 0.8)) if wander and rng.random() < 0.3 else 0.0
    tacet = rng.uniform(0, 0.15) if rng.random() < 0.2 else 0.0
    stops = rng.uniform(0, 0.5) if rng.random() < 0.4 else 0.0
    size = one_of(rng, (2, 3, 3, 3, 4))
    bass = centre - one_of(rng, (12, 15, 19, 24))
    for phrase in phrases:
        if phrase.section not in textures or rng.random() < restless:
            known = list(textures.values())
            keep = bool(known) and rng.random() < 0.35
            textures[phrase.section] = (
                known[0] if keep else _draw_texture(rng, layout, pulse, contours, names)
            )
        texture = textures[phrase.section]
        for bar in range(phrase.first, phrase.first + phrase.bars):
            through = (bar - phrase.first + 0.5) / phrase.bars
            if wandering and rng.random() < wandering:
                texture = _draw_texture(rng, layout, pulse, contours, names)
            if rng.random() < tacet:
                continue
            if bar == phrase.first + phrase.bars - 1 and rng.random() < stops:
                _stop(rng, notes, layout, bar, harmony, centre, bass, size, dynamics)
            elif isinstance(texture, Figure):
                _figure_bar(
                    rng, notes, layout, bar, texture, harmony, dynamics, through, centre, bass, size, pedal
                )
            else:
                _contour_bar(rng, notes, layout, bar, texture, harmony, dynamics, through, centre, bass, size)
    return notes


def _draw_texture(
    rng: np.random.Generator, layout: Layout, pulse: float, contours: float, names: tuple[str, ...]
) -> Figure | tuple[str, int, str, str]:
    if names:
        return pick(rng, [(figure, figure.weight) for figure in FIGURES if figure.name in names])
    if rng.random() < contours:
        rates = [
            steps for steps in (1, 2, 3, 4) if 0.1 < pulse / steps < 0.75 and layout.division % steps == 0
        ] or [1]
        restart = pick(rng, (("group", 3.0), ("bar", 3.0), ("chord", 1.0)))
        bass = pick(rng, (("none", 1.5), ("bar", 3.0), ("group", 1.5), ("octave", 1.0)))
        return pick(rng, CONTOURS), one_of(rng, rates), restart, bass
    fitting = [
        (figure, figure.weight)
        for figure in FIGURES
        if pulse / figure.steps > 0.095 and layout.division % figure.steps == 0
    ]
    return pick(rng, fitting)


def _stop(
    rng: np.random.Generator,
    notes: Notes,
    layout: Layout,
    bar: int,
    harmony: Harmony,
    centre: int,
    bass: int,
    size: int,
    dynamics: Dynamics,
) -> None:
    """A cadence: one held chord."""
    at = layout.at(bar, 0)
    index = harmony.index(at)
    length = layout.pulses * layout.unit * float(rng.uniform(0.4, 0.95))
    level = dynamics.velocity(rng, 3.0, 0.95)
    for pitch in [harmony.bass(index, bass), *harmony.voicing(index, centre, size)]:
        notes.add(at, length, pitch, level)


def _figure_bar(
    rng: np.random.Generator,
    notes: Notes,
    layout: Layout,
    bar: int,
    figure: Figure,
    harmony: Harmony,
    dynamics: Dynamics,
    through: float,
    centre: int,
    bass: int,
    size: int,
    pedal: bool,
) -> None:
    start = 0
    for number, group in enumerate(layout.groups):
        for lane in figure.lanes(group, first=number == 0):
            step = group / len(lane)
            for place, symbol in enumerate(lane):
                if symbol in ".-":
                    continue
                after = place + 1
                while after < len(lane) and (lane[after] == "-" or (pedal and lane[after] == ".")):
                    after += 1
                onset = start + place * step
                position = layout.at(bar, onset * layout.division)
                length = (after - place) * step * layout.unit * 0.95
                weight = 3.0 if onset == 0 else 2.0 if place == 0 else 1.0 if onset % 1 == 0 else 0.4
                level = dynamics.velocity(rng, weight, through)
                for pitch in _pitches(symbol, harmony, harmony.index(position), centre, bass, size):
                    notes.add(position, length, pitch, level if symbol in "bof" else level * 0.85)
        start += group


def _pitches(symbol: str, harmony: Harmony, index: int, centre: int, bass: int, size: int) -> list[int]:
    low = harmony.bass(index, bass)
    if symbol == "b":
        return [low]
    if symbol == "o":
        return [low, low - 12] if low > 36 else [low, low + 12]
    if symbol == "f":
        classes = harmony.classes(index)
        return [low - 5 if (low - 5) % 12 in classes and low > 40 else low + (classes[-1] - low) % 12]
    if symbol == "c":
        return harmony.voicing(index, centre, size)
    return [harmony.voicing(index, centre - 5, 6)[int(symbol)]]


def _contour_bar(
    rng: np.random.Generator,
    notes: Notes,
    layout: Layout,
    bar: int,
    texture: tuple[str, int, str, str],
    harmony: Harmony,
    dynamics: Dynamics,
    through: float,
    centre: int,
    bass: int,
    size: int,
) -> None:
    contour, rate, restart, low = texture
    groups = set(layout.group_starts().tolist())
    count, chord = 0, -1
    for step in range(layout.pulses * rate):
        onset = step / rate
        position = layout.at(bar, onset * layout.division)
        index = harmony.index(position)
        if (restart == "group" and onset in groups) or (restart == "chord" and index != chord):
            count = 0
        chord = index
        symbol = contour[count % len(contour)]
        count += 1
        weight = 3.0 if step == 0 else 2.0 if onset in groups else 1.0 if onset % 1 == 0 else 0.4
        level = dynamics.velocity(rng, weight, through)
        if low != "none" and (step == 0 or (low == "group" and onset in groups)):
            length = (layout.pulses if low != "group" else layout.groups[0]) * layout.unit * 0.9
            for pitch in _pitches("o" if low == "octave" else "b", harmony, index, centre, bass, size):
                notes.add(position, length, pitch, level)
        if symbol != ".":
            for pitch in _pitches(symbol, harmony, index, centre, bass, size):
                notes.add(position, layout.unit / rate * 0.95, pitch, level * 0.8)


def pad_part(
    rng: np.random.Generator,
    layout: Layout,
    harmony: Harmony,
    dynamics: Dynamics,
    centre: int = 60,
    size: int = 3,
) -> Notes:
    """Held chords: one for each harmony, or struck again at every bar."""
    notes = Notes()
    again = rng.random() < 0.4
    edges = set(np.round(harmony.starts, 6).tolist())
    if again:
        edges |= set(np.round(layout.starts, 6).tolist())
    times = sorted(edges)
    times.append(max(times[-1] + 1.0, float(layout.starts[-1])))
    for start, end in pairwise(times):
        index = harmony.index(start)
        level = dynamics.velocity(rng, 2.0)
        for pitch in harmony.voicing(index, centre, size):
            notes.add(start, (end - start) * 0.98, pitch, level)
    return notes


def block_part(
    rng: np.random.Generator,
    layout: Layout,
    phrases: list[Phrase],
    harmony: Harmony,
    pulse: float,
    dynamics: Dynamics,
    density: float,
    centre: int = 57,
) -> Notes:
    """Homophony (hymns, chorales, comping): all voices in one rhythm that returns by the bar."""
    notes = Notes()
    motifs: dict[tuple[str, str], list[float]] = {}
    size = one_of(rng, (2, 3, 3))
    for phrase in phrases:
        form = one_of(rng, ("aaab", "abab", "aaaa", "aabc", "abac"))
        for count in range(phrase.bars):
            bar = phrase.first + count
            key = (phrase.section, form[count % 4])
            if key not in motifs:
                motifs[key] = draw_rhythm(rng, layout, density, pulse, 0.0)
            rhythm = motifs[key]
            if count == phrase.bars - 1 and phrase.bars > 1:
                rhythm = rhythm[:2] if rng.random() < 0.3 else rhythm[:1]
            for here, after in zip(rhythm, [*rhythm[1:], float(layout.pulses)], strict=True):
                position = layout.at(bar, here * layout.division)
                index = harmony.index(position)
                weight = 3.0 if here == 0 else 1.0
                level = dynamics.velocity(rng, weight, (count + 0.5) / phrase.bars)
                moved = centre + one_of(rng, (0, 0, 3, -3))
                for pitch in [harmony.bass(index, centre - 14), *harmony.voicing(index, moved, size)]:
                    notes.add(position, (after - here) * layout.unit * 0.95, pitch, level)
    return notes


def bass_part(
    rng: np.random.Generator,
    layout: Layout,
    phrases: list[Phrase],
    harmony: Harmony,
    pulse: float,
    dynamics: Dynamics,
    centre: int = 40,
) -> Notes:
    """A bass line; see BASSES."""
    notes = Notes()
    kind = pick(rng, BASSES)
    rhythm = draw_rhythm(rng, layout, float(rng.uniform(0.1, 0.7)), pulse, 0.1)
    groups = [float(start) for start in layout.group_starts()]
    if kind == "hold":
        rhythm = [0.0]
    elif kind in {"group", "fifth"}:
        rhythm = (
            groups if len(groups) > 1 else [0.0, *([float(layout.pulses // 2)] if layout.pulses > 3 else [])]
        )
    elif kind == "walk":
        rhythm = [float(at) for at in range(layout.pulses)] if pulse > 0.2 else groups
    elif kind == "pedal":
        rate = 2 if pulse > 0.3 and layout.division % 2 == 0 else 1
        rhythm = [at / rate for at in range(layout.pulses * rate)]
    if 0.0 not in rhythm:
        rhythm = [0.0, *rhythm]
    shape = [one_of(rng, (0, 0, 0, 7, 12, -5)) for _ in rhythm]
    for phrase in phrases:
        for bar in range(phrase.first, phrase.first + phrase.bars):
            through = (bar - phrase.first + 0.5) / phrase.bars
            for number, (here, after) in enumerate(
                zip(rhythm, [*rhythm[1:], float(layout.pulses)], strict=True)
            ):
                position = layout.at(bar, here * layout.division)
                index = harmony.index(position)
                pitch = harmony.bass(index, centre)
                if kind == "fifth" and number % 2:
                    pitch += 7
                elif kind == "rhythm" and number:
                    pitch += shape[number]
                elif kind == "walk" and number:
                    pitch = one_of(rng, harmony.ladder(centre - 6, centre + 8))
                weight = 3.0 if here == 0 else 2.0 if here in groups else 1.0
                level = dynamics.velocity(rng, weight, through)
                notes.add(position, (after - here) * layout.unit * 0.92, pitch, level)
    return notes


def drone_part(rng: np.random.Generator, layout: Layout, harmony: Harmony, pulse: float) -> Notes:
    """Tonic and fifth: held, struck with the bar, or plucked in a cycle of its own that ignores the bar."""
    notes = Notes()
    tonic = 48 + harmony.key % 12 - (12 if harmony.key % 12 > 6 else 0)
    pitches = [tonic + step for step in pick(rng, STRINGS)]
    kind = pick(rng, (("held", 1.0), ("bar", 1.0), ("free", 3.0)))
    start, end = float(layout.starts[0]), float(layout.starts[-1])
    bar = layout.pulses * layout.unit
    if kind == "bar":
        for at in layout.starts[:-1]:
            for pitch in set(pitches):
                notes.add(float(at), bar, pitch, 0.7)
        return notes
    stride = float(rng.uniform(0.3, 1.2)) / pulse if kind == "free" else 4.0 / pulse
    position = start + float(rng.uniform(0, stride))
    sway = float(rng.uniform(0, 0.04)) if rng.random() < 0.5 else 0.002
    rests = 1 if kind == "free" and rng.random() < 0.3 else 0  # a breath after the last string of the cycle
    count = 0
    while position < end:
        for pitch in {pitches[count % len(pitches)]} if kind == "free" else set(pitches):
            notes.add(position, stride * (2.5 if kind == "free" else 1.02), pitch, 0.7)
        count += 1
        pause = rests if count % len(pitches) == 0 else 0
        position += stride * (1 + pause + (sway * float(rng.standard_normal()) if kind == "free" else 0.0))
    return notes
