"""Tracks to workers in small batches, counts back; what dies with its worker is tried again in halves, down
to one file."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from beatmeter.audio.identity import track_key
from beatmeter.errors import AudioError, EngineError, shown
from beatmeter.features.engines.base import Engine
from beatmeter.features.engines.work import Order, Report, work
from beatmeter.features.service import FeatureService
from beatmeter.runtime.config import change
from beatmeter.runtime.cores import usable_cores
from beatmeter.runtime.display import count
from beatmeter.runtime.parallel import Crash
from beatmeter.runtime.progress import SILENT, Reporter
from beatmeter.schema import Track
from beatmeter.store import Store
from beatmeter.store.store import is_address

BATCH = 64  # tracks of a task at most: one commit
_ROUNDS = 4  # tasks per worker at least, so that all end at about the same time


@dataclass
class Spread:
    """What all workers did together. `workers` counts tracks by host and process."""

    store: Store
    done: int = 0
    present: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    audio_seconds: float = 0.0
    workers: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def add(self, report: Report, tracks: int) -> None:
        """Count a task of so many tracks. Raises EngineError when the worker met trouble."""
        if report.trouble:
            raise EngineError(f"worker {report.worker}: {report.trouble[0]}", report.trouble[1])
        self.done += report.done
        self.present += report.present
        self.audio_seconds += report.audio_seconds
        self.failed.update(report.failed)
        self.workers[report.worker] += tracks

    def lines(self) -> list[str]:
        """For people: how much, how fast, by whom."""
        rate = self.done / max(self.seconds, 1e-9)
        speed = (
            f"extracted {count(self.done, 'track')} at {rate:.2f} clips/s, "
            f"{self.audio_seconds / max(self.seconds, 1e-9):.0f} x real time"
        )
        names = ", ".join(f"{name} {n}" for name, n in sorted(self.workers.items())[:8])
        more = f" and {len(self.workers) - 8} more" if len(self.workers) > 8 else ""
        return [
            f"{speed}; {self.present} were present",
            f"{count(len(self.workers), 'worker')}: {names}{more}",
        ]


def spread(
    service: FeatureService,
    tracks: Sequence[Track],
    engine: Engine,
    device: str = "auto",
    progress: Reporter = SILENT,
    retry_failed: bool = False,
) -> Spread:
    """Extract what the store lacks of `tracks` on a started engine.

    Workers get paths and ids of tracks, the settings and the address of the store; they compute keys,
    extract, commit and record failures, as one process alone would. Raises EngineError when a worker cannot
    write or cannot start.
    """
    store = service.store()
    order = order_for(service, store, engine, device, retry_failed)
    size = max(1, min(BATCH, -(-len(tracks) // (_ROUNDS * engine.slots))))
    bare = [Track(t.id, Path(os.path.abspath(t.path))) for t in tracks]  # noqa: PTH100 (links stay as they are)
    pending = [tuple(bare[i : i + size]) for i in range(0, len(bare), size)]
    outcome, began = Spread(store), time.monotonic()
    with progress.track("extracting", len(tracks)) as tick:
        suspects: list[Track] = []
        while pending:
            lost: list[tuple[Track, ...]] = []
            for batch, report in engine.run(partial(work, order), pending):
                if isinstance(report, Crash):
                    lost += [batch[: len(batch) // 2], batch[len(batch) // 2 :]] if len(batch) > 1 else []
                    suspects += batch if len(batch) == 1 else ()
                else:
                    outcome.add(report, len(batch))
                    tick(len(batch))
            pending = lost
        for track in suspects:  # one by one: it may have been a neighbour's fault until now
            for _, report in engine.run(partial(work, order), [(track,)]):
                if isinstance(report, Crash):
                    _give_up(track, outcome)
                else:
                    outcome.add(report, 1)
                tick(1)
    outcome.seconds = time.monotonic() - began
    return outcome


def order_for(
    service: FeatureService, store: Store, engine: Engine, device: str, retry_failed: bool
) -> Order:
    """The settings as every worker must take them: compute precision as it was settled here, paths from the
    root."""
    cache, where = service.config.cache, store.where
    if not is_address(where):
        cache, where = os.path.abspath(cache), os.path.abspath(where)  # noqa: PTH100
    backbone = service.config.backbone
    if Path(backbone).expanduser().is_dir():
        backbone = os.path.abspath(Path(backbone).expanduser())  # noqa: PTH100
    features = change(service.config, {"cache": cache, "dtype": service.dtype, "backbone": backbone})
    threads = 0 if engine.scheduler else max(1, usable_cores() // engine.workers)
    return Order(features, where, service.spec, device, threads, service.jobs, retry_failed)


def _give_up(track: Track, outcome: Spread) -> None:
    """A file that alone takes its worker down, every time."""
    if not outcome.workers:
        raise EngineError(
            "workers die before they have done anything",
            "Try `--engine local` on one of those machines: memory or the installation may be at fault.",
        )
    error = AudioError(
        f"the worker died each time it read {shown(track.path)}",
        "Convert it with another program, or leave it out.",
        "damaged",
    )
    outcome.failed[track.id] = str(error)
    try:
        key = track_key(track.path)
    except AudioError:  # gone meanwhile: there is nothing to remember
        return
    outcome.store.record_failure(key, str(track.path), str(error))
