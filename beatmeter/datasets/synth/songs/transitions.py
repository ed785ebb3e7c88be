"""What leads from section to section: fills, rolls, rising noise, a cut of the low end, a beat of silence;
and the same now and then where no section ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import signal

from beatmeter.datasets.synth.clip import Audio, FloatArray
from beatmeter.datasets.synth.draws import pick
from beatmeter.datasets.synth.songs.forms import Planned
from beatmeter.datasets.synth.styles import Part
from beatmeter.datasets.synth.timing import Timing

KINDS = ("none", "fill", "roll", "riser", "low cut", "silence", "crash")
# Weights by what plays: without drums, with drums, dance tracks, and at the end of a build-up.
SOFT = (("none", 8.0), ("silence", 0.7), ("low cut", 0.1))
DRUMMED = (("none", 4.0), ("fill", 5.0), ("crash", 1.5), ("silence", 0.6), ("roll", 0.3), ("riser", 0.2))
DANCE = (
    ("none", 3.0),
    ("fill", 2.0),
    ("riser", 2.0),
    ("low cut", 1.5),
    ("crash", 2.0),
    ("silence", 1.0),
    ("roll", 0.7),
)
FALSE_ONES = 0.06  # chance of a transition where no section ends, at every fourth bar


@dataclass(frozen=True)
class Transition:
    """One that ends at pulse `end`, after `length` pulses."""

    kind: str
    end: float
    length: float


@dataclass
class Transitions:
    """All of a song, and how they change notes and audio."""

    rows: list[Transition] = field(default_factory=list)

    def of(self, *kinds: str) -> list[Transition]:
        """Those of some kinds."""
        return [row for row in self.rows if row.kind in kinds]

    def thin(self, table: FloatArray, part: Part) -> FloatArray:
        """Notes of a part without those that a silence or a fill takes the place of."""
        keep = np.ones(len(table), dtype=bool)
        result = table.copy()
        for row in self.of("silence"):
            keep &= ~((table[:, 0] >= row.end - row.length - 1e-6) & (table[:, 0] < row.end - 1e-6))
            into = (table[:, 0] < row.end - row.length) & (table[:, 0] + table[:, 1] > row.end - row.length)
            result[into, 1] = row.end - row.length - table[into, 0]
        if part.role == "drums":
            for row in self.of("fill"):
                keep &= ~((table[:, 0] >= row.end - row.length - 1e-6) & (table[:, 0] < row.end - 1e-6))
        return result[keep]

    def strokes(self, rng: np.random.Generator, names: dict[str, int], bar: int, pulse: float) -> FloatArray:
        """(note, 4) drum strokes that are played for transitions alone."""
        rows: list[tuple[float, float, float, float]] = []
        for row in self.rows:
            start = row.end - row.length
            if row.kind == "fill":
                step = 0.25 if pulse > 0.36 else 0.5 if pulse > 0.18 else 1.0
                toms = [names[name] for name in ("snare", "tom_high", "tom_low")]
                places = np.arange(start, row.end - 1e-6, step)
                for at, place in enumerate(places):
                    if rng.random() < 0.85:
                        rows.append(
                            (place, step, toms[min(2, 3 * at // len(places))], float(rng.uniform(0.5, 1.0)))
                        )
            elif row.kind == "roll":
                place = start
                while place < row.end - 1e-6:
                    through = (place - start) / row.length
                    step = 1.0 if through < 0.5 else 0.5 if through < 0.75 else 0.25
                    rows.append((place, step, names["snare"], 0.35 + 0.55 * through))
                    place += step if pulse * step > 0.07 else 2 * step
            if row.kind in {"crash", "fill", "roll", "riser"} and (row.kind == "crash" or rng.random() < 0.6):
                rows.append((row.end, float(bar), names["crash"], 0.8))
        return np.array(sorted(rows), dtype=np.float64).reshape(-1, 4)

    def sound(self, audio: Audio, rng: np.random.Generator, timing: Timing, rate: int) -> Audio:
        """The mix with its low ends cut and its noises added."""
        for row in self.of("low cut"):
            start, end = (int(at * rate) for at in timing.at(np.array([row.end - row.length, row.end])))
            _cut_low(audio, max(0, start), min(len(audio), end), float(rng.uniform(250, 700)), rate)
        scale = float(np.sqrt(np.mean(audio**2))) if len(audio) else 0.0
        for row in self.of("riser"):
            start, end = (int(at * rate) for at in timing.at(np.array([row.end - row.length, row.end])))
            start, end = max(0, start), min(len(audio), end)
            if end - start > rate // 4:
                audio[start:end] += _rising(rng, end - start, rate) * np.float32(
                    scale * 10 ** (rng.uniform(-8, 4) / 20)
                )
        return audio


def draw_transitions(
    rng: np.random.Generator, sections: Sequence[Planned], bar: int, beat: float, *, drums: bool, dance: bool
) -> Transitions:
    """Draw one for every boundary, and some for no boundary. bar, beat: pulses of a bar and of a felt
    beat."""
    table = DANCE if dance else DRUMMED if drums else SOFT
    few = float(rng.uniform(0.2, 1.0))  # songs differ in how much they announce
    rows: list[Transition] = []

    def add(kind: str, end: float, most: float) -> None:
        bars = {
            "riser": 2 + 2 * int(rng.integers(0, 2)),
            "low cut": int(rng.integers(1, 5)),
            "roll": int(rng.integers(1, 3)),
        }.get(kind, 1)
        length = (
            beat
            if kind == "silence"
            else bar * (0.5 if bar % 2 == 0 else 1.0)
            if kind == "fill"
            else float(bars * bar)
        )
        rows.append(Transition(kind, end, min(length, most)))

    at = 0
    for number, section in enumerate(sections):
        for inner in range(4, section.bars, 4):
            if rng.random() < FALSE_ONES * few:
                add(
                    pick(rng, [row for row in table if row[0] != "none"]),
                    float((at + inner) * bar),
                    inner * bar,
                )
        at += section.bars
        if number == len(sections) - 1:
            break
        end, most = float(at * bar), float(section.bars * bar)
        if section.function == "build-up":
            for kind, chance in (("roll", 0.6), ("riser", 0.65), ("low cut", 0.4), ("silence", 0.35)):
                if rng.random() < chance:
                    add(kind, end, most)
            if rng.random() < 0.5:
                add("crash", end, most)
        elif rng.random() < few:
            add(pick(rng, table), end, most)
    return Transitions([row for row in rows if row.kind != "none"])


def _cut_low(audio: Audio, start: int, end: int, hertz: float, rate: int) -> None:
    """High-pass audio[start:end] in place; the filter comes in over the first half."""
    if end - start < rate // 10:
        return
    sos = signal.butter(2, hertz, "highpass", fs=rate, output="sos")
    high = signal.sosfilt(sos, audio[start:end]).astype(np.float32)
    blend = np.minimum(1.0, np.linspace(0, 2, end - start, dtype=np.float32))
    audio[start:end] = audio[start:end] * (1 - blend) + high * blend


def _rising(rng: np.random.Generator, samples: int, rate: int) -> Audio:
    """Noise, or a gliding tone, that grows and rises; rms about 1 at its end."""
    through = np.linspace(0, 1, samples, dtype=np.float32)
    gain = 10 ** (np.float32(rng.uniform(-40, -20) / 20) * (1 - through))
    if rng.random() < 0.6:
        noise = rng.standard_normal(samples).astype(np.float32)
        dark = (
            signal.sosfilt(signal.butter(2, 900, "lowpass", fs=rate, output="sos"), noise).astype(np.float32)
            * 3
        )
        bright = signal.sosfilt(signal.butter(2, 3000, "highpass", fs=rate, output="sos"), noise).astype(
            np.float32
        )
        return np.asarray((dark * (1 - through) + bright * through) * gain, dtype=np.float32)
    hertz = rng.uniform(100, 300) * 2 ** (through * rng.uniform(1, 3))
    return np.asarray(np.sin(2 * np.pi * np.cumsum(hertz) / rate) * gain * 1.4, dtype=np.float32)
