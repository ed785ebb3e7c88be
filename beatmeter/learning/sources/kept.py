"""What lies below the first layer that trains, computed once: kept in a store of its own, beside those of
features, and read in every epoch and by later runs."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Sequence
from dataclasses import replace

from beatmeter.audio.ahead import require_short
from beatmeter.audio.chunking import Layout
from beatmeter.audio.decode import probe
from beatmeter.audio.identity import track_keys
from beatmeter.errors import AudioError, ConfigError, StoreError
from beatmeter.features.backbones.base import Backbone, LayeredBackbone
from beatmeter.features.poolings import KINDS, pooling_class
from beatmeter.features.poolings import states as kept
from beatmeter.features.service import FeatureService, Filling, Report
from beatmeter.features.tracks import Begun
from beatmeter.runtime.display import count
from beatmeter.runtime.progress import Reporter
from beatmeter.schema import FeatureSpec, Track
from beatmeter.settings import RunConfig
from beatmeter.store import Snapshot, Store
from beatmeter.store.layout import StoreLayout

ROOM = 0.5  # share of the free disk that may be taken


def spec_below(spec: FeatureSpec, backbone: Backbone, after: int, config: RunConfig) -> FeatureSpec:
    """What is kept for features of `spec`: the states of the layer `after` (0: what the first layer takes),
    and the rows of those layers of each pooling that lie below."""
    below = [
        p if pooling_class(p).of_waves else replace(p, layers=layers)
        for p in spec.poolings
        if (layers := tuple(layer for layer in p.layers if layer <= after)) or pooling_class(p).of_waves
    ]
    states = kept.States.make_spec(kept.NAME, backbone, (after,), config.features)
    return replace(spec, poolings=(*below, states), store_dtype=kept.dtype_of(spec.compute_dtype))


def why_computed(config: RunConfig, backbone: LayeredBackbone, spec: FeatureSpec) -> str:
    """Why what is frozen cannot be kept, empty when it can."""
    together = [p.name for p in spec.poolings if pooling_class(p).together and len(p.layers) > 1]
    if together:
        return f"{' and '.join(together)} pooling takes all its layers at once"
    layers = backbone.frozen_layers()
    if not backbone.resumes:
        return f"the layers of {backbone.identity.name} cannot be entered half-way"
    if layers is None:
        return f"adapter.kind = {config.adapter.kind} trains the front end"
    values = {name: getattr(config.augment, name) for name in ("shift", "noise", "gain")}
    moving = [f"augment.{name} = {value:g}" for name, value in values.items() if value]
    if moving:
        return f"{', '.join(moving)} would change the audio"
    if config.adapter.keep == "auto" and backbone.drops_below(layers):
        return "training drops some states of it (adapter.keep=yes keeps them all)"
    return ""


def keep_below(
    config: RunConfig, service: FeatureService, backbone: LayeredBackbone, spec: FeatureSpec, report: Report
) -> Kept | None:
    """The kept part of a backbone that has its adapter, as `adapter.keep` says; None to compute it. Raises
    ConfigError when it must be kept and cannot."""
    if config.adapter.keep == "no":
        return None
    why, layers = why_computed(config, backbone, spec), backbone.frozen_layers()
    if not why and layers is not None:
        try:
            return Kept(service, spec_below(spec, backbone, layers, config), layers)
        except StoreError as error:  # a cache that cannot be written
            why = error.what
    if config.adapter.keep == "yes":
        raise ConfigError(
            f"adapter.keep = yes is not possible: {why}",
            "Change that, or use --set adapter.keep=auto to compute what is frozen in every epoch.",
        )
    report(f"what is frozen is computed in every epoch: {why}")
    return None


class Kept:
    """The part of a backbone up to the layer `after`, as a store of `spec` holds it, or one that holds more:
    features of all layers may have been extracted with the states (`features.states`)."""

    def __init__(self, service: FeatureService, spec: FeatureSpec, after: int) -> None:
        self.spec, self.after, cache = spec, after, service.config.cache
        self.store = Store.find_covering(cache, spec, KINDS) or Store.for_spec(cache, spec)
        deeper = self.store.spec.last_layer > after  # of a backbone that nothing has trained
        self.service = FeatureService(service.config, service.device) if deeper else service
        self.snapshot: Snapshot | None = None
        self._too_long: dict[str, str] = {}  # by track id

    def lacks_room(self, tracks: Sequence[Track], longest: float) -> str:
        """Why what the store lacks of these tracks should not be kept, empty when there is room. Tracks of
        more than `longest` seconds are noted, to be left out."""
        memory, rate = self.service.memory, self.spec.chunk.sample_rate
        found = track_keys([t.path for t in tracks], memory)
        keys = {t.id: key for t, key in zip(tracks, found, strict=True) if isinstance(key, str)}
        lacking, need = set(self.store.missing(keys.values())), 0
        for track in tracks:
            if keys.get(track.id) not in lacking:
                continue
            with contextlib.suppress(AudioError):  # extraction tells what is wrong with a file
                seconds = probe(track.path).seconds
                try:
                    require_short(track.path, seconds, longest)
                except AudioError as error:
                    self._too_long[track.id] = str(error)
                    continue
                need += self.store.layout.bytes_of(Layout.of(int(seconds * rate), self.spec))
        free = shutil.disk_usage(self.store.path).free
        if need <= ROOM * free:
            return ""
        return f"it takes {need / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free at {self.store.where}"

    def fill(
        self, tracks: Sequence[Track], longest: float, report: Report, progress: Reporter
    ) -> tuple[dict[str, str], dict[str, str]]:
        """Compute what the store lacks: the keys of tracks, and for each that cannot be served the reason, by
        id."""
        rest = [t for t in tracks if t.id not in self._too_long]
        filled = self.service.fill(self.store, rest, Filling(report, progress))
        failed = {id: why for t in tracks if (why := self._too_long.get(id := t.id))} | filled.failed
        self.snapshot = self.store.snapshot()
        keys = {t.id: filled.keys[t.id] for t in rest if t.id not in failed}
        paths, rate = {t.id: t.path for t in rest}, self.spec.chunk.sample_rate
        held = 0
        for id, samples in zip(list(keys), self.lengths(list(keys.values())), strict=True):
            try:
                require_short(paths[id], samples / rate, longest)
                held += StoreLayout(self.spec).bytes_of(Layout.of(samples, self.spec))
            except AudioError as error:  # the store is older than the setting, or a header said less
                failed[id] = str(error)
                del keys[id]
        layers = f" and layers 1 to {self.after}" if self.after else ""
        report(
            f"the front end{layers}: {held / 1e6:.0f} MB of {count(len(keys), 'track')} kept in "
            f"{self.store.where}, read in every epoch"
        )
        return keys, failed

    def lengths(self, keys: Sequence[str]) -> list[int]:
        """Samples of each track."""
        assert self.snapshot is not None, "asked for before `fill`"
        return [int(n) for n in self.snapshot.lengths(keys)]

    def read(self, keys: Sequence[str]) -> list[Begun]:
        """These tracks, in order."""
        assert self.snapshot is not None, "asked for before `fill`"
        rows = {p.name: self.snapshot.load(keys, p.name, layers=p.layers) for p in self.spec.poolings}
        tracks = []
        for i, samples in enumerate(self.lengths(keys)):
            own = {name: values[at[i] : at[i + 1]] for name, (values, at) in rows.items()}
            tracks.append(Begun(samples, self.after, own.pop(kept.NAME)[:, 0], own))
        return tracks
