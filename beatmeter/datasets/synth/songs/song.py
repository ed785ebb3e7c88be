"""What one song gives: audio, and the exact bars, sections and events it was made from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from beatmeter.datasets.synth.clip import Audio, FloatArray, IntArray
from beatmeter.errors import SchemaError

FUNCTIONS = (
    "intro",
    "verse",
    "pre-chorus",
    "chorus",
    "bridge",
    "instrumental",
    "break",
    "build-up",
    "drop",
    "outro",
)


@dataclass(frozen=True)
class Section:
    """Seconds [start, end). letter: equal letters are the same material. function: one of FUNCTIONS, or ""
    where the form has none."""

    start: float
    end: float
    letter: str
    function: str


@dataclass(frozen=True)
class Song:
    """One synthesised song with its ground truth, checked when built.

    audio: (sample,) float32, mono, peak at most 1. sample_rate: Hz.
    form, style: rows of `forms.SONG_FORMS` and `styles.STYLES`. meter: class of the bars; grouping: pulses
    in each group of a bar.
    tempo: felt beats per minute, mean over the song.
    beats: (beat,) seconds; beat_numbers: (beat,) place in the bar, 1 is the downbeat. downbeats: (bar,)
    seconds.
    sections: without gaps from the first downbeat to the end of the last bar.
    drops: (drop,) seconds of the first downbeat of every drop that something led up to.
    buildups: (build-up, 2) start and end in seconds.
    """

    audio: Audio
    sample_rate: int
    seed: int
    form: str
    style: str
    meter: int
    grouping: tuple[int, ...]
    tempo: float
    beats: FloatArray
    beat_numbers: IntArray
    downbeats: FloatArray
    sections: tuple[Section, ...]
    drops: FloatArray
    buildups: FloatArray

    def __post_init__(self) -> None:
        if self.audio.ndim != 1 or self.audio.dtype != np.float32:
            raise SchemaError(f"audio must be (sample,) float32, got {self.audio.shape} {self.audio.dtype}")
        if not np.isfinite(self.audio).all() or np.abs(self.audio).max(initial=0.0) > 1.0:
            raise SchemaError("audio must be finite with a peak of at most 1")
        if self.beats.shape != self.beat_numbers.shape:
            raise SchemaError(f"{len(self.beats)} beats but {len(self.beat_numbers)} beat numbers")
        for name in ("beats", "downbeats", "drops"):
            if np.any(np.diff(getattr(self, name)) <= 0):
                raise SchemaError(f"{name} must increase strictly")
        if self.buildups.ndim != 2 or self.buildups.shape[1] != 2:
            raise SchemaError(f"buildups must be (build-up, 2), got {self.buildups.shape}")
        for before, after in zip(self.sections, self.sections[1:], strict=False):
            if before.end != after.start:
                raise SchemaError(f"a section ends at {before.end} s, the next starts at {after.start} s")
        foreign = {s.function for s in self.sections} - {*FUNCTIONS, ""}
        if foreign:
            raise SchemaError(f"functions must be among {', '.join(FUNCTIONS)}, got {sorted(foreign)}")
