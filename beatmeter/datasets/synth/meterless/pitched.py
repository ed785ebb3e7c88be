"""Sounds with pitch: tones, notes at random times, chords, bells, gongs, birds, sirens."""

from __future__ import annotations

import numpy as np

from beatmeter.datasets.synth.draws import one_of
from beatmeter.datasets.synth.meterless.blocks import FloatArray, add_at, coloured, fade, scatter, swell
from beatmeter.datasets.synth.tones import FAMILIES, Instrument

HELD = tuple(name for name, family in FAMILIES.items() if family.decay == (0, 0))
STRUCK = tuple(name for name in FAMILIES if name not in HELD)


def tone(rng: np.random.Generator, n: int, rate: int) -> FloatArray:
    """One to three steady sines; one in three glides."""
    t, sound = np.arange(n) / rate, np.zeros(n)
    hertz = np.exp(rng.uniform(np.log(60), np.log(4000)))
    for _ in range(int(rng.integers(1, 4))):
        glide = rng.uniform(-0.5, 0.5) * hertz / t[-1] if rng.random() < 1 / 3 else 0.0
        sound += rng.uniform(0.3, 1) * np.sin(2 * np.pi * (hertz * t + glide * t**2 / 2) + rng.uniform(0, 6))
        hertz = hertz * rng.uniform(1.15, 2.2)  # nearer ones would beat
    return sound


def drone(rng: np.random.Generator, n: int, rate: int) -> FloatArray:
    """One to four held notes that swell at random."""
    sound, root = np.zeros(n), int(rng.integers(33, 60))
    for interval in (0, *rng.choice([7, 12, 16, 19, 24], int(rng.integers(0, 4)), replace=False).tolist()):
        voice = Instrument(one_of(rng, HELD), rng, rate).note(root + interval, n / rate)[:n]
        sound += swell(rng, n, rate, rng.uniform(2, 8), rng.uniform(0, 0.8)) * voice
    return sound


def notes(rng: np.random.Generator, n: int, rate: int) -> FloatArray:
    """Notes of one to three instruments, of random pitch and length, without a pulse."""
    sound = np.zeros(n)
    for _ in range(int(rng.integers(1, 4))):
        player = Instrument(one_of(rng, list(FAMILIES)), rng, rate)
        low, width = int(rng.integers(40, 64)), int(rng.integers(3, 24))

        def note(player: Instrument = player, low: int = low, width: int = width) -> FloatArray:
            seconds = float(rng.uniform(0.1, 2.0))
            sung = player.note(low + int(rng.integers(0, width)), seconds)[: int(seconds * rate)]
            return fade(sung, int(0.03 * rate)) * rng.uniform(0.3, 1)

        sound += scatter(rng, n, rate, float(rng.uniform(0.4, 5)), note)
    return sound


def chirps(rng: np.random.Generator, n: int, rate: int) -> FloatArray:
    """Sweeps up or down at random times."""

    def sweep() -> FloatArray:
        length = int(rng.uniform(0.05, 0.8) * rate)
        a, b = np.exp(rng.uniform(np.log(200), np.log(6000), 2))
        hertz = a * (b / a) ** (np.arange(length) / length)
        return np.sin(2 * np.pi * np.cumsum(hertz) / rate) * np.hanning(length) * rng.uniform(0.3, 1)

    return scatter(rng, n, rate, float(rng.uniform(0.5, 4)), sweep)


def birds(rng: np.random.Generator, n: int, rate: int) -> FloatArray:
    """Calls of a few fluttering tones at random times, by one to four birds."""
    sound = 0.02 * coloured(rng, n, rate, -3.0, (100, 5000))
    for _ in range(int(rng.integers(1, 5))):
        base = rng.uniform(1800, 6000)

        def call(base: float = base) -> FloatArray:
            parts = []
            for _ in range(int(rng.integers(1, 7))):
                length = int(rng.uniform(0.03, 0.2) * rate)
                t = np.arange(length) / rate
                flutter = 0.05 * np.sin(2 * np.pi * rng.uniform(15, 60) * t)
                hertz = base * np.exp(rng.normal(0, 0.15) + rng.normal(0, 0.3) * t * rate / length + flutter)
                parts += [
                    np.sin(2 * np.pi * np.cumsum(hertz) / rate) * np.hanning(length),
                    np.zeros(int(rng.uniform(0.01, 0.15) * rate)),
                ]
            return np.concatenate(parts) * rng.uniform(0.2, 1)

        sound += scatter(rng, n, rate, float(rng.uniform(0.15, 0.8)), call)
    return sound


def chord(rng: np.random.Generator, n: int, rate: int) -> FloatArray:
    """One chord, held or left to ring."""
    player, sound = Instrument(one_of(rng, list(FAMILIES)), rng, rate), np.zeros(n)
    for pitch in int(rng.integers(45, 62)) + rng.choice(
        [0, 3, 4, 7, 10, 12, 16, 19], int(rng.integers(3, 6)), replace=False
    ):
        add_at(sound, player.note(int(pitch), n / rate).astype(np.float64), int(rng.uniform(0, 0.02) * rate))
    return sound


