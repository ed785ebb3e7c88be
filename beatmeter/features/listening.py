"""Audio that comes in blocks, to features in flat memory: of a whole track, or of windows that slide over it.

Every chunk goes through the backbone once. Of a track only pooled rows are kept, and of many rows one is made
now and then. Windows are runs of frames of the joined chunks, on the track's own grid of chunks: the states
of a chunk are kept as long as a window needs them, and windows that overlap share them.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from beatmeter.audio.chunking import Cutter, Layout, Window, frame_count, row_spans, rows
from beatmeter.errors import ConfigError
from beatmeter.features.pooling import Aggregation, Encoder, window_chunks
from beatmeter.features.poolings import Arrangement, pooling_class
from beatmeter.features.poolings.sequences import pad
from beatmeter.schema import FeatureSpec

T = TypeVar("T")
CHUNKS = {
    "cpu": 6,
    "cuda": 96,
}  # that go through the backbone together: what stays in a core's cache; what fills a GPU


def batch_chunks(device: torch.device) -> int:
    """How many chunks to encode at a time."""
    return CHUNKS.get(device.type, 24)


def listening_together(encoders: Mapping[str, Encoder]) -> list[dict[str, Encoder]]:
    """Encoders in groups that hear the same chunks, frames and windows, so that one listener serves each
    group."""
    groups: dict[Hashable, dict[str, Encoder]] = {}
    for name, encoder in encoders.items():
        spec = encoder.spec
        groups.setdefault((spec.chunk, spec.frame_hop, spec.frame_span, window_chunks(spec)), {})[name] = (
            encoder
        )
    return list(groups.values())


def _distinct(encoders: Mapping[str, Encoder]) -> tuple[dict[str, str], dict[str, Encoder]]:
    """For every name the first one of the same encoder, and the encoders by these."""
    first: dict[int, str] = {}
    names = {name: first.setdefault(id(encoder), name) for name, encoder in encoders.items()}
    return names, {name: encoders[name] for name in first.values()}


class TrackListener:
    """The features of one track of `samples` samples, pushed in blocks: the same as of the whole wave at
    once.

    `encoders` are a group of `listening_together`: all of them take the same chunks; one that stands under
    several names encodes once. Raises AudioError when the track is too short, and when it turns out shorter
    or longer than was said.
    """

    def __init__(self, encoders: Mapping[str, Encoder], samples: int, device: torch.device) -> None:
        self._names, self._encoders = _distinct(encoders)
        self._device, self.spec = device, next(iter(encoders.values())).spec
        self.layout = Layout.of(samples, self.spec)
        self._cutter = Cutter(self.spec.chunk, samples)
        self._waiting: list[np.ndarray] = []
        self._batches = self._batched(batch_chunks(device))
        self._pooled = {
            name: _PooledRows(encoder.spec, self.layout, device) for name, encoder in self._encoders.items()
        }

    def _batched(self, limit: int) -> list[list[Window]]:
        """The windows of the track, as many together as have `limit` chunks, one at least; the first ones
        last."""
        batches: list[list[Window]] = []
        held = 0
        for window in self.layout.windows(window_chunks(self.spec)):
            size = window.chunks[1] - window.chunks[0]
            if not batches or held + size > limit:
                batches, held = [*batches, []], 0
            batches[-1].append(window)
            held += size
        return batches[::-1]

    def push(self, block: Float[np.ndarray, " sample"]) -> None:
        """The next samples of the track, mono at the features' rate."""
        self._take(self._cutter.push(block))

    def finish(self) -> dict[str, dict[str, Float[Tensor, "1 layer ..."]]]:
        """Features by encoder and pooling, after the last block; sequences as `sequences.pad` has them."""
        self._take(self._cutter.finish())
        return self._by_name({name: pooled.result() for name, pooled in self._pooled.items()})

    def take(self) -> dict[str, dict[str, Float[Tensor, "row layer ..."]]]:
        """The rows of sequences, by encoder and pooling, that came since they were taken last.
        `finish` gives no sequence whose rows were taken before."""
        return self._by_name({name: pooled.take() for name, pooled in self._pooled.items()})

    def _by_name(self, found: Mapping[str, T]) -> dict[str, T]:
        return {name: found[same] for name, same in self._names.items()}

    def end(self) -> None:
        """There is no more: encode what is left, for `take`."""
        self._take(self._cutter.finish())

    def _take(self, chunks: Sequence[np.ndarray]) -> None:
        self._waiting += chunks
        while self._batches and len(self._waiting) >= (
            count := sum(w.chunks[1] - w.chunks[0] for w in self._batches[-1])
        ):
            windows = self._batches.pop()
            waves = torch.from_numpy(np.stack(self._waiting[:count])).to(self._device)
            del self._waiting[:count]
            arrangement = Arrangement.join([Arrangement.of_window(self.layout, w) for w in windows])
            for name, encoder in self._encoders.items():
                self._pooled[name].add(encoder(waves, arrangement))


