"""What a stream says of synthesised music, and how its belief follows scores, as numbers that programs in
other languages are tested with.

    python tools/golden_stream.py            write tests/serving/golden_stream.json

`pieces`: the audio is `beatmeter.datasets.synth.render(**render)` at 24 kHz (several renders are laid end to
end), pushed in blocks; every answer has its time, scores, `heard` and belief. `beliefs`: scores of windows
that no model gave, with hops left out, and the belief after each; they take no audio.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from beatmeter.datasets.synth import render
from beatmeter.runtime.artifacts import write_json
from beatmeter.serving.predictor import Predictor
from beatmeter.serving.streaming import Heard, MeterStream

FILE = Path(__file__).resolve().parent.parent / "tests" / "serving" / "golden_stream.json"
MODEL, RATE, BLOCK = "spectral-lag", 24_000, 1_600
PIECES: dict[str, list[dict[str, Any]]] = {
    "a meter": [{"seed": 3, "meter": 3, "seconds": 16.0}],
    "a change of meter": [{"seed": 4, "meter": 4, "seconds": 16.0}, {"seed": 8, "meter": 5, "seconds": 16.0}],
}
DIGITS = 7


def audio(renders: Sequence[dict[str, Any]]) -> np.ndarray:
    """(sample,) at 24 kHz."""
    joined: np.ndarray = np.concatenate([render(**r).audio for r in renders]).astype(np.float32)
    return joined


def of_piece(predictor: Predictor, renders: Sequence[dict[str, Any]]) -> list[Heard]:
    """All answers, none of them late."""
    stream = MeterStream(predictor, RATE, predictor.classes, late=float("inf"))
    wave = audio(renders)
    answers = [heard for a in range(0, len(wave), BLOCK) for heard in stream.push(wave[a : a + BLOCK])]
    return answers + stream.finish()


@dataclass(frozen=True)
class _Said:
    scores: np.ndarray
    heard: float | None


class _Scripted:
    """A model whose windows say what was drawn for them, and a clock that stands still but while it gives the
    answer number `slow`: that takes 5.5 s."""

    sample_rate, begin = 100, 0.0

    def __init__(self, said: Sequence[_Said], slow: int) -> None:
        self._said, self._slow = said, slow
        self._answers = self._seen = 0
        self._now = 0.0

    def __call__(self) -> float:
        return self._now

    def windows(self) -> _Scripted:
        return self

    @property
    def covered(self) -> float:
        return self._seen / self.sample_rate

    def push(self, block: np.ndarray, skip: bool = False) -> None:
        self._seen += len(block)

    def finish(self) -> None: ...

    def forget(self, before: float) -> None: ...

    def answers(self, times: np.ndarray) -> list[_Said]:
        self._now += 5.5 if self._answers == self._slow else 0.0
        self._answers += 1
        return [self._said[self._answers - 1]]


def of_scores(seed: int, classes: int, hops: int, tells: bool) -> dict[str, Any]:
    """A belief that follows drawn scores; in the middle an answer takes so long that the next hops are left
    out."""
    rng = np.random.default_rng(seed)
    said = [
        _Said(rng.beta(0.4, 0.8, classes), float(rng.beta(3.0, 0.6)) if tells else None)
        for _ in range(hops + 3)
    ]
    model = _Scripted(said, hops // 2)
    stream = MeterStream(model, 100, [str(i) for i in range(classes)], clock=model)
    heard = [h for _ in range(hops + 6) for h in stream.push(np.zeros(100))]
    return {"classes": classes, "hops": [_answer(h) for h in heard]}


def _answer(h: Heard) -> dict[str, Any]:
    return {
        "time": h.time,
        "meter": h.meter,
        "skipped": h.skipped,
        "scores": np.round(h.scores, DIGITS).tolist(),
        "heard": None if h.heard is None else round(h.heard, DIGITS),
        "belief": np.round(h.belief, DIGITS).tolist(),
    }


def golden() -> dict[str, Any]:
    """All of the file."""
    predictor = Predictor.load(MODEL)
    stream = MeterStream(predictor, RATE, predictor.classes)
    return {
        "format": 1,
        "model": MODEL,
        "classes": list(predictor.classes),
        "sample_rate": RATE,
        "stream": {
            "window": stream.window / RATE,
            "hop": stream.hop / RATE,
            "minimum": stream.minimum / RATE,
            "duration": stream.duration,
        },
        "pieces": {
            name: {"render": renders, "answers": [_answer(h) for h in of_piece(predictor, renders)]}
            for name, renders in PIECES.items()
        },
        "beliefs": [of_scores(1, 6, 12, True), of_scores(2, 3, 8, False)],
    }


if __name__ == "__main__":
    if sys.argv[1:]:
        raise SystemExit(__doc__)
    write_json(FILE, golden())
    print(FILE)
