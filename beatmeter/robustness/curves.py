"""How accuracy falls as audio gets worse, shorter, faster or slower: one curve for each way of changing it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from beatmeter.audio.decode import load
from beatmeter.audio.encode import decode, encode
from beatmeter.errors import AudioError, DataError
from beatmeter.metrics import Estimate, share
from beatmeter.predictor import Predictor
from beatmeter.schema import Track

Wave = Float[np.ndarray, " sample"]
Change = Callable[[Wave, int, float, np.random.Generator], Wave]
Progress = Callable[[int], object]

FEWEST = 5  # clips that a point of the tempo curve needs
MP3_FASTEST = 160.0  # kb/s, the highest of MPEG-2 Layer III, which is what rates below 32 kHz are encoded as


@dataclass(frozen=True)
class Way:
    """One way of changing audio: `levels` in `unit`, the one that changes nothing (if any) in `clean`."""

    title: str
    unit: str
    levels: tuple[float, ...]
    change: Change
    clean: float | None = None


@dataclass(frozen=True)
class Point:
    """Accuracy of the same clips (or those that fit) at one level."""

    level: float
    clips: int
    accuracy: Estimate


@dataclass(frozen=True)
class Curve:
    """Accuracy by level. `clean` is the level of untouched audio."""

    name: str
    title: str
    unit: str
    clean: float | None
    points: tuple[Point, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        points = [{"level": p.level, "clips": p.clips, "accuracy": [p.accuracy.value, p.accuracy.low, p.accuracy.high]} for p in self.points]
        return {"name": self.name, "title": self.title, "unit": self.unit, "clean": self.clean, "points": points}


def add_noise(wave: Wave, rate: int, level: float, rng: np.random.Generator) -> Wave:
    """White noise at a signal-to-noise ratio of `level` dB."""
    rms = np.sqrt(np.mean(np.square(wave, dtype=np.float64)))
    noisy: Wave = (wave + rms * 10 ** (-level / 20) * rng.standard_normal(len(wave))).astype(np.float32)
    return noisy


def encode_mp3(wave: Wave, rate: int, level: float, rng: np.random.Generator) -> Wave:
    """Through MP3 at a constant `level` kb/s and back."""
    if not 8 <= level <= MP3_FASTEST:
        raise AudioError(f"an MP3 of {rate} Hz has 8 to {MP3_FASTEST:g} kb/s, not {level:g}")
    loud = wave / max(1.0, float(np.abs(wave).max(initial=0.0)))
    amount = 1 - level / MP3_FASTEST
    return decode(encode(loud, rate, "MP3", "MPEG_LAYER_III", compression_level=amount, bitrate_mode="CONSTANT"))


def shorten(wave: Wave, rate: int, level: float, rng: np.random.Generator) -> Wave:
    """The middle `level` seconds."""
    n = min(round(level * rate), len(wave))
    start = (len(wave) - n) // 2
    return wave[start : start + n]


def shift_pitch(wave: Wave, rate: int, level: float, rng: np.random.Generator) -> Wave:
    """Up by `level` semitones, by resampling a stretched wave: time stays."""
    from librosa.effects import pitch_shift

    return wave if level == 0 else np.asarray(pitch_shift(wave, sr=rate, n_steps=level), dtype=np.float32)


def stretch(wave: Wave, rate: int, level: float, rng: np.random.Generator) -> Wave:
    """Faster by the factor `level`, pitch stays (phase vocoder)."""
    from librosa.effects import time_stretch

    return wave if level == 1 else np.asarray(time_stretch(wave, rate=level), dtype=np.float32)


def change_gain(wave: Wave, rate: int, level: float, rng: np.random.Generator) -> Wave:
    """Louder by `level` dB, cut off at full scale as a recorder would."""
    return np.clip(wave * 10 ** (level / 20), -1, 1).astype(np.float32)


WAYS: Mapping[str, Way] = {
    "noise": Way("white noise", "dB signal to noise", (0, 5, 10, 15, 20, 25, 30), add_noise),
    "mp3": Way("MP3", "kb/s", (64, 96, 128), encode_mp3),
    "length": Way("length of the clip", "s", (5, 7.5, 10, 15, 20, 30, 60), shorten),
    "pitch": Way("pitch", "semitones", (-6, -3, 0, 3, 6), shift_pitch, 0),
    "speed": Way("speed", "times as fast", (0.6, 0.8, 1.0, 1.25, 1.6), stretch, 1.0),
    "gain": Way("level", "dB", (-30, -20, -10, 0, 6, 12), change_gain, 0),
}


def robustness(predictor: Predictor, tracks: Sequence[Track], ways: Sequence[str] = tuple(WAYS), progress: Progress = lambda n: None) -> list[Curve]:
    """A curve for each of `ways` over labelled `tracks`, then one over tempo when the tracks have a column `tempo` or
    `tempo_qpm` (per minute). Intervals are Wilson's, widened for groups.

    Lengths that a clip does not have are left out for it, so points may rest on different clips: `clips` says how many.
    Raises DataError for a track that cannot be decoded.
    """
    right: dict[tuple[str, float], dict[str, float]] = {(name, level): {} for name in ways for level in WAYS[name].levels}
    plain: dict[str, float] = {}
    rate = predictor.scorer.sample_rate
    for number, track in enumerate(tracks):
        try:
            wave = load(track.path, rate)
        except AudioError as error:
            raise DataError(f"track {track.id}: {error}", "See `beatmeter data check`.") from None
        plain[track.id] = _right(predictor, wave, rate, track)
        for (name, level), found in right.items():
            way = WAYS[name]
            if name == "length" and len(wave) < level * rate * 0.99:
                continue
            rng = np.random.default_rng([number, round(1000 * level) & 0xFFFFFFFF])
            found[track.id] = plain[track.id] if level == way.clean else _right(predictor, way.change(wave, rate, level, rng), rate, track)
        progress(1)
    groups = {t.id: t.group for t in tracks}
    curves = [
        Curve(name, WAYS[name].title, WAYS[name].unit, WAYS[name].clean, tuple(_point(x, right[name, x], groups) for x in WAYS[name].levels))
        for name in ways
    ]
    curves = [Curve(c.name, c.title, c.unit, c.clean, tuple(p for p in c.points if p.clips)) for c in curves]
    return curves + _over_tempo(tracks, plain, groups)


def _right(predictor: Predictor, wave: Wave, rate: int, track: Track) -> float:
    return float(predictor.predict(wave, rate).meter == track.primary)


def _point(level: float, right: Mapping[str, float], groups: Mapping[str, str]) -> Point:
    return Point(level, len(right), share(np.array(list(right.values())), [groups[id] for id in right]))


def _over_tempo(tracks: Sequence[Track], right: Mapping[str, float], groups: Mapping[str, str]) -> list[Curve]:
    """Untouched clips in half-octave bins of their tempo."""
    tempo: dict[str, float] = {}
    for t in tracks:
        text = t.extra.get("tempo") or t.extra.get("tempo_qpm") or ""
        if text.replace(".", "", 1).isdigit():
            tempo[t.id] = float(text)
    bins: dict[float, dict[str, float]] = {}
    for id, value in tempo.items():
        middle = float(np.round(60 * 2 ** (np.round(2 * np.log2(value / 60)) / 2), 1))
        bins.setdefault(middle, {})[id] = right[id]
    points = tuple(_point(middle, found, groups) for middle, found in sorted(bins.items()) if len(found) >= FEWEST)
    return [Curve("tempo", "tempo", "per minute", None, points)] if len(points) > 1 else []
