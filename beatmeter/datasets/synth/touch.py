"""What hands do to notes: chords are rolled, one hand comes before the other, the pedal holds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from beatmeter.datasets.synth.clip import FloatArray


@dataclass(frozen=True)
class Touch:
    """`lead`: seconds by which the part comes early (late where negative). `roll`: seconds from one note of a
    chord to the next, of `rolled` of the chords. `pedal`: notes sound until it changes."""

    lead: float
    roll: float
    rolled: float
    pedal: bool

    def __call__(
        self, rng: np.random.Generator, table: FloatArray, pulse: float, changes: FloatArray
    ) -> FloatArray:
        """Notes (note, 4) as they are played; `pulse` in seconds, `changes` of the pedal in pulses."""
        if not len(table):
            return table
        table = table.copy()
        if self.pedal:
            following = np.searchsorted(changes, table[:, 0] + 1e-6, side="right")
            until = changes[np.minimum(following, len(changes) - 1)] - table[:, 0]
            table[:, 1] = np.maximum(table[:, 1], until)
        if self.roll:
            order = np.lexsort((table[:, 2], np.round(table[:, 0], 4)))
            table = table[order]
            new = np.concatenate([[True], np.diff(np.round(table[:, 0], 4)) > 0])
            chord = np.cumsum(new) - 1
            rank = np.arange(len(table)) - np.flatnonzero(new)[chord]
            which = rng.random(int(chord[-1]) + 1) < self.rolled
            table[:, 0] += np.where(which[chord], rank * self.roll / pulse, 0.0)
        table[:, 0] -= self.lead / pulse
        return table[np.argsort(table[:, 0], kind="stable")]


def draw_touch(rng: np.random.Generator, leads: bool, pedal: bool) -> Touch:
    """The hand of one part: a melody (`leads`) comes 0 to 40 ms before the rest."""
    lead = float(rng.uniform(0.0, 0.04)) if leads else float(rng.normal(0.0, 0.006))
    roll = float(rng.uniform(0.008, 0.05)) if rng.random() < 0.6 else 0.0
    return Touch(lead, roll, float(rng.uniform(0.1, 1.0)), pedal)
