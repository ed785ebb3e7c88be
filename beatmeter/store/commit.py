"""Writing a segment: in a staging folder, which the backend then makes durable under its final name. A record
makes it count afterwards."""

from __future__ import annotations

import contextlib
import datetime
import functools
import importlib.metadata
import os
import platform
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import google_crc32c
import numpy as np

from beatmeter.audio.chunking import Layout, row_count, rows
from beatmeter.errors import AudioError, StoreError
from beatmeter.schema import Features
from beatmeter.store.backend import Backend, explained
from beatmeter.store.journal import seal
from beatmeter.store.layout import StoreLayout
from beatmeter.store.record import KEY, RECEIPT, Extent, Record

_BUFFER = (
    8 << 20
)  # large writes: the page cache then holds large pages, and a fresh mapping reads twice as fast
_LIBRARIES = ("beatmeter", "numpy", "torch", "transformers", "soxr", "librosa")


class UnstorableError(StoreError):
    """Features that are not finite in the store's dtype. `tracks` maps each such key to what is wrong with
    it."""

    def __init__(self, tracks: Mapping[str, str]) -> None:
        self.tracks = dict(tracks)
        first = next(iter(tracks.items()))
        more = f" and {len(tracks) - 1} more tracks" if len(tracks) > 1 else ""
        super().__init__(
            f"nothing was committed: track {first[0]}, {first[1]}{more}",
            "Leave these tracks out, or use float32 throughout.",
        )


@functools.cache
def library_versions() -> dict[str, str]:
    """Versions of what may change numbers a little; absent libraries are left out."""
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


class SegmentWriter:
    """One segment in the making. `add` tracks, then `publish`; leaving the `with` block otherwise forgets
    it."""

    def __init__(self, backend: Backend, layout: StoreLayout) -> None:
        self.backend, self.layout = backend, layout
        self.name = f"{datetime.datetime.now(datetime.UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(8)}"
        self._keys: list[str] = []
        self._samples: list[int] = []
        self._counts: dict[str, list[int]] = {name: [] for name in layout.arrays}
        self._digests: dict[str, list[int]] = {name: [] for name in layout.arrays}
        self._checksums = dict.fromkeys(layout.arrays, 0)
        self._open = dict.fromkeys(
            layout.arrays, (0, 0)
        )  # rows of the track in the making, and their digest so far
        self._files: dict[str, BinaryIO] = {}
        self._sums: dict[str, BinaryIO] = {}  # of single layers
        self._staged: Path | None = None

    def __enter__(self) -> SegmentWriter:
        self._staged = self.backend.stage()
        with explained("writing a segment", self._staged):
            for name, array in self.layout.arrays.items():
                (self._staged / name).mkdir()
                self._files[name] = (self._staged / array.shard).open("xb", buffering=_BUFFER)
                if array.has_layer_sums:
                    self._sums[name] = (self._staged / array.layer_sums_name).open("xb", buffering=_BUFFER)
        return self

    def __exit__(self, *_: object) -> None:
        for file in (*self._files.values(), *self._sums.values()):
            with contextlib.suppress(OSError):  # a full disk was reported already
                file.close()
        if self._staged is not None:
            self.backend.discard(self._staged)

    def add(self, key: str, samples: int, stored: Mapping[str, np.ndarray]) -> None:
        """Append one track: its stored rows (row, stride) of every pooling, as `ArrayLayout.encode` gives
        them."""
        self.extend(stored)
        self.end(key, samples)

    def extend(self, stored: Mapping[str, np.ndarray]) -> None:
        """Append the next rows of a track, of some poolings or all."""
        with explained("writing a segment", self._staged):
            for name, block in stored.items():
                self._files[name].write(block.data)
                data, row_sums = self.layout.arrays[name].split(block)
                if name in self._sums:
                    self._sums[name].write(self.layout.arrays[name].layer_sums(data).astype("<u4").tobytes())
                sums = row_sums.tobytes()
                count, digest = self._open[name]
                self._open[name] = (count + len(block), google_crc32c.extend(digest, sums))
                self._checksums[name] = google_crc32c.extend(self._checksums[name], sums)

    def keep(self) -> None:
        """Show that this goes on: small rows stay in memory for hours, and what does not change for long is
        collected as garbage."""
        assert self._staged is not None
        with explained("writing a segment", self._staged):
            os.utime(self._staged)

    def end(self, key: str, samples: int) -> None:
        """The rows since the last call are the track `key`."""
        for name, (count, digest) in self._open.items():
            self._counts[name].append(count)
            self._digests[name].append(digest)
            self._open[name] = (0, 0)
        self._keys.append(key)
        self._samples.append(samples)

    def __len__(self) -> int:
        return len(self._keys)

    def publish(self, replaces: Iterable[str] = (), provenance: Mapping[str, Any] | None = None) -> Record:
        """The segment exists from here on, durably, and counts once the returned record is in the journal."""
        assert self._staged is not None
        extents = {}
        with explained("writing a segment", self._staged):
            for name, array in self.layout.arrays.items():
                counts = self._counts[name]
                total = sum(counts)
                file = self._files[name]
                file.write(array.index(total))
                for written in (file, self._sums.get(name)):
                    if written is not None:
                        written.close()
                (self._staged / array.metadata_name).write_bytes(array.metadata(total))
                first = tuple(np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(int).tolist())
                extents[name] = Extent(
                    total,
                    array.size(total),
                    self._checksums[name],
                    first,
                    tuple(counts),
                    tuple(self._digests[name]),
                )
        record = Record(
            segment=self.name,
            fingerprint=self.layout.fingerprint,
            keys=tuple(self._keys),
            samples=tuple(self._samples),
            extents=extents,
            replaces=tuple(replaces),
            provenance={
                "committed": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                "host": platform.node(),
                "pid": os.getpid(),
                "versions": library_versions(),
                **(provenance or {}),
                **RECEIPT,
            },
        )
        with explained("writing a segment", self._staged):
            (self._staged / "zarr.json").write_bytes(self.layout.segment_metadata(seal(record.to_json())))
        staged, self._staged = self._staged, None
        try:
            self.backend.publish(staged, f"segments/{self.name}")
        except StoreError:
            self.backend.discard(staged)
            raise
        return record


