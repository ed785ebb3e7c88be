"""First waist, two sources: `Frozen` reads features from a store, `Streamed` makes them from audio as it trains.

Everything after a source asks four questions only: `prepare`, `batches`, `encoder`, `parameter_groups`. So heads, losses
and diagnostics cannot tell the regimes apart, and the words frozen and streamed stand in this file alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from beatmeter.audio.ahead import decode_ahead
from beatmeter.audio.augment import augment_wave
from beatmeter.backbones.adapters import adapter_state, attach, load_adapter_state
from beatmeter.backbones.base import Backbone
from beatmeter.chunking import Layout, rows
from beatmeter.errors import AudioError, RunError
from beatmeter.pooling import Arrangement, Encoder, aggregate, window_chunks
from beatmeter.schema import FeatureSpec, Track
from beatmeter.service import FeatureService, Progress, Report
from beatmeter.settings import AdapterConfig, AugmentConfig, RunConfig, TrainingConfig
from beatmeter.store import Snapshot

VIEWS = 4  # random crops of every track that frozen training keeps ready


@dataclass(frozen=True)
class Batch:
    """Some tracks: their positions in the sequence that was asked for, and what the encoder takes."""

    index: np.ndarray
    inputs: Any


class Source(ABC):
    """Where the features of tracks come from. `encoder(batch.inputs)` gives a mapping pooling -> (track, layer, *axes)."""

    spec: FeatureSpec
    encoder: nn.Module

    @abstractmethod
    def prepare(self, tracks: Sequence[Track], report: Report = print, progress: Progress | None = None) -> dict[str, str]:
        """Make sure that every track can be served; the reason for each that cannot, by track id."""

    @abstractmethod
    def batches(self, tracks: Sequence[Track], size: int, seed: tuple[int, ...] | None = None) -> Iterator[Batch]:
        """All tracks once, `size` at a time: in order and untouched, or shuffled and augmented by `seed`."""

    @abstractmethod
    def parameter_groups(self) -> list[dict[str, Any]]:
        """Trainable parameters before the head, as optimiser groups without learning rates."""

    @abstractmethod
    def step_size(self, training: TrainingConfig) -> tuple[int, int]:
        """Tracks per step of the device, and steps per step of the optimiser. Their product is the same for every source."""

    def adapter_state(self) -> dict[str, Tensor]:
        """What training changed before the head."""
        return {}

    def load_adapter_state(self, state: Mapping[str, Tensor]) -> None:
        """Put back what `adapter_state` gave."""
        if state:
            raise RunError(f"the checkpoint holds {len(state)} adapter tensors, these features are frozen", "Load it with the settings of its run.")

    def provenance(self) -> dict[str, Any]:
        """What a run should record of this source, as plain JSON."""
        return {}


def crop_range(n: int, rng: np.random.Generator) -> tuple[int, int]:
    """A random run of at least half of `n` chunks, half-open."""
    length = int(rng.integers((n + 1) // 2, n + 1))
    first = int(rng.integers(0, n - length + 1))
    return first, first + length


def shift_lags(features: Mapping[str, Tensor], spec: FeatureSpec, bins: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Shift every track's lag rows by up to `bins` along the log-lag axis, edges repeated: the same rhythm at another tempo."""
    result = dict(features)
    for p in spec.poolings:
        if p.kind == "lag" and bins > 0 and p.name in result:
            x = result[p.name]
            n = x.shape[-1]
            by = torch.randint(-bins, bins + 1, (x.shape[0],), generator=generator).to(x.device)
            at = (torch.arange(n, device=x.device)[None] + by[:, None]).clamp(0, n - 1)
            result[p.name] = x.gather(-1, at.reshape(-1, *[1] * (x.ndim - 2), n).expand_as(x))
    return result


