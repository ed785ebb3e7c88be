"""From notes to samples: the sounds of a part, added note by note."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from beatmeter.datasets.synth.clip import Audio, FloatArray
from beatmeter.datasets.synth.hits import STROKES, make_stroke
from beatmeter.datasets.synth.timing import Timing
from beatmeter.datasets.synth.tones import Instrument

Sounding = Callable[
    [int, float], tuple[Audio, int]
]  # (pitch or stroke, seconds) -> (samples, release in samples)


def percussion(rng: np.random.Generator, table: FloatArray, rate: int) -> Sounding:
    names = list(STROKES)
    sounds: dict[int, Audio] = {}
    for number in sorted({int(value) for value in table[:, 2]}):
        sounds[number] = make_stroke(names[number], rng, rate)

    def sound(number: int, seconds: float) -> tuple[Audio, int]:
        return sounds[number], 0

    return sound


def pitched(instrument: Instrument) -> Sounding:
    release = int(instrument.release * instrument.rate)

    def sound(pitch: int, seconds: float) -> tuple[Audio, int]:
        return instrument.note(min(108, max(24, pitch)), seconds), release

    return sound


def mix(
    out: Audio,
    rng: np.random.Generator,
    table: FloatArray,
    timing: Timing,
    sounding: Sounding,
    level: float,
    silence: tuple[float, float],
    rate: int,
) -> None:
    """Add every note: the sound up to its length, then its release."""
    if not len(table):
        return
    onsets = timing.at(table[:, 0])
    lengths = np.maximum(0.04, timing.at(table[:, 0] + table[:, 1]) - onsets)
    onsets = onsets + rng.normal(0, timing.jitter, len(onsets)) if timing.jitter else onsets
    ramps: dict[int, Audio] = {}
    total = len(out)
    final = int(silence[1] * rate)
    for onset, length, pitch, velocity in zip(
        onsets.tolist(), lengths.tolist(), table[:, 2].astype(int).tolist(), table[:, 3].tolist(), strict=True
    ):
        if (
            onset + length < silence[0]
            or onset >= silence[1]
            or (silence[0] > 0 and onset < silence[0] - 0.02)
        ):
            continue
        wave, release = sounding(pitch, min(length, 8.0))
        start = int(onset * rate)
        stop = start + (min(len(wave), int(length * rate)) if release else len(wave))
        gain = np.float32(level * velocity)
        low, high = max(0, start), min(total, stop)
        if high > low:
            out[low:high] += wave[low - start : high - start] * gain
        if release and stop < total and stop - start < len(wave):
            if release not in ramps:
                ramps[release] = np.linspace(1, 0, release, dtype=np.float32)
            tail = wave[stop - start : stop - start + release]
            low, high = max(0, stop), min(total, stop + len(tail))
            if high > low:
                ramp = ramps[release][low - stop : high - stop]
                out[low:high] += tail[low - stop : high - stop] * ramp * gain
    if final < total:
        fade = min(rate // 2, final)
        out[final - fade : final] *= np.linspace(1, 0, fade, dtype=np.float32)
        out[final:] = 0
