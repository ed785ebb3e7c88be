"""The knobs of the generator, in one frozen dataclass."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from beatmeter.datasets.synth.clip import METERS
from beatmeter.errors import ConfigError


@dataclass(frozen=True)
class SynthOptions:
    """What a render draws from; the defaults are the training distribution.

    tempo: lowest and highest pulse rate, per minute, of bars counted in quarters (eighths go three times as
        fast).
    bar_seconds: shortest and longest bar in seconds, drawn from one distribution for every class.
    class_weights: (class, weight) pairs for drawing the primary meter.
    style_weights: (style, factor) pairs that multiply the weights of the style table; 0 switches a style off.

    The rest are probabilities: of two meters at once (polymeter, polyrhythm, hemiola), of expressive timing,
    of swing, of starting in mid-bar, of silent ends, and of each effect.
    """

    tempo: tuple[float, float] = (40.0, 240.0)
    bar_seconds: tuple[float, float] = (0.7, 5.4)
    class_weights: tuple[tuple[int, float], ...] = tuple((meter, 1.0) for meter in METERS)
    style_weights: tuple[tuple[str, float], ...] = ()
    polymeter: float = 0.06
    polyrhythm: float = 0.03
    hemiola: float = 0.03
    rubato: float = 0.25
    swing: float = 0.2
    cut: float = 0.6
    silence: float = 0.15
    room: float = 0.6
    noise: float = 0.5
    equaliser: float = 0.6
    compressor: float = 0.3
    overdrive: float = 0.12
    codec: float = 0.3

    def __post_init__(self) -> None:
        for name in ("tempo", "bar_seconds"):
            low, high = getattr(self, name)
            if not 0 < low < high < math.inf:
                raise ConfigError(f"{name} must be (low, high) with 0 < low < high, got {(low, high)}")
        for field in fields(self):
            if field.type == "float" and not 0 <= getattr(self, field.name) <= 1:
                raise ConfigError(f"{field.name} is a probability, got {getattr(self, field.name)}")
        if self.polymeter + self.polyrhythm + self.hemiola > 1:
            raise ConfigError("polymeter + polyrhythm + hemiola must be at most 1")
        unknown = [meter for meter, _ in self.class_weights if meter not in METERS]
        if unknown:
            raise ConfigError(f"class_weights names meters {unknown}; the generator knows {METERS}")
        weights = [weight for _, weight in self.class_weights]
        if not all(0 <= weight < math.inf for weight in weights) or not sum(weights) > 0:
            raise ConfigError(f"class_weights must be finite, not negative and not all 0, got {weights}")
        if any(not 0 <= weight < math.inf for _, weight in self.style_weights):
            raise ConfigError(f"style_weights must be finite and not negative, got {self.style_weights}")
