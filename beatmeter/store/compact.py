"""Compaction: many small segments into few large ones, so that stores with many commits open and scan
fast."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from beatmeter.errors import StoreError
from beatmeter.runtime.progress import SILENT, Reporter
from beatmeter.store.catalog import Catalog, State
from beatmeter.store.commit import SegmentWriter
from beatmeter.store.mapped import REMEDY
from beatmeter.store.record import Record
from beatmeter.store.segment import disputed, lacks_layer_sums, read_tracks
from beatmeter.store.store import Store

TARGET = 1 << 30  # bytes of a segment


@dataclass(frozen=True)
class Compaction:
    """Segments before and after, and how many tracks were copied."""

    before: int
    after: int
    copied: int


def compact(store: Store, target: int = TARGET, progress: Reporter = SILENT) -> Compaction:
    """Join segments much smaller than `target` bytes, and rewrite those in which most rows lost to an earlier
    commit, and those of an earlier version, without checksums of single layers.

    Readers and writers may go on meanwhile: a new segment counts by one record that replaces the old ones,
    which `gc` removes later. Every row is checked on the way. Raises StoreError at the first damaged track;
    what was joined before it counts.
    """
    with store.backend.lock("compaction"):
        # Records as they are now: what this handle or an index remembers may have been written over since.
        catalog = Catalog(store.backend, store.layout)
        catalog.refresh(use_index=False)
        state = catalog.state()
        before, groups, copied = _segments(state), _groups(store, state, target), 0
        with progress.track("compacting", len(groups), "segments") as tick:
            for group in groups:
                copied += _join(store, catalog, state, group)
                tick(1)
        catalog.save_index()
        return Compaction(before, _segments(catalog.state()), copied)


def _segments(state: State) -> int:
    return sum(bool(commit.segment) for commit in state.commits.values())


@dataclass(frozen=True)
class _Use:
    """How many bytes of a segment's rows are read, how many there are, and whether an earlier version wrote
    it."""

    number: int
    used: int
    bytes: int
    old: bool

    @property
    def to_rewrite(self) -> bool:
        return self.old or 2 * self.used <= self.bytes


def _groups(store: Store, state: State, target: int) -> list[list[int]]:
    """Numbers of commits to join, each list into one segment of about `target` bytes."""
    strides = np.array([array.stride for array in store.layout.arrays.values()])
    numbers, which = np.unique(state.columns.number, return_inverse=True)
    used = np.bincount(which, (state.columns.counts * strides).sum(axis=1), len(numbers)).astype(int)
    of = dict(zip(numbers.tolist(), used.tolist(), strict=True))
    uses = [
        _Use(
            n,
            of.get(n, 0),
            int(np.dot(c.rows, strides)),
            lacks_layer_sums(store.backend, store.layout, c.segment),
        )
        for n, c in sorted(state.commits.items())
        if c.segment
    ]
    groups: list[list[_Use]] = []
    for use in uses:
        if use.used > target // 2 and not use.to_rewrite:
            continue
        if not groups or sum(u.used for u in groups[-1]) + use.used > target:
            groups.append([])
        groups[-1].append(use)
    return [[u.number for u in group] for group in groups if len(group) > 1 or group[0].to_rewrite]


def _join(store: Store, catalog: Catalog, state: State, group: list[int]) -> int:
    """Write the tracks of these commits that count into one segment, and replace the commits by it."""
    replaces = [state.commits[number].segment for number in group]
    with SegmentWriter(store.backend, store.layout) as writer:
        for number in group:
            record = catalog.read(number)
            if wrong_tracks := disputed(store.backend, store.layout, record):
                raise StoreError(
                    f"segments/{record.segment} and its record disagree about track {min(wrong_tracks)}",
                    REMEDY,
                )
            at = state.columns.find(record.keys)
            counts = (at >= 0) & (state.columns.number[at] == number)
            for i, (stored, wrong) in enumerate(read_tracks(store.backend, record, store.layout)):
                if counts[i]:
                    if wrong:
                        raise StoreError(
                            f"track {record.keys[i]} is damaged in {record.segment}: {wrong}", REMEDY
                        )
                    writer.add(record.keys[i], record.samples[i], stored)
        copied = len(writer)
        if copied:
            joined = writer.publish(replaces, {"made_by": "compaction"})
        else:
            joined = Record(
                "", store.layout.fingerprint, replaces=tuple(replaces), provenance={"made_by": "compaction"}
            )
    catalog.append(joined)
    return copied
