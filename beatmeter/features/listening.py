"""Audio that comes in blocks, to features in flat memory: of a whole track, or of windows that slide over it.

Every chunk goes through the backbone once. Of a track only pooled rows are kept, and of many rows one is made now and then.
Windows are runs of frames of the joined chunks, on the track's own grid of chunks: the states of a chunk are kept as long as a
window needs them, and windows that overlap share them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from beatmeter.audio.chunking import Cutter, Layout, Window, frame_count, rows
from beatmeter.features.pooling import Aggregation, Encoder, window_chunks
from beatmeter.features.poolings import Arrangement, pooling_class
from beatmeter.features.poolings.sequences import pad

CHUNKS = {"cpu": 6, "cuda": 96}  # that go through the backbone together: what stays in a core's cache; what fills a GPU


def batch_chunks(device: torch.device) -> int:
    """How many chunks to encode at a time."""
    return CHUNKS.get(device.type, 24)


class TrackListener:
    """The features of one track of `samples` samples, pushed in blocks: the same as of the whole wave at once.

    Raises AudioError when the track is too short, and when it turns out shorter or longer than was said.
    """

    def __init__(self, encoder: Encoder, samples: int, device: torch.device) -> None:
        self.encoder, self.spec, self._device = encoder, encoder.spec, device
        self.layout = Layout.of(samples, self.spec)
        self._cutter = Cutter(self.spec.chunk, samples)
        self._waiting: list[np.ndarray] = []
        self._batches = self._batched(batch_chunks(device))
        self._sums = {p.name: Aggregation(p) for p in self.spec.poolings if pooling_class(p).per_track}
        self._sequences: dict[str, list[Tensor]] = {p.name: [] for p in self.spec.poolings if not pooling_class(p).per_track}
        self._frames = {p.name: torch.from_numpy(rows(self.layout, p)[1]).to(device) for p in self.spec.poolings}
        self._done = dict.fromkeys(self._frames, 0)  # rows

    def _batched(self, limit: int) -> list[list[Window]]:
        """The windows of the track, as many together as have `limit` chunks, one at least; the first ones last."""
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

    def finish(self) -> dict[str, Float[Tensor, "1 layer ..."]]:
        """Features by pooling, after the last block; sequences as `sequences.pad` has them."""
        self._take(self._cutter.finish())
        features = {name: total.result()[None] for name, total in self._sums.items()}
        for name, parts in self._sequences.items():
            features |= pad(name, [torch.cat(parts)], [torch.from_numpy(rows(self.layout, self.spec[name])[0])])
        return features

    def _take(self, chunks: Sequence[np.ndarray]) -> None:
        self._waiting += chunks
        while self._batches and len(self._waiting) >= (count := sum(w.chunks[1] - w.chunks[0] for w in self._batches[-1])):
            windows = self._batches.pop()
            waves = torch.from_numpy(np.stack(self._waiting[:count])).to(self._device)
            del self._waiting[:count]
            for name, values in self.encoder(waves, Arrangement.join([Arrangement.of_window(self.layout, w) for w in windows])).items():
                first = self._done[name]
                self._done[name] += len(values)
                if name in self._sequences:
                    self._sequences[name].append(values)
                    continue
                self._sums[name].add(values, self._frames[name][first : self._done[name]])


class WindowListener:
    """Features of windows of audio that is pushed in blocks. Times are seconds from the first block on.

    `covered` is how far the audio is encoded: behind what was pushed by less than a chunk, until `finish`. `begin` is from where on
    states are held. A window is rounded to whole frames.
    """

    def __init__(self, encoder: Encoder, device: torch.device) -> None:
        self.encoder, self.spec, self._device = encoder, encoder.spec, device
        self._limit = batch_chunks(device)
        self._cutter = Cutter(self.spec.chunk)
        self._states: dict[int, Tensor] = {}
        self._begin = self._end = 0  # the frames that are held

    @property
    def covered(self) -> float:
        return self._end / self.spec.frame_rate

    @property
    def begin(self) -> float:
        return self._begin / self.spec.frame_rate

    def push(self, block: Float[np.ndarray, " sample"], skip: bool = False) -> None:
        """The next samples, mono at the features' rate. With `skip` the chunks that they complete are not encoded, and what is held
        begins after them."""
        chunks = self._cutter.push(block)
        if chunks and skip:
            self._end += len(chunks) * self._frames_of(chunks[0])
            self._begin, self._states = self._end, {}
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
            states = self.encoder.states(torch.from_numpy(np.stack(chunks[a : a + self._limit])).to(self._device))
            for layer, found in states.items():
                joined = [x[s:] for x, s in zip(found, skips[a : a + self._limit], strict=True)]
                self._states[layer] = torch.cat([*([self._states[layer]] if layer in self._states else []), *joined])
            self._end = self._begin + len(next(iter(self._states.values())))

    def features(self, times: Float[np.ndarray, "window 2"]) -> dict[str, Float[Tensor, "window layer ..."]]:
        """Features by pooling of windows between `begin` and `covered`; parts of them that lie outside are left out."""
        rate = self.spec.frame_rate
        windows = []
        for a, b in times:
            last = min(round(b * rate), self._end)
            windows.append((min(max(self._begin, last - round((b - a) * rate)), last - 1), last))
        return self.encoder.pool(self._states, windows, self._begin, self._frames_of(np.empty(self.spec.chunk.length)))

    def forget(self, before: float) -> None:
        """Windows from now on begin at `before` seconds or later."""
        first = min(int(before * self.spec.frame_rate), self._end)
        if first > self._begin:
            self._states = {layer: states[first - self._begin :].clone() for layer, states in self._states.items()}
            self._begin = first
