"""Audio files to embeddings: one vector a track, or one for every part of it, with what explains a likeness.

The vector of a file is the same, bit for bit, in any batch, process and order: every file goes through on its
own, on one thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float

from beatmeter.audio.ahead import decode_ahead
from beatmeter.audio.decode import SAMPLE_RATE
from beatmeter.datasets.columns import require_columns, text_of
from beatmeter.errors import AudioError, ConfigError, DataError, RunError
from beatmeter.evaluation.runs import RunFolder
from beatmeter.features.landmarks import ABOUT, SHIPPED, Landmarks
from beatmeter.features.views import Views, seconds_of, views_of
from beatmeter.features.whitening import KIND, Whitening
from beatmeter.runtime.artifacts import read_json
from beatmeter.runtime.display import count
from beatmeter.runtime.parallel import Crash, ordered
from beatmeter.runtime.progress import SILENT, Reporter
from beatmeter.schema import Embeddings, Track
from beatmeter.serving.run_embedder import RunEmbedder

HARMONY = "harmony"
PART, STEP = 20.0, 10.0  # s: length of the parts of `level="chunk"`, and from one to the next
VIEWS = (("rhythm", 160), ("timbre", 64), ("level", 2))
LONGEST = 3600.0  # s

Level = Literal["track", "chunk"]
Model = Landmarks | Whitening | RunEmbedder


@dataclass(frozen=True)
class Embedded:
    """One file: `vectors` (part, dim), `times` (part, 2) in seconds (nan for the whole), its chroma by
    part, and its views (part, size) side by side as `VIEWS` lists them."""

    vectors: Float[np.ndarray, "part dim"]
    times: Float[np.ndarray, "part 2"]
    chroma: tuple[Float[np.ndarray, "row 12"], ...]
    views: Float[np.ndarray, "part size"]


def open_model(name: str) -> Model:
    """`harmony`, the model that ships, a folder that `similarity fit` wrote, or the run of a model of
    similarity. Raises ConfigError, RunError."""
    if name == HARMONY:
        return Landmarks.load(SHIPPED)
    folder = Path(name)
    if not folder.is_dir():
        hint = "MODEL is harmony, a folder of `beatmeter similarity fit`, or a run of task.name=similarity."
        raise ConfigError(f"there is no embedding {name!r}", hint)
    if RunFolder(folder).config_file.exists():
        return RunEmbedder(folder)
    if read_json(folder / ABOUT, RunError, "It is no model of similarity.").get("kind") == KIND:
        return Whitening.load(folder)
    return Landmarks.load(folder)


@cache
def _shipped() -> Landmarks:
    return Landmarks.load(SHIPPED)


def embed_wave(wave: Float[np.ndarray, " sample"], model: Model, level: Level = "track") -> Embedded:
    """The embedding of a mono wave at 24 kHz. Raises AudioError for one that is too short."""
    heard = views_of(wave)
    if level == "track":
        parts = [(0, len(heard.chroma))]
        times = np.full((1, 2), np.nan)
    else:
        parts, times = _parts(len(wave))
    chroma = tuple(heard.chroma[a:b] for a, b in parts)
    landmarks = model if isinstance(model, Landmarks) else _shipped()
    aligned = [landmarks.aligned(c) for c in chroma]
    vectors = (
        np.stack([landmarks.embed(a) for a in aligned])
        if isinstance(model, Landmarks)
        else model.vectors(wave, times)
    )
    return Embedded(vectors, times, chroma, np.stack([_views(heard, a) for a in aligned]))


def _views(heard: Views, aligned: np.ndarray) -> np.ndarray:
    level = np.array([aligned.mean(), aligned.std()])  # what chance alignment gives: see `search`
    return np.concatenate([heard.rhythm, heard.timbre, level]).astype(np.float32)


def _parts(samples: int) -> tuple[list[tuple[int, int]], Float[np.ndarray, "part 2"]]:
    """Rows of chroma of parts of `PART` seconds every `STEP`, the last one at the end, and their seconds."""
    times = seconds_of(samples)
    end = float(times[-1, 1])
    starts = [*np.arange(0, max(0.0, end - PART), STEP), max(0.0, end - PART)]
    rows = [tuple(np.searchsorted(times[:, 0], [s - 1e-6, min(end, s + PART) - 1e-6])) for s in starts]
    kept = [(int(a), int(b)) for a, b in rows]
    return kept, np.array([[times[a, 0], times[b - 1, 1]] for a, b in kept])


def embed_tracks(
    tracks: Sequence[Track],
    model: Model,
    level: Level = "track",
    label: str = "",
    jobs: int = 1,
    progress: Reporter = SILENT,
) -> tuple[Embeddings, dict[str, str]]:
    """The embeddings of all tracks, and why the ones that are left out cannot be read, by id. `label` is
    the column whose values say what is a version of what. Raises DataError when nothing can be read."""
    if label:
        require_columns(tracks, (label,), "--label")
    made: list[tuple[Track, Embedded]] = []
    failed: dict[str, str] = {}
    with progress.track("embedding", len(tracks)) as tick:
        outcomes = ordered(_Work(model, level), [t.path for t in tracks], jobs)
        for track, outcome in zip(tracks, outcomes, strict=True):
            if isinstance(outcome, Embedded):
                made.append((track, outcome))
            else:
                failed[track.id] = "its process died" if isinstance(outcome, Crash) else outcome
            tick(1)
    if not made:
        first = next(iter(failed.values()), "there are no tracks")
        raise DataError(f"nothing can be embedded: {first}")
    each = [(track, one, part) for track, one in made for part in range(len(one.vectors))]
    record = Embeddings(
        ids=tuple(track.id for track, _, _ in each),
        groups=tuple(track.group for track, _, _ in each),
        sources=tuple(track.source for track, _, _ in each),
        split="",
        times=np.concatenate([one.times for _, one in made]),
        vectors=np.concatenate([one.vectors for _, one in made]),
        labels=tuple(text_of(track, label) if label else "" for track, _, _ in each),
        chroma=tuple(one.chroma[part] for _, one, part in each),
        views=np.concatenate([one.views for _, one in made]),
        view_names=VIEWS,
        meta={"model": model.digest, "about": dict(model.about), "level": level, "label": label},
    )
    return record, failed


@dataclass(frozen=True)
class _Work:
    """One file in a process: its embedding, or why there is none (errors do not pickle well)."""

    model: Model
    level: Level

    def __call__(self, path: Path) -> Embedded | str:
        wave = next(decode_ahead([path], SAMPLE_RATE, 1, LONGEST))
        if isinstance(wave, AudioError):
            return str(wave)
        try:
            return embed_wave(wave, self.model, self.level)
        except AudioError as error:
            return str(error)


def left_out(failed: dict[str, str]) -> str:
    """How many tracks could not be embedded, and why the first could not."""
    first = next(iter(failed))
    return f"{count(len(failed), 'track')} left out, first {first}: {failed[first]}"
