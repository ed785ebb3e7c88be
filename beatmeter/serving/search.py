"""What sounds like this, and why: neighbours by embedding, a second look by alignment, and reasons by
view."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float

from beatmeter.errors import DataError
from beatmeter.features.alignment import align, ready, scores
from beatmeter.features.landmarks import AVERAGE
from beatmeter.schema import Embeddings
from beatmeter.serving.gallery import Gallery, InMemory

CANDIDATES = 50  # that alignment looks at
ROW = 0.25  # s of a row of chroma


@dataclass(frozen=True)
class Hit:
    """One neighbour: `item` is its position in the embeddings, `cosine` that of the vectors, `aligned` the
    standardised alignment score where there was a second look."""

    item: int
    cosine: float
    aligned: float | None = None


@dataclass(frozen=True)
class Reasons:
    """Why two items are alike: per view the percentile of this pair among the query's pairs with all others
    (100: nearest of all), and what aligns, in seconds of each item, b by `key` semitones above a."""

    percentiles: dict[str, float]
    key: int
    here: tuple[float, float]
    there: tuple[float, float]


class Searcher:
    """Searches one set of embeddings by the cosine of the vectors."""

    def __init__(self, gallery: Embeddings | Gallery) -> None:
        """Raises DataError for embeddings of nothing."""
        if not len(gallery):
            raise DataError("there is nothing to search in")
        self.gallery = InMemory(gallery) if isinstance(gallery, Embeddings) else gallery

    def find(self, query: Embeddings, k: int, rerank: bool = False) -> list[Hit]:
        """The `k` nearest items to the first item of `query`, the nearest first; an item of the query's id
        is left out. With `rerank` the CANDIDATES nearest are ordered by alignment, the rest follow. Raises
        DataError for a query of another model, and for `rerank` without pitch classes."""
        self._require_same(query)
        rows, cosines = self.gallery.nearest(query.unit[0], max(CANDIDATES, k) if rerank else k, query.ids[0])
        if not rerank:
            return [Hit(int(i), float(c)) for i, c in zip(rows, cosines, strict=True)]
        score = self.alignment(query, rows)
        again = np.argsort(-score, kind="stable")
        return [Hit(int(rows[i]), float(cosines[i]), float(score[i])) for i in again[:k]]

    def alignment(self, query: Embeddings, items: np.ndarray) -> Float[np.ndarray, " item"]:
        """The alignment score at 4 Hz of the query with each of `items`, minus the mean and divided by the
        deviation of what each of the two reaches with the landmarks, which nothing is a version of, and
        added: who aligns well with everything is no neighbour. Raises DataError where pitch classes were
        left out."""
        others = self.gallery.take(items)
        return beside_landmarks(query, others, raw_alignment(query, others))

    @cached_property
    def _others(self) -> Embeddings:
        return self.gallery.take(self.gallery.some())

    def why(self, query: Embeddings, item: int) -> Reasons:
        """Reasons for one item of the gallery."""
        self._require_same(query)
        hit, others = self.gallery.take([item]), self._others
        kept = np.array([name != query.ids[0] for name in others.ids])
        found = align(ready(query.chroma[0]), ready(hit.chroma[0]))
        percentiles = {}
        for name in ("harmony", "rhythm", "timbre"):
            asked, this, all_others = (
                (e.unit if name == "harmony" else e.view(name)) for e in (query, hit, others)
            )
            if name != "harmony":
                centre = all_others.mean(axis=0)
                asked, this, all_others = asked - centre, this - centre, all_others - centre
            likeness = _cosines(asked[0], np.concatenate([this, all_others[kept]]))
            percentiles[name] = 100 * float((likeness[1:] <= likeness[0] + 1e-6).mean())
        return Reasons(percentiles, found.key, _seconds(query, 0, found.here), _seconds(hit, 0, found.there))

    def item(self, name: str) -> Embeddings:
        """The item of an id, as a query: the first of its parts. Raises DataError for an id that is not
        here."""
        rows = self.gallery.rows_of(name)
        if not len(rows):
            known = self._others.ids
            like = difflib.get_close_matches(name, known, 3) or known[:3]
            hint = f"There are {len(self.gallery)}, for instance {', '.join(like)}."
            raise DataError(f"{name} is no file and no id of these embeddings", hint)
        return self.gallery.take(rows[:1])

    def _require_same(self, query: Embeddings) -> None:
        if query.meta.get("model") != self.gallery.meta.get("model"):
            hint = "Embed both with the same model."
            raise DataError("the query was embedded by another model than what is searched", hint)


def raw_alignment(query: Embeddings, others: Embeddings) -> Float[np.ndarray, " item"]:
    """The alignment score at 4 Hz of the first item of `query` with each of `others`. Raises DataError where
    pitch classes were left out."""
    if not len(query.chroma[0]) or not all(map(len, others.chroma)):
        raise DataError(
            "these embeddings hold no pitch classes to align", "Make them again with `beatmeter embed`."
        )
    return scores(ready(query.chroma[0]), [ready(piece) for piece in others.chroma])


def beside_landmarks(
    query: Embeddings, others: Embeddings, raw: Float[np.ndarray, " item"]
) -> Float[np.ndarray, " item"]:
    """`raw_alignment` in deviations from the mean of what either reaches with the landmarks, added."""
    # landmarks are aligned at 2 Hz: with twice the frames scores are about twice as large
    mean, spread = AVERAGE * others.view("level").T
    own_mean, own_spread = AVERAGE * query.view("level")[0]
    result: np.ndarray = (raw - mean) / np.maximum(spread, 1e-6) + (raw - own_mean) / max(own_spread, 1e-6)
    return result


def beside_all_others(raw: Float[np.ndarray, "item item"]) -> Float[np.ndarray, "item item"]:
    """`raw_alignment` of all pairs in deviations from the mean of what either reaches with all others,
    added. The diagonal is looked at by nobody."""
    others = np.where(np.eye(len(raw), dtype=bool), np.nan, raw)
    mean, spread = np.nanmean(others, axis=1), np.maximum(np.nanstd(others, axis=1), 1e-6)
    result: np.ndarray = (raw - mean) / spread + (raw - mean[:, None]) / spread[:, None]
    return result


def _seconds(record: Embeddings, item: int, rows: tuple[int, int]) -> tuple[float, float]:
    """Rows of chroma as seconds of the track."""
    start = float(np.nan_to_num(record.times[item, 0]))
    return start + rows[0] * ROW, start + rows[1] * ROW


def _cosines(query: np.ndarray, items: np.ndarray) -> Float[np.ndarray, " item"]:
    lengths = np.linalg.norm(items, axis=1) * np.linalg.norm(query)
    result: np.ndarray = items @ query / np.maximum(lengths, 1e-12)
    return result
