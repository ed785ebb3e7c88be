"""Audio of whole tracks to features of tracks: what streamed training and answers share."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from beatmeter.audio.chunking import Layout, row_spans
from beatmeter.audio.decode import stream
from beatmeter.errors import AudioError, RunError
from beatmeter.features.backbones.base import Backbone
from beatmeter.features.crops import Crop
from beatmeter.features.listening import TrackListener, batch_chunks
from beatmeter.features.pooling import Encoder, window_chunks
from beatmeter.features.poolings import Arrangement, pooling_of
from beatmeter.features.poolings.sequences import join, pad
from beatmeter.schema import FeatureSpec, Track

# chunks that are encoded together though nothing learns: four tracks of 30 s, a step of training
TOGETHER = 24


@dataclass(frozen=True)
class Excerpt:
    """A wave (sample,) and which seconds of it are pooled; None is all. It begins `start` seconds after its
    track."""

    wave: np.ndarray
    crop: Crop | None = None
    start: float = 0.0

    @property
    def samples(self) -> int:
        return len(self.wave)


@dataclass(frozen=True)
class Begun:
    """A track of `samples` samples that is computed up to the layer `after` (0: what the first layer takes):
    the `states` of its chunks (chunk, frame, dim), and by pooling the rows (row, layer, *axes) of what lies
    `below`. `crop` and `start` as of an Excerpt."""

    samples: int
    after: int
    states: np.ndarray
    below: Mapping[str, np.ndarray]
    crop: Crop | None = None
    start: float = 0.0


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

    def forward(self, tracks: Sequence[Excerpt | Begun | LongTrack]) -> dict[str, Tensor]:
        held = [track for track in tracks if not isinstance(track, LongTrack)]
        if torch.is_grad_enabled():
            return self._together(held)
        chunks = [
            math.inf if isinstance(track, LongTrack) else len(Layout.of(track.samples, self.spec).starts)
            for track in tracks
        ]
        if sum(chunks) <= max(TOGETHER, batch_chunks(self.device)):
            return self._together(held)
        alone = [
            self._together([track])
            if isinstance(track, Begun) or (isinstance(track, Excerpt) and track.crop)
            else self._alone(track)
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

    def _together(self, excerpts: Sequence[Excerpt | Begun]) -> dict[str, Tensor]:
        layouts = [Layout.of(e.samples, self.spec) for e in excerpts]
        result: list[dict[str, Tensor]] = [{} for _ in excerpts]
        moments: list[dict[str, Tensor]] = [{} for _ in excerpts]  # of the rows of sequences
        for length in sorted(
            {layout.length for layout in layouts}
        ):  # never padded: padding would change every frame
            at = [i for i, layout in enumerate(layouts) if layout.length == length]
            pooled = self._rows([excerpts[i] for i in at], [layouts[i] for i in at])
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
                            torch.from_numpy(row_spans(times[a:b], self.spec) + excerpts[i].start),
                        )
                    first += len(frames)
        features = {
            name: torch.stack([r[name] for r in result]) for name in result[0] if name not in moments[0]
        }
        for name in moments[0]:
            features |= pad(name, [r[name] for r in result], [m[name] for m in moments])
        return features

    def _rows(self, excerpts: Sequence[Excerpt | Begun], layouts: Sequence[Layout]) -> dict[str, Tensor]:
        """The rows of every pooling, track after track, of tracks whose chunks have one length. All come as
        waves, or all are begun after one layer."""
        arrangement = Arrangement.join([Arrangement.of(layout, self.window) for layout in layouts])
        begun = [e for e in excerpts if isinstance(e, Begun)]
        if not begun:
            chunks = np.stack(
                [
                    e.wave[s : s + layout.length]
                    for e, layout in zip(excerpts, layouts, strict=True)
                    if isinstance(e, Excerpt)
                    for s in layout.starts
                ]
            )
            pooled: dict[str, Tensor] = self.encode(torch.from_numpy(chunks).to(self.device), arrangement)
            return pooled
        states = self._joined([e.states[:, : layouts[0].frames] for e in begun])
        below = {name: self._joined([e.below[name] for e in begun]) for name in begun[0].below}
        return self.encode.resume(states, below, begun[0].after, arrangement)

    def _joined(self, parts: Sequence[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.concatenate(parts)).to(self.device)
