"""Commits in a thread of their own, so that inference never waits for a disk; a bounded queue before it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType

import numpy as np

from beatmeter.audio.chunking import row_count, rows
from beatmeter.errors import AudioError, BeatmeterError, StoreError
from beatmeter.features.extraction.feeding import Source, Unusable
from beatmeter.features.extraction.flow import Channel, ClosedError
from beatmeter.features.extraction.inference import Rows
from beatmeter.runtime.progress import untold
from beatmeter.schema import Features, FeatureSpec, Pooled
from beatmeter.store import Store, UnstorableError
from beatmeter.store.commit import TrackDraft

COMMIT_TRACKS = 64  # a segment holds at most this many tracks
COMMIT_BYTES = 128 << 20  # of features; a track with more is written to the disk as it is computed
COMMIT_SECONDS = 20.0  # what is finished is committed at least this often
_AHEAD = 8

Patience = Callable[[StoreError], bool]
Written = Callable[[int], object]


def impatient(error: StoreError) -> bool:
    """The store cannot be written: give up."""
    return False


@dataclass
class Outcome:
    """What an extraction did: tracks committed, reasons of failures by track id, seconds of audio and of
    work.

    `stages` are seconds: how long the pipeline waited for audio, how long all inference threads computed
    together (of `lanes` x `seconds`), how long commits took in the background.
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
        busy, audio, commits = (
            share.get("inference", 0.0) / self.lanes,
            share.get("audio", 0.0),
            share.get("commits", 0.0),
        )
        return (
            f"inference busy {busy:.0%}, waiting for audio {audio:.0%}, commits {commits:.0%} in the "
            "background"
        )


@dataclass(frozen=True)
class Part:
    """Rows of one window, in the order of the windows."""

    source: Source
    rows: Rows
    last: bool


class _Growing:
    """A track's rows, put in their place as they come: parts kept one by one would hold on to memory in many
    small pieces, between which large freed ones are lost."""

    def __init__(self, source: Source, spec: FeatureSpec) -> None:
        self._source, self._spec = source, spec
        self._values: dict[str, np.ndarray] = {}
        self._filled = dict.fromkeys((p.name for p in spec.poolings), 0)

    def take(self, part: Rows) -> None:
        """The next rows of every pooling."""
        for name, found in part.items():
            if name not in self._values:
                total = row_count(self._source.layout, self._spec[name])
                self._values[name] = np.empty((total, *found.shape[1:]), found.dtype)
            at = self._filled[name]
            self._filled[name] = at + len(found)
            self._values[name][at : at + len(found)] = found

    def features(self) -> Features:
        """All of them, after the last part."""
        pooled = {}
        for p in self._spec.poolings:
            times, frames = rows(self._source.layout, p)
            pooled[p.name] = Pooled(self._values[p.name][: self._filled[p.name]], times, frames)
        return Features(self._spec, self._source.layout.samples, pooled)


class Committer:
    """Takes parts and failures, commits whole tracks.

    `patience` is asked when the store cannot be written: True means try again (a track too large to hold
    fails for this time then, and is not recorded as bad). `written(n)` is called when the store has taken n
    tracks (0: a failure). Leaving the `with` block commits what is complete; an error of the store is raised
    there, or by `put`.
    """

    def __init__(
        self, store: Store, outcome: Outcome, patience: Patience = impatient, written: Written = untold
    ) -> None:
        self.store, self.outcome, self.patience, self.written = store, outcome, patience, written
        self._inbox: Channel[Part | Unusable] = Channel(_AHEAD)
        self._open: dict[str, _Growing] = {}  # tracks that are not complete
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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
                if (
                    len(self._ready) >= COMMIT_TRACKS
                    or self._bytes >= COMMIT_BYTES
                    or time.monotonic() - self._since > COMMIT_SECONDS
                ):
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
        if key not in self._open:
            self._open[key] = _Growing(source, self.store.spec)
        self._open[key].take(part.rows)
        if part.last:
            self._ready[key] = (source, self._open.pop(key).features())
            self._bytes += size

    def _forget(self, key: str) -> None:
        """Nothing of this track is wanted any more, though parts of it may still come."""
        self._refused.add(key)
        self._open.pop(key, None)
        if draft := self._drafts.pop(key, None):
            draft.discard()

    def _append(self, part: Part) -> None:
        """Of a track too large to hold: its rows go to the disk as they come."""
        source, began = part.source, time.monotonic()
        try:
            if source.key not in self._drafts:
                self._drafts[source.key] = self.store.draft(source.key, source.layout.samples)
            self._drafts[source.key].append(part.rows)
            if part.last:
                self.store.commit_draft(self._drafts.pop(source.key))
                self._count([source])
        except UnstorableError as error:
            self._forget(source.key)
            self._refuse(source, error.tracks[source.key])
        except StoreError as error:  # some of its rows may be lost: it begins again, with the next run
            self._forget(source.key)
            if not self.patience(error):
                raise
            self.outcome.failed[source.track.id] = str(error)
        self._busy += time.monotonic() - began

    def _commit(self) -> None:
        self._since = time.monotonic()
        ready, self._ready, self._bytes = self._ready, {}, 0
        while ready:
            try:
                self.store.commit([(key, features) for key, (_, features) in ready.items()])
            except (
                UnstorableError
            ) as error:  # values that are not finite or too large: those tracks fail, the rest is kept
                for key, reason in error.tracks.items():
                    self._refuse(ready.pop(key)[0], reason)
            except StoreError as error:
                if not self.patience(error):
                    raise
            else:
                self._count([source for source, _ in ready.values()])
                break
        self._busy += time.monotonic() - self._since

    def _count(self, sources: Sequence[Source]) -> None:
        self.outcome.done += len(sources)
        self.outcome.audio_seconds += sum(s.layout.samples / s.layout.sample_rate for s in sources)
        self.written(len(sources))

    def _refuse(self, source: Source, reason: str) -> None:
        self._fail(
            source.key,
            source.track.id,
            str(source.track.path),
            StoreError(reason, "Try --set features.dtype=float32."),
        )

    def _fail(self, key: str, name: str, path: str, error: BeatmeterError) -> None:
        self.outcome.failed[name] = str(error)
        if isinstance(error, AudioError) and error.passing:  # the next run reads it again
            return
        while True:
            try:
                self.store.record_failure(key, path, str(error))
            except StoreError as trouble:
                if not self.patience(trouble):
                    raise
            else:
                self.written(0)
                break
