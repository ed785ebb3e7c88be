"""An endless stream of synthesised training batches, rendered ahead in worker processes, the same for the
same seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from functools import partial

import numpy as np

from beatmeter.datasets.synth import SynthOptions, render
from beatmeter.datasets.synth.clip import METERS
from beatmeter.errors import RunError
from beatmeter.learning.pretraining.targets import FrameTargets, frame_targets
from beatmeter.runtime.parallel import Crash, ordered

HOP, SPAN = 320, 400


@dataclass(frozen=True)
class StreamBatch:
    """`waves` (clip, chunk, sample); `meters` (clip, klass) label weights; `frames` holds FrameTargets arrays
    with leading axes (clip, chunk * frame)."""

    waves: np.ndarray
    meters: np.ndarray
    frames: dict[str, np.ndarray]


@dataclass(frozen=True)
class StreamSpec:
    """How batches look: clips per batch, consecutive chunks per clip, samples per chunk and between chunk
    starts."""

    clips: int
    chunks: int
    length: int
    hop: int
    sample_rate: int
    seed: int
    options: SynthOptions = field(default_factory=SynthOptions)

    @property
    def seconds(self) -> float:
        """Length of the audio that one clip's chunks cover."""
        return ((self.chunks - 1) * self.hop + self.length) / self.sample_rate


def make_batch(spec: StreamSpec, step: int) -> StreamBatch:
    """Batch number `step`: clip i of it has the seed (stream seed, step * clips + i)."""
    waves, meters, targets = [], [], []
    starts = np.arange(spec.chunks) * spec.hop
    times = (np.arange(spec.chunks * (spec.hop // HOP)) * HOP + SPAN / 2) / spec.sample_rate
    for i in range(spec.clips):
        seed = int(np.random.SeedSequence([spec.seed, step * spec.clips + i]).generate_state(1, np.uint32)[0])
        clip = render(seed, seconds=spec.seconds, sample_rate=spec.sample_rate, options=spec.options)
        audio = np.zeros(starts[-1] + spec.length, dtype=np.float32)
        audio[: len(clip.audio)] = clip.audio[: len(audio)]
        waves.append(np.stack([audio[s : s + spec.length] for s in starts]))
        meters.append([clip.meters.get(m, 0.0) for m in METERS])
        targets.append(frame_targets(clip, times))
    stacked = {f.name: np.stack([getattr(t, f.name) for t in targets]) for f in fields(FrameTargets)}
    return StreamBatch(np.stack(waves), np.array(meters, dtype=np.float32), stacked)


def batches(spec: StreamSpec, first: int, last: int, workers: int) -> Iterator[StreamBatch]:
    """Batches `first` to `last - 1`, in order, made ahead by `workers` processes."""
    for batch in ordered(partial(make_batch, spec), range(first, last), workers):
        if isinstance(batch, Crash):
            raise RunError(
                "a process died while it made training music", "Is there enough memory? Go on with --resume."
            )
        yield batch