class Frozen(Source):
    """Stored features, aggregated once per track and kept in memory; crops are a few views of each, made once as well."""

    def __init__(self, service: FeatureService, poolings: Sequence[str], augment: AugmentConfig, device: torch.device) -> None:
        self.service, self.augment, self.device = service, augment, device
        self.spec = service.spec.only(poolings)
        self.encoder = nn.Identity()
        self.keys: dict[str, str] = {}
        self.snapshot: Snapshot | None = None
        self._kept: dict[tuple[str, ...], dict[str, Tensor]] = {}

    def prepare(self, tracks: Sequence[Track], report: Report = print, progress: Progress | None = None) -> dict[str, str]:
        store, keys, failed = self.service.ensure(tracks, self.spec, report, progress)
        self.keys, self.snapshot = dict(keys), store.snapshot()
        return failed

    def parameter_groups(self) -> list[dict[str, Any]]:
        return []

    def step_size(self, training: TrainingConfig) -> tuple[int, int]:
        return training.batch * training.accumulation, 1

    def provenance(self) -> dict[str, Any]:
        return {"snapshot": self.snapshot.id if self.snapshot else None}

    def _views(self, tracks: Sequence[Track], views: int) -> dict[str, Tensor]:
        """(track, 1 + views, layer, *axes) in the store's dtype: the whole track first, then `views` random crops."""
        ids = (str(views), *(t.id for t in tracks))
        if ids not in self._kept:
            self._kept[ids] = {p.name: self._aggregate(tracks, p.name, views) for p in self.spec.poolings if p.kind != "frames"}
        return self._kept[ids]

    def _aggregate(self, tracks: Sequence[Track], name: str, views: int) -> Tensor:
        pooling = self.spec[name]
        if self.snapshot is None:
            raise RunError("features were asked for before `prepare`")
        keys = [self.keys[t.id] for t in tracks]
        result: Tensor | None = None
        rng = np.random.default_rng(0)
        for start in range(0, len(keys), 256):
            some = keys[start : start + 256]
            values, offsets = self.snapshot.load(some, name, layers=pooling.layers)
            for i, key in enumerate(some):
                track_rows = torch.from_numpy(values[offsets[i] : offsets[i + 1]]).float()
                frames = torch.from_numpy(rows(Layout.of(self.snapshot.samples(key), self.spec), pooling)[1])
                parts = [aggregate(pooling, track_rows, frames)]
                for _ in range(views):
                    a, b = crop_range(len(frames), rng)
                    parts.append(aggregate(pooling, track_rows[a:b], frames[a:b]))
                stacked = torch.stack(parts)
                if result is None:
                    result = torch.empty((len(keys), *stacked.shape), dtype=torch.from_numpy(values[:0]).dtype)
                result[start + i] = stacked
        if result is None:
            raise RunError("no tracks to read features of")
        return result

    def batches(self, tracks: Sequence[Track], size: int, seed: tuple[int, ...] | None = None) -> Iterator[Batch]:
        crop = seed is not None and self.augment.crop > 0
        kept = self._views(tracks, VIEWS if crop else 0)
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(tracks)) if seed is not None else np.arange(len(tracks))
        for start in range(0, len(order), size):
            index = order[start : start + size]
            view = rng.integers(1, VIEWS + 1, len(index)) * (rng.random(len(index)) < self.augment.crop) if crop else np.zeros(len(index), dtype=int)
            yield Batch(index, {name: values[torch.from_numpy(index), torch.from_numpy(view)].to(self.device) for name, values in kept.items()})


class TrackEncoder(nn.Module):
    """Waves of tracks to features of tracks: chunk, encode equal lengths together, aggregate."""

    def __init__(self, backbone: Backbone, spec: FeatureSpec, device: torch.device) -> None:
        super().__init__()
        self.encode, self.spec, self.window, self.device = Encoder(backbone, spec), spec, window_chunks(spec), device

    def forward(self, waves: Sequence[np.ndarray]) -> dict[str, Tensor]:
        layouts = [Layout.of(len(w), self.spec) for w in waves]
        result: list[dict[str, Tensor]] = [{} for _ in waves]
        for length in sorted({layout.length for layout in layouts}):  # never padded: padding would change every frame
            at = [i for i, layout in enumerate(layouts) if layout.length == length]
            chunks = np.stack([waves[i][s : s + length] for i in at for s in layouts[i].starts])
            arrangement = Arrangement.join([Arrangement.of(layouts[i], self.window) for i in at])
            pooled = self.encode(torch.from_numpy(chunks).to(self.device), arrangement)
            for name, values in pooled.items():
                pooling, first = self.spec[name], 0
                for i in at:
                    frames = torch.from_numpy(rows(layouts[i], pooling)[1]).to(self.device)
                    result[i][name] = aggregate(pooling, values[first : first + len(frames)], frames)
                    first += len(frames)
        return {name: torch.stack([r[name] for r in result]) for name in result[0]}


