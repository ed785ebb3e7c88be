"""One segment against its record: every byte of it, without mapping it, so that even half a file can be
read."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

import google_crc32c
import numpy as np

from beatmeter.store.backend import ABSENT, Backend, reading
from beatmeter.store.journal import RecordError, seal, unseal
from beatmeter.store.layout import ArrayLayout, StoreLayout, checksums, digest
from beatmeter.store.record import Record


@dataclass
class Condition:
    """What is wrong with a segment: texts by file name, and texts by track key for tracks whose rows are
    damaged."""

    files: dict[str, str] = field(default_factory=dict)
    tracks: dict[str, str] = field(default_factory=dict)

    @property
    def sound(self) -> bool:
        return not self.files and not self.tracks


def read_tracks(
    backend: Backend, record: Record, layout: StoreLayout, which: Sequence[int] | None = None
) -> Iterator[tuple[dict[str, np.ndarray], str]]:
    """Per track of the record (default: all, in order): its stored rows by pooling and "", or what is wrong
    with it in place of rows. Raises UnreadableError when that cannot be known."""
    with contextlib.ExitStack() as stack:
        files: dict[str, BinaryIO | None] = {}
        for name, array in layout.arrays.items():
            try:
                files[name] = stack.enter_context(backend.open(f"segments/{record.segment}/{array.shard}"))
            except ABSENT:
                files[name] = None
        for i in range(len(record.keys)) if which is None else which:
            stored: dict[str, np.ndarray] = {}
            wrong = ""
            for name, array in layout.arrays.items():
                extent = record.extents[name]
                with reading(f"{backend.where}/segments/{record.segment}/{array.shard}"):
                    rows = _read_rows(files[name], array, extent.first[i], extent.counts[i])
                if isinstance(rows, str):
                    wrong = wrong or f"{name!r} rows {rows}"
                    continue
                data, sums = array.split(rows)
                if digest(sums) != extent.digests[i] or not np.array_equal(checksums(data), sums):
                    wrong = wrong or f"{name!r} rows do not match their checksums"
                stored[name] = rows
            yield ({}, wrong) if wrong else (stored, "")


def _read_rows(file: BinaryIO | None, layout: ArrayLayout, first: int, count: int) -> np.ndarray | str:
    if file is None:
        return "are in a file that is missing"
    file.seek(first * layout.stride)
    data = file.read(count * layout.stride)
    if len(data) < count * layout.stride:
        return "lie beyond the end of the file"
    return np.frombuffer(data, np.uint8).reshape(count, layout.stride)


def compare(backend: Backend, layout: StoreLayout, record: Record) -> Condition:
    """Compare a segment with its record without reading its rows: metadata, lengths, indexes, and what the
    segment's own copy of the record says of each track. Raises UnreadableError."""
    condition = Condition()
    base = f"segments/{record.segment}"
    expected = {f"{base}/zarr.json": layout.segment_metadata(seal(record.to_json()))}
    expected |= {
        f"{base}/{array.metadata_name}": array.metadata(record.extents[name].rows)
        for name, array in layout.arrays.items()
    }
    for file, content in expected.items():
        if not holds_json(backend, file, content):
            condition.files[file] = backend.wrong_with(file) or "differs from what was committed"
    for name, array in layout.arrays.items():
        file, rows = f"{base}/{array.shard}", record.extents[name].rows
        size = backend.size(file)
        if size != array.size(rows):
            found = f"has {size} bytes" if size is not None else backend.wrong_with(file) or "was missing"
            condition.files[file] = f"{found}, its record says {array.size(rows)} bytes"
        else:
            with (
                contextlib.suppress(*ABSENT),
                reading(f"{backend.where}/{file}"),
                backend.open(file) as shard,
            ):
                shard.seek(rows * array.stride)
                if shard.read() == array.index(rows):
                    continue
            condition.files[file] = (
                "the shard's index is damaged: other Zarr readers would fail or read wrong rows"
            )
    for array in layout.arrays.values():
        file, rows = f"{base}/{array.layer_sums_name}", record.extents[array.pooling.name].rows
        size = backend.size(file) if array.has_layer_sums else None
        if size not in (None, rows * array.layer_sums_stride):
            right = rows * array.layer_sums_stride
            condition.files[file] = f"has {size} bytes, {rows} rows have {right} bytes of checksums of layers"
    condition.tracks |= dict.fromkeys(
        disputed(backend, layout, record),
        "its record and the segment's own copy of it disagree about this track",
    )
    return condition


