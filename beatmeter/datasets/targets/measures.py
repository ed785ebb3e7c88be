"""The proxy targets of one recording: fourteen numbers that do not change with its level, and two null
columns.

All are of a mono wave at 24 kHz in frames of 2048 samples every 512 (21 ms). Levels are in dB and no lower
than 60 dB under the loudest frame. Every target that a factor on the samples would change is replaced by a
form in dB or relative to a mean."""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

RATE, HOP, FRAME = 24_000, 512, 2048  # Hz, samples, samples
VERSION = 1  # of the numbers; a change of any definition counts it up
FLOOR_DB = 60.0  # under the loudest frame
MEL_BANDS, MEL_FLOOR_DB = 64, 80.0  # the floor is under the loudest band of the loudest frame
LEAST_NOTES = 4  # onsets, or borders of phrases, that a statistic over them needs


@dataclass(frozen=True)
class Target:
    """A column: its unit, what it is, and the seconds of audio below which it is not defined."""

    name: str
    unit: str
    about: str
    least: float = 1.0


TARGETS = (
    Target("centroid", "log2 Hz", "mean spectral centroid"),
    Target("rolloff", "log2 Hz", "mean frequency below which 85 % of the magnitude lies"),
    Target("bandwidth", "log2 Hz", "mean spectral standard deviation about the centroid"),
    Target("zero_crossings", "log2 1/s", "zero crossings a second"),
    Target("onset_density", "1/s", "onsets a second"),
    Target("tempo", "log2 bpm", "tempo of librosa's beat tracker, folded into 80 to 160 bpm", 10.0),
    Target("dynamic_range", "log2 dB", "95th minus 10th percentile of the frames' level"),
    Target("dynamic_deviation", "log2 dB", "standard deviation of the frames' level"),
    Target("rise", "log2 dB/s", "mean rise of the level, smoothed over 0.5 s, where it rises"),
    Target("fall", "log2 dB/s", "mean fall of the level, smoothed over 0.5 s, where it falls"),
    Target("attack", "", "mean onset envelope at the onsets over its mean"),
    Target("sharpness", "", "mean growth of the onset envelope in the 64 ms before an onset over its mean"),
    Target("harmonic_complexity", "bit", "entropy of the mean chroma, each frame of sum 1", 20.0),
    Target(
        "phrase_regularity",
        "",
        "1 / (1 + coefficient of variation of the distances between novelty peaks)",
        60.0,
    ),
    Target("null_level", "dB", "null column: level of the whole recording, which says nothing of the music"),
    Target("null_random", "", "null column: a normal number that the id decides"),
)
DROPPED = {"phrases": "the number of phrases by a fixed number of clusters is a constant"}


def measure(
    wave: Float32[np.ndarray, " sample"], name: str
) -> tuple[dict[str, float], dict[str, str], Float32[np.ndarray, " band"]]:
    """Values by target, reasons by target for those that are not defined, and the mel statistics: mean and
    standard deviation over time of MEL_BANDS log-mel bands, the baseline of every probe.

    `name` is the id, which decides the random null column. Silence defines nothing.
    """
    import librosa

    seconds = len(wave) / RATE
    values: dict[str, float] = {}
    why: dict[str, str] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        magnitude = np.abs(librosa.stft(wave, n_fft=FRAME, hop_length=HOP))
        power = magnitude**2
        bands = librosa.feature.melspectrogram(S=power, sr=RATE, n_mels=MEL_BANDS)
        mel = 10 * np.log10(np.maximum(bands, 1e-20))
        mel = np.maximum(mel, mel.max() - MEL_FLOOR_DB)
        level = 10 * np.log10(np.maximum(power.sum(axis=0), 1e-20))
        sounding = level > level.max() - FLOOR_DB
        if level.max() <= -150:
            why = {t.name: "the recording is silent" for t in TARGETS}
        else:
            level = np.maximum(level, level.max() - FLOOR_DB)
            values |= _timbre(wave, magnitude[:, sounding])
            values |= _dynamics(level)
            values |= _onsets(mel, seconds)
            values |= _harmony(power, sounding, seconds)
            values["null_level"] = float(
                10 * np.log10(max(float(np.mean(np.square(wave, dtype=np.float64))), 1e-20))
            )
            values["null_random"] = _random(name)
    for target in TARGETS:
        if target.name not in why and seconds < target.least:
            why[target.name] = f"needs {target.least:g} s of audio"
        elif target.name not in why and not math.isfinite(values.get(target.name, math.nan)):
            why[target.name] = "nothing rises, falls, begins or returns in it"
    kept = {t.name: values[t.name] for t in TARGETS if t.name not in why}
    return kept, why, np.concatenate([mel.mean(axis=1), mel.std(axis=1)]).astype(np.float32)


