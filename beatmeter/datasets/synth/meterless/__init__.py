"""Sounds without meter: noise, tones, hum, clicks and notes at random times, gongs, speech, rain, machines.

`render_meterless(seed, kind)` gives the same sound in any process. What all kinds share: nothing in them
returns at a lag that a beat or a bar could have, but by chance. `FITTED` are the kinds that a detector of
meter may learn from; `UNSEEN` are never learned from, so they show how it does on sounds of another kind.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import fft

from beatmeter.datasets.synth.clip import Audio
from beatmeter.datasets.synth.draws import one_of, stream
from beatmeter.datasets.synth.tones import FAMILIES, Instrument
from beatmeter.errors import ConfigError, nearest

FloatArray = npt.NDArray[np.float64]
HELD = tuple(name for name, family in FAMILIES.items() if family.decay == (0, 0))
STRUCK = tuple(name for name in FAMILIES if name not in HELD)


def render_meterless(seed: int, kind: str, *, seconds: float = 30.0, sample_rate: int = 24000) -> Audio:
    """(sample,) float32 at `sample_rate`, with a peak of at most 0.99: the sound of this seed and kind, one
    of `KINDS`."""
    if kind not in SOUNDS:
        raise ConfigError(f"there is no sound {kind!r} without meter", nearest(kind, KINDS))
    if not 0.5 <= seconds <= 3600 or not 8000 <= sample_rate <= 192000:
        raise ConfigError(
            f"need 0.5 <= seconds <= 3600 and 8000 <= sample_rate <= 192000, got {seconds}, {sample_rate}"
        )
    rng = stream(seed, f"meterless {kind}")
    sound = SOUNDS[kind](rng, round(seconds * sample_rate), sample_rate)
    low, high = QUIET.get(kind, (-30.0, -0.1))
    peak = 10 ** (rng.uniform(low, high) / 20)
    hiss = (
        peak * 10 ** (rng.uniform(-90, -35) / 20) * rng.standard_normal(len(sound))
        if rng.random() < 0.6
        else 0.0
    )
    sound = sound * (peak / max(1e-9, float(np.abs(sound).max(initial=0.0)))) + hiss
    return np.clip(sound, -0.99, 0.99).astype(np.float32)


def _noise(rng: np.random.Generator, n: int, rate: int) -> FloatArray:
    """White, pink, brown, blue or something between them; one in three is a band."""
    slope = float(one_of(rng, [0.0, -3.0, -6.0, 3.0, rng.uniform(-9, 3)]))
    band = (
        (float(rng.uniform(100, 2000)), float(rng.uniform(2500, 10000)))
        if rng.random() < 1 / 3
        else (20.0, 0.5 * rate)
    )
    return _coloured(rng, n, rate, slope, band)


def _tone(rng: np.random.Generator, n: int, rate: int) -> FloatArray:
    """One to three steady sines; one in three glides."""
    t, sound = np.arange(n) / rate, np.zeros(n)
    hertz = np.exp(rng.uniform(np.log(60), np.log(4000)))
    for _ in range(int(rng.integers(1, 4))):
        glide = rng.uniform(-0.5, 0.5) * hertz / t[-1] if rng.random() < 1 / 3 else 0.0
        sound += rng.uniform(0.3, 1) * np.sin(2 * np.pi * (hertz * t + glide * t**2 / 2) + rng.uniform(0, 6))
        hertz = hertz * rng.uniform(1.15, 2.2)  # nearer ones would beat
    return sound


def _drone(rng: np.random.Generator, n: int, rate: int) -> FloatArray:
    """One to four held notes that swell at random."""
    sound, root = np.zeros(n), int(rng.integers(33, 60))
    for interval in (0, *rng.choice([7, 12, 16, 19, 24], int(rng.integers(0, 4)), replace=False).tolist()):
        voice = Instrument(one_of(rng, HELD), rng, rate).note(root + interval, n / rate)[:n]
        sound += _swell(rng, n, rate, rng.uniform(2, 8), rng.uniform(0, 0.8)) * voice
    return sound


def _clicks(rng: np.random.Generator, n: int, rate: int) -> FloatArray:
    """Damped sines or bursts of noise at the times of a Poisson process, 0.5 to 12 a second."""
    length = int(rng.uniform(0.003, 0.08) * rate)
    t = np.arange(length) / rate
    body = (
        np.sin(2 * np.pi * np.exp(rng.uniform(np.log(200), np.log(5000))) * t)
        if rng.random() < 0.5
        else rng.standard_normal(length)
    )
    body = body * np.exp(-6.9 * t * rate / length)
    return _scatter(
        rng,
        n,
        rate,
        float(np.exp(rng.uniform(np.log(0.5), np.log(12)))),
        lambda: body * 10 ** (rng.normal(0, 5) / 20),
    )


def _notes(rng: np.random.Generator, n: int, rate: int) -> FloatArray:
    """Notes of one to three instruments, of random pitch and length, without a pulse."""
    sound = np.zeros(n)
    for _ in range(int(rng.integers(1, 4))):
        player = Instrument(one_of(rng, list(FAMILIES)), rng, rate)
        low, width = int(rng.integers(40, 64)), int(rng.integers(3, 24))

        def note(player: Instrument = player, low: int = low, width: int = width) -> FloatArray:
            seconds = float(rng.uniform(0.1, 2.0))
            sung = player.note(low + int(rng.integers(0, width)), seconds)[: int(seconds * rate)]
            return _fade(sung, int(0.03 * rate)) * rng.uniform(0.3, 1)

        sound += _scatter(rng, n, rate, float(rng.uniform(0.4, 5)), note)
    return sound


def _speech(rng: np.random.Generator, n: int, rate: int) -> FloatArray:
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
                _coloured(rng, hiss, rate, 3.0, (1500, 9000)) * np.hanning(hiss) * rng.uniform(0.1, 0.5)
            )
            _add(sound, consonant, at)
        bent = pitch * np.exp(np.linspace(rng.normal(0, 0.12), rng.normal(0, 0.12), length))
        phase = np.cumsum(bent) / rate
        formants = rng.uniform((250, 800, 2200), (800, 2300, 3200))
        vowel = np.zeros(length)
        for k in range(1, max(2, int(min(4000, 0.45 * rate) / (1.5 * pitch)))):
            level = (np.exp(-(((k * pitch - formants) / 130) ** 2)) * (1, 0.6, 0.3)).sum() + 0.01
            vowel += level * np.sin(2 * np.pi * k * phase)
        _add(sound, vowel * np.hanning(length) * rng.uniform(0.4, 1), at + int(0.7 * hiss))
        at += int(0.7 * hiss + length * rng.uniform(0.8, 1.15))
    return sound


def _hum(rng: np.random.Generator, n: int, rate: int) -> FloatArray:
    """Mains hum of 50 or 60 Hz and its harmonics, with hiss."""
    t, mains = np.arange(n) / rate, one_of(rng, [50.0, 60.0]) * (1 + rng.normal(0, 1e-3))
    sound = rng.standard_normal(n) * 10 ** (rng.uniform(-50, -15) / 20)
    for k in range(1, int(rng.integers(2, 14))):
        sound += 10 ** (rng.uniform(-30, 0) / 20) / k * np.sin(2 * np.pi * mains * k * t + rng.uniform(0, 6))
    return sound


def _wind(rng: np.random.Generator, n: int, rate: int) -> FloatArray:
    """Gusts: dark noise and a band of it that swell at random."""
    low = _coloured(rng, n, rate, -6.0, (20, 2000)) * _swell(rng, n, rate, rng.uniform(1, 4), 1.0)
    return low + rng.uniform(0.1, 1) * _coloured(rng, n, rate, -3.0, (300, rng.uniform(900, 4000))) * _swell(
        rng, n, rate, rng.uniform(1, 4), 1.0
    )


def _sea(rng: np.random.Generator, n: int, rate: int) -> FloatArray:
    """Waves: noise that rises and falls, each wave of another length, from 4 to 12 s."""
    sound = 0.1 * _coloured(rng, n, rate, -3.0, (50, 6000))
    at = -int(rng.uniform(0, 6) * rate)
    while at < n:
        length = int(rng.uniform(4, 12) * rate)
        shape = np.interp(np.arange(length) / length, (0, rng.uniform(0.3, 0.6), 1), (0, 1, 0)) ** 2
        _add(sound, _coloured(rng, length, rate, -4.0, (80, 8000)) * shape * rng.uniform(0.3, 1), at)
        at += int(length * rng.uniform(0.5, 1.1))
    return sound


def _rain(rng: np.random.Generator, n: int, rate: int) -> FloatArray:
    """Many small drops over a bed of noise."""

    def drop() -> FloatArray:
        length = int(rng.uniform(0.002, 0.012) * rate)
        burst: FloatArray = rng.standard_normal(length) * np.exp(
            -5 * np.arange(length) / length + rng.normal(0, 0.8)
        )
        return burst

    return _scatter(rng, n, rate, float(rng.uniform(30, 200)), drop) + rng.uniform(0.02, 0.3) * _coloured(
        rng, n, rate, 0.0, (300, 10000)
    )


def _applause(rng: np.random.Generator, n: int, rate: int) -> FloatArray:
    """Five to forty people who clap, each at a rate of their own that wavers."""
    sound = np.zeros(n)
    for _ in range(int(rng.integers(5, 41))):
        length = int(rng.uniform(0.01, 0.04) * rate)
        clap = _coloured(rng, length, rate, -1.0, (rng.uniform(400, 1200), 5000)) * np.exp(
            -6 * np.arange(length) / length
        )
        gap, times, at = rng.uniform(0.2, 0.45), [], float(rng.uniform(0, 1))
        while at < n / rate:
            times.append(at)
            at += gap * np.exp(rng.normal(0, 0.15))
        for time in times:
            _add(sound, clap * rng.uniform(0.4, 1), int(time * rate))
    return sound


def _chirps(rng: np.random.Generator, n: int, rate: int) -> FloatArray:
    """Sweeps up or down at random times."""

    def sweep() -> FloatArray:
        length = int(rng.uniform(0.05, 0.8) * rate)
        a, b = np.exp(rng.uniform(np.log(200), np.log(6000), 2))
        hertz = a * (b / a) ** (np.arange(length) / length)
        return np.sin(2 * np.pi * np.cumsum(hertz) / rate) * np.hanning(length) * rng.uniform(0.3, 1)

    return _scatter(rng, n, rate, float(rng.uniform(0.5, 4)), sweep)


def _birds(rng: np.random.Generator, n: int, rate: int) -> FloatArray:
    """Calls of a few fluttering tones at random times, by one to four birds."""
    sound = 0.02 * _coloured(rng, n, rate, -3.0, (100, 5000))
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

        sound += _scatter(rng, n, rate, float(rng.uniform(0.15, 0.8)), call)
    return sound


def _machine(rng: np.random.Generator, n: int, rate: int) -> FloatArray:
    """An engine or a fan: 12 to 120 strokes a second that waver, their harmonics, and air."""
    speed = np.exp(rng.uniform(np.log(12), np.log(120))) * (0.96 + 0.08 * _swell(rng, n, rate, 3.0, 1.0))
    phase = np.cumsum(speed) / rate
    sound = sum(
        (
            rng.uniform(0.1, 1) / k**0.7 * np.sin(2 * np.pi * k * phase + rng.uniform(0, 6))
            for k in range(1, 13)
        ),
        np.zeros(n),
    )
    return sound + rng.uniform(0.1, 1) * _coloured(rng, n, rate, -4.0, (50, 6000))


def _chord(rng: np.random.Generator, n: int, rate: int) -> FloatArray:
    """One chord, held or left to ring."""
    player, sound = Instrument(one_of(rng, list(FAMILIES)), rng, rate), np.zeros(n)
    for pitch in int(rng.integers(45, 62)) + rng.choice(
        [0, 3, 4, 7, 10, 12, 16, 19], int(rng.integers(3, 6)), replace=False
    ):
        _add(sound, player.note(int(pitch), n / rate).astype(np.float64), int(rng.uniform(0, 0.02) * rate))
    return sound


def _babble(rng: np.random.Generator, n: int, rate: int) -> FloatArray:
    """Three to eight people who talk at once."""
    return sum(
        (_speech(rng, n, rate) * rng.uniform(0.2, 1) for _ in range(int(rng.integers(3, 9)))), np.zeros(n)
    )


def _bells(rng: np.random.Generator, n: int, rate: int) -> FloatArray:
    """Wind chimes: a few small bells struck at random."""
    tuned = np.exp(rng.uniform(np.log(500), np.log(3000), int(rng.integers(3, 8))))

    def stroke() -> FloatArray:
        t = np.arange(int(rng.uniform(0.5, 2.5) * rate)) / rate
        hertz = one_of(rng, tuned.tolist())
        return np.asarray(
            sum(np.sin(2 * np.pi * hertz * m * t) * np.exp(-t * 3 * m) / m for m in (1, 2.76, 5.4))
            * rng.uniform(0.2, 1)
        )

    return _scatter(rng, n, rate, float(rng.uniform(0.5, 5)), stroke)


def _gongs(rng: np.random.Generator, n: int, rate: int) -> FloatArray:
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

        sound += _scatter(rng, n, rate, float(np.exp(rng.uniform(np.log(0.1), np.log(2.5)))), stroke)
    return sound


def _plucks(rng: np.random.Generator, n: int, rate: int) -> FloatArray:
    """Single notes of one struck or plucked instrument, far apart, that ring over one another."""
    player, sound = Instrument(one_of(rng, STRUCK), rng, rate), np.zeros(n)
    pitches = int(rng.integers(40, 70)) + rng.choice(25, int(rng.integers(1, 8)), replace=False)

    def note() -> FloatArray:
        return player.note(int(one_of(rng, pitches.tolist())), float(rng.uniform(1, 5))).astype(
            np.float64
        ) * rng.uniform(0.2, 1)

    return sound + _scatter(rng, n, rate, float(np.exp(rng.uniform(np.log(0.15), np.log(2)))), note)


def _pads(rng: np.random.Generator, n: int, rate: int) -> FloatArray:
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
            _add(sound, held * shape[: len(held)] * rng.uniform(0.4, 1), int(at * rate))
        at += seconds
    return sound


def _chant(rng: np.random.Generator, n: int, rate: int) -> FloatArray:
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
        _add(
            sound,
            note
            * np.interp(t, (0, 0.05, length / rate - 0.08, length / rate), (0, 1, 1, 0))
            * rng.uniform(0.5, 1),
            at,
        )
        at += length
    return sound


def _sirens(rng: np.random.Generator, n: int, rate: int) -> FloatArray:
    """One to three tones whose pitch wanders, now fast, now slowly, and never the same way twice."""
    sound = np.zeros(n)
    for _ in range(int(rng.integers(1, 4))):
        low, octaves = np.exp(rng.uniform(np.log(100), np.log(1500))), rng.uniform(0.2, 2)
        phase = (
            np.cumsum(
                low * 2 ** (octaves * _swell(rng, n, rate, np.exp(rng.uniform(np.log(0.3), np.log(6))), 1.0))
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
        sound += tone * rng.uniform(0.3, 1) * _swell(rng, n, rate, rng.uniform(1, 5), rng.uniform(0, 0.9))
    return sound


def _crackle(rng: np.random.Generator, n: int, rate: int) -> FloatArray:
    """Dust on a record or a bad line: pops of very different sizes over faint noise and hum."""
    noise = 10 ** (rng.uniform(-50, -25) / 20) * _coloured(
        rng, n, rate, rng.uniform(-6, 0), (30, rng.uniform(2000, 10000))
    )

    def pop() -> FloatArray:
        length = int(rng.uniform(0.0005, 0.006) * rate) + 2
        return np.asarray(
            rng.standard_normal(length) * np.exp(-4 * np.arange(length) / length + rng.normal(-1, 1))
        )

    return (
        noise
        + _scatter(rng, n, rate, float(np.exp(rng.uniform(np.log(1), np.log(40)))), pop)
        + 0.05 * rng.random() * _hum(rng, n, rate)
    )


def _rustle(rng: np.random.Generator, n: int, rate: int) -> FloatArray:
    """Somebody who moves things: bursts of noise of uneven length, colour and loudness, with uneven gaps."""
    sound, at = 0.01 * _coloured(rng, n, rate, -3.0, (50, 8000)), 0
    while at < n:
        length = int(np.exp(rng.uniform(np.log(0.02), np.log(1.2))) * rate)
        low = rng.uniform(100, 1500)
        burst = _coloured(rng, length, rate, rng.uniform(-6, 2), (low, low * rng.uniform(2, 8)))
        shape = np.interp(np.arange(length) / length, (0, rng.uniform(0.02, 0.6), 1), (0, 1, 0))
        _add(sound, burst * shape * np.exp(rng.normal(-1, 0.8)), at)
        at += length + int(np.exp(rng.normal(-1.0, 1.0)) * rate)
    return sound


def _coloured(
    rng: np.random.Generator, n: int, rate: int, slope: float, band: tuple[float, float]
) -> FloatArray:
    """Gaussian noise of standard deviation 1 with `slope` dB per octave, limited to `band` Hz."""
    size = fft.next_fast_len(max(n, 64), real=True)
    spectrum = fft.rfft(rng.standard_normal(size))
    hertz = np.maximum(np.arange(len(spectrum)) * rate / size, 10.0)
    spectrum *= (
        hertz ** (slope / 6.02) / np.sqrt(1 + (band[0] / hertz) ** 8) / np.sqrt(1 + (hertz / band[1]) ** 8)
    )
    sound: FloatArray = fft.irfft(spectrum, size)[:n]
    return sound / max(1e-12, float(sound.std()))


def _swell(rng: np.random.Generator, n: int, rate: int, seconds: float, depth: float) -> FloatArray:
    """(sample,) levels between 1 - depth and 1 through random points, `seconds` apart in the mean."""
    gaps = rng.uniform(0.5, 1.5, int(n / rate / seconds * 2) + 4) * seconds
    at = np.cumsum(gaps) - gaps[0] - rng.uniform(0, seconds)
    return 1 - depth * np.interp(np.arange(n) / rate, at, rng.random(len(at)))


def _scatter(
    rng: np.random.Generator, n: int, rate: int, density: float, make: Callable[[], FloatArray]
) -> FloatArray:
    """Sounds at the times of a Poisson process of `density` a second; at least one."""
    sound = np.zeros(n)
    for time in rng.uniform(0, n, max(1, int(rng.poisson(density * n / rate)))):
        _add(sound, make(), int(time))
    return sound


def _add(sound: FloatArray, part: FloatArray, at: int) -> None:
    """Add a part that begins at sample `at`, what lies outside left out."""
    start, end = max(0, at), min(len(sound), at + len(part))
    if end > start:
        sound[start:end] += part[start - at : end - at]


def _fade(sound: npt.NDArray[np.float32], samples: int) -> FloatArray:
    faded = sound.astype(np.float64)
    samples = min(samples, len(faded))
    faded[len(faded) - samples :] *= np.linspace(1, 0, samples)
    return faded


SOUNDS: dict[str, Callable[[np.random.Generator, int, int], FloatArray]] = {
    "noise": _noise,
    "tone": _tone,
    "drone": _drone,
    "clicks": _clicks,
    "notes": _notes,
    "speech": _speech,
    "hum": _hum,
    "wind": _wind,
    "sea": _sea,
    "rain": _rain,
    "applause": _applause,
    "chirps": _chirps,
    "birds": _birds,
    "machine": _machine,
    "chord": _chord,
    "babble": _babble,
    "bells": _bells,
    "gongs": _gongs,
    "plucks": _plucks,
    "pads": _pads,
    "chant": _chant,
    "sirens": _sirens,
    "crackle": _crackle,
    "rustle": _rustle,
}
QUIET = {"hum": (-75.0, -30.0)}  # peak in dB: the hum of a line in which nothing plays
KINDS = tuple(SOUNDS)
UNSEEN = ("wind", "sea", "rain", "applause", "chirps", "birds", "machine", "chord", "babble", "bells")
FITTED = tuple(kind for kind in KINDS if kind not in UNSEEN)