def bells(rng: np.random.Generator, n: int, rate: int) -> FloatArray:
    """Wind chimes: a few small bells struck at random."""
    tuned = np.exp(rng.uniform(np.log(500), np.log(3000), int(rng.integers(3, 8))))

    def stroke() -> FloatArray:
        t = np.arange(int(rng.uniform(0.5, 2.5) * rate)) / rate
        hertz = one_of(rng, tuned.tolist())
        return np.asarray(
            sum(np.sin(2 * np.pi * hertz * m * t) * np.exp(-t * 3 * m) / m for m in (1, 2.76, 5.4))
            * rng.uniform(0.2, 1)
        )

    return scatter(rng, n, rate, float(rng.uniform(0.5, 5)), stroke)


def gongs(rng: np.random.Generator, n: int, rate: int) -> FloatArray:
    """Plates, bowls or one large bell, each with partials of its own, struck at random and left to ring."""
    sound = np.zeros(n)
    for _ in range(int(rng.integers(1, 4))):
        base, partials = (
            np.exp(rng.uniform(np.log(80), np.log(1200))),
            1 + np.append(0, rng.uniform(0.15, 6, int(rng.integers(2, 8)))),
        )
        ring, bright = rng.uniform(1, 6), rng.uniform(0.3, 1.5)

        def stroke(
            base: float = base, partials: FloatArray = partials, ring: float = ring, bright: float = bright
        ) -> FloatArray:
            t = np.arange(int(ring * rate)) / rate
            waves = (
                np.sin(2 * np.pi * base * m * t + rng.uniform(0, 6))
                * np.exp(-t * 4 * m**0.5 / ring)
                / m**bright
                for m in partials
            )
            return np.asarray(sum(waves, np.zeros(len(t))) * rng.uniform(0.1, 1))

        sound += scatter(rng, n, rate, float(np.exp(rng.uniform(np.log(0.1), np.log(2.5)))), stroke)
    return sound


def plucks(rng: np.random.Generator, n: int, rate: int) -> FloatArray:
    """Single notes of one struck or plucked instrument, far apart, that ring over one another."""
    player, sound = Instrument(one_of(rng, STRUCK), rng, rate), np.zeros(n)
    pitches = int(rng.integers(40, 70)) + rng.choice(25, int(rng.integers(1, 8)), replace=False)

    def note() -> FloatArray:
        return player.note(int(one_of(rng, pitches.tolist())), float(rng.uniform(1, 5))).astype(
            np.float64
        ) * rng.uniform(0.2, 1)

    return sound + scatter(rng, n, rate, float(np.exp(rng.uniform(np.log(0.15), np.log(2)))), note)


def pads(rng: np.random.Generator, n: int, rate: int) -> FloatArray:
    """Held chords, each of another length from 1 to 10 s, that fade into one another."""
    player, sound, at = Instrument(one_of(rng, HELD), rng, rate), np.zeros(n), 0.0
    while at < n / rate:
        seconds, fade = float(np.exp(rng.uniform(0, np.log(10)))), float(rng.uniform(0.05, 0.6))
        shape = np.interp(
            np.arange(int((seconds + fade) * rate)) / rate, (0, fade, seconds, seconds + fade), (0, 1, 1, 0)
        )
        root = int(rng.integers(40, 64))
        for interval in rng.choice([0, 3, 4, 5, 7, 9, 12, 14, 16], int(rng.integers(1, 5)), replace=False):
            held = player.note(root + int(interval), seconds + fade)[: len(shape)]
            add_at(sound, held * shape[: len(held)] * rng.uniform(0.4, 1), int(at * rate))
        at += seconds
    return sound


def sirens(rng: np.random.Generator, n: int, rate: int) -> FloatArray:
    """One to three tones whose pitch wanders, now fast, now slowly, and never the same way twice."""
    sound = np.zeros(n)
    for _ in range(int(rng.integers(1, 4))):
        low, octaves = np.exp(rng.uniform(np.log(100), np.log(1500))), rng.uniform(0.2, 2)
        phase = (
            np.cumsum(
                low * 2 ** (octaves * swell(rng, n, rate, np.exp(rng.uniform(np.log(0.3), np.log(6))), 1.0))
            )
            / rate
        )
        tone = sum(
            (
                np.sin(2 * np.pi * k * phase) / k ** rng.uniform(1, 2)
                for k in range(1, int(rng.integers(2, 6)))
            ),
            np.zeros(n),
        )
        sound += tone * rng.uniform(0.3, 1) * swell(rng, n, rate, rng.uniform(1, 5), rng.uniform(0, 0.9))
    return sound
