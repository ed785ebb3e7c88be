"""First waist, two sources: `Frozen` reads features from a store, `Streamed` makes them from audio as it
trains.

Everything after a source asks the same few questions: `prepare`, `batches`, `features`, `parameter_groups`.
So heads, losses and diagnostics cannot tell the regimes apart, and the words frozen and streamed stand in
this file alone.
"""

from __future__ import annotations

import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from beatmeter.audio.ahead import LongAudio, decode_ahead, decode_or_count
from beatmeter.audio.augment import augment_wave
from beatmeter.audio.chunking import Layout
from beatmeter.audio.decode import stream
from beatmeter.audio.identity import stamp, track_keys
from beatmeter.audio.waves import Waves
from beatmeter.errors import AudioError, ConfigError, RunError
from beatmeter.features.backbones.adapters import adapter_state, attach, load_adapter_state
from beatmeter.features.backbones.base import Backbone, LayeredBackbone
from beatmeter.features.crops import VIEWS, Crop, crop_of, draw_views, report_uncropped
from beatmeter.features.listening import TrackListener, batch_chunks
from beatmeter.features.pooling import Encoder, window_chunks
from beatmeter.features.poolings import Arrangement, pooling_class, pooling_of
from beatmeter.features.poolings.sequences import join, pad
from beatmeter.features.service import FeatureService, Report
from beatmeter.learning.standardiser import IDENTITY, Standardiser
from beatmeter.runtime.memory import free_bytes
from beatmeter.runtime.progress import SILENT, Reporter
from beatmeter.schema import FeatureSpec, Track
from beatmeter.settings import AdapterConfig, AugmentConfig, RunConfig, TrainingConfig
from beatmeter.store import Snapshot

BLOCK = 8 << 20  # bytes of rows that are aggregated at a time: they stay in the processor's cache
TOGETHER = (
    24  # chunks that are encoded together though nothing learns: four tracks of 30 s, a step of training
)
# share of the free memory that the activations of a step may take before they are computed twice instead
FULL = 0.8

T = TypeVar("T")


@dataclass(frozen=True)
class Excerpt:
    """A wave (sample,) and which seconds of it are pooled; None is all. It begins `start` seconds after its
    track."""

    wave: np.ndarray
    crop: Crop | None = None
    start: float = 0.0


@dataclass(frozen=True)
class Batch:
    """Some tracks: their positions in the sequence that was asked for, and what `Source.features` takes."""

    index: np.ndarray
    inputs: Any


class Source(ABC):
    """Where the features of tracks come from, standardised once a `Standardiser` is given."""

    spec: FeatureSpec
    encoder: nn.Module
    standardiser: Standardiser = IDENTITY

    @abstractmethod
    def prepare(
        self, tracks: Sequence[Track], report: Report = print, progress: Reporter = SILENT
    ) -> dict[str, str]:
        """Make sure that every track can be served; the reason for each that cannot, by track id."""

    @abstractmethod
    def batches(
        self, tracks: Sequence[Track], parts: Iterable[np.ndarray], seed: tuple[int, ...] | None = None
    ) -> Iterator[Batch]:
        """One batch for each of `parts`, positions in `tracks`: untouched, or augmented by `seed`. What
        happens to a track depends on the seed and its position alone, whatever the parts are."""

    @abstractmethod
    def parameter_groups(self) -> list[dict[str, Any]]:
        """Trainable parameters before the head, as optimiser groups without learning rates."""

    @abstractmethod
    def step_size(self, training: TrainingConfig) -> int:
        """Tracks per step of the device; a step of the optimiser takes batch x accumulation tracks with every
        source."""

    def features(self, batch: Batch) -> Mapping[str, Tensor]:
        """Standardised features of a batch by pooling, each (track, layer, *axes)."""
        return self.standardiser(self.encoder(batch.inputs))

    def standardise(self, standardiser: Standardiser) -> None:
        """Serve features standardised from now on. Raises RunError when they are standardised in another way
        already."""
        if self.standardiser.means and not self.standardiser.same(standardiser):
            raise RunError(
                "these features are standardised by another train split already", "Open them once more."
            )
        self.standardiser = standardiser

    def adapter_state(self) -> dict[str, Tensor]:
        """What training changed before the head."""
        return {}

    def load_adapter_state(self, state: Mapping[str, Tensor]) -> None:
        """Put back what `adapter_state` gave."""
        if state:
            raise RunError(
                f"the checkpoint holds {len(state)} adapter tensors, these features are frozen",
                "Load it with the settings of its run.",
            )

    def provenance(self) -> dict[str, Any]:
        """What a run should record of this source, as plain JSON."""
        return {}


