"""Voices without a pulse: one who speaks, several, one who sings in free time."""

from __future__ import annotations

import numpy as np

from beatmeter.datasets.synth.draws import one_of
from beatmeter.datasets.synth.meterless.blocks import FloatArray, add_at, coloured


def speech(rng: np.random.Generator, n: int, rate: int) -> FloatArray:
    """Syllables of uneven length: a buzz whose pitch wanders through three moving formants, hissed
    consonants, pauses."""
    sound, at, pitch = np.zeros(n), 0, float(rng.uniform(85, 240))
    while at < n:
        if rng.random() < 0.13:
            at += int(rng.uniform(0.2, 1.2) * rate)  # a breath
            continue
        length = int(np.exp(rng.normal(np.log(0.16), 0.4)) * rate)
        hiss = int(rng.uniform(0, 0.12) * rate) if rng.random() < 0.7 else 0
        if hiss > 32:
            consonant = (
                coloured(rng, hiss, rate, 3.0, (1500, 9000)) * np.hanning(hiss) * rng.uniform(0.1, 0.5)
            )
            add_at(sound, consonant, at)
        bent = pitch * np.exp(np.linspace(rng.normal(0, 0.12), rng.normal(0, 0.12), length))
        phase = np.cumsum(bent) / rate
        formants = rng.uniform((250, 800, 2200), (800, 2300, 3200))
        vowel = np.zeros(length)
        for k in range(1, max(2, int(min(4000, 0.45 * rate) / (1.5 * pitch)))):
            level = (np.exp(-(((k * pitch - formants) / 130) ** 2)) * (1, 0.6, 0.3)).sum() + 0.01
            vowel += level * np.sin(2 * np.pi * k * phase)
        add_at(sound, vowel * np.hanning(length) * rng.uniform(0.4, 1), at + int(0.7 * hiss))
        at += int(0.7 * hiss + length * rng.uniform(0.8, 1.15))
    return sound


def babble(rng: np.random.Generator, n: int, rate: int) -> FloatArray:
    """Three to eight people who talk at once."""
    return sum(
        (speech(rng, n, rate) * rng.uniform(0.2, 1) for _ in range(int(rng.integers(3, 9)))), np.zeros(n)
    )


def chant(rng: np.random.Generator, n: int, rate: int) -> FloatArray:
    """A voice that sings in free time: vowels on a few pitches, 0.2 to 4 s long, with vibrato and breaths."""
    sound, at, base = np.zeros(n), 0, float(rng.uniform(90, 330))
    vibrato, depth, scale = rng.uniform(4.5, 7), rng.uniform(0, 0.02), [0, 2, 4, 5, 7, 9, 12]
    while at < n:
        if rng.random() < 0.15:
            at += int(rng.uniform(0.2, 1.5) * rate)
        seconds = float(np.exp(rng.normal(-0.3, 0.7)))
        length = int(min(4.0, max(0.2, seconds)) * rate)
        pitch = base * 2 ** (one_of(rng, scale) / 12)
        t = np.arange(length) / rate
        phase = np.cumsum(pitch * (1 + depth * np.sin(2 * np.pi * vibrato * t + rng.uniform(0, 6)))) / rate
        formants, note = rng.uniform((250, 800, 2200), (800, 2000, 3200)), np.zeros(length)
        for k in range(1, max(2, int(min(4000, 0.45 * rate) / pitch))):
            note += ((np.exp(-(((k * pitch - formants) / 150) ** 2)) * (1, 0.6, 0.3)).sum() + 0.02) * np.sin(
                2 * np.pi * k * phase
            )
        add_at(
            sound,
            note
            * np.interp(t, (0, 0.05, length / rate - 0.08, length / rate), (0, 1, 1, 0))
            * rng.uniform(0.5, 1),
            at,
        )
        at += length
    return sound
