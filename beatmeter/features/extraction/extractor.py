"""Decode, infer and commit at once: processes read files, threads compute, a thread commits, bounded queues
between them.

Nothing acknowledged is ever lost: a track counts as done when the store has committed it. Stopping costs the
tracks in flight; running again does only what is missing. A file that cannot be used is recorded with its
reason.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import closing

import torch

from beatmeter.audio.identity import Stamp
from beatmeter.features.extraction.committing import Committer, Outcome, Part, Patience, Written, impatient
from beatmeter.features.extraction.feeding import Batch, Feed, Unit, Unusable
from beatmeter.features.extraction.flow import ClosedError, through
from beatmeter.features.extraction.inference import Inference, Rows
from beatmeter.features.pooling import Encoder
from beatmeter.runtime.progress import Tick, untold
from beatmeter.schema import Track
from beatmeter.store import Store


class Extractor:
    """Runs one backbone over tracks and commits their features to one store.

    `jobs` processes decode (1: this one does). `batch_chunks` is the largest batch; 0 takes what suits the
    device.
    """

    def __init__(
        self, encoder: Encoder, store: Store, device: torch.device, jobs: int = 1, batch_chunks: int = 0
    ) -> None:
        self.encoder, self.store, self.device, self.jobs, self.batch_chunks = (
            encoder,
            store,
            device,
            jobs,
            batch_chunks,
        )

    def run(
        self,
        todo: Sequence[tuple[str, Track]],
        tick: Tick = untold,
        stop: threading.Event | None = None,
        patience: Patience = impatient,
        stamps: Mapping[str, Stamp | None] | None = None,
        written: Written = untold,
    ) -> Outcome:
        """Extract all of `todo`, (key, track) pairs. `tick(1)` is called for each track that finishes or
        fails.

        Once `stop` is set no track is begun, and those in flight are finished and committed. On an exception
        (Ctrl-C among them) what is finished is committed before it goes on. `patience` decides whether to try
        again when the store cannot be written, `written(n)` tells that n tracks were. `stamps` are those of a
        plan: a file that changed since fails, for this time.
        """
        began, threads = time.monotonic(), torch.get_num_threads()
        infer = Inference(self.encoder, self.device, self.batch_chunks)
        feed = Feed(
            todo, self.encoder.spec, self.jobs, lambda: infer.limit, stop or threading.Event(), stamps or {}
        )
        outcome = Outcome(lanes=infer.lanes)
        order = _InOrder()

        def work(item: Batch | Unusable) -> list[tuple[Unit, Rows]] | Unusable:
            return item if isinstance(item, Unusable) else infer(item)

        try:
            committing = Committer(self.store, outcome, patience, written)
            with (
                committing as committer,
                closing(through(feed.batches(), work, infer.lanes, infer.lanes)) as results,
            ):
                for result in results:
                    for part in [result] if isinstance(result, Unusable) else order.parts(result):
                        committer.put(part)
                        if isinstance(part, Unusable) or part.last:
                            tick(1)
        except ClosedError:  # the committer stopped, and its error was raised in place of this
            raise AssertionError from None
        finally:
            torch.set_num_threads(threads)
            outcome.seconds = time.monotonic() - began
            outcome.stages |= {"audio": feed.waited, "inference": infer.busy}
        return outcome


class _InOrder:
    """Windows of a track come back in any order, and are passed on in theirs."""

    def __init__(self) -> None:
        self._early: dict[str, dict[int, Rows]] = {}
        self._next: dict[str, int] = {}

    def parts(self, done: list[tuple[Unit, Rows]]) -> list[Part]:
        """Those parts of tracks that can go on now."""
        result = []
        for unit, rows in done:
            key = unit.source.key
            early = self._early.setdefault(key, {})
            early[unit.number] = rows
            while (number := self._next.get(key, 0)) in early:
                last = number + 1 == unit.source.windows
                result.append(Part(unit.source, early.pop(number), last))
                self._next[key] = number + 1
            if self._next.get(key) == unit.source.windows:
                del self._early[key], self._next[key]
        return result
