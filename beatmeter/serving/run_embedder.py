"""A trained model of similarity as what makes vectors of waves."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from beatmeter.audio.decode import SAMPLE_RATE, from_array
from beatmeter.errors import ConfigError
from beatmeter.evaluation.runs import RunFolder
from beatmeter.runtime.artifacts import read_bytes
from beatmeter.serving.predictor import Predictor

LARGEST = 8 << 30  # bytes of a checkpoint


class RunEmbedder:
    """The best epoch of a run of `task.name=similarity`. A process that is handed one loads it itself."""

    def __init__(self, run: Path) -> None:
        """Raises RunError for a run that cannot be read, ConfigError for one of another task."""
        self.run = run
        kind = self._predictor.column
        if kind is None or kind.kind != "embedding":
            raise ConfigError(
                f"{run} is no model of similarity: it gives no vectors",
                "Train one: beatmeter train --frozen DATA --set task.name=similarity",
            )
        self.digest = hashlib.sha256(read_bytes(RunFolder(run).best, largest=LARGEST)).hexdigest()
        self.about: Mapping[str, Any] = {"kind": "run", "run": run.resolve().name}

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_predictor"}

    @cached_property
    def _predictor(self) -> Predictor:
        return Predictor.load(self.run)

    def vectors(
        self, wave: Float[np.ndarray, " sample"], times: Float[np.ndarray, "part 2"]
    ) -> Float[np.ndarray, "part dim"]:
        """Vectors, float32, of the parts of a mono wave at 24 kHz that begin and end at `times` (s); nan is
        the whole. On one thread and part by part: the same bits in any batch and process."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return np.stack([self._vector(wave, start, end) for start, end in times])
        finally:
            torch.set_num_threads(threads)

    def _vector(self, wave: np.ndarray, start: float, end: float) -> Float[np.ndarray, " dim"]:
        if not np.isnan(start):
            wave = wave[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)]
        scorer = self._predictor.scorer
        found: np.ndarray = scorer.hear(from_array(wave, SAMPLE_RATE, scorer.sample_rate)).scores
        return found.astype(np.float32)
