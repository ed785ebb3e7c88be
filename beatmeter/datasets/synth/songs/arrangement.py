"""Who plays in which bar, and how loud: one gain for every part and bar of a song.

Sections differ by the energy of their function, as far as the song's contrast goes. Not every boundary is
heard in it, and not everything that is heard in it is a boundary: neighbours may keep one arrangement, and
parts enter, leave and swell inside sections.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from beatmeter.datasets.synth.clip import FloatArray
from beatmeter.datasets.synth.songs.forms import Planned, SongForm
from beatmeter.datasets.synth.styles import Part

# Usual energy of a function, 0-1; letters without a function draw theirs.
ENERGY = {
    "intro": 0.35, "verse": 0.5, "pre-chorus": 0.62, "chorus": 0.9, "bridge": 0.5, "instrumental": 0.65,
    "break": 0.25, "build-up": 0.5, "drop": 1.0, "outro": 0.35,
}  # fmt: skip
RANGE_DB = 12.0  # between energies of 0 and 1 at full contrast


@dataclass(frozen=True)
class Arrangement:
    """gains: (part, bar) factors of velocity, 0 where a part rests. energies: (section,) 0-1."""

    gains: FloatArray
    energies: FloatArray


def draw_arrangement(
    rng: np.random.Generator, form: SongForm, sections: Sequence[Planned], parts: Sequence[Part]
) -> Arrangement:
    """Draw who plays in every bar."""
    contrast = form.contrast * float(rng.uniform(0, 0.9))  # of level
    depth = form.contrast * float(rng.uniform(0, 0.8))  # how many parts come and go
    keeps = float(rng.uniform(0.2, 0.9))  # chance that a boundary changes no arrangement
    inside = float(rng.uniform(0.1, 0.9))  # chance of a change at a phrase start inside a section
    early = float(rng.uniform(0, 0.7))  # chance that a part enters or leaves before or after the boundary
    gains = np.zeros((len(parts), sum(section.bars for section in sections)))
    energies = np.zeros(len(sections))
    ranks = rng.random(len(parts))
    letters: dict[str, tuple[float, FloatArray]] = {}
    before: FloatArray | None = None
    first = 0
    for number, section in enumerate(sections):
        if section.letter not in letters:
            usual = ENERGY.get(section.function, float(rng.uniform(0.3, 0.9)))
            energy = float(np.clip(usual + rng.normal(0, 0.1), 0.1, 1.0))
            letters[section.letter] = (energy, _playing(rng, energy, depth, ranks, form, section, parts))
        energy, playing = letters[section.letter]
        energy = float(np.clip(energy + rng.normal(0, 0.05), 0.05, 1.0))
        level = 10 ** (contrast * RANGE_DB * (energy - 0.7) / 20)
        row = playing * level
        if rng.random() < 0.3:
            row = _toggled(rng, row, level)
        led = section.function in {"build-up", "drop"} or (
            number and sections[number - 1].function == "build-up"
        )
        if before is not None and rng.random() < keeps and not led:
            row = before
        span = gains[:, first : first + section.bars]
        span[:] = row[:, None]
        if section.function == "build-up":
            span *= np.linspace(0.6, 1.1, section.bars)
        else:
            _change_inside(rng, span, level, inside)
        if rng.random() < 0.12:  # a swell or a fading
            span *= np.linspace(1.0, 10 ** (rng.uniform(-5, 5) / 20), section.bars)
        if number and section.function != "drop":
            _shift_entries(rng, gains, first, section.bars, early)
        energies[number] = energy
        before = row
        first += section.bars
    return Arrangement(gains, energies)


def _playing(
    rng: np.random.Generator,
    energy: float,
    depth: float,
    ranks: FloatArray,
    form: SongForm,
    section: Planned,
    parts: Sequence[Part],
) -> FloatArray:
    """(part,) 1 for parts that play in the sections of a letter."""
    count = len(parts)
    share = 1 - depth * (1 - energy)
    active = int(np.clip(round(count * share + rng.normal(0, 0.4)), 1, count))
    order = np.argsort(ranks + rng.normal(0, 0.25, count))
    playing = np.zeros(count)
    playing[order[:active]] = 1.0
    if form.dance and section.function == "drop":
        playing[[part.role in {"drums", "bass"} for part in parts]] = 1.0
    elif form.dance and section.function in {"break", "build-up"} and rng.random() < 0.7:
        low = np.array([part.role in {"drums", "bass"} for part in parts])
        if not low.all():
            playing[low] = 0.0
    if not playing.any():
        playing[order[-1]] = 1.0
    return playing


def _toggled(rng: np.random.Generator, row: FloatArray, level: float) -> FloatArray:
    """The row with one part more or less; one plays at least."""
    result = row.copy()
    at = int(rng.integers(0, len(row)))
    result[at] = 0.0 if result[at] else level
    return result if result.any() else row


def _change_inside(rng: np.random.Generator, span: FloatArray, level: float, often: float) -> None:
    """A part enters or leaves, or all become louder or softer, at some phrase starts inside a section;
    `often` is the chance of each."""
    bars = span.shape[1]
    for at in [bar for bar in range(2, bars - 1) if bar % 4 == 0] or [bars // 2]:
        if bars < 6 or rng.random() > often:
            continue
        if rng.random() < 0.65:
            span[:, at:] = _toggled(rng, span[:, at], level)[:, None]
        else:
            span[:, at:] *= 10 ** (rng.uniform(-4, 4) / 20)


def _shift_entries(rng: np.random.Generator, gains: FloatArray, first: int, bars: int, often: float) -> None:
    """Parts enter or leave a bar early, or some bars late, where the section that begins at bar `first`
    changes them."""
    for part in range(len(gains)):
        if rng.random() < often:
            by = (-1, 1, 2, 4)[int(rng.integers(0, 4))]
            if by < 0:
                gains[part, first + by] = gains[part, first]
            elif by < bars:
                gains[part, first : first + by] = gains[part, first - 1]
