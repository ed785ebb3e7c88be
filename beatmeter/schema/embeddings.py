"""Embeddings: one vector an item, what similarity is searched and judged by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from beatmeter.errors import SchemaError
from beatmeter.schema.checks import require
from beatmeter.schema.records import Items


@dataclass(frozen=True, kw_only=True)
class Embeddings(Items):
    """Vectors of tracks, or of chunks of tracks, which have `times`.

    `vectors` (item, dim) are float32; similarity is their cosine. `labels` say what an item is a version
    of, "" where nobody knows: items of one label are relevant to each other. `chroma` holds the pitch
    classes (row, 12) of every item for alignment, empty arrays where they were left out. `views` (item, sum
    of sizes) are other descriptions of an item side by side, each with its name and size in `view_names`.
    """

    per_item: ClassVar[tuple[str, ...]] = (*Items.per_item, "vectors", "labels", "chroma", "views")

    vectors: Float[np.ndarray, "item dim"]
    labels: tuple[str, ...]
    chroma: tuple[Float[np.ndarray, "row 12"], ...]
    views: Float[np.ndarray, "item size"]
    view_names: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        for name in ("labels", "chroma"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "view_names", tuple((str(n), int(size)) for n, size in self.view_names))
        super().__post_init__()
        n = len(self)
        require(
            self.vectors.ndim == 2 and len(self.vectors) == n,
            f"vectors {self.vectors.shape} do not match {n} items",
        )
        require(len(self.labels) == n and len(self.chroma) == n, f"labels or chroma do not match {n} items")
        size = sum(size for _, size in self.view_names)
        require(
            self.views.shape == (n, size), f"views {self.views.shape} are not {n} items of {size} numbers"
        )
        require(all(c.ndim == 2 and c.shape[1] == 12 for c in self.chroma), "chroma must be (row, 12)")
        bad = ~np.isfinite(self.vectors).all(axis=1)
        require(not bad.any(), f"the vector of {self.ids[int(bad.argmax())] if n else ''!r} is not finite")

    @property
    def unit(self) -> Float[np.ndarray, "item dim"]:
        """The vectors, of length 1; one of length 0 stays so."""
        length = np.linalg.norm(self.vectors, axis=1, keepdims=True)
        result: np.ndarray = self.vectors / np.maximum(length, 1e-12)
        return result

    def view(self, name: str) -> Float[np.ndarray, "item size"]:
        """One of `views`. Raises SchemaError for a name that is none."""
        first = 0
        for known, size in self.view_names:
            if known == name:
                return self.views[:, first : first + size]
            first += size
        raise SchemaError(
            f"no view {name!r}", f"There are: {', '.join(n for n, _ in self.view_names) or 'none'}."
        )


def as_embeddings(record: Items) -> Embeddings:
    """The record, which must be of embeddings. Raises SchemaError for one of another kind."""
    if not isinstance(record, Embeddings):
        raise SchemaError(f"{type(record).__name__} hold no vectors", "Make some with `beatmeter embed`.")
    return record
