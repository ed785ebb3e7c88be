"""The store of the features that some settings ask for, and the extraction that fills it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from beatmeter.features.extraction import Extractor, Plan, plan
from beatmeter.features.extraction.committing import Patience, Written, impatient
from beatmeter.features.model import FeatureModel
from beatmeter.features.pooling import Encoder
from beatmeter.features.poolings import POOLINGS
from beatmeter.runtime.display import count
from beatmeter.runtime.progress import SILENT, Reporter, untold
from beatmeter.schema import FeatureSpec, Track
from beatmeter.settings import FeatureConfig
from beatmeter.store import Store
from beatmeter.store.store import around, is_address, list_stores

Report = Callable[[str], None]


def memory_in(cache: str) -> Path | None:
    """Folder of the memory of track keys: the cache, where that is a folder."""
    return None if is_address(cache) else Path(cache)


@dataclass(frozen=True)
class Filling:
    """How a store is filled. `report` takes lines, `progress` bars. Setting `stop` ends it early, after the
    tracks in flight; `patience` decides whether to try again when the store cannot be written; `written(n)`
    is called when it has taken n tracks."""

    report: Report = print
    progress: Reporter = SILENT
    retry_failed: bool = False
    stop: threading.Event | None = None
    patience: Patience = impatient
    written: Written = untold


@dataclass
class Filled:
    """What `fill` found and did: track keys and reasons of failure by track id, how many tracks were
    `present`, and how many are `done`, seconds of their audio and of the work."""

    keys: Mapping[str, str]
    failed: dict[str, str]
    present: int
    done: int = 0
    audio_seconds: float = 0.0
    seconds: float = 0.0

    def speed(self) -> str:
        """In one line."""
        seconds = max(self.seconds, 1e-9)
        return (
            f"extracted {count(self.done, 'track')} at {self.done / seconds:.2f} clips/s, "
            f"{self.audio_seconds / seconds:.0f} x real time"
        )


class FeatureService(FeatureModel):
    """Joins a backbone to the feature stores of a cache."""

    def __init__(self, config: FeatureConfig, device: torch.device, jobs: int = 1) -> None:
        """`jobs` processes decode audio ahead of the backbone; 1 decodes in this process."""
        super().__init__(config, device)
        self.jobs = jobs

    def store(self, wanted: FeatureSpec | None = None) -> Store:
        """A store that holds `wanted` (default: all of the spec) already by its spec, or the store of the
        spec."""
        found = Store.find_covering(self.config.cache, wanted or self.spec, POOLINGS)
        return found or Store.for_spec(self.config.cache, self.spec)

    @cached_property
    def memory(self) -> Path | None:
        """Folder of the memory of track keys."""
        return memory_in(self.config.cache)

    def ensure(
        self,
        tracks: Sequence[Track],
        wanted: FeatureSpec | None = None,
        report: Report = print,
        progress: Reporter = SILENT,
        retry_failed: bool = False,
    ) -> tuple[Store, Mapping[str, str], dict[str, str]]:
        """Extract what the store lacks of `tracks`: the store, track keys by track id, reasons of failure by
        track id."""
        if self.memory is not None and not self.memory.exists():
            report(f"new cache: {self.memory}")
        store = self.store(wanted)
        filled = self.fill(store, tracks, Filling(report, progress, retry_failed))
        return store, filled.keys, filled.failed

    def fill(self, store: Store, tracks: Sequence[Track], how: Filling | None = None) -> Filled:
        """Extract what `store`, one that `store()` gave, lacks of `tracks`. Tracks that were not begun when
        it was stopped are in none of the numbers."""
        how = how or Filling()
        planned = plan(tracks, store, self.memory, how.retry_failed, self.jobs, how.stop)
        how.report(describe_plan(planned, store))
        if planned.todo and not planned.present:
            for line in why_begun(store):
                how.report(line)
        filled = Filled(planned.keys, dict(planned.failed), planned.present)
        if planned.todo:
            with how.progress.track("extracting", len(planned.todo)) as tick:
                extractor = Extractor(self._encoder(store.spec), store, self.device, self.jobs)
                outcome = extractor.run(
                    planned.todo, tick, how.stop, how.patience, planned.stamps, how.written
                )
            bad = {planned.keys[i]: reason for i, reason in outcome.failed.items()}
            filled.failed.update(
                {t.id: bad[planned.keys[t.id]] for t in tracks if planned.keys.get(t.id) in bad}
            )
            filled.done, filled.audio_seconds, filled.seconds = (
                outcome.done,
                outcome.audio_seconds,
                outcome.seconds,
            )
            how.report(filled.speed())
            how.report(outcome.profile())
        return filled

    def _encoder(self, spec: FeatureSpec) -> Encoder:
        """For the poolings of a store, which may hold deeper layers than were asked for."""
        backbone = self.backbone if spec.last_layer <= self.spec.last_layer else self.load(spec.last_layer)
        return Encoder(backbone, spec).to(self.device)


def why_begun(store: Store) -> list[str]:
    """Why the features of the same backbone beside a new store do not serve, one line a store."""
    if len(store.keys()):
        return []
    beside = [
        other
        for other in list_stores(around(store.where))
        if isinstance(other, Store) and other.where != store.where
    ]
    same = [
        other
        for other in beside
        if other.spec.backbone == store.spec.backbone
        and all(p.kind in POOLINGS for p in (*other.spec.poolings, *store.spec.poolings))  # no kept states
        and len(other.keys())
    ]
    return [
        (
            f"a new store is begun beside {other.where}, which stays readable: "
            f"{other.spec.why_not(store.spec)} (there != wanted)"
        )
        for other in same
    ]


def describe_plan(planned: Plan, store: Store) -> str:
    """What there is to do, in one line."""
    parts = [f"{len(planned.todo)} to extract", f"{planned.present} present"]
    if planned.duplicates:
        parts.append(f"{count(planned.duplicates, 'copy', 'copies')} of others")
    if planned.failed:
        parts.append(f"{len(planned.failed)} failed")
    return f"store {store.where}: {', '.join(parts)}"