def encode_track(key: str, features: Features, layout: StoreLayout) -> dict[str, np.ndarray]:
    """Stored rows by pooling, after checking that reading them back will give these features and no others.

    Raises StoreError for a bad key, FingerprintError for another spec, UnstorableError for values that do not
    fit.
    """
    _require_key(key)
    spec = layout.spec
    if features.spec != spec:
        spec.require_same(features.spec, f"the commit of track {key}")
    try:
        chunks = Layout.of(features.samples, spec)
    except AudioError as error:
        raise StoreError(f"track {key}: {error.what}") from error
    stored, wrong = {}, []
    for p in spec.poolings:
        pooled = features.pooled[p.name]
        times, frames = rows(chunks, p)
        if (
            len(pooled.values) != len(times)
            or not (np.abs(pooled.times - times) <= 1e-6 + 1e-5 * np.abs(times)).all()
            or not np.array_equal(pooled.frames, frames)
        ):
            raise StoreError(
                f"track {key}: {features.samples} samples give {len(times)} rows of {p.name!r} at known "
                f"times; these {len(pooled.values)} differ",
                "Times are not stored, they follow from the length: build features with "
                "beatmeter.audio.chunking.",
            )
        stored[p.name], bad = _encode(layout, p.name, pooled.values)
        wrong += bad
    if wrong:
        raise UnstorableError({key: "; ".join(wrong)})
    return stored


def _require_key(key: str) -> None:
    if not KEY.fullmatch(key):
        raise StoreError(
            f"{key[:80]!r} cannot be a track key",
            "Keys are hashes of the audio file's bytes: letters, digits and . _ : + -",
        )


def _encode(layout: StoreLayout, name: str, values: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Stored rows of one pooling, and what about them cannot be stored."""
    array = layout.arrays[name]
    stored = array.encode(values)
    bad = zip(array.pooling.layers, array.unstorable(stored), strict=True)
    return stored, [
        f"{n} values of {name!r} layer {layer} are not finite in {layout.spec.store_dtype}"
        for layer, n in bad
        if n
    ]


class TrackDraft:
    """A track too long to hold, in the making: `append` its rows part by part, then `publish`, or `discard`
    it."""

    def __init__(self, backend: Backend, layout: StoreLayout, key: str, samples: int) -> None:
        _require_key(key)
        self.layout, self.key, self.samples = layout, key, samples
        chunks = Layout.of(samples, layout.spec)
        self._missing = {p.name: row_count(chunks, p) for p in layout.spec.poolings}
        self._writer = SegmentWriter(backend, layout).__enter__()

    def append(self, values: Mapping[str, np.ndarray]) -> None:
        """The next rows (row, layer, *axes) of every pooling. Raises UnstorableError, StoreError; discard the
        draft then."""
        parts: dict[str, np.ndarray] = {}
        wrong: list[str] = []
        for name, rows_here in values.items():
            parts[name], bad = _encode(self.layout, name, rows_here)
            wrong += bad
            self._missing[name] -= len(rows_here)
        if wrong:
            raise UnstorableError({self.key: "; ".join(wrong)})
        self._writer.extend(parts)
        self._writer.keep()

    def publish(self, provenance: Mapping[str, Any] | None = None) -> Record:
        """The segment of this one track, not yet in the journal."""
        if any(self._missing.values()):
            raise StoreError(
                f"track {self.key}: {self.samples} samples give other numbers of rows: {self._missing} are "
                "missing"
            )
        self._writer.end(self.key, self.samples)
        try:
            return self._writer.publish(provenance=provenance)
        finally:
            self.discard()

    def discard(self) -> None:
        """Forget what was not published."""
        self._writer.__exit__()


def write_tracks(
    backend: Backend,
    layout: StoreLayout,
    items: Iterable[tuple[str, Features]],
    provenance: Mapping[str, Any] | None,
) -> Record:
    """A published segment of these tracks, not yet in the journal. All or nothing: every unstorable track is
    named."""
    bad: dict[str, str] = {}
    with SegmentWriter(backend, layout) as writer:
        for key, features in items:
            try:
                stored = encode_track(key, features, layout)
            except UnstorableError as error:
                bad |= error.tracks
                continue
            if not bad:
                writer.add(key, features.samples, stored)
        if bad:
            raise UnstorableError(bad)
        return writer.publish(provenance=provenance)
