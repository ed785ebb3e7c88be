"""What is searched: a file of embeddings in memory, or an index on disk. Both find the rows nearest to a
vector, and give back rows with what explains a likeness (pitch classes, views)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float, Float32, Int

from beatmeter.errors import DataError, SchemaError, shown
from beatmeter.evaluation.records import read_records
from beatmeter.runtime.paths import StrPath, as_path
from beatmeter.schema import Embeddings, as_embeddings
from beatmeter.serving.index import MANIFEST, Entries, Index

SPARE = 16  # rows asked for beyond k, of which some may be the query's own
PART = 4096  # items put into an index at a time
SAMPLE = 10_000  # rows of a large index that percentiles are taken from


class Gallery(Protocol):
    """Rows with vectors of length 1 that came from one model, which `meta` names."""

    @property
    def meta(self) -> Mapping[str, Any]:
        """How the vectors were made."""
        ...

    def __len__(self) -> int: ...

    def nearest(
        self, vector: Float32[np.ndarray, " dim"], k: int, but: str
    ) -> tuple[Int[np.ndarray, " hit"], Float[np.ndarray, " hit"]]:
        """The k rows with the largest cosines, best first, and these; rows of the id `but` are left out."""
        ...

    def take(self, rows: Sequence[int] | np.ndarray) -> Embeddings:
        """Rows in this order."""
        ...

    def rows_of(self, name: str) -> Int[np.ndarray, " row"]:
        """All parts of an id."""
        ...

    def some(self) -> Int[np.ndarray, " row"]:
        """All rows, or of a large gallery a fair sample."""
        ...


class InMemory:
    """A file of embeddings."""

    def __init__(self, record: Embeddings) -> None:
        self.record, self.meta, self._unit = record, record.meta, record.unit
        self._ids = np.array(record.ids, dtype=object)

    def __len__(self) -> int:
        return len(self.record)

    def nearest(
        self, vector: Float32[np.ndarray, " dim"], k: int, but: str
    ) -> tuple[Int[np.ndarray, " hit"], Float[np.ndarray, " hit"]]:
        """Of all rows."""
        cosines = self._unit @ vector
        others = np.flatnonzero(self._ids != but)
        order = others[np.argsort(-cosines[others], kind="stable")][:k]
        return order, cosines[order]

    def take(self, rows: Sequence[int] | np.ndarray) -> Embeddings:
        """Rows in this order."""
        return self.record.take(np.asarray(rows, int).tolist())

    def rows_of(self, name: str) -> Int[np.ndarray, " row"]:
        """All parts of an id."""
        return np.flatnonzero(self._ids == name)

    def some(self) -> Int[np.ndarray, " row"]:
        """All rows."""
        return np.arange(len(self.record))


class OnDisk:
    """An index that `fill` made; `exact` reads all rows even where inverted lists were built."""

    def __init__(self, index: Index, exact: bool = False) -> None:
        """Raises DataError for an index of other vectors."""
        if "views" not in index.meta:
            raise DataError(
                f"{shown(index.root)} does not say which model made its vectors",
                "Fill it with `beatmeter index add`.",
            )
        self.index, self.exact = index, exact
        self.meta = {k: v for k, v in index.meta.items() if k != "views"}
        self._views = tuple((str(name), int(size)) for name, size in index.meta["views"])

    def __len__(self) -> int:
        return len(self.index)

    def nearest(
        self, vector: Float32[np.ndarray, " dim"], k: int, but: str
    ) -> tuple[Int[np.ndarray, " hit"], Float[np.ndarray, " hit"]]:
        """Of all rows, or of those in the nearest inverted lists and all that came later."""
        wanted = k + SPARE
        while True:
            hits = self.index.search(vector[None], wanted, self.exact)
            at = [i for i, name in enumerate(hits.ids[0]) if name != but][:k]
            if len(at) == k or len(hits.ids[0]) < wanted:
                return hits.rows[0][at], hits.scores[0][at]
            wanted *= 2

    def take(self, rows: Sequence[int] | np.ndarray) -> Embeddings:
        """Rows in this order."""
        found = self.index.entries(rows)
        size = sum(size for _, size in self._views)
        notes = [_read_note(note, size, self.index.root) for note in found.notes or ()]
        n = len(found)
        return Embeddings(
            ids=tuple(found.ids),
            groups=tuple(found.groups or ()),
            sources=("",) * n,
            split="",
            times=np.asarray(found.spans),
            vectors=found.vectors,
            labels=("",) * n,
            chroma=tuple(chroma for _, chroma in notes),
            views=np.stack([views for views, _ in notes]) if n else np.zeros((0, size), np.float32),
            view_names=self._views,
            meta=self.meta,
        )

    def rows_of(self, name: str) -> Int[np.ndarray, " row"]:
        """All parts of an id."""
        return self.index.rows_of([name])

    def some(self) -> Int[np.ndarray, " row"]:
        """All rows, or SAMPLE of them, always the same ones."""
        live = self.index.live
        if len(live) <= SAMPLE:
            return live
        return np.sort(np.random.default_rng(0).choice(live, SAMPLE, replace=False))


def open_gallery(where: StrPath, exact: bool = False) -> Gallery:
    """A file of embeddings (.npz) or the folder of an index. Raises DataError."""
    path = as_path(where)
    if path.is_dir():
        return OnDisk(Index.open(path, check=False), exact)
    return InMemory(read_embeddings(path))


def read_embeddings(path: Path) -> Embeddings:
    """A file that `embed` wrote. Raises DataError."""
    if path.suffix != ".npz":
        raise DataError(
            f"{shown(path)} is neither a file of vectors (.npz) nor an index",
            "Make one: beatmeter embed harmony MUSIC/ --out music.npz",
        )
    return as_embeddings(read_records(path))


def fill(folder: StrPath, record: Embeddings) -> tuple[Index, int]:
    """Add embeddings to the index in a folder, which is made where there is none; the index, and how many
    rows are new. What is there with the same id and part counts for nothing. Raises DataError for embeddings
    of another model, and for an id that is there with another vector."""
    root = as_path(folder)
    views = [list(view) for view in record.view_names]
    if (root / MANIFEST).exists():
        index = Index.open(root, check=False)
        if index.meta.get("model") != record.meta.get("model"):
            raise DataError(
                f"{shown(root)} holds vectors of another model", "Use an index of its own for every model."
            )
    else:
        made_by = {"model": record.meta.get("model", ""), "about": record.meta.get("about", {})}
        index = Index.create(root, record.vectors.shape[1], {**made_by, "views": views})
    if views != [list(v) for v in index.meta.get("views", [])]:
        raise DataError(f"{shown(root)} keeps other views than these embeddings", "Embed them again.")
    return index, sum(index.add(part) for part in _entries(record))


def _entries(record: Embeddings) -> Iterator[Entries]:
    for first in range(0, len(record), PART):
        part = record.take(range(first, min(first + PART, len(record))))
        notes = [
            views.tobytes() + chroma.astype(np.float16).tobytes()
            for views, chroma in zip(part.views.astype(np.float32), part.chroma, strict=True)
        ]
        yield Entries(part.ids, part.unit.astype(np.float32), part.times, part.groups, notes)


def _read_note(note: bytes, size: int, root: Path) -> tuple[np.ndarray, np.ndarray]:
    """Views (size,) and pitch classes (row, 12) of a row."""
    try:
        views = np.frombuffer(note, np.float32, size)
        chroma = np.frombuffer(note, np.float16, offset=4 * size).reshape(-1, 12)
    except ValueError:
        raise SchemaError(
            f"{shown(root)} holds rows that are no embeddings", "Make the index again."
        ) from None
    return views, chroma.astype(np.float32)