class Streamed(Source):
    """Audio through the backbone and the same poolings as the store's, with gradients where an adapter trains."""

    def __init__(
        self, backbone: Backbone, spec: FeatureSpec, adapter: AdapterConfig, augment: AugmentConfig, device: torch.device, workers: int
    ) -> None:
        self.spec, self.augment, self.workers, self.adapter = spec, augment, workers, adapter
        self.trainable = attach(backbone, adapter)
        self.backbone = backbone.to(device)
        self.encoder = TrackEncoder(self.backbone, spec, device)

    def prepare(self, tracks: Sequence[Track], report: Report = print, progress: Progress | None = None) -> dict[str, str]:
        bar = progress("reading audio", len(tracks)) if progress else None
        failed = {}
        for track, wave in zip(tracks, decode_ahead([t.path for t in tracks], self.spec.chunk.sample_rate, jobs=self.workers), strict=True):
            try:
                if isinstance(wave, AudioError):
                    raise wave
                Layout.of(len(wave), self.spec)
            except AudioError as error:
                failed[track.id] = str(error)
            if bar:
                bar.update(1)
        if bar:
            bar.close()
        return failed

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": self.trainable, "name": "adapter"}]

    def step_size(self, training: TrainingConfig) -> tuple[int, int]:
        return training.batch, training.accumulation

    def adapter_state(self) -> dict[str, Tensor]:
        return adapter_state(self.backbone)

    def load_adapter_state(self, state: Mapping[str, Tensor]) -> None:
        load_adapter_state(self.backbone, state)

    def provenance(self) -> dict[str, Any]:
        return {"adapter": {"kind": self.adapter.kind, "parameters": sum(p.numel() for p in self.trainable)}}

    def batches(self, tracks: Sequence[Track], size: int, seed: tuple[int, ...] | None = None) -> Iterator[Batch]:
        order = np.random.default_rng(seed).permutation(len(tracks)) if seed is not None else np.arange(len(tracks))
        index: list[int] = []
        waves: list[np.ndarray] = []
        decoded = decode_ahead([tracks[i].path for i in order], self.spec.chunk.sample_rate, jobs=self.workers)
        for i, wave in zip(order, decoded, strict=True):
            if isinstance(wave, AudioError):
                raise RunError(f"track {tracks[i].id} could be read before and cannot be now: {wave}", "See `beatmeter data check`.")
            index.append(int(i))
            waves.append(wave if seed is None else self._augmented(wave, (*seed, int(i))))
            if len(index) == size:
                yield Batch(np.array(index), waves)
                index, waves = [], []
        if index:
            yield Batch(np.array(index), waves)

    def _augmented(self, wave: np.ndarray, seed: tuple[int, ...]) -> np.ndarray:
        rng = np.random.default_rng(seed)
        if rng.random() < self.augment.crop:
            starts = Layout.of(len(wave), self.spec).starts
            a, b = crop_range(len(starts), rng)
            wave = wave[starts[a] : starts[b - 1] + self.spec.chunk.length]
        return augment_wave(wave, rng, self.augment, self.spec.chunk)


def open_source(config: RunConfig, device: torch.device, report: Report = print, spec: FeatureSpec | None = None) -> Source:
    """The source that the settings ask for. `spec`, from a saved run, must be what these settings give."""
    service = FeatureService(config.features, device)
    if config.regime == "frozen":
        source: Source = Frozen(service, config.head.poolings, config.augment, device)
    else:
        wanted = service.spec.only(config.head.poolings)
        source = Streamed(service.backbone, wanted, config.adapter, config.augment, device, config.training.workers)
    if spec is not None:
        source.spec.require_same(spec, "this run")
    report(service.describe())
    return source