def examine(backend: Backend, layout: StoreLayout, record: Record) -> Condition:
    """`compare`, and every checksum of the rows. Raises UnreadableError."""
    condition = compare(backend, layout, record)
    totals = dict.fromkeys(layout.arrays, 0)
    with contextlib.ExitStack() as stack:
        layer_sums = _open_layer_sums(backend, record, layout, stack)
        for i, (stored, wrong) in enumerate(read_tracks(backend, record, layout)):
            if wrong:
                condition.tracks.setdefault(record.keys[i], wrong)
            for name, rows_stored in stored.items():
                array = layout.arrays[name]
                data, sums = array.split(rows_stored)
                totals[name] = google_crc32c.extend(totals[name], sums.tobytes())
                if name in layer_sums:
                    file = f"segments/{record.segment}/{array.layer_sums_name}"
                    with reading(f"{backend.where}/{file}"):
                        layer_sums[name].seek(record.extents[name].first[i] * array.layer_sums_stride)
                        kept = layer_sums[name].read(len(data) * array.layer_sums_stride)
                    if kept != array.layer_sums(data).astype("<u4").tobytes():
                        condition.files[file] = "does not match the rows, which are sound"
    if not condition.tracks:
        for name, total in totals.items():
            if total != record.extents[name].checksum:
                file = f"segments/{record.segment}/{layout.arrays[name].shard}"
                condition.files[file] = "the checksum of the whole array does not match its record"
    return condition


def _open_layer_sums(
    backend: Backend, record: Record, layout: StoreLayout, stack: contextlib.ExitStack
) -> dict[str, BinaryIO]:
    """The files of checksums of layers that a segment has, by pooling."""
    found = {}
    for name, array in layout.arrays.items():
        if array.has_layer_sums:
            with contextlib.suppress(*ABSENT):
                found[name] = stack.enter_context(
                    backend.open(f"segments/{record.segment}/{array.layer_sums_name}")
                )
    return found


def lacks_layer_sums(backend: Backend, layout: StoreLayout, segment: str) -> bool:
    """Whether a segment was written before layers had checksums of their own, or has lost them. Raises
    UnreadableError."""
    return any(
        array.has_layer_sums and backend.size(f"segments/{segment}/{array.layer_sums_name}") is None
        for array in layout.arrays.values()
    )


def disputed(backend: Backend, layout: StoreLayout, record: Record) -> set[str]:
    """Tracks of which a record says something else than the copy that its segment carries. None when there is
    no copy that can be believed. Raises UnreadableError."""
    try:
        own = embedded_record(backend, record.segment, layout).statements()
    except RecordError:
        return set()
    told = record.statements()
    return {key for key in told.keys() | own.keys() if told.get(key) != own.get(key)}


def holds_json(backend: Backend, name: str, content: bytes) -> bool:
    """Whether a file holds the same JSON value as `content`. Raises UnreadableError."""
    with contextlib.suppress(*ABSENT, ValueError, RecursionError):
        found = backend.read(name)
        return bool(found == content or json.loads(found) == json.loads(content))
    return False


def embedded_record(backend: Backend, segment: str, layout: StoreLayout) -> Record:
    """The record that a segment carries within itself. Raises RecordError when there is none that can be
    believed, and UnreadableError."""
    try:
        attributes = json.loads(backend.read(f"segments/{segment}/zarr.json"))["attributes"]
        record = Record.from_json(unseal(attributes["record"].encode("ascii")), layout)
    except RecordError:
        raise
    except (*ABSENT, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RecordError(f"segments/{segment} does not describe itself: {error}") from error
    if record.segment != segment:
        raise RecordError(f"segments/{segment} says that it is {record.segment}")
    return record
