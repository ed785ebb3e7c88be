"""The extraction service: plan what is missing, decode ahead, infer in batches of equal length, commit in segments.

Nothing acknowledged is ever lost: a track counts as done when the store has committed it. Stopping costs the tracks in
flight; running again does only what is missing. A file that cannot be used is recorded with its reason.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from beatmeter.audio.ahead import LongAudio, decode_or_count
from beatmeter.audio.decode import stream
from beatmeter.audio.identity import track_keys
from beatmeter.chunking import Layout, rows
from beatmeter.errors import AudioError, BeatmeterError, StoreError
from beatmeter.pooling import Arrangement, Encoder, window_chunks
from beatmeter.schema import Features, FeatureSpec, Pooled, Track
from beatmeter.store import Store, UnstorableError

COMMIT_TRACKS = 64  # a segment holds at most this many tracks
COMMIT_SECONDS = 20.0  # and is committed at least this often


@dataclass(frozen=True)
class Plan:
    """What is to do. `keys` maps track ids to track keys (hash of the file's bytes); `todo` has each key once;
    `failed` maps ids to the reason why they have no features, from this or an earlier run."""

    keys: Mapping[str, str]
    todo: tuple[tuple[str, Track], ...]
    present: int
    duplicates: int
    failed: Mapping[str, str]


def plan(tracks: Sequence[Track], store: Store, cache: Path, retry_failed: bool = False, jobs: int = 1) -> Plan:
    """Compare the tracks with the store: by content, so that copies and renamed files are known."""
    keys: dict[str, str] = {}
    failed: dict[str, str] = {}
    for track, found in zip(tracks, track_keys([t.path for t in tracks], cache, jobs), strict=True):
        if isinstance(found, AudioError):
            failed[track.id] = str(found)
        else:
            keys[track.id] = found
    have = set(keys.values()) - set(store.missing(keys.values()))
    known_bad = {} if retry_failed else store.failures()
    todo: dict[str, Track] = {}
    present = duplicates = 0
    for track in tracks:
        key = keys.get(track.id)
        if key is None:
            continue
        if key in have:
            present += 1
        elif key in known_bad:
            failed[track.id] = known_bad[key].reason
        elif key in todo:
            duplicates += 1
        else:
            todo[key] = track
    return Plan(keys, tuple(todo.items()), present, duplicates, failed)


@dataclass
class Outcome:
    """What an extraction did: tracks committed, failures by track id, seconds of audio and of work."""

    done: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    audio_seconds: float = 0.0
    seconds: float = 0.0


@dataclass
class _Track:
    """A track in flight: how many windows are still out, and the rows of those that are back."""

    key: str
    track: Track
    layout: Layout
    waiting: int
    parts: dict[int, dict[str, np.ndarray]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Unit:
    """One window of a track: the chunks that go through the backbone together."""

    owner: _Track
    number: int
    chunks: np.ndarray  # (chunk, sample)
    arrangement: Arrangement


class Extractor:
    """Runs one backbone over tracks and commits their features to one store."""

    def __init__(self, encoder: Encoder, store: Store, device: torch.device, jobs: int = 1, batch_chunks: int = 12) -> None:
        self.encoder, self.store, self.device, self.jobs = encoder.eval(), store, device, jobs
        self.spec: FeatureSpec = encoder.spec
        self.window = window_chunks(self.spec)
        self.batch_chunks = max(batch_chunks, self.window)
        self._ready: dict[str, tuple[Track, Features]] = {}
        self._committed = time.monotonic()

    def run(self, todo: Sequence[tuple[str, Track]], progress: Callable[[int], object] = lambda n: None) -> Outcome:
        """Extract all of `todo`. `progress(1)` is called for each track that finishes or fails. On an exception (Ctrl-C
        among them) what is finished is committed before it goes on."""
        outcome = Outcome()
        began = time.monotonic()
        pending: list[_Unit] = []
        try:
            for unit in self._units(todo, outcome, progress):
                same = [u for u in pending if u.chunks.shape[1] == unit.chunks.shape[1]]
                if pending and (not same or sum(len(u.chunks) for u in pending) + len(unit.chunks) > self.batch_chunks):
                    self._infer(pending, outcome, progress)
                    pending = []
                pending.append(unit)
            if pending:
                self._infer(pending, outcome, progress)
        finally:
            self._commit(outcome)
            outcome.seconds = time.monotonic() - began
        return outcome

    def _units(self, todo: Sequence[tuple[str, Track]], outcome: Outcome, progress: Callable[[int], object]) -> Iterator[_Unit]:
        waves = decode_or_count([track.path for _, track in todo], self.spec.chunk.sample_rate, jobs=self.jobs)
        for (key, track), wave in zip(todo, waves, strict=True):
            try:
                if isinstance(wave, AudioError):
                    raise wave
                samples = wave.samples if isinstance(wave, LongAudio) else len(wave)
                layout = Layout.of(samples, self.spec)
            except AudioError as error:
                self._fail(key, track, error, outcome)
                progress(1)
                continue
            windows = layout.windows(self.window)
            owner = _Track(key, track, layout, len(windows))
            blocks = _cut_stream(stream(track.path, layout.sample_rate), layout) if isinstance(wave, LongAudio) else _cut(wave, layout)
            for number, window in enumerate(windows):
                first, last = window.chunks
                chunks = np.stack([next(blocks) for _ in range(first, last)])
                skips = layout.skips[first:last]
                yield _Unit(owner, number, chunks, Arrangement((layout.window(first, last).shifted(-first),), skips))

    def _fail(self, key: str, track: Track, error: BeatmeterError, outcome: Outcome) -> None:
        outcome.failed[track.id] = str(error)
        self.store.record_failure(key, str(track.path), str(error))

    def _infer(self, units: list[_Unit], outcome: Outcome, progress: Callable[[int], object]) -> None:
        waves = torch.from_numpy(np.concatenate([u.chunks for u in units])).to(self.device)
        arrangement = Arrangement.join([u.arrangement for u in units])
        with torch.inference_mode():
            pooled = {name: values.cpu().numpy() for name, values in self.encoder(waves, arrangement).items()}
        at = dict.fromkeys(pooled, 0)
        for unit in units:
            part = {}
            for name, values in pooled.items():
                n = self._rows_of(unit, name)
                part[name] = values[at[name] : at[name] + n]
                at[name] += n
            unit.owner.parts[unit.number] = part
            unit.owner.waiting -= 1
            if unit.owner.waiting == 0:
                self._finish(unit.owner, outcome)
                progress(1)
        if len(self._ready) >= COMMIT_TRACKS or time.monotonic() - self._committed > COMMIT_SECONDS:
            self._commit(outcome)

    def _rows_of(self, unit: _Unit, name: str) -> int:
        pooling = self.spec[name]
        if pooling.unit == "chunk":
            return len(unit.chunks)
        if pooling.unit == "window":
            return 1
        step = int(pooling.parameters["step"])
        bins = -(-unit.owner.layout.frames // step)
        return sum(bins - skip // step for skip in unit.arrangement.skips)

    def _finish(self, owner: _Track, outcome: Outcome) -> None:
        pooled = {}
        for p in self.spec.poolings:
            values = np.concatenate([owner.parts[i][p.name] for i in sorted(owner.parts)])
            times, frames = rows(owner.layout, p)
            pooled[p.name] = Pooled(values, times, frames)
        self._ready[owner.key] = (owner.track, Features(self.spec, owner.layout.samples, pooled))

    def _commit(self, outcome: Outcome) -> None:
        self._committed = time.monotonic()
        if not self._ready:
            return
        ready, self._ready = self._ready, {}
        try:
            self.store.commit([(key, features) for key, (_, features) in ready.items()])
        except UnstorableError as error:  # values that are not finite or too large for the store: those tracks fail, the rest is kept
            for key, reason in error.tracks.items():
                self._fail(key, ready.pop(key)[0], StoreError(reason, "Try --set features.dtype=float32."), outcome)
            self.store.commit([(key, features) for key, (_, features) in ready.items()])
        outcome.done += len(ready)
        outcome.audio_seconds += sum(f.samples for _, f in ready.values()) / self.spec.chunk.sample_rate


def _cut(wave: np.ndarray, layout: Layout) -> Iterator[np.ndarray]:
    return (wave[s : s + layout.length] for s in layout.starts)


def _cut_stream(blocks: Iterator[np.ndarray], layout: Layout) -> Iterator[np.ndarray]:
    """The chunks of a long file without holding it: a buffer slides over its blocks."""
    buffer, begin = np.empty(0, dtype=np.float32), 0
    for start in layout.starts:
        while begin + len(buffer) < start + layout.length:
            buffer = np.concatenate([buffer, next(blocks)])
        buffer, begin = buffer[start - begin :], start
        yield buffer[: layout.length]
