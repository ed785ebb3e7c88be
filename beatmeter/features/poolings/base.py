"""What a pooling is: the contract that every class of `beatmeter.features.poolings` keeps.

A pooling makes rows of the states of a few layers, says where the rows lie in time, and makes one array a
track of them. Extraction, training and listening ask it; none of them knows which poolings there are.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from beatmeter.audio.chunking import Kept, Layout, Window, row_count, rows
from beatmeter.errors import ConfigError
from beatmeter.features.backbones.base import Backbone
from beatmeter.schema import PoolingSpec
from beatmeter.settings import FeatureConfig


@dataclass(frozen=True)
class Arrangement:
    """How the chunks of a batch belong together: `windows` joins runs of chunks (positions in the batch) into
    sequences; `kept` says per chunk which of its frames the joined track takes."""

    windows: tuple[Window, ...]
    kept: tuple[Kept, ...]

    @classmethod
    def of(cls, layout: Layout, chunks_per_window: int) -> Arrangement:
        """All chunks of one track."""
        return cls(tuple(layout.windows(chunks_per_window)), layout.kept)

    @classmethod
    def of_window(cls, layout: Layout, window: Window) -> Arrangement:
        """The chunks of one window of a track, numbered from 0."""
        first, last = window.chunks
        return cls((window.shifted(-first),), layout.kept[first:last])

    @classmethod
    def join(cls, parts: Sequence[Arrangement]) -> Arrangement:
        """Several arrangements one after the other in one batch."""
        windows: list[Window] = []
        kept: list[Kept] = []
        for part in parts:
            at = len(kept)
            windows += [w.shifted(at) for w in part.windows]
            kept += part.kept
        return cls(tuple(windows), tuple(kept))


class Pooling(nn.Module, ABC):
    """One pooling of a spec. `kind` is its name in settings and stores.

    `per_track`: the rows of a track are read as one array (`aggregate`). `tempo_axis`: the last axis is log
    time, on which another tempo is a shift; mean and standard deviation are shared along it, so that it
    stays one, and features may be shifted along it. `joins`: a row joins several chunks, which then go
    through the backbone together. `together`: rows of all layers are made at once, of (layer, chunk, frame,
    dim). `rate`: rows a second where the settings say nothing else, None for the
    rate that all poolings of frames have. `of_waves`: rows are made of the audio itself, and no layer is
    read.
    """

    kind: ClassVar[str]
    per_track: ClassVar[bool] = True
    tempo_axis: ClassVar[bool] = False
    joins: ClassVar[bool] = False
    together: ClassVar[bool] = False
    rate: ClassVar[float | None] = None
    of_waves: ClassVar[bool] = False

    def __init__(self, spec: PoolingSpec, backbone: Backbone | None = None) -> None:
        """`backbone` makes the states that `forward` and `pool_runs` read; all the rest is asked for without
        one."""
        super().__init__()
        self.spec = spec

    @classmethod
    @abstractmethod
    def make_spec(
        cls, name: str, backbone: Backbone, layers: tuple[int, ...], config: FeatureConfig
    ) -> PoolingSpec:
        """The spec of a pooling of this kind at `layers` of a backbone."""

    @abstractmethod
    def forward(
        self, states: Float[Tensor, "chunk frame dim"], arrangement: Arrangement
    ) -> Float[Tensor, "row ..."]:
        """Rows (row, *axes) of one layer, float32, in the order of the chunks; where layers are read
        `together`, (row, layer, *axes) of all."""

    def pool_runs(
        self,
        states: Mapping[int, Float[Tensor, "frame dim"]],
        runs: Sequence[tuple[int, int]],
        first: int,
        chunk: int,
    ) -> Float[Tensor, "run layer ..."]:
        """One array (run, layer, *axes) over runs of frames, half-open, of joined chunks. Frames are counted
        from the beginning of the track, `first` is the one that `states` begin with; a chunk has `chunk`.
        Raises ConfigError where rows are no array a track."""
        raise ConfigError(f"pooling {self.spec.name!r} gives {self.kind}, which windows are not joined of")

    @abstractmethod
    def count(self, arrangement: Arrangement, frames: int) -> int:
        """How many rows `forward` gives for this arrangement of chunks of `frames` frames."""

    def aggregate(
        self, values: Float[Tensor, "*track row layer ..."], frames: Int[Tensor, "*track row"]
    ) -> Float[Tensor, "*track layer ..."]:
        """The rows of a track, (*track, row, layer, *axes), as one array (*track, layer, *axes): their mean,
        weighted by `frames`."""
        weight = row_weights(values, frames)
        return (values * weight).sum(dim=-len(self.spec.shape) - 2)

    def rows(self, layout: Layout) -> tuple[Float[np.ndarray, "row 2"], Int[np.ndarray, " row"]]:
        """Start and end of every row in seconds, and how many frames it summarises."""
        return rows(layout, self.spec)

    def crop(self, times: Float[np.ndarray, "row 2"], seconds: tuple[float, float]) -> tuple[int, int]:
        """The rows, half-open, that a crop keeps: those whose middle lies in it, or the nearest. `times` as
        of `rows`."""
        middle = times.mean(axis=1)
        first, last = (
            int(np.searchsorted(middle, seconds[0], "left")),
            int(np.searchsorted(middle, seconds[1], "right")),
        )
        if first < last:
            return first, last
        nearest = int(np.abs(middle - sum(seconds) / 2).argmin())
        return nearest, nearest + 1

    def uncroppable(self, layout: Layout) -> bool:
        """Whether every crop of such a track keeps one row that joins all of its chunks."""
        return self.joins and row_count(layout, self.spec) == 1


def row_weights(values: Float[Tensor, "*track row layer ..."], frames: Int[Tensor, "*track row"]) -> Tensor:
    """The share of each row in the frames of its track, shaped to multiply `values`."""
    share = (frames / frames.sum(dim=-1, keepdim=True)).to(values)
    return share.reshape(*frames.shape, *[1] * (values.ndim - frames.ndim))


def split_run(start: int, end: int, chunk: int) -> list[tuple[int, int]]:
    """A run of frames cut where chunks of `chunk` frames meet."""
    return list(itertools.pairwise([start, *range((start // chunk + 1) * chunk, end, chunk), end]))


def pooled_frames(parts: Sequence[tuple[int, int]], device: torch.device) -> Int[Tensor, " row"]:
    """How many frames each part has."""
    return torch.tensor([end - start for start, end in parts], device=device)


def rows_fit(step: float, full: float, seconds: float, overlap: float) -> bool:
    """Whether rows of `step` frames of `full` Hz never cross chunks of `seconds`: a chunk has a whole
    number of them, or
    where chunks share `overlap` seconds, one begins in the first half of what they share."""
    shared, rows = round(overlap * full), round(seconds * full) / step
    return shared // 2 >= math.ceil(step) - 1 if shared else abs(rows - round(rows)) < 1e-9
