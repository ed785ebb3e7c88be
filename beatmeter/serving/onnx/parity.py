"""Whether exported graphs say what the model says in torch: of synthesised music in all lengths, of silence,
of one dead channel, of audio at another rate, and of windows that slide."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float

from beatmeter.audio.decode import from_array
from beatmeter.datasets.synth import render
from beatmeter.serving.answer import Answer
from beatmeter.serving.predictor import Predictor

TOLERANCE = 1e-5  # of every probability, calibrated or not
LENGTHS = (
    5.0,
    7.3,
    12.0,
    30.0,
    65.0,
)  # seconds: below a chunk, with a last chunk that overlaps, several windows
SEEDS = (11, 12, 13)  # of the music
WINDOW = 10.0
STARTS = (0.0, 1.0, 3.32, 6.0)  # seconds of windows of 10 s, most of them within a chunk
RATE = 44_100


class Heard(Protocol):
    """A program that hears with the graphs: `hear.Model`."""

    def hear(self, wave: Float[np.ndarray, " sample"]) -> dict[str, Any]: ...

    def states(self, chunk: Float[np.ndarray, " sample"]) -> Float[np.ndarray, "layer frame dim"]: ...

    def answer(
        self, states: Float[np.ndarray, "layer frame dim"], first: int = 0
    ) -> dict[str, np.ndarray]: ...

    def judge(self, found: dict[str, np.ndarray], seconds: float) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Parity:
    """The largest difference of any probability, by case, and the cases in which the answer changes."""

    differences: Mapping[str, float]
    changed: tuple[str, ...]
    tolerance: float = TOLERANCE

    @property
    def largest(self) -> float:
        return max(self.differences.values())

    @property
    def holds(self) -> bool:
        return not self.changed and self.largest <= self.tolerance

    def to_json(self) -> dict[str, Any]:
        """As model.json keeps it."""
        return {
            "tolerance": self.tolerance,
            "largest": self.largest,
            "answers_changed": list(self.changed),
            "cases": dict(self.differences),
        }


def compare(predictor: Predictor, graphs: Heard) -> Parity:
    """Hear all cases with both."""
    differences: dict[str, float] = {}
    changed = []
    for name, raw, told, said in _heard(predictor, graphs):
        differences[name] = difference(raw, told, said)
        if answer_of(told) != (said["meter"], said["sure"], said["second"]):
            changed.append(name)
    return Parity(differences, tuple(changed))


def difference(raw: Float[np.ndarray, " klass"] | None, told: Answer, said: Mapping[str, Any]) -> float:
    """Between the probabilities of an answer, and of what it was calibrated from, and of what `hear.Model`
    gives."""
    pairs = [(told.scores, list(said["scores"].values()))]
    if raw is not None:
        pairs.append((raw, list(said["raw"].values())))
    if told.heard is not None:
        pairs.append((np.array([told.heard]), [said["heard"]]))
    return max(float(np.abs(a - np.array(b)).max()) for a, b in pairs)


def answer_of(told: Answer) -> tuple[str | None, bool, str | None]:
    """What may not change."""
    return told.meter, told.sure, told.second


Case = tuple[str, np.ndarray | None, Answer, dict[str, Any]]


def _heard(predictor: Predictor, graphs: Heard) -> Iterator[Case]:
    rate = predictor.scorer.sample_rate
    for name, wave, own in cases(rate):
        mono = from_array(wave, own, rate)
        scored = predictor.scorer.hear(mono)
        yield (
            name,
            scored.scores,
            predictor.judge(predictor.classes, scored, len(mono) / rate),
            graphs.hear(mono),
        )
    yield from _windows(predictor, graphs)


def cases(rate: int) -> Iterator[tuple[str, Float[np.ndarray, ...], int]]:
    """Name, samples and sample rate of what is heard."""
    for seconds in LENGTHS:
        yield f"{seconds:g} s", music(seconds, rate), rate
    yield "silence", np.zeros(12 * rate, np.float32), rate
    piece = music(12.0, rate, seed=SEEDS[1])
    yield "half silent", np.concatenate([piece[: 6 * rate], np.zeros(6 * rate, np.float32)]), rate
    yield "one dead channel", np.stack([piece, np.zeros_like(piece)], axis=1), rate
    yield "44.1 kHz", music(12.0, RATE, seed=SEEDS[2]), RATE


@lru_cache(maxsize=16)
def music(seconds: float, rate: int, seed: int = SEEDS[0]) -> Float[np.ndarray, " sample"]:
    """Synthesised music of this length."""
    parts = [
        render(seed + 100 * i, seconds=min(seconds, 30.0), sample_rate=rate).audio
        for i in range(math.ceil(seconds / 30.0))
    ]
    wave: np.ndarray = np.concatenate(parts)[: round(seconds * rate)].astype(np.float32)
    return wave


def _windows(predictor: Predictor, graphs: Heard) -> Iterator[Case]:
    rate = predictor.scorer.sample_rate
    wave = music(20.1, rate, seed=SEEDS[1])
    ear = predictor.windows()
    ear.push(wave)
    spec = next(iter(predictor.scorer.members.values())).encoder.encode.spec
    chunk, per_second = spec.chunk, spec.frame_rate
    states = np.concatenate(
        [
            graphs.states(wave[a : a + chunk.length])
            for a in range(0, len(wave) - chunk.length + 1, chunk.hop)
        ],
        axis=1,
    )
    for start in STARTS:
        (told,) = ear.answers(np.array([[start, start + WINDOW]]))
        last = round((start + WINDOW) * per_second)
        first = last - round(WINDOW * per_second)
        found = graphs.answer(states[:, first:last], first)
        yield f"window from {start:g} s", None, told, graphs.judge(found, WINDOW)
