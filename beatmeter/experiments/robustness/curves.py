"""How accuracy falls as audio gets worse, shorter, faster or slower: one curve for each way of changing
it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from beatmeter.audio.decode import stream
from beatmeter.audio.encode import decode, encode
from beatmeter.errors import AudioError, DataError
from beatmeter.evaluation.metrics import Estimate, share
from beatmeter.runtime.progress import Tick, untold
from beatmeter.schema import Track
from beatmeter.serving.predictor import Predictor

Wave = Float[np.ndarray, " sample"]
Change = Callable[[Wave, int, float, np.random.Generator], Wave]

PIECE = 300.0  # seconds of a track that are held and changed at once
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

    def at(self, rate: int, level: float, rng: np.random.Generator) -> Callable[[Wave], Wave]:
        """The change of waves of `rate` Hz at `level`."""
        return lambda wave: self.change(wave, rate, level, rng)


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
        points = [
            {
                "level": p.level,
                "clips": p.clips,
                "accuracy": [p.accuracy.value, p.accuracy.low, p.accuracy.high],
            }
            for p in self.points
        ]
        return {
            "name": self.name,
            "title": self.title,
            "unit": self.unit,
            "clean": self.clean,
            "points": points,
        }


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
    return decode(
        encode(loud, rate, "MP3", "MPEG_LAYER_III", compression_level=amount, bitrate_mode="CONSTANT")
    )


def keep(wave: Wave, rate: int, level: float, rng: np.random.Generator) -> Wave:
    """The wave itself: of a way that only chooses which `level` seconds are heard, the middle ones."""
    return wave


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
    "length": Way("length of the clip", "s", (5, 7.5, 10, 15, 20, 30, 60), keep),
    "pitch": Way("pitch", "semitones", (-6, -3, 0, 3, 6), shift_pitch, 0),
    "speed": Way("speed", "times as fast", (0.6, 0.8, 1.0, 1.25, 1.6), stretch, 1.0),
    "gain": Way("level", "dB", (-30, -20, -10, 0, 6, 12), change_gain, 0),
}


def robustness(
    predictor: Predictor, tracks: Sequence[Track], ways: Sequence[str] = tuple(WAYS), tick: Tick = untold
) -> list[Curve]:
    """A curve for each of `ways` over labelled `tracks`, then one over tempo when the tracks have a column
    `tempo` or `tempo_qpm` (per minute). Intervals are Wilson's, widened for groups.

    Lengths that a clip does not have are left out for it, so points may rest on different clips: `clips` says
    how many. A track of more than PIECE seconds is changed piece by piece, so memory does not grow with its
    length. Raises DataError for a track that cannot be decoded.
    """
    right: dict[tuple[str, float], dict[str, float]] = {
        (name, level): {} for name in ways for level in WAYS[name].levels
    }
    plain: dict[str, float] = {}
    rate = predictor.scorer.sample_rate
    for number, track in enumerate(tracks):
        try:
            audio = _Audio.of(track, rate)
            plain[track.id] = audio.right(predictor, lambda piece: piece)
            for (name, level), found in right.items():
                way = WAYS[name]
                if name == "length" and audio.samples < level * rate * 0.99:
                    continue
                if level == way.clean:
                    found[track.id] = plain[track.id]
                    continue
                rng = np.random.default_rng([number, round(1000 * level) & 0xFFFFFFFF])
                heard = audio.middle(level) if name == "length" else audio
                found[track.id] = heard.right(predictor, way.at(rate, level, rng))
        except AudioError as error:
            raise DataError(f"track {track.id}: {error}", "See `beatmeter data check`.") from None
        tick(1)
    groups = {t.id: t.group for t in tracks}
    curves = [
        Curve(
            name,
            WAYS[name].title,
            WAYS[name].unit,
            WAYS[name].clean,
            tuple(_point(x, right[name, x], groups) for x in WAYS[name].levels),
        )
        for name in ways
    ]
    curves = [Curve(c.name, c.title, c.unit, c.clean, tuple(p for p in c.points if p.clips)) for c in curves]
    return curves + _over_tempo(tracks, plain, groups)


@dataclass(frozen=True)
class _Audio:
    """A track at `rate` Hz: its `wave`, or None when it is longer than PIECE and is read and changed piece by
    piece."""

    track: Track
    rate: int
    samples: int
    wave: Wave | None

    @classmethod
    def of(cls, track: Track, rate: int) -> _Audio:
        lengths: list[int] = []
        first = None
        for piece in stream(track.path, rate, PIECE):
            first = piece if not lengths else None
            lengths.append(len(piece))
        return cls(track, rate, sum(lengths), first)

    def pieces(self) -> Iterable[Wave]:
        return stream(self.track.path, self.rate, PIECE) if self.wave is None else [self.wave]

    def middle(self, seconds: float) -> _Audio:
        """The middle so many seconds, at most a PIECE."""
        n = min(round(seconds * self.rate), self.samples)
        start, at, parts = (self.samples - n) // 2, 0, []
        for piece in self.pieces():
            parts.append(piece[max(0, start - at) : max(0, start + n - at)].copy())
            at += len(piece)
        return _Audio(self.track, self.rate, n, np.concatenate(parts))

    def right(self, predictor: Predictor, change: Callable[[Wave], Wave]) -> float:
        """1 where the track's meter is heard in its changed pieces, else 0."""
        if self.wave is not None:
            answer = predictor.predict(change(self.wave), self.rate)
        else:  # changed twice: first to know how much there will be of it
            samples = sum(len(change(piece)) for piece in self.pieces())
            answer = predictor.predict_blocks((change(piece) for piece in self.pieces()), samples)
        return float(answer.meter == self.track.primary)


def _point(level: float, right: Mapping[str, float], groups: Mapping[str, str]) -> Point:
    return Point(level, len(right), share(np.array(list(right.values())), [groups[id] for id in right]))


def _over_tempo(
    tracks: Sequence[Track], right: Mapping[str, float], groups: Mapping[str, str]
) -> list[Curve]:
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
    points = tuple(
        _point(middle, found, groups) for middle, found in sorted(bins.items()) if len(found) >= FEWEST
    )
    return [Curve("tempo", "tempo", "per minute", None, points)] if len(points) > 1 else []
