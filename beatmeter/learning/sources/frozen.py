"""Features from a store: aggregated once per track and view, kept in memory where they fit."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from beatmeter.audio.chunking import Layout, row_spans
from beatmeter.errors import RunError
from beatmeter.features.crops import VIEWS, crop_of, draw_views, report_uncropped
from beatmeter.features.poolings import pooling_class, pooling_of
from beatmeter.features.poolings.sequences import pad
from beatmeter.features.service import FeatureService, Report
from beatmeter.learning.sources.base import Batch, Source, in_order, one_ahead
from beatmeter.learning.standardiser import Standardiser
from beatmeter.runtime.memory import free_bytes
from beatmeter.runtime.progress import SILENT, Reporter
from beatmeter.schema import Track
from beatmeter.settings import AugmentConfig, TrainingConfig
from beatmeter.store import Snapshot

BLOCK = 8 << 20  # bytes of rows that are aggregated at a time: they stay in the processor's cache


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
            rows = {
                name: values.index_select(0, at[name]).to(self.device)
                for name, values in table.values.items()
            }
            yield Batch(index, rows)

    def _read(
        self, tracks: Sequence[Track], parts: Iterable[np.ndarray], chosen: np.ndarray
    ) -> Iterator[Batch]:
        for index in parts:
            keys = [self.keys[tracks[i].id] for i in index]
            rows = {name: torch.empty((len(keys), *self.spec[name].row_shape)) for name in self._names()}
            for name, values in rows.items():
                bounds = self._bounds(keys, chosen[index][:, None], name)[:, 0]
                self._aggregate(keys, np.arange(len(keys)), bounds, name, values)
                self.standardiser.apply(name, values, in_place=True)
            yield Batch(index, {name: values.to(self.device) for name, values in rows.items()})

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
                    at, _ = pooling.rows(Layout.of(int(n), self.spec))
                    times.append(torch.from_numpy(row_spans(at[a:b], self.spec)))
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
                items = same[part]
                first = offsets[at[items]] + bounds[items, 0]
                weights = np.stack([frames[int(lengths[at[i]])][slice(*bounds[i])] for i in items])
                chosen = torch.from_numpy(values[first[:, None] + np.arange(n)]).float()
                out[torch.from_numpy(items).to(out.device)] = pooling.aggregate(
                    chosen, torch.from_numpy(weights)
                ).to(out.device)
