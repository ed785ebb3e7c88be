"""Audio of whole tracks to features of tracks: what streamed training and answers share."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
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
                            torch.from_numpy(row_spans(times[a:b], self.spec) + excerpts[i].start),
                        )
                    first += len(frames)
        features = {
            name: torch.stack([r[name] for r in result]) for name in result[0] if name not in moments[0]
        }
        for name in moments[0]:
            features |= pad(name, [r[name] for r in result], [m[name] for m in moments])
        return features
