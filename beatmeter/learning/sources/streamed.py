"""Features made from audio as training goes on, with gradients where an adapter trains."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from beatmeter.audio.ahead import LongAudio, decode_ahead, decode_or_count
from beatmeter.audio.augment import augment_wave
from beatmeter.audio.chunking import Layout
from beatmeter.audio.identity import stamp, track_keys
from beatmeter.audio.waves import Waves
from beatmeter.errors import AudioError, RunError
from beatmeter.features.backbones.adapters import adapter_state, attach, load_adapter_state
from beatmeter.features.backbones.base import Backbone, LayeredBackbone
from beatmeter.features.crops import crop_of, draw_views, report_uncropped
from beatmeter.features.service import Report
from beatmeter.features.tracks import Excerpt, LongTrack, TrackEncoder, unreadable
from beatmeter.learning.sources.base import Batch, Source, one_ahead
from beatmeter.learning.sources.kept import Kept
from beatmeter.runtime.memory import free_bytes
from beatmeter.runtime.progress import SILENT, Reporter
from beatmeter.schema import FeatureSpec, Track
from beatmeter.settings import AdapterConfig, AugmentConfig, TrainingConfig

# share of the free memory that the activations of a step may take before they are computed twice instead
FULL = 0.8


class Streamed(Source):
    """Audio through the backbone and the same poolings as the store's, with gradients where an adapter
    trains."""

    def __init__(
        self,
        backbone: Backbone,
        spec: FeatureSpec,
        adapter: AdapterConfig,
        augment: AugmentConfig,
        training: TrainingConfig,
        device: torch.device,
        cache: Path,
    ) -> None:
        self.spec, self.augment, self.training, self.adapter, self.cache = (
            spec,
            augment,
            training,
            adapter,
            cache,
        )
        self.trainable = attach(backbone, adapter)
        self.backbone = cast(LayeredBackbone, backbone.to(device))  # no other backbone takes an adapter
        self.encoder = TrackEncoder(self.backbone, spec, device)
        self.waves = Waves(cache, spec.chunk.sample_rate, spec.resampler, int(training.waves * 1e9))
        self.keys: dict[str, str] = {}
        self.kept: Kept | None = None  # what lies below the first layer that trains, where it is kept
        self.streams_long = False  # tracks over `training.longest`, which only a source that trains must hold
        self._long: dict[str, LongTrack] = {}  # by track id
        self._chunks = 0  # of the longest track
        self._report: Report = print

    def prepare(
        self, tracks: Sequence[Track], report: Report = print, progress: Reporter = SILENT
    ) -> dict[str, str]:
        self._report = report
        if self.kept is not None and (why := self.kept.lacks_room(tracks, self.training.longest)):
            if self.adapter.keep == "yes":
                raise RunError(
                    f"what is frozen cannot be kept: {why}",
                    "Make room, move features.cache, or use --set adapter.keep=no.",
                )
            report(f"what is frozen is computed in every epoch: {why}")
            self.kept = None
        if self.kept is not None:
            keys, failed = self.kept.fill(tracks, self.training.longest, report, progress)
            self.keys |= keys
            lengths = self.kept.lengths(list(keys.values()))
            self._chunks = max((len(Layout.of(n, self.spec).starts) for n in lengths), default=0)
            if self.augment.crop > 0:
                report_uncropped(self.spec, lengths, report)
            return failed
        failed = {}
        stamps = {t.path: stamp(t.path) for t in tracks}
        for track, key in zip(tracks, track_keys([t.path for t in tracks], self.cache), strict=True):
            if isinstance(key, AudioError):
                failed[track.id] = str(key)
            else:
                self.keys[track.id] = key
        paths = {self.keys[t.id]: t.path for t in tracks if t.id in self.keys}
        before = {key: stamps[path] for key, path in paths.items()}
        with progress.track("reading audio", len(paths)) as tick:
            filled = self.waves.fill(paths, self.training.workers, tick, before, self.training.longest)
        if self.streams_long:
            self._count_long(
                [t for t in tracks if (e := filled.failed.get(self.keys.get(t.id, ""))) and e.kind == "long"],
                failed,
            )
        for track in tracks:
            key = self.keys.get(track.id, "")
            if track.id in self._long or track.id in failed:
                continue
            try:
                if key in filled.failed:
                    raise filled.failed[key]
                if key in filled.samples:
                    self._chunks = max(self._chunks, len(Layout.of(filled.samples[key], self.spec).starts))
            except AudioError as error:
                failed[track.id] = str(error)
        anew = len(filled.samples) - filled.kept
        why = (
            f"the folder cannot be written: {filled.unwritable}"
            if filled.unwritable
            else f"training.waves = {self.training.waves:g} GB"
        )
        more = f"; {anew} are decoded in every epoch ({why})" if anew else ""
        if self.augment.crop > 0:
            report_uncropped(
                self.spec,
                [filled.samples[key] for t in tracks if (key := self.keys.get(t.id, "")) in filled.samples],
                report,
            )
        report(
            f"waveforms: {filled.decoded} decoded, {filled.kept} kept in {self.waves.folder} "
            f"({filled.bytes / 1e9:.2f} GB){more}"
        )
        return failed

    def _count_long(self, tracks: Sequence[Track], failed: dict[str, str]) -> None:
        """Read tracks that are too long to be held once, to know how long they are and that they are
        sound."""
        for track, audio in zip(
            tracks,
            decode_or_count(
                [t.path for t in tracks], self.spec.chunk.sample_rate, self.training.workers, 0.0
            ),
            strict=True,
        ):
            if isinstance(audio, LongAudio):
                self._long[track.id] = LongTrack(track, audio.samples)
            elif isinstance(audio, AudioError):
                failed[track.id] = str(audio)

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": self.trainable, "name": "adapter"}]

    def step_size(self, training: TrainingConfig) -> int:
        return training.batch

    def adapter_state(self) -> dict[str, Tensor]:
        return adapter_state(self.backbone)

    def load_adapter_state(self, state: Mapping[str, Tensor]) -> None:
        load_adapter_state(self.backbone, state)

    def provenance(self) -> dict[str, Any]:
        about: dict[str, Any] = {
            "adapter": {"kind": self.adapter.kind, "parameters": sum(p.numel() for p in self.trainable)}
        }
        if self.kept is not None and self.kept.snapshot is not None:
            about["kept"] = {
                "layer": self.kept.after,
                "fingerprint": self.kept.store.spec.fingerprint,
                "snapshot": self.kept.snapshot.id,
            }
        return about

    def batches(
        self, tracks: Sequence[Track], parts: Iterable[np.ndarray], seed: tuple[int, ...] | None = None
    ) -> Iterator[Batch]:
        if seed is not None and self.adapter.checkpointing == "auto":
            self.backbone.checkpointing = self._too_large
        parts = list(parts)
        if self.kept is not None:
            return one_ahead(self._begun(self.kept, tracks, parts, seed))
        return one_ahead(
            self._batches(tracks, parts, self._waves([tracks[i] for part in parts for i in part]), seed)
        )

    def _begun(
        self,
        kept: Kept,
        tracks: Sequence[Track],
        parts: Sequence[np.ndarray],
        seed: tuple[int, ...] | None,
    ) -> Iterator[Batch]:
        views = (
            np.zeros(len(tracks), int) if seed is None else draw_views(len(tracks), self.augment.crop, seed)
        )
        for index in parts:
            keys = [self.keys[tracks[i].id] for i in index]
            yield Batch(
                index,
                [
                    replace(own, crop=crop_of(key, view, own.samples / self.spec.chunk.sample_rate))
                    if (view := int(views[i]))
                    else own
                    for i, key, own in zip(index, keys, kept.read(keys), strict=True)
                ],
            )

    def _batches(
        self,
        tracks: Sequence[Track],
        parts: Sequence[np.ndarray],
        waves: Iterator[np.ndarray | LongTrack],
        seed: tuple[int, ...] | None,
    ) -> Iterator[Batch]:
        views = None if seed is None else draw_views(len(tracks), self.augment.crop, seed)
        for index in parts:
            own: list[Excerpt | LongTrack] = []
            for i in index:
                wave, key = next(waves), self.keys[tracks[i].id]
                if isinstance(wave, LongTrack):
                    own.append(wave)
                else:
                    own.append(
                        Excerpt(wave)
                        if seed is None or views is None
                        else self._augmented(wave, key, int(views[i]), (*seed, int(i)))
                    )
            yield Batch(index, own)

    def _waves(self, tracks: Sequence[Track]) -> Iterator[np.ndarray | LongTrack]:
        """The waves of tracks, in order: kept ones from the cache, others decoded a few ahead."""
        kept = [self.waves.samples(self.keys[t.id]) is not None for t in tracks]
        rate = self.spec.chunk.sample_rate
        missing = [
            t.path for t, here in zip(tracks, kept, strict=True) if not here and t.id not in self._long
        ]
        others = decode_ahead(missing, rate, jobs=self.training.workers)
        for track, here in zip(tracks, kept, strict=True):
            if track.id in self._long:
                yield self._long[track.id]
                continue
            wave = self.waves.read(self.keys[track.id]) if here else next(others)
            if wave is None:  # damaged or cleared meanwhile
                wave = next(decode_ahead([track.path], rate, jobs=1))
            if isinstance(wave, AudioError):
                raise unreadable(track, wave)
            yield wave

    def _augmented(self, wave: np.ndarray, key: str, view: int, seed: tuple[int, ...]) -> Excerpt:
        rate = self.spec.chunk.sample_rate
        start, end = crop_of(key, view, len(wave) / rate)
        changed = augment_wave(wave, np.random.default_rng(seed), self.augment, self.spec.chunk)
        shift = (len(wave) - len(changed)) / rate  # the crop stays where it is in the music
        return Excerpt(changed, (start - shift, end - shift) if view else None, shift)

    @cached_property
    def _too_large(self) -> bool:
        """Whether the activations of the largest possible batch would not fit: measured on one chunk of
        noise."""
        device = next(self.backbone.parameters()).device
        wave = np.random.default_rng(0).standard_normal(self.spec.chunk.length, np.float32)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            chunk = saved_bytes(self.encoder, [Excerpt(wave)])
        need, free = chunk * self._chunks * self.training.batch, FULL * free_bytes(device)
        if need > free:
            self._report(
                f"a batch would keep {need / 1e9:.1f} GB of activations, {free / 1e9:.1f} GB are free: "
                "checkpointing layers instead"
            )
        return need > free


def saved_bytes(module: nn.Module, inputs: Any) -> int:
    """Bytes that a forward pass keeps for the backward pass, parameters left out."""
    own = {p.untyped_storage().data_ptr() for p in module.parameters()}
    held: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        found = module(inputs)
    del found
    return sum(held.values())
