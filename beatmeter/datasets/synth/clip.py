"""What one render gives: audio and the exact grid it was made on."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from beatmeter.errors import SchemaError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Audio = npt.NDArray[np.float32]

METERS = (3, 4, 5, 7, 9, 11)
KINDS = ("single", "polymeter", "polyrhythm", "hemiola")


@dataclass(frozen=True)
class Clip:
    """One synthesised clip with its ground truth, checked when built.

    audio: (sample,) float32, mono, peak at most 1.
    sample_rate: Hz.
    meters: class -> weight in (0, 1]; two entries where two bar lengths sound at once.
    primary: the heaviest class.
    grouping: pulses in each group of the primary meter's bar, e.g. (2, 2, 3).
    tempo: pulses per minute, mean over the clip (quarters, or eighths of compound and additive bars).
    beats: (beat,) felt beats in seconds: quarters, or group starts where the pulse is an eighth.
    beat_numbers: (beat,) 1 is the downbeat.
    downbeats: (bar,) seconds.
    second_downbeats: (bar,) seconds, bars of the second meter; empty for one meter.
    sections: (start s, end s, label) without gaps over the sounding part.
    chords: (change,) seconds at which another chord begins; empty without pitches, and where two layers
        sound.
    slice: which of `slices.SLICES` it was drawn by. rubato: how far the tempo goes from its median, a share.
    """

    audio: Audio
    sample_rate: int
    seed: int
    meters: dict[int, float]
    primary: int
    grouping: tuple[int, ...]
    tempo: float
    beats: FloatArray
    beat_numbers: IntArray
    downbeats: FloatArray
    second_downbeats: FloatArray
    sections: tuple[tuple[float, float, str], ...]
    kind: str
    style: str
    chords: FloatArray = field(default_factory=lambda: np.zeros(0))
    slice: str = "plain"
    rubato: float = 0.0

    def __post_init__(self) -> None:
        if self.audio.ndim != 1 or self.audio.dtype != np.float32:
            raise SchemaError(f"audio must be (sample,) float32, got {self.audio.shape} {self.audio.dtype}")
        if not np.isfinite(self.audio).all() or np.abs(self.audio).max(initial=0.0) > 1.0:
            raise SchemaError("audio must be finite with a peak of at most 1")
        if not 1 <= len(self.meters) <= 2 or any(not 0 < weight <= 1 for weight in self.meters.values()):
            raise SchemaError(f"meters must hold one or two weights in (0, 1], got {self.meters}")
        if self.meters.get(self.primary) != max(self.meters.values()):
            raise SchemaError(f"primary {self.primary} is not the heaviest of {self.meters}")
        if self.kind not in KINDS:
            raise SchemaError(f"kind must be one of {KINDS}, got {self.kind!r}")
        if self.beats.shape != self.beat_numbers.shape:
            raise SchemaError(f"{len(self.beats)} beats but {len(self.beat_numbers)} beat numbers")
        for name in ("beats", "downbeats", "second_downbeats", "chords"):
            if np.any(np.diff(getattr(self, name)) <= 0):
                raise SchemaError(f"{name} must increase strictly")

    def bar_phase(self, times: npt.ArrayLike) -> FloatArray:
        """Phase in the primary bar, in [0, 1), for each time in seconds; nan outside the downbeat grid."""
        return phase_between(self.downbeats, np.atleast_1d(np.asarray(times, dtype=np.float64)))


def phase_between(events: FloatArray, times: FloatArray) -> FloatArray:
    """Phase between two neighbouring events (event,), in [0, 1), for each of `times` in seconds; nan outside
    them."""
    phase = np.full(times.shape, np.nan)
    if len(events) > 1:
        inside = (times >= events[0]) & (times < events[-1])
        phase[inside] = np.interp(times[inside], events, np.arange(len(events))) % 1.0
    return phase