class _PooledRows:
    """The rows of every pooling of one track, in order, and what they make of it."""

    def __init__(self, spec: FeatureSpec, layout: Layout, device: torch.device) -> None:
        self._spec, self._layout = spec, layout
        self._sums = {p.name: Aggregation(p) for p in spec.poolings if pooling_class(p).per_track}
        self._sequences: dict[str, list[Tensor]] = {
            p.name: [] for p in spec.poolings if not pooling_class(p).per_track
        }
        self._frames = {p.name: torch.from_numpy(rows(layout, p)[1]).to(device) for p in spec.poolings}
        self._done = dict.fromkeys(self._frames, 0)

    def add(self, rows_of: Mapping[str, Float[Tensor, "row layer ..."]]) -> None:
        for name, values in rows_of.items():
            first = self._done[name]
            self._done[name] += len(values)
            if name in self._sequences:
                self._sequences[name].append(values)
                continue
            self._sums[name].add(values, self._frames[name][first : self._done[name]])

    def take(self) -> dict[str, Float[Tensor, "row layer ..."]]:
        found = {name: torch.cat(parts) for name, parts in self._sequences.items() if parts}
        self._sequences = {name: [] for name in self._sequences}
        return found

    def result(self) -> dict[str, Float[Tensor, "1 layer ..."]]:
        features = {name: total.result()[None] for name, total in self._sums.items()}
        for name, parts in self._sequences.items():
            times = row_spans(rows(self._layout, self._spec[name])[0], self._spec)
            features |= pad(name, [torch.cat(parts)], [torch.from_numpy(times)])
        return features


class WindowListener:
    """Features of windows of audio that is pushed in blocks. Times are seconds from the first block on.

    `encoders` are a group of `listening_together`; one that stands under several names encodes once.
    `covered` is how far the audio is encoded: behind what was
    pushed by less than a chunk, until `finish`. `begin` is from where on states are held. A window is rounded
    to whole frames. Raises ConfigError for features that a window is not joined of: sequences of frames,
    chunks that overlap.
    """

    def __init__(self, encoders: Mapping[str, Encoder], device: torch.device) -> None:
        self._names, self._encoders = _distinct(encoders)
        self._device, self.spec = device, next(iter(encoders.values())).spec
        frames = [
            p.name for e in encoders.values() for p in e.spec.poolings if not pooling_class(p).per_track
        ]
        if frames or self.spec.chunk.grid:
            what = f"frames ({', '.join(frames)})" if frames else "chunks that overlap"
            hint = "Use `beatmeter predict`, which hears a track as a whole."
            raise ConfigError(f"this model reads {what}: it cannot hear windows that slide over audio", hint)
        self._limit = batch_chunks(device)
        self._cutter = Cutter(self.spec.chunk)
        self._states: dict[str, dict[int, Tensor]] = {name: {} for name in self._encoders}
        self._begin = self._end = 0  # the frames that are held

    @property
    def covered(self) -> float:
        return self._end / self.spec.frame_rate

    @property
    def begin(self) -> float:
        return self._begin / self.spec.frame_rate

    def push(self, block: Float[np.ndarray, " sample"], skip: bool = False) -> None:
        """The next samples, mono at the features' rate. With `skip` the chunks that they complete are not
        encoded, and what is held begins after them."""
        chunks = self._cutter.push(block)
        if chunks and skip:
            self._end += len(chunks) * self._frames_of(chunks[0])
            self._begin, self._states = self._end, {name: {} for name in self._encoders}
        elif chunks:
            self._encode(chunks, [0] * len(chunks))

    def finish(self) -> None:
        """There is no more: encode what is left."""
        last = self._cutter.finish()
        if last:
            self._encode(last, [Layout.of(self._cutter.samples, self.spec).skips[-1]])

    def _frames_of(self, chunk: np.ndarray) -> int:
        return frame_count(len(chunk), self.spec.frame_hop, self.spec.frame_span)

    def _encode(self, chunks: Sequence[np.ndarray], skips: Sequence[int]) -> None:
        for a in range(0, len(chunks), self._limit):
            waves = torch.from_numpy(np.stack(chunks[a : a + self._limit])).to(self._device)
            for name, encoder in self._encoders.items():
                held = self._states[name]
                for layer, states in encoder.states(waves).items():
                    joined = [x[s:] for x, s in zip(states, skips[a : a + self._limit], strict=True)]
                    held[layer] = torch.cat([*([held[layer]] if layer in held else []), *joined])
                self._end = self._begin + len(next(iter(held.values())))

    def features(
        self, times: Float[np.ndarray, "window 2"]
    ) -> dict[str, dict[str, Float[Tensor, "window layer ..."]]]:
        """Features by encoder and pooling of windows between `begin` and `covered`; parts of them that lie
        outside are left out."""
        rate = self.spec.frame_rate
        windows = []
        for a, b in times:
            last = min(round(b * rate), self._end)
            windows.append((min(max(self._begin, last - round((b - a) * rate)), last - 1), last))
        chunk = self._frames_of(np.empty(self.spec.chunk.length))
        found = {
            name: encoder.pool(self._states[name], windows, self._begin, chunk)
            for name, encoder in self._encoders.items()
        }
        return {name: found[same] for name, same in self._names.items()}

    def forget(self, before: float) -> None:
        """Windows from now on begin at `before` seconds or later."""
        first = min(int(before * self.spec.frame_rate), self._end)
        if first > self._begin:
            for held in self._states.values():
                held |= {layer: states[first - self._begin :].clone() for layer, states in held.items()}
            self._begin = first