def _timbre(wave: np.ndarray, magnitude: np.ndarray) -> Mapping[str, float]:
    import librosa

    of = {"S": magnitude, "sr": RATE, "n_fft": FRAME, "hop_length": HOP}
    crossings = float(np.count_nonzero(np.diff(np.signbit(wave)))) * RATE / len(wave)
    return {
        "centroid": _log2(librosa.feature.spectral_centroid(**of).mean()),
        "rolloff": _log2(librosa.feature.spectral_rolloff(**of).mean()),
        "bandwidth": _log2(librosa.feature.spectral_bandwidth(**of).mean()),
        "zero_crossings": _log2(crossings),
    }


def _dynamics(level: np.ndarray) -> Mapping[str, float]:
    width = max(1, round(0.5 * RATE / HOP))
    smooth = np.convolve(level, np.ones(width) / width, mode="valid") if len(level) >= 2 * width else level
    slope = np.diff(smooth) * RATE / HOP
    up, down = slope[slope > 0], slope[slope < 0]
    return {
        "dynamic_range": _log2(np.subtract(*np.percentile(level, [95, 10]))),
        "dynamic_deviation": _log2(level.std()),
        "rise": _log2(up.mean()) if len(up) else math.nan,
        "fall": _log2(-down.mean()) if len(down) else math.nan,
    }


def _onsets(mel: np.ndarray, seconds: float) -> Mapping[str, float]:
    from librosa.feature import tempo as tempo_of
    from librosa.onset import onset_detect, onset_strength

    envelope = onset_strength(S=mel - mel.max(), sr=RATE, hop_length=HOP)
    at = onset_detect(onset_envelope=envelope, sr=RATE, hop_length=HOP)
    found = {"onset_density": len(at) / seconds}
    mean = float(envelope.mean())
    if len(at) >= LEAST_NOTES and mean > 0:
        found["attack"] = float(envelope[at].mean()) / mean
        found["sharpness"] = float((envelope[at] - envelope[np.maximum(at - 3, 0)]).mean()) / mean
        # what beat_track begins with
        tempo = float(tempo_of(onset_envelope=envelope, sr=RATE, hop_length=HOP)[0])
        if tempo > 0:
            found["tempo"] = math.log2(80) + (math.log2(tempo / 80) % 1.0)
    return found


def _harmony(power: np.ndarray, sounding: np.ndarray, seconds: float) -> Mapping[str, float]:
    import librosa

    chroma = librosa.feature.chroma_stft(S=power, sr=RATE, n_fft=FRAME, hop_length=HOP, norm=1, tuning=0.0)
    mean = chroma[:, sounding].mean(axis=1)
    share = mean / max(float(mean.sum()), 1e-12)
    found = {"harmonic_complexity": float(-(share * np.log2(np.maximum(share, 1e-12))).sum())}
    if seconds >= 60.0:
        found["phrase_regularity"] = _regularity(chroma)
    return found


def _regularity(chroma: np.ndarray) -> float:
    """Of the peaks of Foote's checkerboard novelty (ICME 2000) of chroma at 2 Hz, 8 s on each side."""
    step = round(0.5 * RATE / HOP)
    slow = chroma[:, : chroma.shape[1] // step * step].reshape(12, -1, step).mean(axis=2)
    slow = slow / np.maximum(np.linalg.norm(slow, axis=0), 1e-9)
    half = 16
    like = slow.T @ slow
    sign = np.kron([[1, -1], [-1, 1]], np.ones((half, half)))
    positions = range(half, len(like) - half)
    novelty = np.array([(like[i - half : i + half, i - half : i + half] * sign).sum() for i in positions])
    middle = np.arange(1, len(novelty) - 1)
    peaks = [i for i in middle if novelty[i] == novelty[max(0, i - 8) : i + 9].max() > novelty.mean()]
    gaps = np.diff(peaks)
    return float(1 / (1 + gaps.std() / gaps.mean())) if len(peaks) >= LEAST_NOTES else math.nan


def _random(name: str) -> float:
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
    return float(np.random.default_rng(int.from_bytes(digest[:8], "little")).normal())


def _log2(value: float) -> float:
    return float(np.log2(max(float(value), 1e-6)))
