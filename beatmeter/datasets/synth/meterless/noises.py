"""Noises: wind, sea, rain, machines, applause, clicks, hum, a bad line, somebody who moves things."""

from __future__ import annotations

import numpy as np

from beatmeter.datasets.synth.draws import one_of
from beatmeter.datasets.synth.meterless.blocks import FloatArray, add_at, coloured, scatter, swell


def noise(rng: np.random.Generator, n: int, rate: int) -> FloatArray:
    """White, pink, brown, blue or something between them; one in three is a band."""
    slope = float(one_of(rng, [0.0, -3.0, -6.0, 3.0, rng.uniform(-9, 3)]))
    band = (
        (float(rng.uniform(100, 2000)), float(rng.uniform(2500, 10000)))
        if rng.random() < 1 / 3
        else (20.0, 0.5 * rate)
    )
    return coloured(rng, n, rate, slope, band)


def clicks(rng: np.random.Generator, n: int, rate: int) -> FloatArray:
    """Damped sines or bursts of noise at the times of a Poisson process, 0.5 to 12 a second."""
    length = int(rng.uniform(0.003, 0.08) * rate)
    t = np.arange(length) / rate
    body = (
        np.sin(2 * np.pi * np.exp(rng.uniform(np.log(200), np.log(5000))) * t)
        if rng.random() < 0.5
        else rng.standard_normal(length)
    )
    body = body * np.exp(-6.9 * t * rate / length)
    return scatter(
        rng,
        n,
        rate,
        float(np.exp(rng.uniform(np.log(0.5), np.log(12)))),
        lambda: body * 10 ** (rng.normal(0, 5) / 20),
    )


def hum(rng: np.random.Generator, n: int, rate: int) -> FloatArray:
    """Mains hum of 50 or 60 Hz and its harmonics, with hiss."""
    t, mains = np.arange(n) / rate, one_of(rng, [50.0, 60.0]) * (1 + rng.normal(0, 1e-3))
    sound = rng.standard_normal(n) * 10 ** (rng.uniform(-50, -15) / 20)
    for k in range(1, int(rng.integers(2, 14))):
        sound += 10 ** (rng.uniform(-30, 0) / 20) / k * np.sin(2 * np.pi * mains * k * t + rng.uniform(0, 6))
    return sound


def wind(rng: np.random.Generator, n: int, rate: int) -> FloatArray:
    """Gusts: dark noise and a band of it that swell at random."""
    low = coloured(rng, n, rate, -6.0, (20, 2000)) * swell(rng, n, rate, rng.uniform(1, 4), 1.0)
    return low + rng.uniform(0.1, 1) * coloured(rng, n, rate, -3.0, (300, rng.uniform(900, 4000))) * swell(
        rng, n, rate, rng.uniform(1, 4), 1.0
    )


def sea(rng: np.random.Generator, n: int, rate: int) -> FloatArray:
    """Waves: noise that rises and falls, each wave of another length, from 4 to 12 s."""
    sound = 0.1 * coloured(rng, n, rate, -3.0, (50, 6000))
    at = -int(rng.uniform(0, 6) * rate)
    while at < n:
        length = int(rng.uniform(4, 12) * rate)
        shape = np.interp(np.arange(length) / length, (0, rng.uniform(0.3, 0.6), 1), (0, 1, 0)) ** 2
        add_at(sound, coloured(rng, length, rate, -4.0, (80, 8000)) * shape * rng.uniform(0.3, 1), at)
        at += int(length * rng.uniform(0.5, 1.1))
    return sound


def rain(rng: np.random.Generator, n: int, rate: int) -> FloatArray:
    """Many small drops over a bed of noise."""

    def drop() -> FloatArray:
        length = int(rng.uniform(0.002, 0.012) * rate)
        burst: FloatArray = rng.standard_normal(length) * np.exp(
            -5 * np.arange(length) / length + rng.normal(0, 0.8)
        )
        return burst

    return scatter(rng, n, rate, float(rng.uniform(30, 200)), drop) + rng.uniform(0.02, 0.3) * coloured(
        rng, n, rate, 0.0, (300, 10000)
    )


def applause(rng: np.random.Generator, n: int, rate: int) -> FloatArray:
    """Five to forty people who clap, each at a rate of their own that wavers."""
    sound = np.zeros(n)
    for _ in range(int(rng.integers(5, 41))):
        length = int(rng.uniform(0.01, 0.04) * rate)
        clap = coloured(rng, length, rate, -1.0, (rng.uniform(400, 1200), 5000)) * np.exp(
            -6 * np.arange(length) / length
        )
        gap, times, at = rng.uniform(0.2, 0.45), [], float(rng.uniform(0, 1))
        while at < n / rate:
            times.append(at)
            at += gap * np.exp(rng.normal(0, 0.15))
        for time in times:
            add_at(sound, clap * rng.uniform(0.4, 1), int(time * rate))
    return sound


def machine(rng: np.random.Generator, n: int, rate: int) -> FloatArray:
    """An engine or a fan: 12 to 120 strokes a second that waver, their harmonics, and air."""
    speed = np.exp(rng.uniform(np.log(12), np.log(120))) * (0.96 + 0.08 * swell(rng, n, rate, 3.0, 1.0))
    phase = np.cumsum(speed) / rate
    sound = sum(
        (
            rng.uniform(0.1, 1) / k**0.7 * np.sin(2 * np.pi * k * phase + rng.uniform(0, 6))
            for k in range(1, 13)
        ),
        np.zeros(n),
    )
    return sound + rng.uniform(0.1, 1) * coloured(rng, n, rate, -4.0, (50, 6000))


def crackle(rng: np.random.Generator, n: int, rate: int) -> FloatArray:
    """Dust on a record or a bad line: pops of very different sizes over faint noise and hum."""
    noise = 10 ** (rng.uniform(-50, -25) / 20) * coloured(
        rng, n, rate, rng.uniform(-6, 0), (30, rng.uniform(2000, 10000))
    )

    def pop() -> FloatArray:
        length = int(rng.uniform(0.0005, 0.006) * rate) + 2
        return np.asarray(
            rng.standard_normal(length) * np.exp(-4 * np.arange(length) / length + rng.normal(-1, 1))
        )

    return (
        noise
        + scatter(rng, n, rate, float(np.exp(rng.uniform(np.log(1), np.log(40)))), pop)
        + 0.05 * rng.random() * hum(rng, n, rate)
    )


def rustle(rng: np.random.Generator, n: int, rate: int) -> FloatArray:
    """Somebody who moves things: bursts of noise of uneven length, colour and loudness, with uneven gaps."""
    sound, at = 0.01 * coloured(rng, n, rate, -3.0, (50, 8000)), 0
    while at < n:
        length = int(np.exp(rng.uniform(np.log(0.02), np.log(1.2))) * rate)
        low = rng.uniform(100, 1500)
        burst = coloured(rng, length, rate, rng.uniform(-6, 2), (low, low * rng.uniform(2, 8)))
        shape = np.interp(np.arange(length) / length, (0, rng.uniform(0.02, 0.6), 1), (0, 1, 0))
        add_at(sound, burst * shape * np.exp(rng.normal(-1, 0.8)), at)
        at += length + int(np.exp(rng.normal(-1.0, 1.0)) * rate)
    return sound
