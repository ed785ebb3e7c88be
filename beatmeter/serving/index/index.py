"""The index: a folder of shards under one manifest, which is replaced whole with every change.

index.json     the shards with the size and checksum of every file; what it does not name is not there
shard-*/       see `shards.py`
gone-*.npy     removed rows of a shard
cells-*.npy    centroids, and where the rows of each cell of a shard begin

A change writes new files, then the manifest, then takes the old files away: killed at any moment it leaves
the index of before or after. One process changes an index at a time; others go on reading what they opened.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from jaxtyping import Float, Float32, Int64

from beatmeter.errors import DataError, shown
from beatmeter.runtime.artifacts import write_json
from beatmeter.runtime.lock import held
from beatmeter.runtime.paths import StrPath, as_path
from beatmeter.runtime.progress import SILENT, Reporter
from beatmeter.serving.index.cells import (
    ROUNDS,
    SAMPLE,
    assign,
    cell_count,
    choose_probes,
    cut_cells,
    in_cells,
    learn_centroids,
    search_cells,
)
from beatmeter.serving.index.hubs import hubness
from beatmeter.serving.index.manifest import (
    FORMAT,
    MANIFEST,
    open_index,
    open_shards,
    remove_unnamed,
    write_manifest,
)
from beatmeter.serving.index.scan import QUERIES, Query, search_all
from beatmeter.serving.index.shards import (
    SHARD_ROWS,
    Entries,
    Shard,
    hash_of,
    unknown,
    write_array,
    write_shard,
)


class Hits(NamedTuple):
    """What a search found, best first: `ids` and `rows` of every query with their `scores`. A query of an
    approximate search may have fewer ids than there are columns; -1 and -inf then fill its row."""

    ids: list[list[str]]
    scores: Float32[np.ndarray, "query hit"]
    rows: Int64[np.ndarray, "query hit"]


class Index:
    """Vectors with ids, spans and groups, searched by inner product (the cosine, for unit vectors). Make one
    by `create`, `open`."""

    def __init__(
        self, root: Path, manifest: Mapping[str, Any], shards: Sequence[Shard], centroids: np.ndarray | None
    ) -> None:
        self.root, self._manifest = root, manifest
        self._take(manifest, shards, centroids)

    def _take(
        self, manifest: Mapping[str, Any], shards: Sequence[Shard], centroids: np.ndarray | None
    ) -> None:
        self._manifest, self._shards, self._centroids = manifest, list(shards), centroids
        self._origin = np.array(manifest["origin"], np.float32)
        self._scales: tuple[np.ndarray, list[np.ndarray]] | None = None
        self._firsts = np.cumsum([0, *(len(s) for s in self._shards)])

    @classmethod
    def create(cls, root: StrPath, dim: int, meta: Mapping[str, Any] | None = None) -> Self:
        """A new, empty index of vectors of `dim` numbers; `meta`, plain JSON, says what made them. Raises
        DataError where there is one, or anything else, already."""
        root = as_path(root)
        if dim < 1:
            raise DataError(f"vectors of {dim} numbers cannot be kept")
        if root.exists() and (not root.is_dir() or any(root.iterdir())):
            raise DataError(
                f"{shown(root)} is there already", "Open it with Index.open, or name another folder."
            )
        root.mkdir(parents=True, exist_ok=True)
        empty = {"format": FORMAT, "dim": dim, "origin": [0.0] * dim, "shards": []}
        write_json(root / MANIFEST, empty | ({"meta": dict(meta)} if meta else {}))
        return cls.open(root)

    @classmethod
    def open(cls, root: StrPath, check: bool = True) -> Self:
        """The index in a folder. With `check` every byte is compared with its checksum, else only sizes are.
        Raises DataError that names the file which is missing or damaged."""
        root = as_path(root)
        manifest, shards, centroids = open_index(root, check)
        return cls(root, manifest, shards, centroids)

    def refresh(self) -> None:
        """See what other processes have changed since."""
        self._take(*open_index(self.root, False))

    def __len__(self) -> int:
        return sum(len(s) - int(s.gone.sum()) for s in self._shards)

    @property
    def dim(self) -> int:
        """Numbers in a vector."""
        return int(self._manifest["dim"])

    @property
    def meta(self) -> Mapping[str, Any]:
        """What `create` was told of the vectors."""
        found: Mapping[str, Any] = self._manifest.get("meta", {})
        return found

    @property
    def live(self) -> Int64[np.ndarray, " row"]:
        """All rows that were not removed, in their order."""
        return np.concatenate(
            [np.zeros(0, np.int64)]
            + [first + np.flatnonzero(~s.gone) for first, s in zip(self._firsts, self._shards, strict=False)]
        )

    @property
    def cells(self) -> Mapping[str, Any] | None:
        """What is known of the inverted lists: `probes`, and the `recall` at `k` that was measured over
        `rows`; None without."""
        found: Mapping[str, Any] | None = self._manifest.get("cells")
        return found

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(len(self.rows_of([name])))

    def rows_of(self, names: Sequence[str]) -> Int64[np.ndarray, " row"]:
        """The rows of all spans of these ids."""
        wanted = set(names)
        found = []
        for first, shard in zip(self._firsts, self._shards, strict=False):
            ids = shard.names("ids", range(len(shard)))
            found += [int(first) + i for i, name in enumerate(ids) if name in wanted and not shard.gone[i]]
        return np.array(found, np.int64)

    def entries(self, rows: Sequence[int] | np.ndarray) -> Entries:
        """What is kept in these rows, in their order."""
        at = np.asarray(rows, np.int64)
        if len(at) and (at.min() < 0 or at.max() >= self._firsts[-1]):
            raise DataError(f"the index has no row {int(at.min() if at.min() < 0 else at.max())}")
        owner = np.searchsorted(self._firsts, at, side="right") - 1
        parts, positions = [], []
        for number in np.unique(owner).tolist():
            mine, shard = np.flatnonzero(owner == number), self._shards[number]
            inside = at[mine] - self._firsts[number]
            parts.append(shard.entries(inside))
            positions.append(mine)
        if not parts:
            return Entries([], np.zeros((0, self.dim), np.float32))
        return Entries.joined(parts).take(np.argsort(np.concatenate(positions)))

    def _vectors(self, rows: np.ndarray) -> Float32[np.ndarray, "row dim"]:
        """The vectors of rows in ascending order."""
        ends = np.searchsorted(rows, self._firsts)
        return np.concatenate(
            [
                s.vectors[rows[a:b] - f]
                for s, f, a, b in zip(self._shards, self._firsts, ends, ends[1:], strict=False)
            ]
        )

    # search

    def search(
        self,
        vectors: Float[np.ndarray, "query dim"],
        k: int = 10,
        exact: bool = True,
        normalise: bool = False,
    ) -> Hits:
        """The min(k, rows) best rows of every query, best first, equal ones in the order in which they were
        added.

        `exact=False` reads only the cells that `build_cells` chose for a recall, and all rows that were added
        since; without cells it is exact. `normalise` gives scores as standard deviations above the mean score
        of that row over all rows, its own included: rows that are near to everything (hubs) lose their
        advantage. Raises DataError for queries of another width or that are not finite."""
        wanted = np.ascontiguousarray(np.atleast_2d(np.asarray(vectors)), np.float32)
        if wanted.ndim != 2 or wanted.shape[1] != self.dim:
            raise DataError(
                f"queries have {wanted.shape[-1]} numbers, the index has {self.dim}",
                "Embed them by the same model.",
            )
        if not np.isfinite(wanted).all():
            raise DataError("a query holds values that are not finite")
        if k < 1:
            raise DataError(f"k = {k} neighbours cannot be searched", "k is 1 or more.")
        most = min(k, len(self))
        if not most or not len(wanted):
            return Hits(
                [[] for _ in wanted],
                np.zeros((len(wanted), most), np.float32),
                np.zeros((len(wanted), most), np.int64),
            )
        parts = [
            self._search(wanted[i : i + QUERIES], most, exact, normalise)
            for i in range(0, len(wanted), QUERIES)
        ]
        rows, scores = np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])
        return Hits(self._ids(rows), scores, rows)

    def _search(
        self, wanted: np.ndarray, k: int, exact: bool, normalise: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        query = Query(wanted, self._origin)
        if normalise:
            mean, scales = self._hubness()
            query = Query(wanted - mean, self._origin, scales)
        if exact or self.cells is None or self._centroids is None:
            return search_all(self._shards, query, k)
        return search_cells(self._shards, query, self._centroids, wanted, self.cells["probes"], k)

    def _ids(self, rows: np.ndarray) -> list[list[str]]:
        owner = np.searchsorted(self._firsts, rows, side="right") - 1
        found: list[list[str]] = []
        for mine, whose in zip(rows.tolist(), owner.tolist(), strict=True):
            found.append(
                [
                    self._shards[s].names("ids", [row - int(self._firsts[s])])[0]
                    for row, s in zip(mine, whose, strict=True)
                    if row >= 0
                ]
            )
        return found

    def _hubness(self) -> tuple[np.ndarray, list[np.ndarray]]:
        if self._scales is None:
            self._scales = hubness(self._shards, self.dim)
        return self._scales

    # changes

    def add(self, entries: Entries) -> int:
        """Keep these too; how many are new. What is there already with the same id, span and vector counts
        for nothing, so that adding twice is safe.

        Raises DataError for vectors of another width, and for an id with a span that is there with another
        vector."""
        if len(entries) and entries.vectors.shape[1] != self.dim:
            raise DataError(
                f"the vectors have {entries.vectors.shape[1]} numbers, the index has {self.dim}",
                "Embed them by the same model.",
            )
        with self._changing():
            fresh = unknown(self._shards, entries)
            if len(fresh):
                self._append(fresh)
        return len(fresh)

    def _append(self, fresh: Entries) -> None:
        """As new shards; small shards at the end are written again together with them, so that there are
        never many."""
        records = [dict(s.record) for s in self._shards]
        origin = self._origin if self._shards else fresh.vectors.mean(axis=0)
        parts = [fresh]
        while (
            records and "cells" not in records[-1] and records[-1]["rows"] <= 2 * len(parts[-1]) < SHARD_ROWS
        ):
            last = self._shards[len(records) - 1]
            records.pop()
            parts.insert(0, last.entries())
            parts = [Entries.joined(parts)] if sum(map(len, parts)) < SHARD_ROWS else parts
        whole = Entries.joined(parts)
        cuts = [np.arange(i, min(i + SHARD_ROWS, len(whole))) for i in range(0, len(whole), SHARD_ROWS)]
        records += [write_shard(self.root, whole.take(rows), origin) for rows in cuts]
        self._replace({**self._manifest, "origin": origin.tolist(), "shards": records})

    def remove(self, names: Sequence[str], spans: Float[np.ndarray, "row 2"] | None = None) -> int:
        """Forget these ids with all their spans, or only these `spans`, one per id; how many rows went.
        Unknown ones count for nothing.

        A shard that has lost more than a quarter of its rows is written again without them.
        """
        with self._changing():
            if spans is None:
                at = self.rows_of(names)
            else:
                ends = np.where(np.isnan(spans), -1.0, spans).tolist()
                wanted = np.array(
                    [hash_of(n, s, e) for n, (s, e) in zip(names, ends, strict=True)], np.uint64
                )
                kept = [np.isin(s.arrays["hashes"], wanted) & ~s.gone for s in self._shards]
                at = np.flatnonzero(np.concatenate([*kept, np.zeros(0, bool)]))
            if not len(at):
                return 0
            records, arrays = [], dict(self._manifest.get("arrays", {}))
            for first, shard in zip(self._firsts, self._shards, strict=False):
                mine = at[(at >= first) & (at < first + len(shard))] - first
                gone = shard.gone.copy()
                gone[mine] = True
                records += [dict(shard.record)] if not len(mine) else self._without(shard, gone, arrays)
            self._replace({**self._manifest, "shards": records, "arrays": arrays})
        return len(at)

    def _without(self, shard: Shard, gone: np.ndarray, arrays: dict[str, Any]) -> list[dict[str, Any]]:
        """The records of a shard without the rows that are gone."""
        if gone.all():
            return []
        if shard.cells is None and gone.sum() > len(gone) / 4:
            old, shard.gone = shard.gone, gone
            try:
                return [write_shard(self.root, shard.entries(), self._origin)]
            finally:
                shard.gone = old
        name = f"gone-{secrets.token_hex(8)}"
        arrays[name] = write_array(self.root / f"{name}.npy", np.flatnonzero(gone))
        return [{**shard.record, "gone": name}]

    def build_cells(
        self, recall: float = 0.95, k: int = 10, seed: int = 0, progress: Reporter = SILENT
    ) -> Mapping[str, Any]:
        """Lay the rows in the order of inverted lists, choose how many lists a search reads for a recall@k,
        and write beside them the recall that was measured on rows that did not choose. What was removed goes
        for good.

        Gives what `cells` says. Raises DataError for an empty index, or a recall outside (0, 1].
        """
        if not 0 < recall <= 1 or k < 1:
            raise DataError(
                f"a recall of {recall:g} at k = {k} cannot be chosen for", "For instance recall=0.95, k=10."
            )
        with self._changing():
            if not len(self):
                raise DataError(
                    f"{shown(self.root)} is empty: there is nothing to lay out", "Add vectors first."
                )
            with progress.track("laying out", ROUNDS + 3, "steps") as tick:
                self._lay_out(recall, k, seed, tick)
        assert self.cells is not None
        return self.cells

    def _lay_out(self, recall: float, k: int, seed: int, tick: Callable[[float], object]) -> None:
        rng = np.random.default_rng(seed)
        live = self.live
        count = min(cell_count(len(live)), len(live))
        sample = self._vectors(np.sort(rng.choice(live, min(SAMPLE * count, len(live)), replace=False)))
        centroids = learn_centroids(sample, count, seed, tick)
        cells = np.concatenate(
            [
                assign(self._vectors(live[i : i + SHARD_ROWS]), centroids)
                for i in range(0, len(live), SHARD_ROWS)
            ]
        )
        order, ends = in_cells(cells, count)
        arrays: dict[str, Any] = {}
        middle = f"cells-{secrets.token_hex(8)}"
        arrays[middle] = write_array(self.root / f"{middle}.npy", centroids)
        records = []
        for begin, end in cut_cells(ends, SHARD_ROWS):
            record = write_shard(self.root, self.entries(live[order[begin:end]]), self._origin)
            name = f"cells-{secrets.token_hex(8)}"
            arrays[name] = write_array(self.root / f"{name}.npy", np.clip(ends - begin, 0, end - begin))
            records.append({**record, "cells": name})
            tick((end - begin) / len(live))
        manifest = {**self._manifest, "shards": records, "arrays": arrays}
        opened = open_shards(self.root, manifest, False)
        probes, measured = choose_probes(opened, self._origin, centroids, recall, k, seed)
        tick(2)
        about = {
            "centroids": middle,
            "probes": probes,
            "recall": round(measured, 4),
            "k": k,
            "rows": len(self),
        }
        self._replace({**manifest, "cells": about})

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """One process at a time, on the index as it is now."""
        with held(self.root / ".lock", f"changing {shown(self.root)}"):
            self.refresh()
            yield

    def _replace(self, manifest: Mapping[str, Any]) -> None:
        written = write_manifest(self.root, manifest)
        self._take(*open_index(self.root, False))
        remove_unnamed(self.root, written)