def in_order(n: int, size: int) -> list[np.ndarray]:
    """The positions 0 ... n - 1, `size` at a time."""
    return [np.arange(start, min(start + size, n)) for start in range(0, n, size)]


def one_ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items; while one is used, the next is made in a thread."""
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, items, None)
        while (item := waiting.result()) is not None:
            waiting = pool.submit(next, items, None)
            yield item


@dataclass(frozen=True)
class Cuts:
    """The runs of rows that the views of some tracks take from one pooling, each once: `bounds` (cut, 2)
    half-open rows of the tracks `tracks` (cut,), and which of them each view is, `at` (track, view). A view
    that leaves all rows is the whole."""

    tracks: np.ndarray
    bounds: np.ndarray
    at: np.ndarray


@dataclass(frozen=True)
class Table:
    """Aggregated features of tracks in memory: by pooling `values` (cut, layer, *axes) and where views are,
    `at` (track, view)."""

    values: dict[str, Tensor]
    at: dict[str, np.ndarray]


class Frozen(Source):
    """Stored features, aggregated once per track, crops too: a few views of each. They are kept in memory,
    standardised, or where they do not fit made anew for every batch."""

    def __init__(
        self,
        service: FeatureService,
        poolings: Sequence[str],
        augment: AugmentConfig,
        device: torch.device,
        share: float,
    ) -> None:
        self.service, self.augment, self.device, self.share = service, augment, device, share
        self.spec = service.spec.only(poolings)
        self.encoder = nn.Identity()
        self.keys: dict[str, str] = {}
        self.snapshot: Snapshot | None = None
        self._tables: dict[tuple[str, ...], Table | None] = {}
        self._lock = threading.Lock()
        self._report: Report = print

    def prepare(
        self, tracks: Sequence[Track], report: Report = print, progress: Reporter = SILENT
    ) -> dict[str, str]:
        store, keys, failed = self.service.ensure(tracks, self.spec, report, progress)
        self.keys, self.snapshot, self._report = dict(keys), store.snapshot(), report
        if self.augment.crop > 0:
            report_uncropped(
                self.spec,
                self.snapshot.lengths([self.keys[t.id] for t in tracks if t.id not in failed]),
                report,
            )
        return failed

    def parameter_groups(self) -> list[dict[str, Any]]:
        return []

    def step_size(self, training: TrainingConfig) -> int:
        return training.batch * training.accumulation

    def provenance(self) -> dict[str, Any]:
        return {"snapshot": self.snapshot.id if self.snapshot else None}

    def features(self, batch: Batch) -> Mapping[str, Tensor]:
        return batch.inputs  # type: ignore[no-any-return]  # read standardised

    def standardise(self, standardiser: Standardiser) -> None:
        with self._lock:
            before = self.standardiser
            super().standardise(standardiser)
            for table in self._tables.values() if not before.means else ():
                for name, values in (table.values if table else {}).items():
                    standardiser.apply(name, values, in_place=True)

    def batches(
        self, tracks: Sequence[Track], parts: Iterable[np.ndarray], seed: tuple[int, ...] | None = None
    ) -> Iterator[Batch]:
        cropped = self.augment.crop > 0 and (seed is not None or all(t.split == "train" for t in tracks))
        chosen = (
            np.zeros(len(tracks), dtype=int)
            if seed is None
            else draw_views(len(tracks), self.augment.crop, seed)
        )
        table = self._table(tracks, 1 + (VIEWS if cropped else 0))
        made = self._read(tracks, parts, chosen) if table is None else self._gather(table, parts, chosen)
        sequences = self._names(per_track=False)
        if sequences:  # too large to be kept
            made = self._with_sequences(made, tracks, chosen, sequences)
        yield from one_ahead(made) if table is None or sequences else made

    def _gather(self, table: Table, parts: Iterable[np.ndarray], chosen: np.ndarray) -> Iterator[Batch]:
        for index in parts:
            at = {
                name: torch.from_numpy(table.at[name][index, chosen[index]]).to(values.device)
                for name, values in table.values.items()
            }
            some = {
                name: values.index_select(0, at[name]).to(self.device)
                for name, values in table.values.items()
            }
            yield Batch(index, some)

    def _read(
        self, tracks: Sequence[Track], parts: Iterable[np.ndarray], chosen: np.ndarray
    ) -> Iterator[Batch]:
        for index in parts:
            keys = [self.keys[tracks[i].id] for i in index]
            some = {name: torch.empty((len(keys), *self.spec[name].row_shape)) for name in self._names()}
            for name, values in some.items():
                bounds = self._bounds(keys, chosen[index][:, None], name)[:, 0]
                self._aggregate(keys, np.arange(len(keys)), bounds, name, values)
                self.standardiser.apply(name, values, in_place=True)
            yield Batch(index, {name: values.to(self.device) for name, values in some.items()})

    def _with_sequences(
        self, batches: Iterator[Batch], tracks: Sequence[Track], chosen: np.ndarray, names: Sequence[str]
    ) -> Iterator[Batch]:
        snapshot = self._snapshot()
        for batch in batches:
            keys = [self.keys[tracks[i].id] for i in batch.index]
            inputs = dict(batch.inputs)
            for name in names:
                pooling = pooling_of(self.spec[name])
                bounds = self._bounds(keys, chosen[batch.index][:, None], name)[:, 0]
                values, offsets = snapshot.load(keys, name, layers=pooling.spec.layers)
                own, times = [], []
                for (a, b), first, n in zip(bounds, offsets, snapshot.lengths(keys), strict=False):
                    own.append(
                        self.standardiser.apply(
                            name, torch.from_numpy(values[first + a : first + b]).float()
                        ).to(self.device)
                    )
                    times.append(torch.from_numpy(pooling.rows(Layout.of(int(n), self.spec))[0][a:b]))
                inputs |= pad(name, own, times)
            yield Batch(batch.index, inputs)

    def _names(self, per_track: bool = True) -> list[str]:
        return [p.name for p in self.spec.poolings if pooling_class(p).per_track == per_track]

    def _table(self, tracks: Sequence[Track], views: int) -> Table | None:
        """Every pooling of the tracks in float32, view 0 the whole track; None when memory is too small."""
        ids = (str(views), *(t.id for t in tracks))
        with self._lock:
            if ids not in self._tables:
                keys = [self.keys[t.id] for t in tracks]
                cuts = {name: self._cuts(keys, views, name) for name in self._names()}
                home = self._home({name: len(cut.bounds) for name, cut in cuts.items()})
                with torch.inference_mode(False), torch.no_grad():  # what is kept is used outside of it too
                    self._tables[ids] = None if home is None else self._build(keys, cuts, home)
            return self._tables[ids]

    def _home(self, arrays: Mapping[str, int]) -> torch.device | None:
        """Where so many arrays of each pooling have room."""
        need = sum(4 * n * int(np.prod(self.spec[name].row_shape)) for name, n in arrays.items())
        for home in dict.fromkeys((self.device, torch.device("cpu"))):
            may = int(self.share * free_bytes(home))
            if need <= may:
                return home
        self._report(
            f"features: {need / 1e9:.1f} GB would be needed, {may / 1e9:.1f} GB of memory may be taken: "
            "reading them for every batch"
        )
        return None

    def _build(self, keys: Sequence[str], cuts: Mapping[str, Cuts], home: torch.device) -> Table:
        table = Table({}, {name: cut.at for name, cut in cuts.items()})
        for name, cut in cuts.items():
            shape = self.spec[name].row_shape
            size = (len(cut.bounds), *shape)
            host = home.type == "cpu"  # where numpy, unlike torch, asks for huge pages
            values = torch.from_numpy(np.empty(size, np.float32)) if host else torch.empty(size, device=home)
            first_cut = cut.at[:, 0]  # of each track: its cuts follow each other
            for part in in_order(
                len(keys), max(1, 2 * BLOCK * len(keys) // int(4 * len(cut.bounds) * np.prod(shape)))
            ):
                a, b = (
                    first_cut[part[0]],
                    first_cut[part[-1] + 1] if part[-1] + 1 < len(keys) else len(cut.bounds),
                )
                out = values[a:b]
                self._aggregate(
                    [keys[i] for i in part], cut.tracks[a:b] - part[0], cut.bounds[a:b], name, out
                )
                self.standardiser.apply(name, out, in_place=True)
            table.values[name] = values
        return table

    def _cuts(self, keys: Sequence[str], views: int, name: str) -> Cuts:
        """What the first `views` views of tracks take from a pooling."""
        bounds = self._bounds(keys, np.tile(np.arange(views), (len(keys), 1)), name)
        tracks: list[int] = []
        taken: list[tuple[int, int]] = []
        at = np.empty((len(keys), views), dtype=int)
        for i, its in enumerate(bounds.tolist()):
            own: dict[tuple[int, int], int] = {}
            for view, (a, b) in enumerate(its):
                at[i, view] = own.setdefault((a, b), len(taken) + len(own))
            tracks += [i] * len(own)
            taken += own
        return Cuts(np.array(tracks), np.array(taken).reshape(-1, 2), at)

    def _bounds(self, keys: Sequence[str], views: np.ndarray, name: str) -> np.ndarray:
        """The rows (track, view, 2), half-open, that `views` (track, view) of tracks take from a pooling."""
        lengths, rate, pooling = (
            self._snapshot().lengths(keys),
            self.spec.chunk.sample_rate,
            pooling_of(self.spec[name]),
        )
        times = {int(n): pooling.rows(Layout.of(int(n), self.spec))[0] for n in np.unique(lengths)}
        found = [
            (0, len(times[n]))
            if view == 0 or len(times[n]) == 1
            else pooling.crop(times[n], crop_of(key, view, n / rate))
            for key, n, its in zip(keys, lengths.tolist(), views.tolist(), strict=True)
            for view in its
        ]
        return np.array(found).reshape(*views.shape, 2)

    def _snapshot(self) -> Snapshot:
        if self.snapshot is None:
            raise RunError("features were asked for before `prepare`")
        return self.snapshot

    def _aggregate(
        self, keys: Sequence[str], at: np.ndarray, bounds: np.ndarray, name: str, out: Tensor
    ) -> None:
        """Fill `out` (item, layer, *axes): item i is the rows `bounds[i]` of the track `keys[at[i]]`."""
        pooling, snapshot = pooling_of(self.spec[name]), self._snapshot()
        values, offsets = snapshot.load(keys, name, layers=pooling.spec.layers)
        lengths = snapshot.lengths(keys)
        frames = {int(n): pooling.rows(Layout.of(int(n), self.spec))[1] for n in np.unique(lengths)}
        count = bounds[:, 1] - bounds[:, 0]
        for n in np.unique(count):
            same = np.flatnonzero(count == n)
            for part in in_order(len(same), max(1, BLOCK // int(4 * n * np.prod(pooling.spec.row_shape)))):
                some = same[part]
                first = offsets[at[some]] + bounds[some, 0]
                weights = np.stack([frames[int(lengths[at[i]])][slice(*bounds[i])] for i in some])
                chosen = torch.from_numpy(values[first[:, None] + np.arange(n)]).float()
                out[torch.from_numpy(some).to(out.device)] = pooling.aggregate(
                    chosen, torch.from_numpy(weights)
                ).to(out.device)


@dataclass(frozen=True)
class LongTrack:
    """A track of `samples` samples that is too long to be held: it is read as it is encoded."""

    track: Track
    samples: int

    def blocks(self, sample_rate: int) -> Iterator[np.ndarray]:
        """Its samples (sample,) at `sample_rate` Hz. Raises RunError when the file cannot be read any
        more."""
        try:
            yield from stream(self.track.path, sample_rate)
        except AudioError as error:
            raise unreadable(self.track, error) from None


def unreadable(track: Track, error: AudioError) -> RunError:
    """The error of a track that was sound when it was first read."""
    return RunError(
        f"track {track.id} could be read before and cannot be now: {error}", "See `beatmeter data check`."
    )


class TrackEncoder(nn.Module):
    """Tracks to features of tracks: chunk, encode equal lengths together, aggregate the rows inside the crop.

    Without gradients only so much is encoded at a time as fills the device, whatever the length of the
    tracks.
    """

    def __init__(self, backbone: Backbone, spec: FeatureSpec, device: torch.device) -> None:
        super().__init__()
        self.encode, self.spec, self.window, self.device = (
            Encoder(backbone, spec),
            spec,
            window_chunks(spec),
            device,
        )

    def forward(self, tracks: Sequence[Excerpt | LongTrack]) -> dict[str, Tensor]:
        held = [track for track in tracks if isinstance(track, Excerpt)]
        if torch.is_grad_enabled():
            return self._together(held)
        chunks = [
            len(Layout.of(len(track.wave), self.spec).starts) if isinstance(track, Excerpt) else math.inf
            for track in tracks
        ]
        if sum(chunks) <= max(TOGETHER, batch_chunks(self.device)):
            return self._together(held)
        alone = [
            self._together([track]) if isinstance(track, Excerpt) and track.crop else self._alone(track)
            for track in tracks
        ]
        return join(alone, [p.name for p in self.spec.poolings])

    def _alone(self, track: Excerpt | LongTrack) -> dict[str, Tensor]:
        listener = TrackListener(
            {"": self.encode}, track.samples if isinstance(track, LongTrack) else len(track.wave), self.device
        )
        for block in (
            track.blocks(self.spec.chunk.sample_rate) if isinstance(track, LongTrack) else [track.wave]
        ):
            listener.push(block)
        return listener.finish()[""]

    def _together(self, excerpts: Sequence[Excerpt]) -> dict[str, Tensor]:
        layouts = [Layout.of(len(e.wave), self.spec) for e in excerpts]
        result: list[dict[str, Tensor]] = [{} for _ in excerpts]
        moments: list[dict[str, Tensor]] = [{} for _ in excerpts]  # of the rows of sequences
        for length in sorted(
            {layout.length for layout in layouts}
        ):  # never padded: padding would change every frame
            at = [i for i, layout in enumerate(layouts) if layout.length == length]
            chunks = np.stack([excerpts[i].wave[s : s + length] for i in at for s in layouts[i].starts])
            arrangement = Arrangement.join([Arrangement.of(layouts[i], self.window) for i in at])
            pooled = self.encode(torch.from_numpy(chunks).to(self.device), arrangement)
            for name, values in pooled.items():
                pooling, first = pooling_of(self.spec[name]), 0
                for i in at:
                    times, frames = pooling.rows(layouts[i])
                    crop = excerpts[i].crop
                    a, b = (0, len(frames)) if crop is None else pooling.crop(times, crop)
                    own = values[first + a : first + b]
                    if pooling.per_track:
                        result[i][name] = pooling.aggregate(
                            own, torch.from_numpy(frames[a:b]).to(self.device)
                        )
                    else:
                        result[i][name], moments[i][name] = (
                            own,
                            torch.from_numpy(times[a:b] + excerpts[i].start),
                        )
                    first += len(frames)
        features = {
            name: torch.stack([r[name] for r in result]) for name in result[0] if name not in moments[0]
        }
        for name in moments[0]:
            features |= pad(name, [r[name] for r in result], [m[name] for m in moments])
        return features


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
        self.streams_long = False  # tracks over `training.longest`, which only a source that trains must hold
        self._long: dict[str, LongTrack] = {}  # by track id
        self._chunks = 0  # of the longest track
        self._report: Report = print

    def prepare(
        self, tracks: Sequence[Track], report: Report = print, progress: Reporter = SILENT
    ) -> dict[str, str]:
        self._report = report
        failed: dict[str, str] = {}
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
        return {"adapter": {"kind": self.adapter.kind, "parameters": sum(p.numel() for p in self.trainable)}}

    def batches(
        self, tracks: Sequence[Track], parts: Iterable[np.ndarray], seed: tuple[int, ...] | None = None
    ) -> Iterator[Batch]:
        if seed is not None and self.adapter.checkpointing == "auto":
            self.backbone.checkpointing = self._too_large
        parts = list(parts)
        return one_ahead(
            self._batches(tracks, parts, self._waves([tracks[i] for part in parts for i in part]), seed)
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


def open_source(
    config: RunConfig, device: torch.device, report: Report = print, spec: FeatureSpec | None = None
) -> Source:
    """The source that the settings ask for. `spec`, from a saved run that is to be heard and not to be
    trained, must be what these settings give."""
    service = FeatureService(config.features, device)
    if config.regime == "frozen":
        source: Source = Frozen(service, config.head.poolings, config.augment, device, config.training.memory)
    else:
        wanted = service.spec.only(config.head.poolings)
        if service.memory is None:
            raise ConfigError(
                f"streamed training keeps waveforms in the cache, and {config.features.cache} is no folder",
                "Use --set features.cache=FOLDER.",
            )
        source = streamed = Streamed(
            service.backbone, wanted, config.adapter, config.augment, config.training, device, service.memory
        )
        streamed.streams_long = spec is not None
    if spec is not None:
        source.spec.require_agreement(spec, "this run")
    report(service.describe())
    return source
