"""Meter while the music plays: push blocks of audio, get the current meter. Memory is one window, delay at most one hop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from beatmeter.errors import EvaluationError
from beatmeter.timeline import DURATION, WINDOW, Classify, evidence_of


@dataclass(frozen=True)
class Heard:
    """What is heard at `time` (seconds since the start): the meter, a probability per class that remembers what came before,
    the gap between the two highest scores of this window, and a second meter above its threshold."""

    time: float
    meter: str
    probability: float
    gap: float
    second: str | None
    scores: Float[np.ndarray, " klass"]


class MeterStream:
    """A stream of audio, heard every `hop` seconds by a model that gives one probability per class.

    The model sees the last `window` seconds, or what there is from `minimum` seconds on. Blocks may have any length; what is
    kept is never longer than a window and a hop. Time is counted in samples, so it does not drift.
    """

    def __init__(
        self,
        classify: Classify,
        sample_rate: int,
        classes: Sequence[str],
        window: float = WINDOW,
        hop: float = 1.0,
        minimum: float = 4.0,
        thresholds: Float[np.ndarray, " klass"] | None = None,
        duration: float = DURATION,
    ) -> None:
        if not 0 < hop <= window or not 0 < minimum <= window or sample_rate <= 0:
            raise EvaluationError(f"a stream cannot hear windows of {window:g} s every {hop:g} s from {minimum:g} s on at {sample_rate} Hz")
        self.classify, self.sample_rate, self.classes, self.thresholds = classify, sample_rate, tuple(classes), thresholds
        self.window, self.hop, self.minimum = (round(s * sample_rate) for s in (window, hop, minimum))
        self.duration = duration
        self.reset()

    def reset(self) -> None:
        """Forget everything: a new piece begins."""
        self._kept = np.zeros(0, dtype=np.float32)
        self._seen = 0
        self._next = self.minimum
        self._belief = np.full(len(self.classes), 1 / len(self.classes))

    def push(self, block: Float[np.ndarray, "*sample"]) -> list[Heard]:
        """Take a block of mono audio (sample,) at the stream's rate; gives an answer for every hop that it completes."""
        block = np.asarray(block, dtype=np.float32)
        if block.ndim != 1 or not np.isfinite(block).all():
            raise EvaluationError(f"a block of shape {block.shape} must be mono (sample,), all finite")
        heard = []
        while len(block):
            missing = self._next - self._seen
            now, block = block[:missing], block[missing:]
            self._kept = np.concatenate([self._kept, now])[-self.window :]
            self._seen += len(now)
            if self._seen == self._next:
                heard.append(self._hear())
                self._next += self.hop
        return heard

    def _hear(self) -> Heard:
        scores = np.asarray(self.classify(self._kept, self.sample_rate), dtype=np.float64)
        if scores.shape != (len(self.classes),):
            raise EvaluationError(f"the model gave scores of shape {scores.shape} for {len(self.classes)} classes")
        first = self._next == self.minimum
        stay = 1.0 if first else float(np.exp(-self.hop / self.sample_rate / self.duration))
        moved = stay * self._belief + (1 - stay) / max(1, len(scores) - 1) * (1 - self._belief)
        belief = moved * np.exp(evidence_of(scores, 1.0 if first else self.hop / self.window))
        self._belief = belief / belief.sum()
        k = int(self._belief.argmax())
        order = np.argsort(-scores, kind="stable")
        other = [int(i) for i in order if i != k][:1]
        over = bool(other) and self.thresholds is not None and scores[other[0]] > self.thresholds[other[0]]
        gap = float(scores[order[0]] - scores[order[1]]) if len(order) > 1 else 1.0
        return Heard(
            self._seen / self.sample_rate,
            self.classes[k],
            float(self._belief[k]),
            gap,
            self.classes[other[0]] if over else None,
            scores,
        )
