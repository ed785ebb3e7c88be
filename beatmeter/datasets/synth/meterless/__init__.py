"""Sounds without meter: noise, tones, hum, clicks and notes at random times, gongs, speech, rain, machines.

`render_meterless(seed, kind)` gives the same sound in any process. What all kinds share: nothing in them
returns at a lag that a beat or a bar could have, but by chance. `FITTED` are the kinds that a detector of
meter may learn from; `UNSEEN` are never learned from, so they show how it does on sounds of another kind.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from beatmeter.datasets.synth.clip import Audio
from beatmeter.datasets.synth.draws import stream
from beatmeter.datasets.synth.meterless import noises, pitched, voices
from beatmeter.datasets.synth.meterless.blocks import FloatArray
from beatmeter.errors import ConfigError, nearest

SOUNDS: dict[str, Callable[[np.random.Generator, int, int], FloatArray]] = {
    "noise": noises.noise,
    "tone": pitched.tone,
    "drone": pitched.drone,
    "clicks": noises.clicks,
    "notes": pitched.notes,
    "speech": voices.speech,
    "hum": noises.hum,
    "wind": noises.wind,
    "sea": noises.sea,
    "rain": noises.rain,
    "applause": noises.applause,
    "chirps": pitched.chirps,
    "birds": pitched.birds,
    "machine": noises.machine,
    "chord": pitched.chord,
    "babble": voices.babble,
    "bells": pitched.bells,
    "gongs": pitched.gongs,
    "plucks": pitched.plucks,
    "pads": pitched.pads,
    "chant": voices.chant,
    "sirens": pitched.sirens,
    "crackle": noises.crackle,
    "rustle": noises.rustle,
}
QUIET = {"hum": (-75.0, -30.0)}  # peak in dB: the hum of a line in which nothing plays
KINDS = tuple(SOUNDS)
UNSEEN = ("wind", "sea", "rain", "applause", "chirps", "birds", "machine", "chord", "babble", "bells")
FITTED = tuple(kind for kind in KINDS if kind not in UNSEEN)


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
