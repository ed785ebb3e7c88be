"""Data sets that are read here in the shape of a mirdata loader (https://mirdata.readthedocs.io), for
programs that are written for one. mirdata itself is not needed.

    dataset = initialize("METER2800/")
    for track_id, track in dataset.load_tracks().items():
        samples, rate = track.audio
        track.meter, track.split, track.beats.times
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from beatmeter.audio.decode import load, probe
from beatmeter.datasets import open_dataset
from beatmeter.datasets.annotations import Annotation, find_annotation
from beatmeter.datasets.dataset import Dataset
from beatmeter.errors import DataError
from beatmeter.runtime.paths import StrPath, as_path
from beatmeter.schema import Track
from beatmeter.settings import METERS, DataConfig


@dataclass(frozen=True)
class BeatData:
    """Beats as `mirdata.annotations.BeatData` holds them: `times` in seconds, `positions` in the bar, 1 is
    the downbeat and 0 unknown."""

    times: Float[np.ndarray, " beat"]
    positions: Int[np.ndarray, " beat"]
    time_unit: str = "s"
    position_unit: str = "bar_index"
    confidence: None = None
    confidence_unit: None = None


@dataclass(frozen=True)
class SectionData:
    """Sections as `mirdata.annotations.SectionData` holds them: start and end in seconds, and labels."""

    intervals: Float[np.ndarray, "section 2"]
    labels: list[str]
    interval_unit: str = "s"
    label_unit: str = "open"


@dataclass(frozen=True)
class MirdataTrack:
    """One track: what mirdata asks for by attribute. `meter` is the primary class and `meters` the weight of
    every class of its label; `group` is what must not be torn apart; None where nothing is known."""

    track_id: str
    audio_path: str
    meter: str | None
    meters: dict[str, float]
    split: str | None
    group: str
    source: str
    metadata: dict[str, str] = field(repr=False)
    _track: Track = field(repr=False)

    @property
    def audio(self) -> tuple[Float[np.ndarray, " sample"], float]:
        """Mono samples (sample,) float32 and their rate in Hz, that of the file. Raises AudioError."""
        rate = probe(self.audio_path).sample_rate
        return load(self.audio_path, rate), float(rate)

    @cached_property
    def _annotation(self) -> Annotation | None:
        return find_annotation(self._track)

    @property
    def beats(self) -> BeatData | None:
        """Annotated beats, from the files beside the audio; None without. Raises DataError."""
        grid = self._annotation.grid if self._annotation else None
        return None if grid is None else BeatData(grid.times, grid.places)

    @property
    def sections(self) -> SectionData | None:
        """Annotated sections, from the files beside the audio; None without. Raises DataError."""
        spans = self._annotation.sections if self._annotation else None
        if spans is None:
            return None
        return SectionData(np.stack([spans.starts, spans.ends], axis=-1), list(spans.labels))


class MirdataDataset:
    """A data set with the methods of `mirdata.core.Dataset`."""

    def __init__(self, dataset: Dataset, data_home: Path) -> None:
        self.name, self.data_home, self.dataset = dataset.name, str(data_home), dataset
        self._tracks = {track.id: track for track in dataset.tracks}

    def __repr__(self) -> str:
        return f"{self.name}: {len(self._tracks)} tracks in {self.data_home} ({self.dataset.kind})"

    @property
    def track_ids(self) -> list[str]:
        """Ids of all tracks that can be used, in the order of the table."""
        return list(self._tracks)

    def track(self, track_id: str) -> MirdataTrack:
        """One track. Raises DataError for an id that is not there."""
        if track_id not in self._tracks:
            raise DataError(
                f"{self.name} has no track {track_id!r}",
                "`track_ids` lists them; see `beatmeter data check`.",
            )
        t = self._tracks[track_id]
        return MirdataTrack(
            t.id, str(t.path), t.primary, dict(t.labels), t.split, t.group, t.source, dict(t.extra), t
        )

    def load_tracks(self) -> dict[str, MirdataTrack]:
        """Every track by id; audio and annotations are read when they are asked for."""
        return {track_id: self.track(track_id) for track_id in self._tracks}

    def choice_track(self) -> MirdataTrack:
        """A random track."""
        return self.track(random.choice(self.track_ids))

    def get_track_splits(self) -> dict[str, list[str]]:
        """Ids by official split. Raises NotImplementedError where the data set has none, as mirdata does."""
        splits: dict[str, list[str]] = {}
        for t in self._tracks.values():
            if t.split is None:
                raise NotImplementedError(
                    f"{self.name} has no official split: use get_random_track_splits, or "
                    "`beatmeter data split`"
                )
            splits.setdefault(t.split, []).append(t.id)
        return splits

    def get_random_track_splits(
        self, splits: Sequence[float], seed: int = 42, split_names: Sequence[str] | None = None
    ) -> dict[str | int, list[str]]:
        """Ids in parts whose shares add up to 1, drawn by `seed`. Unlike mirdata's, a group (a song, a tune)
        is never torn apart, so shares are met as well as whole groups allow."""
        if not np.isclose(sum(splits), 1) or min(splits, default=0) < 0:
            raise ValueError(f"shares must add up to 1, not to {sum(splits):g}")
        if split_names is not None and len(split_names) != len(splits):
            raise ValueError(f"{len(splits)} shares have {len(split_names)} names")
        groups: dict[str, list[str]] = {}
        for t in self._tracks.values():
            groups.setdefault(t.group, []).append(t.id)
        order = np.random.default_rng(seed).permutation(sorted(groups))
        names: Sequence[str | int] = split_names if split_names is not None else range(len(splits))
        found: dict[str | int, list[str]] = {name: [] for name in names}
        ends, done = np.cumsum(splits) * len(self._tracks), 0
        for ids in (groups[str(group)] for group in order):
            part = int(np.searchsorted(ends, done + len(ids) / 2))  # where the middle of the group lies
            found[names[min(part, len(names) - 1)]] += ids
            done += len(ids)
        return found

    def validate(
        self, verbose: bool = True
    ) -> tuple[dict[str, dict[str, list[str]]], dict[str, dict[str, list[str]]]]:
        """(missing files, files with a wrong checksum) as mirdata gives them. No checksums are published for
        these tables, so the second is empty; `beatmeter data check` opens every file."""
        missing = {t.id: [str(t.path)] for t in self._tracks.values() if not t.path.exists()}
        missing |= {e.id: [e.path] for e in self.dataset.excluded if e.kind == "missing"}
        if verbose:
            for paths in missing.values():
                print(f"missing: {paths[0]}")
        return {"tracks": missing}, {"tracks": {}}

    def cite(self) -> None:
        """Print where the data set is from, which only its makers can say."""
        print(f"{self.name}, read from {self.data_home}: cite as its makers ask")

    def license(self) -> None:
        """Print whose licence holds."""
        print(f"{self.name}, read from {self.data_home}: under the licence of its makers")


def initialize(data_home: StrPath, classes: Sequence[str] = METERS) -> MirdataDataset:
    """The data set at a folder or table, of any kind that beatmeter reads, as mirdata's `initialize` gives
    one. Tracks without a label among `classes` are there too, with `meter` None. Raises DataError."""
    home = as_path(data_home)
    return MirdataDataset(open_dataset(home, DataConfig(), classes, labelled=False), home)
