"""Keys, chords and harmonic rhythm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from beatmeter.datasets.synth.clip import FloatArray, IntArray
from beatmeter.datasets.synth.draws import one_of, pick
from beatmeter.datasets.synth.structure import Phrase
from beatmeter.datasets.synth.timing import Layout

SCALES: dict[str, tuple[int, ...]] = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "harmonic": (0, 2, 3, 5, 7, 8, 11),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
    "phrygian_dominant": (0, 1, 4, 5, 7, 8, 10),
    "lydian": (0, 2, 4, 6, 7, 9, 11),
    "hungarian": (0, 2, 3, 6, 7, 8, 11),
}
# From each degree, where a chord likes to go (degree, weight); a rough functional grammar.
MOTIONS: dict[int, tuple[tuple[int, float], ...]] = {
    0: ((3, 3), (4, 3), (5, 2), (1, 1.5), (2, 0.5), (6, 0.4)),
    1: ((4, 4), (0, 0.7), (3, 0.7), (6, 0.4)),
    2: ((5, 3), (3, 2), (0, 0.5)),
    3: ((4, 3), (0, 3), (1, 1.5), (5, 0.5)),
    4: ((0, 5), (5, 1.2), (3, 0.7)),
    5: ((3, 2), (1, 2), (4, 2), (0, 0.6)),
    6: ((0, 3), (5, 1), (3, 1)),
}


@dataclass(frozen=True)
class Harmony:
    """Chords on the pulse axis. starts: (chord,) pulses. degrees: (chord,) 0-6. inversions: (chord,) 0-2."""

    key: int
    scale: tuple[int, ...]
    starts: FloatArray
    degrees: IntArray
    inversions: IntArray
    sevenths: bool

    def index(self, position: float) -> int:
        """Which chord sounds at a pulse position."""
        return max(0, int(np.searchsorted(self.starts, position + 1e-6, side="right")) - 1)

    @property
    def changes(self) -> FloatArray:
        """Pulses at which another chord begins, or the same on another bass."""
        chords = np.stack([self.degrees, self.inversions])
        return np.unique(self.starts[np.append(True, np.any(np.diff(chords) != 0, axis=0))])

    def classes(self, index: int) -> tuple[int, ...]:
        """Pitch classes of a chord, its bass first."""
        degree = int(self.degrees[index])
        tones = [
            self.key + self.scale[(degree + step) % 7]
            for step in ((0, 2, 4, 6) if self.sevenths else (0, 2, 4))
        ]
        turn = int(self.inversions[index])
        return tuple(tone % 12 for tone in tones[turn:] + tones[:turn])

    def voicing(self, index: int, centre: int, count: int) -> list[int]:
        """`count` ascending MIDI pitches of a chord, the first about `centre`."""
        classes = sorted(self.classes(index))
        pitches = [12 * octave + tone for octave in range(1, 10) for tone in classes]
        nearest = min(range(len(pitches)), key=lambda at: abs(pitches[at] - centre))
        return pitches[nearest : nearest + count]

    def bass(self, index: int, centre: int) -> int:
        """MIDI pitch of the chord's bass nearest to `centre`."""
        tone = self.classes(index)[0]
        return centre + (tone - centre + 6) % 12 - 6

    def ladder(self, low: int, high: int) -> list[int]:
        """MIDI pitches of the scale in [low, high]."""
        classes = {(self.key + step) % 12 for step in self.scale}
        return [pitch for pitch in range(low, high + 1) if pitch % 12 in classes]


def draw_harmony(
    rng: np.random.Generator, layout: Layout, phrases: list[Phrase], *, rhythm: str, loop: bool
) -> Harmony:
    """Draw chords for a piece.

    rhythm: how often chords change: "static", "two_bars", "bar", "half" (sometimes also inside the bar),
    "group" or "mixed". loop: one progression of a phrase is repeated (songs), otherwise phrases end on a
    cadence.
    """
    scale = SCALES[pick(rng, tuple(zip(SCALES, (5, 3, 1.5, 1.5, 1, 0.7, 0.4, 0.4), strict=True)))]
    starts: list[float] = []
    degrees: list[int] = []
    seen: dict[str, list[tuple[float, int]]] = {}
    degree = 0
    for phrase in phrases:
        if (loop and phrase.section in seen) or (phrase.section in seen and rng.random() < 0.4):
            rows = seen[phrase.section]
        else:
            rows = _phrase_chords(rng, layout, phrase.bars, rhythm, degree if rng.random() < 0.5 else 0, loop)
            seen[phrase.section] = rows
        span = phrase.bars * layout.pulses * layout.unit
        for offset, chord in rows:
            if offset < span:
                starts.append(float(layout.starts[phrase.first]) + offset)
                degrees.append(chord)
                degree = chord
    inversions = rng.choice(3, len(starts), p=(0.75, 0.2, 0.05))
    if rhythm == "static" or rng.random() < 0.4:
        inversions[:] = 0
    return Harmony(
        key=int(rng.integers(0, 12)),
        scale=scale,
        starts=np.array(starts),
        degrees=np.array(degrees, dtype=np.int64),
        inversions=inversions.astype(np.int64),
        sevenths=bool(rng.random() < 0.2),
    )


def _phrase_chords(
    rng: np.random.Generator, layout: Layout, bars: int, rhythm: str, degree: int, loop: bool
) -> list[tuple[float, int]]:
    """[(offset in pulses, degree)] for one phrase."""
    unit = layout.unit
    groups = layout.group_starts()
    inner = groups[len(groups) // 2] if len(groups) > 1 else layout.pulses // 2
    rows: list[tuple[float, int]] = []

    def move() -> None:
        nonlocal degree
        degree = pick(rng, MOTIONS[degree])

    often = rng.uniform(0.3, 1.0)
    for bar in range(bars):
        start = bar * layout.pulses * unit
        closing = bar == bars - 1
        if bar == 0:
            rows.append((start, degree))
        elif not (
            rhythm == "static"
            or (rhythm == "two_bars" and bar % 2)
            or (rhythm == "mixed" and rng.random() < 0.35)
        ):
            if closing and not loop:
                degree = one_of(rng, (0, 4, 0, 5))
            else:
                move()
            rows.append((start, degree))
        if rhythm == "half" and rng.random() < often and not closing:
            move()
            rows.append((start + float(inner) * unit, degree))
        elif rhythm == "mixed" and rng.random() < 0.3:
            move()
            rows.append(
                (start + float(one_of(rng, list(groups) if len(groups) > 1 else [inner])) * unit, degree)
            )
        elif rhythm == "group" and not closing:
            for group in groups[1:] if len(groups) > 1 else range(1, layout.pulses):
                if rng.random() < often:
                    move()
                    rows.append((start + float(group) * unit, degree))
    rows.sort()
    return rows
