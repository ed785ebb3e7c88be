"""Pitched instruments: two band-limited wavetables (bright and dark) under decaying or held envelopes.

`FAMILIES` is the table of instruments; each render draws its own instance inside the ranges of a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import fft

from beatmeter.datasets.synth.clip import Audio
from beatmeter.datasets.synth.hits import Range

TABLE = 2048
SEMITONE = 2 ** (1 / 12)


@dataclass(frozen=True)
class Family:
    """attack, release: s. decay: s to 1/e at middle C, 0 = held. slope: spectrum in dB per octave.

    even: level of even harmonics. vibrato: depth in semitones. click: level of the noise of the onset.
    chorus: detuning of a second voice in cents, 0 = one voice.
    """

    attack: Range
    decay: Range
    slope: Range
    release: Range = (0.03, 0.1)
    even: Range = (0.7, 1.0)
    vibrato: Range = (0.0, 0.0)
    click: Range = (0.0, 0.0)
    chorus: Range = (0.0, 0.0)


FAMILIES: dict[str, Family] = {
    "piano": Family((0.001, 0.004), (0.5, 2.2), (-15, -7), (0.05, 0.5), click=(0.02, 0.12), chorus=(0.5, 3)),
    "old_piano": Family(
        (0.002, 0.006), (0.25, 0.8), (-16, -9), (0.03, 0.12), click=(0.05, 0.2), chorus=(2, 8)
    ),
    "electric_piano": Family((0.002, 0.008), (0.6, 1.5), (-22, -12), (0.05, 0.2), (0.2, 0.8), chorus=(0, 6)),
    "harpsichord": Family((0.001, 0.002), (0.3, 0.9), (-8, -4), (0.02, 0.08), click=(0.1, 0.25)),
    "guitar": Family((0.001, 0.004), (0.3, 0.9), (-13, -7), (0.03, 0.15), (0.5, 1.0), click=(0.05, 0.2)),
    "muted_guitar": Family((0.001, 0.003), (0.05, 0.15), (-14, -8), (0.02, 0.05), click=(0.1, 0.3)),
    "distorted": Family(
        (0.002, 0.01), (0, 0), (-5, -2), (0.02, 0.08), (0.6, 1.0), click=(0.0, 0.1), chorus=(3, 15)
    ),
    "plucked": Family((0.001, 0.003), (0.12, 0.5), (-11, -5), (0.03, 0.1), (0.5, 1.0), click=(0.05, 0.25)),
    "harp": Family((0.001, 0.004), (0.4, 1.2), (-18, -10), (0.2, 0.5), click=(0.02, 0.08)),
    "mallet": Family((0.001, 0.002), (0.08, 0.4), (-26, -14), (0.05, 0.2), (0.0, 0.4), click=(0.05, 0.2)),
    "music_box": Family((0.001, 0.002), (0.3, 1.0), (-20, -10), (0.2, 0.5), (0.0, 0.3), click=(0.02, 0.1)),
    "organ": Family((0.01, 0.05), (0, 0), (-12, -4), (0.03, 0.15), (0.3, 1.0), chorus=(0, 4)),
    "reed": Family((0.015, 0.06), (0, 0), (-9, -4), (0.03, 0.1), (0.6, 1.0), chorus=(0, 12)),
    "strings": Family((0.03, 0.25), (0, 0), (-11, -6), (0.08, 0.3), vibrato=(0.02, 0.25), chorus=(0, 12)),
    "bowed_solo": Family((0.015, 0.08), (0, 0), (-10, -5), (0.05, 0.15), vibrato=(0.05, 0.4)),
    "pizzicato": Family((0.001, 0.004), (0.06, 0.25), (-15, -9), (0.03, 0.08), click=(0.05, 0.2)),
    "voice": Family((0.03, 0.1), (0, 0), (-14, -8), (0.06, 0.2), vibrato=(0.1, 0.6)),
    "choir": Family((0.05, 0.25), (0, 0), (-15, -9), (0.1, 0.35), vibrato=(0.03, 0.2), chorus=(4, 20)),
    "oboe": Family((0.015, 0.05), (0, 0), (-8, -3), (0.03, 0.1), vibrato=(0.0, 0.2)),
    "flute": Family((0.02, 0.07), (0, 0), (-22, -12), (0.04, 0.12), vibrato=(0.0, 0.25), click=(0.02, 0.1)),
    "clarinet": Family((0.015, 0.05), (0, 0), (-13, -7), (0.03, 0.1), (0.02, 0.2)),
    "brass": Family((0.02, 0.07), (0, 0), (-9, -4), (0.04, 0.12), vibrato=(0.0, 0.15)),
    "lead": Family((0.002, 0.02), (0, 0), (-8, -4), (0.02, 0.1), (0.0, 1.0), chorus=(0, 20)),
    "pad": Family((0.05, 0.4), (0, 0), (-15, -8), (0.2, 0.6), (0.3, 1.0), chorus=(4, 25)),
    "synth_pluck": Family((0.001, 0.004), (0.08, 0.4), (-12, -5), (0.02, 0.1), (0.0, 1.0), chorus=(0, 15)),
    "bass": Family((0.002, 0.01), (0.3, 1.2), (-18, -10), (0.03, 0.1), click=(0.0, 0.1)),
    "upright": Family((0.003, 0.015), (0.2, 0.7), (-20, -12), (0.03, 0.1), click=(0.02, 0.15)),
    "synth_bass": Family((0.002, 0.01), (0, 0), (-14, -6), (0.02, 0.06), (0.0, 1.0)),
    "tanpura": Family((0.005, 0.03), (1.5, 4.0), (-7, -3), (0.3, 0.8), chorus=(1, 6)),
}


@cache
def _onset_noise(rate: int) -> Audio:
    noise = np.random.Generator(np.random.PCG64(21)).standard_normal(rate // 25).astype(np.float32)
    t = np.arange(len(noise), dtype=np.float32) / np.float32(rate)
    return np.asarray(noise * np.exp(-t / np.float32(0.006)), dtype=np.float32)


class Instrument:
    """One drawn instrument; `note` renders a pitch and keeps it for the rest of the clip."""

    def __init__(self, family: str, rng: np.random.Generator, rate: int) -> None:
        row = FAMILIES[family]

        def draw(bounds: Range) -> float:
            return float(rng.uniform(*bounds))

        self.rate = rate
        self.attack, self.decay, self.release = draw(row.attack), draw(row.decay), draw(row.release)
        self.slope, self.even, self.vibrato = draw(row.slope), draw(row.even), draw(row.vibrato)
        self.click, self.chorus = draw(row.click), draw(row.chorus)
        self.damping = rng.uniform(4.0, 12.0)  # how much steeper the dark table falls, dB per octave
        self.darken = rng.uniform(0.05, 0.4)  # s until the dark table takes over
        self.rate_of_vibrato = rng.uniform(4.5, 6.5)
        self.formants = rng.uniform((300, 900), (900, 3000)) if family in {"voice", "choir", "oboe"} else None
        self.ripple = 10 ** (rng.normal(0, 4, 64) / 20)
        self.phases = rng.uniform(0, 2 * np.pi, 64)
        self._notes: dict[int, Audio] = {}

    def note(self, pitch: int, seconds: float) -> Audio:
        """(sample,) float32, about rms 0.2 at its loudest; at least `seconds` long unless it has died
        away."""
        want = int((seconds + self.release) * self.rate) + 1
        if self.decay:
            want = min(want, int(5.0 * self._decay_of(pitch) * self.rate))
        have = self._notes.get(pitch)
        if have is None or len(have) < want:
            step = self.rate // 2
            have = self._render(pitch, -(-want // step) * step)
            self._notes[pitch] = have
        return have

    def _decay_of(self, pitch: int) -> float:
        return float(self.decay * 2.0 ** (-(pitch - 60) / 24))

    def _tables(self, hertz: float) -> tuple[Audio, Audio]:
        count = int(max(1, min(64, 0.45 * self.rate / hertz)))
        order = np.arange(1, count + 1)
        level = order ** (self.slope / 6.02) * self.ripple[:count]
        level[1::2] *= self.even
        if self.formants is not None:
            octaves = np.log2(order[:, None] * hertz / self.formants[None, :])
            level *= 0.15 + np.exp(-0.5 * (octaves / 0.35) ** 2).sum(axis=1)
        dark = level * order ** (-self.damping / 6.02)
        tables = []
        for amplitude in (level, dark):
            spectrum = np.zeros(TABLE // 2 + 1, dtype=np.complex128)
            spectrum[1 : count + 1] = amplitude * np.exp(1j * self.phases[:count])
            table = fft.irfft(spectrum, TABLE)
            tables.append((table * (0.2 / np.sqrt(np.mean(table**2)))).astype(np.float32))
        return tables[0], tables[1]

    def _render(self, pitch: int, length: int) -> Audio:
        hertz = 440.0 * SEMITONE ** (pitch - 69)
        t = np.arange(length, dtype=np.float32) / np.float32(self.rate)
        bright, dark = self._tables(hertz)
        turn = t.astype(np.float64) * (hertz * TABLE)
        if self.vibrato:
            depth = hertz * TABLE * (SEMITONE**self.vibrato - 1) / (2 * np.pi * self.rate_of_vibrato)
            turn += depth * np.sin(np.float32(2 * np.pi * self.rate_of_vibrato) * t) * np.minimum(1, t * 3)
        index = turn.astype(np.int64) & (TABLE - 1)
        if self.decay:
            blend = np.exp(-t / np.float32(self.darken))
            out = dark[index] + blend * (bright[index] - dark[index])
        else:
            out = bright[index]
        if self.chorus:
            second = (turn * (SEMITONE ** (self.chorus / 100))).astype(np.int64) & (TABLE - 1)
            out = 0.6 * out + 0.4 * (dark if self.decay else bright)[second]
        if self.decay:
            out *= np.exp(-t / np.float32(self._decay_of(pitch)))
        rise = max(2, int(self.attack * self.rate))
        out[:rise] *= np.linspace(0, 1, rise, dtype=np.float32)[: len(out)]
        if self.click:
            noise = _onset_noise(self.rate)[:length]
            out[: len(noise)] += np.float32(self.click) * noise
        return np.ascontiguousarray(out, dtype=np.float32)
