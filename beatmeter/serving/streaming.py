"""Meter while the music plays: push blocks of audio, get the current meter. Memory is one window, and delay
is bounded."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import soxr
from jaxtyping import Float

from beatmeter.errors import EvaluationError
from beatmeter.evaluation.timeline import DURATION, WINDOW, evidence_of

Classify = Callable[[Float[np.ndarray, " sample"], int], Float[np.ndarray, " klass"]]
HOP = 1.0  # seconds between answers
MINIMUM = 4.0  # seconds of audio that the first answer takes
LATE = 2.0  # seconds


class WindowAnswer(Protocol):
    """What a model says of a window: a probability per class, and the probability that there is a meter at
    all."""

    @property
    def scores(self) -> Float[np.ndarray, " klass"]: ...

    @property
    def heard(self) -> float | None: ...


class Ear(Protocol):
    """Audio that is pushed, and what a model says of windows of it between `begin` and `covered`; times are
    seconds from its first sample on. See `predictor.Windows`."""

    sample_rate: int

    @property
    def begin(self) -> float: ...

    @property
    def covered(self) -> float: ...

    def push(self, block: Float[np.ndarray, " sample"], skip: bool = False) -> None: ...

    def finish(self) -> None: ...

    def answers(self, times: Float[np.ndarray, "window 2"]) -> Sequence[WindowAnswer]: ...

    def forget(self, before: float) -> None: ...


class Model(Protocol):
    """A `Predictor`, for one."""

    def windows(self) -> Ear:
        """A new piece begins."""
        ...


@dataclass(frozen=True)
class Heard:
    """What is heard at `time` (seconds since the start): the meter (None: no meter), a probability per class
    that remembers what came before, the gap between the two highest scores of this window, and a second meter
    above its threshold. `skipped` hops before this one came too late and have no answer.

    `belief` (state,) is what the probability is taken from: one of every class, and a last one of no meter
    where the model tells. `heard` is the probability of a meter in this window alone, None where it does not.
    """

    time: float
    meter: str | None
    probability: float
    gap: float
    second: str | None
    scores: Float[np.ndarray, " klass"]
    skipped: int
    belief: Float[np.ndarray, " state"]
    heard: float | None


@dataclass(frozen=True)
class _Plain:
    scores: Float[np.ndarray, " klass"]
    heard: float | None = None


class _Samples:
    """An Ear of a plain function, which hears the samples of every window anew."""

    def __init__(self, classify: Classify, sample_rate: int) -> None:
        self._classify, self.sample_rate = classify, sample_rate
        self._kept = np.zeros(0, dtype=np.float32)
        self._seen = 0

    @property
    def begin(self) -> float:
        return (self._seen - len(self._kept)) / self.sample_rate

    @property
    def covered(self) -> float:
        return self._seen / self.sample_rate

    def push(self, block: Float[np.ndarray, " sample"], skip: bool = False) -> None:
        self._kept = np.concatenate([self._kept, block])
        self._seen += len(block)

    def finish(self) -> None:
        pass

    def answers(self, times: Float[np.ndarray, "window 2"]) -> Sequence[WindowAnswer]:
        first = self._seen - len(self._kept)
        at = [
            (max(0, round(a * self.sample_rate) - first), round(b * self.sample_rate) - first)
            for a, b in times
        ]
        return [
            _Plain(np.asarray(self._classify(self._kept[a:b], self.sample_rate), dtype=np.float64))
            for a, b in at
        ]

    def forget(self, before: float) -> None:
        self._kept = self._kept[max(0, round(before * self.sample_rate) - (self._seen - len(self._kept))) :]


class MeterStream:
    """A stream of audio, heard every `hop` seconds by a `Predictor`, or by a function that gives one
    probability per class of samples.

    The model sees the last `window` seconds, or what there is from `minimum` seconds on. Blocks may have any
    length; what is kept is never longer than a window, a chunk and a block. Time is counted in samples, so it
    does not drift.

    A predictor encodes every chunk once: an answer comes when the chunk that holds its last second is
    complete, so at most a chunk (5 s) after its time. A function hears every window anew, and answers as soon
    as a hop is complete.

    When the work is behind the audio by more than `late` seconds, the chunks and hops that audio completes
    are left out until it has caught up, and of several hops only the newest is answered: `skipped` counts the
    others. It is behind by the seconds spent in `push` that were more than the seconds pushed; time that
    passes between two calls is not lost. `late=math.inf` answers everything.
    """

    def __init__(
        self,
        model: Model | Classify,
        sample_rate: int,
        classes: Sequence[str],
        window: float = WINDOW,
        hop: float = HOP,
        minimum: float = MINIMUM,
        thresholds: Float[np.ndarray, " klass"] | None = None,
        duration: float = DURATION,
        late: float = LATE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not 0 < hop <= window or not 0 < minimum <= window or sample_rate <= 0 or not late >= 0:
            raise EvaluationError(
                f"a stream cannot hear windows of {window:g} s every {hop:g} s from {minimum:g} s on at "
                f"{sample_rate} Hz, {late:g} s late at most"
            )
        self.model, self.sample_rate, self.classes, self.thresholds = (
            model,
            sample_rate,
            tuple(classes),
            thresholds,
        )
        self.window, self.hop, self.minimum = (round(s * sample_rate) for s in (window, hop, minimum))
        self.duration, self.late, self._clock = duration, late, clock
        self.reset()

    def reset(self) -> None:
        """Forget everything: a new piece begins."""
        self._ear: Ear = (
            self.model.windows() if hasattr(self.model, "windows") else _Samples(self.model, self.sample_rate)
        )
        rates = self.sample_rate, self._ear.sample_rate
        self._resampler = (
            soxr.ResampleStream(*rates, 1, dtype="float32", quality="HQ") if rates[0] != rates[1] else None
        )
        self.skipped = 0
        self._behind = 0.0  # seconds
        self._seen = 0
        self._next = self.minimum  # sample at which the next hop ends
        self._since = 0  # hops since the last answer
        self._belief: np.ndarray | None = None

    def push(self, block: Float[np.ndarray, "*sample"]) -> list[Heard]:
        """Take a block of mono audio (sample,) at the stream's rate; gives the answers that it makes
        possible."""
        block = np.asarray(block, dtype=np.float32)
        if block.ndim != 1 or not np.isfinite(block).all():
            raise EvaluationError(f"a block of shape {block.shape} must be mono (sample,), all finite")
        heard: list[Heard] = []
        while len(
            block
        ):  # a hop at a time, so that answers do not depend on the blocks, and what is late is known
            missing = self.hop - (self._seen - self.minimum) % self.hop
            now, block = block[:missing], block[missing:]
            self._seen += len(now)
            self._behind = max(0.0, self._behind - len(now) / self.sample_rate)
            began, late = self._clock(), self._behind > self.late
            self._ear.push(now if self._resampler is None else self._resampler.resample_chunk(now), skip=late)
            self._spent(began)
            heard += self._answers(self._ear.covered, late)
        return heard

    def finish(self) -> list[Heard]:
        """The piece is over: the answers that were waiting for the rest of a chunk."""
        if self._seen < self.minimum:
            return []
        if self._resampler is not None:
            self._ear.push(self._resampler.resample_chunk(np.zeros(0, dtype=np.float32), last=True))
        self._ear.finish()
        return self._answers(self._seen / self.sample_rate, False)

    def _answers(self, covered: float, late: bool) -> list[Heard]:
        """Of the hops that end by then: none when the audio came `late`, else the newest one at least."""
        heard, last = [], math.floor(min(covered * self.sample_rate + 1e-3, self._seen))
        while self._next <= last:
            end, begin = (
                self._next / self.sample_rate,
                max(0.0, (self._next - self.window) / self.sample_rate),
            )
            self._since += 1
            passed = late or (self._behind > self.late and self._next + self.hop <= last)
            if passed or end - max(begin, self._ear.begin) < self.minimum / self.sample_rate - 1e-9:
                self.skipped += 1
            else:
                began = self._clock()
                heard.append(self._hear(begin, end))
                self._spent(began)
            self._next += self.hop
            self._ear.forget(max(0.0, (self._next - self.window) / self.sample_rate))
        return heard

    def _spent(self, began: float) -> None:
        self._behind += self._clock() - began

    def _hear(self, begin: float, end: float) -> Heard:
        (answer,) = self._ear.answers(np.array([[begin, end]]))
        scores = np.asarray(answer.scores, dtype=np.float64)
        if scores.shape != (len(self.classes),):
            raise EvaluationError(
                f"the model gave scores of shape {scores.shape} for {len(self.classes)} classes"
            )
        states = len(scores) + (answer.heard is not None)  # the last is that of no meter
        first, hops = self._belief is None, self._since
        stay = 1.0 if first else float(np.exp(-hops * self.hop / self.sample_rate / self.duration))
        before = np.full(states, 1 / states) if self._belief is None else self._belief
        moved = stay * before + (1 - stay) / max(1, states - 1) * (1 - before)
        belief = moved * np.exp(
            evidence_of(scores, 1.0 if first else min(1.0, hops * self.hop / self.window), answer.heard)
        )
        self._belief = belief = belief / belief.sum()
        self._since = 0
        k = int(belief.argmax())
        order = np.argsort(-scores, kind="stable")
        other = [int(i) for i in order if i != k][:1]
        over = (
            k < len(scores)
            and bool(other)
            and self.thresholds is not None
            and scores[other[0]] > self.thresholds[other[0]]
        )
        gap = float(scores[order[0]] - scores[order[1]]) if len(order) > 1 else 1.0
        return Heard(
            end,
            self.classes[k] if k < len(scores) else None,
            float(belief[k]),
            gap,
            self.classes[other[0]] if over else None,
            scores,
            hops - 1,
            belief,
            answer.heard,
        )
