"""The features that some settings ask for: which backbone, which spec, which store, and the extraction that fills it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from beatmeter.backbones import load_backbone
from beatmeter.backbones.base import Backbone
from beatmeter.device import fast_dtype
from beatmeter.extraction import Extractor, Plan, plan
from beatmeter.pooling import Encoder, feature_spec
from beatmeter.schema import FeatureSpec, Track
from beatmeter.settings import FeatureConfig
from beatmeter.store import Store

Report = Callable[[str], None]
Progress = Callable[[str, int], Any]
LARGE = 512  # width from which a network is worth bfloat16


class FeatureService:
    """Joins a backbone to a cache folder. The backbone is loaded when it is first needed."""

    def __init__(self, config: FeatureConfig, device: torch.device, jobs: int = 1) -> None:
        """`jobs` processes decode audio ahead of the backbone; 1 decodes in this process."""
        self.config, self.device, self.jobs = config, device, jobs

    @cached_property
    def dtype(self) -> str:
        """Compute precision: a large network takes what is fast here, small ones and spectra stay in float32."""
        if self.config.dtype != "auto":
            return self.config.dtype
        return fast_dtype(self.device) if self.outline.dim >= LARGE else "float32"

    @cached_property
    def outline(self) -> Backbone:
        """What the backbone is, without its weights: enough to plan with."""
        return load_backbone(self.config.backbone, self.config.revision, self.config.normalise, weights=False)

    @cached_property
    def backbone(self) -> Backbone:
        """The backbone up to its last wanted layer, in its compute precision, on the device."""
        c = self.config
        return load_backbone(c.backbone, c.revision, c.normalise, self.dtype, depth=self.spec.last_layer).to(self.device)

    @cached_property
    def spec(self) -> FeatureSpec:
        """What is extracted."""
        return feature_spec(self.outline, self.config, self.dtype)

    def describe(self) -> str:
        """Backbone, precision, device and licence in one line; says so when the weights are untrained."""
        identity, shape = self.outline.identity, f"{self.outline.n_layers} layers x {self.outline.dim}"
        untrained = "" if identity.trained else ", UNTRAINED weights from a fixed seed"
        return f"features: {identity.name} ({shape}, {self.dtype} on {self.device}, {identity.licence}{untrained})"

    def store(self, wanted: FeatureSpec | None = None) -> Store:
        """A store that holds `wanted` (default: all of the spec) already by its spec, or the store of the spec."""
        cache = Path(self.config.cache)
        return Store.find_covering(cache, wanted or self.spec) or Store.for_spec(cache, self.spec)

    def ensure(
        self,
        tracks: Sequence[Track],
        wanted: FeatureSpec | None = None,
        report: Report = print,
        progress: Progress | None = None,
        retry_failed: bool = False,
        stop: threading.Event | None = None,
    ) -> tuple[Store, Mapping[str, str], dict[str, str]]:
        """Extract what the store lacks of `tracks`: the store, track keys by track id, reasons of failure by track id.
        Setting `stop` ends it early, after the tracks in flight."""
        store = self.store(wanted)
        planned = plan(tracks, store, Path(self.config.cache), retry_failed, self.jobs)
        report(describe_plan(planned, store))
        failed = dict(planned.failed)
        if planned.todo:
            bar = progress("extracting", len(planned.todo)) if progress else None
            encoder = Encoder(self.backbone, store.spec).to(self.device)
            try:
                outcome = Extractor(encoder, store, self.device, self.jobs).run(planned.todo, bar.update if bar else lambda n: None, stop)
            finally:
                if bar:
                    bar.close()
            bad = {planned.keys[i]: reason for i, reason in outcome.failed.items()}
            failed |= {t.id: bad[planned.keys[t.id]] for t in tracks if planned.keys.get(t.id) in bad}
            rate = outcome.done / max(outcome.seconds, 1e-9)
            report(f"extracted {outcome.done} tracks at {rate:.2f} clips/s, {outcome.audio_seconds / max(outcome.seconds, 1e-9):.0f} x real time")
            report(outcome.profile())
        return store, planned.keys, failed


def describe_plan(planned: Plan, store: Store) -> str:
    """What there is to do, in one line."""
    parts = [f"{len(planned.todo)} to extract", f"{planned.present} present"]
    if planned.duplicates:
        parts.append(f"{planned.duplicates} copies of others")
    if planned.failed:
        parts.append(f"{len(planned.failed)} failed")
    return f"store {store.path}: {', '.join(parts)}"
