"""Percussion: every stroke is a few damped modes, a pitch sweep and a band of decaying noise.

`STROKES` is the table of timbres; each render draws its own instance inside the ranges of a row. To add a
timbre, add a row and name it in a pattern.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import fft

from beatmeter.datasets.synth.clip import Audio

Range = tuple[float, float]

BAR = (1.0, 2.76, 5.40, 8.93)  # free bar
MEMBRANE = (1.0, 1.59, 2.14, 2.30, 2.65, 2.92)  # ideal circular membrane
TABLA = (1.0, 2.0, 3.0, 4.0, 5.0)  # loaded membrane: nearly harmonic
PLATE = (1.0, 1.41, 1.93, 2.49, 3.17, 3.85, 4.61)


@dataclass(frozen=True)
class Stroke:
    """tone: Hz of the lowest mode. sweep: starting pitch over final pitch. ring, hiss: decay times in s
    (1/e).

    noise: level of the noise against the modes (1 = only noise); band: its Hz. attack: s.
    """

    tone: Range = (100.0, 200.0)
    modes: tuple[float, ...] = (1.0,)
    sweep: Range = (1.0, 1.0)
    ring: Range = (0.05, 0.1)
    noise: Range = (0.0, 0.0)
    band: Range = (200.0, 8000.0)
    hiss: Range = (0.01, 0.03)
    attack: float = 0.0


STROKES: dict[str, Stroke] = {
    "kick": Stroke((42, 75), (1.0,), (1.5, 4.0), (0.07, 0.25), (0.02, 0.2), (500, 4000), (0.003, 0.012)),
    "kick808": Stroke((38, 60), (1.0,), (1.5, 3.0), (0.2, 0.5), (0.0, 0.05), (500, 3000), (0.003, 0.01)),
    "snare": Stroke(
        (150, 260), MEMBRANE[:3], (1.0, 1.4), (0.03, 0.1), (0.4, 0.85), (400, 10000), (0.04, 0.16)
    ),
    "rim": Stroke((380, 900), BAR[:3], (1.0, 1.0), (0.008, 0.03), (0.1, 0.4), (1000, 9000), (0.004, 0.012)),
    "clap": Stroke(
        (900, 1200), (1.0,), (1.0, 1.0), (0.01, 0.02), (0.95, 1.0), (700, 5000), (0.03, 0.12), 0.006
    ),
    "hat": Stroke((3000, 5200), PLATE, (1.0, 1.0), (0.01, 0.05), (0.6, 0.95), (5000, 11500), (0.012, 0.05)),
    "open": Stroke((3000, 5200), PLATE, (1.0, 1.0), (0.1, 0.3), (0.6, 0.95), (4500, 11500), (0.12, 0.35)),
    "ride": Stroke((1800, 3600), PLATE, (1.0, 1.0), (0.2, 0.6), (0.3, 0.7), (3000, 11000), (0.1, 0.4)),
    "crash": Stroke((1200, 3000), PLATE, (1.0, 1.0), (0.4, 1.0), (0.7, 0.95), (2000, 11500), (0.4, 1.0)),
    "tom_low": Stroke(
        (70, 120), MEMBRANE[:4], (1.1, 1.6), (0.1, 0.3), (0.05, 0.25), (300, 5000), (0.01, 0.04)
    ),
    "tom_high": Stroke(
        (120, 240), MEMBRANE[:4], (1.1, 1.6), (0.08, 0.25), (0.05, 0.25), (300, 6000), (0.01, 0.04)
    ),
    "frame_low": Stroke((60, 130), MEMBRANE, (1.0, 1.2), (0.1, 0.35), (0.05, 0.3), (200, 3000), (0.01, 0.05)),
    "frame_high": Stroke(
        (250, 600), MEMBRANE, (1.0, 1.1), (0.02, 0.08), (0.2, 0.6), (800, 8000), (0.005, 0.04)
    ),
    "conga_low": Stroke(
        (150, 230), MEMBRANE[:4], (1.0, 1.1), (0.08, 0.2), (0.05, 0.3), (300, 4000), (0.006, 0.02)
    ),
    "conga_high": Stroke(
        (230, 380), MEMBRANE[:4], (1.0, 1.1), (0.05, 0.16), (0.05, 0.3), (500, 6000), (0.005, 0.02)
    ),
    "slap": Stroke((400, 800), MEMBRANE, (1.0, 1.0), (0.01, 0.04), (0.4, 0.8), (1000, 9000), (0.008, 0.03)),
    "bayan": Stroke((65, 120), TABLA[:2], (0.7, 1.3), (0.15, 0.45), (0.02, 0.15), (200, 2000), (0.005, 0.02)),
    "bayan_shut": Stroke(
        (90, 160), TABLA[:2], (1.0, 1.0), (0.01, 0.04), (0.3, 0.7), (200, 2500), (0.005, 0.03)
    ),
    "dayan_ring": Stroke(
        (260, 480), TABLA, (1.0, 1.0), (0.15, 0.5), (0.02, 0.2), (1000, 8000), (0.003, 0.01)
    ),
    "dayan_rim": Stroke(
        (280, 520), TABLA[1:], (1.0, 1.0), (0.08, 0.3), (0.1, 0.4), (1500, 9000), (0.003, 0.01)
    ),
    "dayan_shut": Stroke((300, 700), TABLA, (1.0, 1.0), (0.01, 0.04), (0.3, 0.7), (800, 7000), (0.004, 0.02)),
    "doum": Stroke(
        (75, 140), MEMBRANE[:3], (1.0, 1.3), (0.08, 0.25), (0.05, 0.2), (200, 3000), (0.005, 0.02)
    ),
    "tek": Stroke(
        (500, 1200), MEMBRANE, (1.0, 1.0), (0.015, 0.06), (0.3, 0.7), (1500, 10000), (0.005, 0.025)
    ),
    "ka": Stroke((400, 1000), MEMBRANE, (1.0, 1.0), (0.01, 0.04), (0.4, 0.8), (1200, 9000), (0.004, 0.02)),
    "block": Stroke(
        (500, 2200), BAR[:2], (1.0, 1.0), (0.01, 0.05), (0.02, 0.2), (1500, 9000), (0.002, 0.008)
    ),
    "cowbell": Stroke(
        (480, 900), (1.0, 1.48, 2.1), (1.0, 1.0), (0.04, 0.15), (0.02, 0.15), (1500, 9000), (0.003, 0.01)
    ),
    "triangle": Stroke(
        (2500, 4500), PLATE[:4], (1.0, 1.0), (0.15, 0.6), (0.02, 0.1), (4000, 11000), (0.005, 0.02)
    ),
    "shaker": Stroke(
        (3000, 4000), (1.0,), (1.0, 1.0), (0.01, 0.02), (0.97, 1.0), (3000, 11000), (0.015, 0.06), 0.02
    ),
    "tambourine": Stroke(
        (4000, 6000), PLATE, (1.0, 1.0), (0.03, 0.12), (0.6, 0.9), (4000, 11500), (0.03, 0.12), 0.003
    ),
    "timpani": Stroke(
        (65, 140), (1.0, 1.5, 1.98, 2.44), (1.0, 1.05), (0.4, 1.0), (0.02, 0.1), (200, 2000), (0.01, 0.04)
    ),
    "click_high": Stroke((900, 3000), (1.0,), (1.0, 1.0), (0.008, 0.04)),
    "click_low": Stroke((500, 1800), (1.0,), (1.0, 1.0), (0.008, 0.04)),
    "zap": Stroke((150, 500), (1.0, 2.0), (2.0, 8.0), (0.03, 0.12), (0.0, 0.3), (500, 9000), (0.01, 0.05)),
    "blip": Stroke((300, 1500), (1.0, 3.0, 5.0), (1.0, 1.0), (0.02, 0.1)),
}


@cache
def _noise(rate: int) -> Audio:
    """Three seconds of white noise, the same in every process."""
    return np.random.Generator(np.random.PCG64(20)).standard_normal(3 * rate).astype(np.float32)


def make_stroke(name: str, rng: np.random.Generator, rate: int) -> Audio:
    """One instance (sample,) float32 of a timbre, peak 1; `rng` fixes every parameter."""
    stroke = STROKES[name]
    tone, sweep, ring, noise, hiss = (
        float(np.exp(rng.uniform(np.log(low), np.log(high)))) if low > 0 else float(rng.uniform(low, high))
        for low, high in (stroke.tone, stroke.sweep, stroke.ring, stroke.noise, stroke.hiss)
    )
    length = int(
        min(5.5 * max(ring if noise < 0.99 else 0.0, hiss if noise else 0.0) + stroke.attack, 2.2) * rate
    )
    t = np.arange(length, dtype=np.float32) / np.float32(rate)
    out = np.zeros(length, dtype=np.float32)
    if noise < 0.99:
        # Exponential sweep from sweep * tone to tone within about 30 ms; the phase is its integral.
        bend = np.float32(0.03)
        turns = tone * (t + (sweep - 1) * bend * (1 - np.exp(-t / bend)))
        for index, ratio in enumerate(stroke.modes):
            if tone * ratio * max(1.0, sweep) < 0.47 * rate:
                level = rng.uniform(0.3, 1.0) / (1 + 0.6 * index)
                decay = np.exp(-t * np.float32((1 + 0.5 * index) / ring))
                out += np.float32(level) * decay * np.sin(np.float32(2 * np.pi * ratio) * turns)
        out *= np.float32((1 - noise) / max(1e-6, float(np.abs(out).max(initial=0.0))))
    if noise:
        start = int(rng.integers(0, 2 * rate - 2 * rate // 10))
        grain = _band(_noise(rate)[start : start + min(length, rate)], stroke.band, rate)
        n = len(grain)
        grain = grain * np.exp(-t[:n] / np.float32(hiss))
        out[:n] += grain * np.float32(noise / max(1e-6, float(np.abs(grain).max(initial=0.0))))
    rise = max(2, int(max(stroke.attack, 0.0005) * rate))
    out[:rise] *= np.linspace(0, 1, rise, dtype=np.float32)
    fall = min(length, max(2, length // 8))
    out[-fall:] *= np.linspace(1, 0, fall, dtype=np.float32)
    return out / np.float32(max(1e-6, float(np.abs(out).max())))


def _band(grain: Audio, band: Range, rate: int) -> Audio:
    size = fft.next_fast_len(len(grain), real=True)
    spectrum = fft.rfft(grain, size)
    hertz = np.arange(len(spectrum), dtype=np.float32) * np.float32(rate / size)
    low, high = np.float32(band[0]), np.float32(min(band[1], 0.48 * rate))
    spectrum *= 1 / (1 + (low / np.maximum(hertz, 1.0)) ** 4) / (1 + (hertz / high) ** 8)
    return np.asarray(fft.irfft(spectrum, size)[: len(grain)], dtype=np.float32)
