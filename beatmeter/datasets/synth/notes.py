"""Notes of one part on the pulse axis, and how metrical weight becomes loudness."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from beatmeter.datasets.synth.clip import FloatArray


@dataclass
class Notes:
    """Rows of (onset in pulses, length in pulses, MIDI pitch or stroke number, velocity in 0-1)."""

    rows: list[tuple[float, float, int, float]] = field(default_factory=list)

    def add(self, position: float, length: float, pitch: int, velocity: float) -> None:
        """Append a note."""
        self.rows.append((position, length, pitch, velocity))

    def extend(self, other: Notes) -> None:
        """Append every note of another part."""
        self.rows.extend(other.rows)

    def table(self) -> FloatArray:
        """(note, 4) float64, in order of onset."""
        if not self.rows:
            return np.zeros((0, 4))
        table = np.array(self.rows, dtype=np.float64)
        return table[np.argsort(table[:, 0], kind="stable")]


@dataclass(frozen=True)
class Dynamics:
    """accent: how far metrical weight moves loudness (0 is flat). spread: random part. arc: phrase swell."""

    accent: float
    spread: float
    arc: float

    def velocity(self, rng: np.random.Generator, weight: float, through: float = 0.5) -> float:
        """Velocity of a note of metrical weight 0-3 at `through` (0-1) of its phrase."""
        level = 0.8 + self.accent * (weight / 3 - 0.6) + self.spread * float(rng.standard_normal())
        level *= 1 + self.arc * (4 * through * (1 - through) - 0.6)
        return min(1.0, max(0.08, level))


def draw_dynamics(rng: np.random.Generator, flat: bool) -> Dynamics:
    """Flat as a score rendered without expression, or played."""
    if flat:
        return Dynamics(0.0, 0.0, 0.0)
    return Dynamics(
        float(rng.uniform(0.0, 0.6)), float(rng.uniform(0.02, 0.12)), float(rng.uniform(0.0, 0.4))
    )
