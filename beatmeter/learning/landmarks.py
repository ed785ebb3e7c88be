"""Training of the embeddings that need no labelled music: landmarks of harmony and their map, and the
whitening of features, from synthetic versions of synthetic works."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from beatmeter import __version__
from beatmeter.datasets.synth.versions import render_version
from beatmeter.errors import ConfigError, RunError
from beatmeter.evaluation.metrics.retrieval import average_precision, rank
from beatmeter.features.alignment import RULE, Chroma, ready, scores
from beatmeter.features.landmarks import AVERAGE, Landmarks, levelled, whitened
from beatmeter.features.views import views_of, views_spec
from beatmeter.features.whitening import KIND, Whitening, joined, layers_of
from beatmeter.runtime.parallel import Crash, ordered
from beatmeter.runtime.progress import SILENT, Reporter

MOST_WORKS = 1000  # landmarks are numbered after them
RIDGES = (0.05, 0.2, 0.5, 1.0, 2.0)


@dataclass(frozen=True)
class Plan:
    """`works` are trained on with `versions` each, `landmarks` others are aligned with, in the versions in
    turn; `seconds` of every clip. Works are numbered from `seed` << 32 on."""

    works: int = 390
    versions: int = 4
    landmarks: int = 512
    seconds: float = 20.0
    seed: int = 7

    def __post_init__(self) -> None:
        if (
            self.works < 4
            or self.versions < 2
            or not 8 <= self.landmarks <= 4096
            or not 2 <= self.seconds <= 600
        ):
            hint = "4 to 1000 works of 2 versions or more, 8 to 4096 landmarks, 2 to 600 s."
            raise ConfigError(f"no embedding can be learned by {asdict(self)}", hint)


def fit(plan: Plan, jobs: int = 1, progress: Reporter = SILENT) -> Landmarks:
    """Render, align, whiten. The ridge is the one with the best mean average precision on the second half
    of the works when the first half is trained on; then all works are."""
    first = plan.seed << 32
    clips = [(first + MOST_WORKS + n, n % plan.versions) for n in range(plan.landmarks)]
    pieces = [ready(c, AVERAGE) for c in _each(_chroma, clips, plan, jobs, progress, "rendering landmarks")]
    versions = [(first + w, v) for w in range(plan.works) for v in range(plan.versions)]
    with_pieces = partial(_heard, pieces)
    heard = np.stack(list(_each(with_pieces, versions, plan, jobs, progress, "aligning versions")))
    return learned(plan, pieces, heard, [str(w) for w, _ in versions])


def fit_whitening(plan: Plan, jobs: int = 1, progress: Reporter = SILENT) -> Whitening:
    """Render, encode, whiten; the ridge is chosen as that of `fit`."""
    first = plan.seed << 32
    versions = [(first + w, v) for w in range(plan.works) for v in range(plan.versions)]
    layers = np.stack(list(_each(_layers, versions, plan, jobs, progress, "encoding versions")))
    works = [str(w) for w, _ in versions]
    half = np.arange(len(works)) // plan.versions % 2 == 0
    x = joined(layers, layers.mean(axis=0), np.maximum(layers.std(axis=0), 1e-6))
    found = {ridge: held_out_precision(x, works, half, ridge) for ridge in RIDGES}
    ridge = max(found, key=lambda r: found[r])
    model = Whitening.learned(layers, works, ridge)
    return replace(model, about={"kind": KIND, **_about(plan, ridge, found, model.matrix.shape[1])})


def learned(plan: Plan, pieces: Sequence[Chroma], heard: np.ndarray, works: Sequence[str]) -> Landmarks:
    """The model from the scores `heard` (version, landmark) of versions of `works`, which follow each
    other."""
    heard = levelled(heard)
    half = np.arange(len(works)) // plan.versions % 2 == 0
    found = {ridge: held_out_precision(heard, works, half, ridge) for ridge in RIDGES}
    ridge = max(found, key=lambda r: found[r])
    model = whitened(heard, works, ridge)
    matrix = model.matrix / np.abs(model.matrix).max()  # in the range of float16; lengths do not matter
    about: dict[str, Any] = {
        "kind": "harmony landmarks",
        "alignment": asdict(RULE),
        **_about(plan, ridge, found, matrix.shape[1]),
        "features": views_spec().only(("chroma",)).to_json(),
    }
    return replace(model, pieces=tuple(pieces), matrix=matrix, about=about)


def _about(plan: Plan, ridge: float, found: Mapping[float, float], dim: int) -> dict[str, Any]:
    return {
        "made_by": f"beatmeter {__version__}",
        "licence": "MIT",
        "trained_on": "synthetic versions of synthetic works",
        "plan": asdict(plan),
        "ridge": ridge,
        "held_out_map": {str(r): round(value, 4) for r, value in found.items()},
        "dim": dim,
    }


def _layers(plan: Plan, of: tuple[int, int]) -> np.ndarray:
    return layers_of(render_version(*of, seconds=plan.seconds).clip.audio)


def _chroma(plan: Plan, of: tuple[int, int]) -> Chroma:
    audio = render_version(*of, seconds=plan.seconds).clip.audio
    return views_of(audio).chroma


def _heard(pieces: Sequence[Chroma], plan: Plan, of: tuple[int, int]) -> np.ndarray:
    return scores(ready(_chroma(plan, of), AVERAGE), pieces)


def _each(
    function: Any, clips: Sequence[tuple[int, int]], plan: Plan, jobs: int, progress: Reporter, label: str
) -> Iterator[np.ndarray]:
    with progress.track(label, len(clips)) as tick:
        for outcome in ordered(partial(function, plan), clips, jobs):
            if isinstance(outcome, Crash):
                raise RunError("a process died while it rendered", "Run again. Is there enough memory?")
            tick(1)
            yield outcome


def held_out_precision(heard: np.ndarray, works: Sequence[str], half: np.ndarray, ridge: float) -> float:
    """Mean average precision among the versions outside `half`, by a map that was found inside it."""
    model = whitened(heard[half], [w for w, inside in zip(works, half, strict=True) if inside], ridge)
    vectors = ((heard[~half] - model.mean) / model.deviation) @ model.matrix
    vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    held_out = [w for w, inside in zip(works, half, strict=True) if not inside]
    return float(np.nanmean(average_precision(rank(vectors @ vectors.T, held_out))))
