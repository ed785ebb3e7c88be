"""Shards of an index: vectors with their names in plain .npy files, written once and checked when opened.

vectors.npy    (row, dim) float32, as they were given
scan.npy       (row, dim) int16: the bits of bfloat16 of vector - origin, which halves what a search reads. It
               multiplies these and computes the best again from `vectors`. Taking the origin away matters
               where all vectors point one way (mean-pooled layers have cosines of .96): bfloat16 has 8 bits.
hashes.npy     (row,) uint64 of id, start and end
spans.npy      (row, 2) seconds, nan for whole tracks
ids.npy, groups.npy, notes.npy    all names one after the other as UTF-8, and bytes that stand beside a row;
               id_ends.npy, group_ends.npy, note_ends.npy where each ends
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int, UInt64
from torch import Tensor

from beatmeter.errors import DataError, shown
from beatmeter.runtime.atomic import writing

SHARD_ROWS = 262_144  # of the largest shard
FILES = (
    "vectors",
    "scan",
    "hashes",
    "spans",
    "ids",
    "id_ends",
    "groups",
    "group_ends",
    "notes",
    "note_ends",
)
REMEDY = "Restore the folder, or make the index again from its vectors."
_PIECE = 16 << 20  # bytes checked at a time


@dataclass(frozen=True)
class Entries:
    """Vectors to keep, with their names: `vectors` (row, dim), an id each, `spans` (row, 2) in seconds, nan
    for whole tracks, groups (default: the ids), and `notes`, any bytes that come back with a row. Id and span
    together are unique. Raises DataError for what does not fit together."""

    ids: Sequence[str]
    vectors: Float32[np.ndarray, "row dim"]
    spans: Float[np.ndarray, "row 2"] | None = None
    groups: Sequence[str] | None = None
    notes: Sequence[bytes] | None = None

    def __post_init__(self) -> None:
        vectors = np.asarray(self.vectors)
        if vectors.ndim != 2 or vectors.dtype.kind != "f":
            raise DataError(
                f"vectors of an index are rows of numbers, not {vectors.dtype} of the shape {vectors.shape}"
            )
        vectors = np.ascontiguousarray(vectors, np.float32)
        n = len(vectors)
        spans = np.full((n, 2), np.nan) if self.spans is None else np.asarray(self.spans, np.float64)
        groups = list(self.ids if self.groups is None else self.groups)
        notes = [b""] * n if self.notes is None else list(self.notes)
        if not len(self.ids) == len(groups) == len(spans) == len(notes) == n or spans.shape != (n, 2):
            raise DataError(
                f"{n} vectors have {len(self.ids)} ids, {len(groups)} groups, {len(notes)} notes,"
                f" spans of shape {spans.shape}"
            )
        bad = ~np.isfinite(vectors).all(axis=1)
        if bad.any():
            raise DataError(
                f"{int(bad.sum())} of {n} vectors hold values that are not finite,"
                f" first {shown(self.ids[int(bad.argmax())])}"
            )
        if not all(self.ids):
            raise DataError("an id is empty", "Every vector needs a name.")
        for name, value in (
            ("ids", list(self.ids)),
            ("vectors", vectors),
            ("spans", spans),
            ("groups", groups),
            ("notes", notes),
        ):
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, at: np.ndarray) -> Entries:
        """The rows at these positions."""
        assert self.spans is not None
        assert self.groups is not None
        assert self.notes is not None
        where = at.tolist()
        groups, notes = [self.groups[i] for i in where], [self.notes[i] for i in where]
        return Entries([self.ids[i] for i in where], self.vectors[at], self.spans[at], groups, notes)

    @staticmethod
    def joined(parts: Sequence[Entries]) -> Entries:
        """One after the other."""
        ids = [name for p in parts for name in p.ids]
        groups = [name for p in parts for name in p.groups or ()]
        notes = [note for p in parts for note in p.notes or ()]
        spans = np.concatenate([p.spans for p in parts if p.spans is not None])
        return Entries(ids, np.concatenate([p.vectors for p in parts]), spans, groups, notes)

    @property
    def hashes(self) -> UInt64[np.ndarray, " row"]:
        """64 bits of the BLAKE2b hash of every id with its span."""
        assert self.spans is not None
        spans = np.where(np.isnan(self.spans), -1.0, self.spans)
        return np.array(
            [hash_of(name, start, end) for name, (start, end) in zip(self.ids, spans.tolist(), strict=True)],
            np.uint64,
        )


def hash_of(name: str, start: float, end: float) -> int:
    """64 bits of id and span; -1 stands for the ends of a whole track."""
    text = f"{name}\0{start!r}\0{end!r}".encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


@dataclass
class Shard:
    """One shard, mapped: nothing is read before it is used. `gone` (row,) says which rows were removed;
    `cells` (cell + 1,) where the rows of each cell begin, where the rows lie in the order of cells."""

    name: str
    record: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]
    gone: Bool[np.ndarray, " row"]
    cells: Int[np.ndarray, " ends"] | None = None
    scan: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.scan = torch.from_numpy(self.arrays["scan"]).view(torch.bfloat16)

    @cached_property
    def holes(self) -> bool:
        """Whether any row was removed."""
        return bool(self.gone.any())

    def __len__(self) -> int:
        return len(self.gone)

    @property
    def vectors(self) -> Float32[np.ndarray, "row dim"]:
        """As they were given."""
        return self.arrays["vectors"]

    def names(self, what: str, rows: Sequence[int]) -> list[str]:
        """The `ids` or `groups` of rows."""
        return [text.decode("utf-8", "surrogateescape") for text in self._texts(what, rows)]

    def _texts(self, what: str, rows: Sequence[int]) -> list[bytes]:
        data, ends = self.arrays[what], self.arrays[f"{what[:-1]}_ends"]
        return [bytes(data[ends[i - 1] if i else 0 : ends[i]]) for i in rows]

    def entries(self, at: Int[np.ndarray, " row"] | None = None) -> Entries:
        """These rows, or all that were not removed."""
        at = np.flatnonzero(~self.gone) if at is None else at
        rows = at.tolist()
        return Entries(
            self.names("ids", rows),
            self.vectors[at],
            self.arrays["spans"][at],
            self.names("groups", rows),
            self._texts("notes", rows),
        )


def write_shard(root: Path, entries: Entries, origin: Float32[np.ndarray, " dim"]) -> dict[str, Any]:
    """Write a new shard below `root`; its record for the manifest. The folder appears whole or not at all.
    Raises WriteError."""
    name = f"shard-{secrets.token_hex(8)}"
    arrays = {
        "vectors": entries.vectors,
        "scan": _bits(entries.vectors, origin),
        "hashes": entries.hashes,
        "spans": entries.spans,
    }
    names = {
        what: [text.encode("utf-8", "surrogateescape") for text in texts or ()]
        for what, texts in (("id", entries.ids), ("group", entries.groups))
    }
    for what, texts in {**names, "note": entries.notes or ()}.items():
        arrays[f"{what}s"] = np.frombuffer(b"".join(texts), np.uint8)
        arrays[f"{what}_ends"] = np.cumsum([len(text) for text in texts], dtype=np.int64)
    draft = root / f".{name}"
    with writing(root / name):
        draft.mkdir()
        try:
            files = {
                what: write_array(draft / f"{what}.npy", np.asarray(array)) for what, array in arrays.items()
            }
            _sync(draft)
            draft.rename(root / name)
            _sync(root)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
    return {"name": name, "rows": len(entries), "files": files}


def _bits(
    vectors: Float32[np.ndarray, "row dim"], origin: Float32[np.ndarray, " dim"]
) -> Int[np.ndarray, "row dim"]:
    bits: np.ndarray = torch.from_numpy(vectors - origin).bfloat16().view(torch.int16).numpy()
    return bits


def write_array(path: Path, array: np.ndarray) -> list[int]:
    """Write a new .npy file, flushed to disk; its bytes and CRC-32C."""
    with writing(path), path.open("xb") as file:
        np.save(file, array, allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())
    return [path.stat().st_size, _crc(path)]


def open_shard(root: Path, record: Mapping[str, Any], dim: int, check: bool) -> Shard:
    """Map a shard whose files have the sizes, and with `check` the checksums, of its record. Raises DataError
    that names the file."""
    folder, rows = root / record["name"], record["rows"]
    arrays = {what: open_array(folder / f"{what}.npy", record["files"][what], check) for what in FILES}
    for what, shape in (
        ("vectors", (rows, dim)),
        ("scan", (rows, dim)),
        ("hashes", (rows,)),
        ("spans", (rows, 2)),
    ):
        if arrays[what].shape != shape:
            raise DataError(
                f"{shown(folder / what)}.npy has the shape {arrays[what].shape}, the index says {shape}",
                REMEDY,
            )
    return Shard(record["name"], record, arrays, np.zeros(rows, bool))


def open_array(path: Path, expected: Sequence[int], check: bool) -> np.ndarray:
    """Map a .npy file. Raises DataError when it is not as it was written."""
    try:
        size = path.stat().st_size
        if size != expected[0]:
            raise DataError(
                f"{shown(path)} has {size} bytes, {expected[0]} were written: it was cut or written over",
                REMEDY,
            )
        if check and _crc(path) != expected[1]:
            raise DataError(f"{shown(path)} is damaged: its checksum is another one", REMEDY)
        # "c": torch wants memory that it may write to; nothing written ever reaches the file
        mapped: np.ndarray = np.load(path, mmap_mode="c", allow_pickle=False)
        return np.asarray(mapped)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise DataError(f"{shown(path)} cannot be read: {error}", REMEDY) from None


def _crc(path: Path) -> int:
    import google_crc32c

    found = 0
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            found = google_crc32c.extend(found, piece)
    return int(found)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def unknown(shards: Sequence[Shard], entries: Entries) -> Entries:
    """The entries that no shard holds yet. Raises DataError for one that is held with another vector, and for
    two of the same id and span."""
    hashes = entries.hashes
    _, first = np.unique(hashes, return_index=True)
    if len(first) < len(hashes):
        again = np.setdiff1d(np.arange(len(hashes)), first)[0]
        raise DataError(
            f"{shown(entries.ids[again])} is to be added twice", "Id and span together name one vector."
        )
    old = np.zeros(len(hashes), bool)
    for shard in shards:
        held = np.flatnonzero(np.isin(shard.arrays["hashes"], hashes) & ~shard.gone)
        order = np.argsort(hashes)
        for row in held.tolist():
            i = int(order[np.searchsorted(hashes, shard.arrays["hashes"][row], sorter=order)])
            if not np.array_equal(shard.vectors[row], entries.vectors[i]):
                raise DataError(
                    f"{shown(entries.ids[i])} is in the index with another vector",
                    "Remove it first, then add it again.",
                )
            old[i] = True
    return entries.take(np.flatnonzero(~old))
