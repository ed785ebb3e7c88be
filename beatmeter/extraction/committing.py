"""Commits in a thread of their own, so that inference never waits for a disk; a bounded queue before it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType

import numpy as np

from beatmeter.chunking import rows
from beatmeter.errors import AudioError, BeatmeterError, StoreError
from beatmeter.extraction.feeding import CHANGED, Source, Unusable
from beatmeter.extraction.flow import Channel, ClosedError
from beatmeter.extraction.inference import Rows
from beatmeter.schema import Features, Pooled
from beatmeter.store import Store, UnstorableError
from beatmeter.store.commit import TrackDraft

COMMIT_TRACKS = 64  # a segment holds at most this many tracks
COMMIT_BYTES = 128 << 20  # of features; a track with more is written to the disk as it is computed
COMMIT_SECONDS = 20.0  # what is finished is committed at least this often
_AHEAD = 8

Patience = Callable[[StoreError], bool]


def impatient(error: StoreError) -> bool:
    """The store cannot be written: give up."""
    return False


@dataclass
class Outcome:
    """What an extraction did: tracks committed, reasons of failures by track id, seconds of audio and of work.

    `stages` are seconds: how long the pipeline waited for audio, how long all inference threads computed together (of
    `lanes` x `seconds`), how long commits took in the background.
    """

    done: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    audio_seconds: float = 0.0
    seconds: float = 0.0
    lanes: int = 1
    stages: dict[str, float] = field(default_factory=dict)

    def profile(self) -> str:
        """Where the time went, in one line."""
        share = {name: s / max(self.seconds, 1e-9) for name, s in self.stages.items()}
        busy, audio, commits = share.get("inference", 0.0) / self.lanes, share.get("audio", 0.0), share.get("commits", 0.0)
        return f"inference busy {busy:.0%}, waiting for audio {audio:.0%}, commits {commits:.0%} in the background"


@dataclass(frozen=True)
class Part:
    """Rows of one window, in the order of the windows."""

    source: Source
    rows: Rows
    last: bool


class Committer:
    """Takes parts and failures, commits whole tracks. `patience` is asked when the store cannot be written: True means try
    again. Leaving the `with` block commits what is complete; an error of the store is raised there, or by `put`."""

    def __init__(self, store: Store, outcome: Outcome, patience: Patience = impatient) -> None:
        self.store, self.outcome, self.patience = store, outcome, patience
        self._inbox: Channel[Part | Unusable] = Channel(_AHEAD)
        self._open: dict[str, list[Rows]] = {}  # parts of tracks that are not complete
        self._drafts: dict[str, TrackDraft] = {}
        self._refused: set[str] = set()  # keys of tracks that failed half-way
        self._sizes: dict[str, int] = {}
        self._ready: dict[str, tuple[Source, Features]] = {}
        self._bytes = 0
        self._since = time.monotonic()
        self._busy = 0.0
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="beatmeter-commit", daemon=True)

    def __enter__(self) -> Committer:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._inbox.end()
        self._thread.join()
        self.outcome.stages["commits"] = self._busy
        if self._error is not None and (error is None or isinstance(error, ClosedError)):
            raise self._error

    def put(self, item: Part | Unusable) -> None:
        """Hand something over; waits when the disk is behind."""
        self._inbox.put(item)

    def _work(self) -> None:
        try:
            while True:
                try:
                    item = self._inbox.get(timeout=max(0.1, self._since + COMMIT_SECONDS - time.monotonic()))
                except ClosedError:
                    break
                if isinstance(item, Unusable):
                    self._forget(item.key)
                    self._fail(item.key, item.track.id, str(item.track.path), item.error)
                elif item is not None:
                    self._take(item)
                if len(self._ready) >= COMMIT_TRACKS or self._bytes >= COMMIT_BYTES or time.monotonic() - self._since > COMMIT_SECONDS:
                    self._commit()
            self._commit()
        except BaseException as error:
            self._error = error
        finally:
            self._inbox.abort()
            for draft in self._drafts.values():
                draft.discard()

    def _take(self, part: Part) -> None:
        key, source = part.source.key, part.source
        if key in self._refused:
            return
        if key not in self._sizes:
            self._sizes[key] = self.store.layout.bytes_of(source.layout)
        size = self._sizes[key]
        if part.last:
            del self._sizes[key]
        if size > COMMIT_BYTES:
            self._append(part)
            return
        parts = self._open.setdefault(key, [])
        parts.append(part.rows)
        if part.last:
            pooled = {}
            for p in self.store.spec.poolings:
                times, frames = rows(source.layout, p)
                pooled[p.name] = Pooled(np.concatenate([some[p.name] for some in parts]), times, frames)
            del self._open[key]
            self._ready[key] = (source, Features(self.store.spec, source.layout.samples, pooled))
            self._bytes += size

    def _forget(self, key: str) -> None:
        """Nothing of this track is wanted any more, though parts of it may still come."""
        self._refused.add(key)
        self._open.pop(key, None)
        if draft := self._drafts.pop(key, None):
            draft.discard()

    def _append(self, part: Part) -> None:
        source = part.source
        began = time.monotonic()
        if source.key not in self._drafts:
            self._drafts[source.key] = self.store.draft(source.key, source.layout.samples)
        draft = self._drafts[source.key]
        try:
            draft.append(part.rows)
        except UnstorableError as error:
            self._forget(source.key)
            self._refuse(source, error.tracks[source.key])
        else:
            if part.last:
                del self._drafts[source.key]
                self.store.commit_draft(draft)
                self._count(source)
        self._busy += time.monotonic() - began

    def _commit(self) -> None:
        self._since = time.monotonic()
        ready, self._ready, self._bytes = self._ready, {}, 0
        while ready:
            try:
                self.store.commit([(key, features) for key, (_, features) in ready.items()])
            except UnstorableError as error:  # values that are not finite or too large: those tracks fail, the rest is kept
                for key, reason in error.tracks.items():
                    self._refuse(ready.pop(key)[0], reason)
            except StoreError as error:
                if not self.patience(error):
                    raise
            else:
                for source, _ in ready.values():
                    self._count(source)
                break
        self._busy += time.monotonic() - self._since

    def _count(self, source: Source) -> None:
        self.outcome.done += 1
        self.outcome.audio_seconds += source.layout.samples / source.layout.sample_rate

    def _refuse(self, source: Source, reason: str) -> None:
        self._fail(source.key, source.track.id, str(source.track.path), StoreError(reason, "Try --set features.dtype=float32."))

    def _fail(self, key: str, name: str, path: str, error: BeatmeterError) -> None:
        self.outcome.failed[name] = str(error)
        if isinstance(error, AudioError) and error.kind == CHANGED:  # the next run reads it again, under its new key
            return None
        while True:
            try:
                return self.store.record_failure(key, path, str(error))
            except StoreError as trouble:
                if not self.patience(trouble):
                    raise
