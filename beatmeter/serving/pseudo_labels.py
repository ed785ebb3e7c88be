"""Pseudo-labels: beats that a model hears, known only where it is sure of them, for another one to learn from
(D.-H. Lee, "Pseudo-Label", 2013; Xie et al., "Self-training with Noisy Student", 2020)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from beatmeter.datasets.annotations import (
    Annotation,
    Grid,
    Provenance,
    read_annotation,
    within,
    write_annotation,
)
from beatmeter.errors import BeatmeterError, DataError, shown
from beatmeter.evaluation.runs import RunFolder
from beatmeter.schema import Curves
from beatmeter.serving.predictor import Seconds
from beatmeter.serving.structure import StructureDetector
from beatmeter.serving.tempo import BEATS
from beatmeter.tasks.structure.decoding import Beats

BARS = 4  # that follow each other, at least
SURE = 0.8


def bar_confidence(curves: Curves, beats: Beats) -> Float[np.ndarray, " bar"]:
    """Of every bar between two downbeats of one track: the mean of the probabilities of its beats and of its
    downbeat, each the highest of three rows."""
    values, start = curves.values[0], float(curves.starts[0])
    rows = np.round((beats.times - start) * curves.rate).astype(int)
    near = np.clip(rows[:, None] + np.arange(-1, 2), 0, max(0, len(values) - 1))
    beat, downbeat = values[near].max(axis=1).T if len(values) else np.zeros((2, len(rows)))
    first = np.flatnonzero(beats.places == 1)
    return np.array([(beat[a:b].sum() + downbeat[a]) / (b - a + 1) for a, b in pairwise(first)])


def pseudo_grid(curves: Curves, beats: Beats, source: str, sure: float = SURE) -> Grid | None:
    """The beats of a track as tier 3, known in stretches of BARS bars or more of which each has a confidence
    of `sure` or more; None where there is no such stretch."""
    confidence, downbeats = bar_confidence(curves, beats), beats.times[beats.places == 1]
    edges = np.flatnonzero(np.diff(np.concatenate([[0], confidence >= sure, [0]]).astype(int)))
    runs = [(a, b) for a, b in edges.reshape(-1, 2) if b - a >= BARS]
    if not runs:
        return None
    # The downbeat after the last bar is known too; the next stretch begins later.
    half = 0.5 * min(float(np.diff(beats.times).min()), 1 / curves.rate)
    known = np.array([[downbeats[a] - half, downbeats[b] + half] for a, b in runs])
    known[:, 0] = np.maximum(known[:, 0], 0.0)
    mean = float(np.concatenate([confidence[a:b] for a, b in runs]).mean())
    by = Provenance(source, tier=3, confidence=round(min(1.0, mean), 3))
    kept = within(beats.times, known)
    return Grid(beats.times[kept], beats.places[kept], known=known, provenance=by)


class Teacher:
    """A run of the task beats (None: the one that ships) that labels music, each track on its own, so that a
    run that was stopped goes on. Raises RunError for what is no such run."""

    def __init__(self, run: Path | None, sure: float, device: torch.device) -> None:
        self._detector, self._sure, run = StructureDetector.load(run, device), sure, run or BEATS
        self.source = f"beatmeter {run.name}"
        weights = hashlib.sha256(RunFolder(run).best.read_bytes()).hexdigest()
        self._about = {"teacher": f"{self.source} {weights[:12]}", "sure": str(sure)}

    def kept(self, paths: Mapping[str, Path], out: Path) -> dict[str, Annotation]:
        """What was heard before of these files, by id. Raises DataError where somebody else's annotation has
        the place of one."""
        found = {}
        for id, path in paths.items():
            file = _place(out, id)
            if not file.is_file():
                continue
            annotation = read_annotation(file)
            if "teacher" not in annotation.meta:
                raise DataError(
                    f"{shown(file)} was not written by a teacher, and would be written over",
                    "Name another folder: --out.",
                )
            if annotation.meta == self._of(path):
                found[id] = annotation
        return found

    def hear(
        self, paths: Mapping[str, Path], out: Path, progress: Seconds
    ) -> Iterator[tuple[str, Annotation | BeatmeterError]]:
        """Every file's annotation, which is kept in `out` (without a grid where nothing is sure), or the
        reason why there is none. `progress(seconds)`: so much more audio has been heard."""
        answers = self._detector.hear_files(paths.values(), 0, progress)
        for (id, path), (_, found) in zip(paths.items(), answers, strict=True):
            if isinstance(found, BeatmeterError):
                yield id, found
                continue
            grid = pseudo_grid(found.curves, found.beats, self.source, self._sure)
            annotation = Annotation(id, found.seconds, grid, meta=self._of(path))
            write_annotation(_place(out, id), annotation)
            yield id, annotation

    def _of(self, path: Path) -> dict[str, str]:
        return {**self._about, "audio": str(path)}


def _place(out: Path, id: str) -> Path:
    return out / "annotations" / f"{id}.json"
