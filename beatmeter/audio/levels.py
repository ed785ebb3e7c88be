"""Is there music in these samples? Running checks while a file is read, so that silence never stands in for a
broken file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float32

from beatmeter.audio.reader import decibels
from beatmeter.errors import AudioError, shown

SILENCE = (
    1e-4  # rms relative to full scale, -80 dB: above dither and 16-bit rounding, far below the quietest music
)
SILENT_SHARE = 0.9  # a file in which more of its seconds are silent than this holds no music to speak of
LOUDEST = 2.0**31  # floats that nobody scaled from 32-bit integers; beyond it they are no audio


class Levels:
    """Mixes blocks down to mono (the mean of the channels) and keeps count of what it sees, in a few numbers
    a second.

    `finish` raises AudioError (kind silent) when the whole file, or more than SILENT_SHARE of its seconds,
    stays below SILENCE once its constant part is taken away.
    """

    def __init__(self, path: Path, sample_rate: int) -> None:
        self.path, self.sample_rate = path, sample_rate
        self.samples = 0
        self._channel_energy = 0.0
        self._seconds: list[tuple[float, float, int]] = []  # sum, sum of squares, samples of every second
        self._open = (0.0, 0.0, 0)

    def mix(self, block: Float32[np.ndarray, "frame channel"]) -> Float32[np.ndarray, " frame"]:
        """The block in mono. Raises AudioError (kind damaged) for samples that are not finite or far too
        large."""
        mono = _mean_of_channels(block)
        if not np.abs(block).max(initial=0.0) <= LOUDEST:  # not >: NaN compares false
            raise self._damaged(block)
        if block.shape[1] > 1:
            first = block[:, 0].astype(np.float64)
            self._channel_energy += float(first.var()) * len(first)
        self._count(mono.astype(np.float64))
        return mono

    def _damaged(self, block: np.ndarray) -> AudioError:
        bad = ~(np.abs(block) <= LOUDEST).all(axis=1)
        at = (self.samples + int(bad.argmax())) / self.sample_rate
        what = (
            "samples far beyond full scale"
            if np.isfinite(block).all()
            else "samples that are not finite (NaN or infinite)"
        )
        return AudioError(
            f"{shown(self.path)} holds {what}, the first at {at:.3f} s",
            "Convert it again from its source.",
            kind="damaged",
        )

    def _count(self, mono: np.ndarray) -> None:
        edges = np.arange(-self.samples % self.sample_rate, len(mono), self.sample_rate)
        starts = edges if len(edges) and edges[0] == 0 else np.concatenate([[0], edges])
        if len(mono):
            sums, squares = np.add.reduceat(mono, starts), np.add.reduceat(mono * mono, starts)
            lengths = np.diff(starts, append=len(mono))
            for start, total, square, n in zip(
                starts.tolist(), sums.tolist(), squares.tolist(), lengths.tolist(), strict=True
            ):
                if (self.samples + start) % self.sample_rate == 0 and self._open[2]:
                    self._seconds.append(self._open)
                    self._open = (0.0, 0.0, 0)
                self._open = (self._open[0] + total, self._open[1] + square, self._open[2] + n)
        self.samples += len(mono)

    @property
    def rms(self) -> float:
        """Root mean square around the mean, over all samples so far."""
        return _rms([*self._seconds, self._open])

    @property
    def silent_share(self) -> float:
        """Share of the seconds whose rms around their mean is below SILENCE; a last part below half a second
        does not count."""
        whole = (
            self._seconds
            if self._seconds and self._open[2] < self.sample_rate / 2
            else [*self._seconds, self._open]
        )
        return sum(_rms([second]) < SILENCE for second in whole) / len(whole)

    def finish(self) -> None:
        """Raise AudioError (kind silent) when there was nothing to hear."""
        if self.rms < SILENCE:
            raise AudioError(
                f"{shown(self.path)} is {self._kind_of_silence()}",
                "Leave it out, or fetch it again.",
                kind="silent",
            )
        if self.silent_share > SILENT_SHARE:
            what = (
                f"mostly silent: {self.silent_share:.0%} of its seconds are below {decibels(SILENCE):.0f} dB"
            )
            raise AudioError(f"{shown(self.path)} is {what}", "Cut out the part with music.", kind="silent")

    def _kind_of_silence(self) -> str:
        if self._channel_energy > self.samples * SILENCE**2:
            return "silent in mono: its channels cancel each other out"
        mean = sum(part[0] for part in [*self._seconds, self._open]) / max(1, self.samples)
        if abs(mean) > SILENCE:
            return f"a constant level of {mean:.3g} and nothing else"
        if self.rms == 0:
            return "silent"
        return f"silent: {decibels(self.rms):.0f} dB rms, the floor is {decibels(SILENCE):.0f} dB"


def _mean_of_channels(block: Float32[np.ndarray, "frame channel"]) -> Float32[np.ndarray, " frame"]:
    if block.shape[1] == 1:
        return block[:, 0]
    if (
        block.shape[1] == 2
    ):  # the same numbers, without a sum over an axis of two, which costs as much as decoding
        both: np.ndarray = (block[:, 0] + block[:, 1]) * np.float32(0.5)
        return both
    mean: np.ndarray = block.mean(axis=1, dtype=np.float32)
    return mean


def _rms(parts: list[tuple[float, float, int]]) -> float:
    n = sum(p[2] for p in parts)
    if n == 0:
        return 0.0
    mean = sum(p[0] for p in parts) / n
    return float(np.sqrt(max(0.0, sum(p[1] for p in parts) / n - mean * mean)))
