"""An endless stream of synthesised training batches, rendered ahead in worker processes, the same for the
same seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from functools import partial

import numpy as np

from beatmeter.datasets.synth import Clip, SynthOptions, render, render_slice
from beatmeter.datasets.synth.clip import METERS
from beatmeter.datasets.synth.draws import stream
from beatmeter.datasets.synth.slices import draw_slice
from beatmeter.errors import RunError
from beatmeter.learning.pretraining.targets import FrameTargets, bar_grouping_of, company_of, frame_targets
from beatmeter.runtime.distributed import ALONE, Ranks
from beatmeter.runtime.parallel import Crash, ordered

HOP, SPAN = 320, 400
LONGER = 3  # a long window against the others


@dataclass(frozen=True)
class StreamBatch:
    """`waves` (clip, chunk, sample); `meters` (clip, klass) label weights; `companies` and `groupings`
    (clip,) as `company_of` and `bar_grouping_of` give them; `frames` holds FrameTargets arrays with leading
    axes (clip, chunk * frame)."""

    waves: np.ndarray
    meters: np.ndarray
    companies: np.ndarray
    groupings: np.ndarray
    frames: dict[str, np.ndarray]


@dataclass(frozen=True)
class StreamSpec:
    """How batches look: clips per batch, consecutive chunks per clip, samples per chunk and between chunk
    starts. `hard` is the share of clips from the mix that is hard to hear; from step `long_from` every second
    batch is of a third as many clips (at least one), three times as long. Only this process's share of each
    batch (`ranks`) is made."""

    clips: int
    chunks: int
    length: int
    hop: int
    sample_rate: int
    seed: int
    options: SynthOptions = field(default_factory=SynthOptions)
    hard: float = 0.0
    long_from: int | None = None
    ranks: Ranks = ALONE

    def shape(self, step: int) -> tuple[int, int]:
        """Clips of a batch, and chunks of each."""
        if self.long_from is None or step < self.long_from or (step - self.long_from) % 2:
            return self.clips, self.chunks
        return max(1, self.clips // LONGER), self.chunks * LONGER


def make_batch(spec: StreamSpec, step: int) -> StreamBatch:
    """Batch number `step`, or this process's share of it: clip i of it has the seed
    (stream seed, step * clips + i)."""
    clips, waves, targets = [], [], []
    count, chunks = spec.shape(step)
    starts = np.arange(chunks) * spec.hop
    times = (np.arange(chunks * (spec.hop // HOP)) * HOP + SPAN / 2) / spec.sample_rate
    seconds = ((chunks - 1) * spec.hop + spec.length) / spec.sample_rate
    for i in range(count)[spec.ranks.share(count)]:
        seed = int(np.random.SeedSequence([spec.seed, step * spec.clips + i]).generate_state(1, np.uint32)[0])
        clip = _render(spec, seed, seconds)
        audio = np.zeros(starts[-1] + spec.length, dtype=np.float32)
        audio[: len(clip.audio)] = clip.audio[: len(audio)]
        waves.append(np.stack([audio[s : s + spec.length] for s in starts]))
        targets.append(frame_targets(clip, times))
        clips.append(clip)
    stacked = {f.name: np.stack([getattr(t, f.name) for t in targets]) for f in fields(FrameTargets)}
    meters = np.array([[clip.meters.get(m, 0.0) for m in METERS] for clip in clips], dtype=np.float32)
    companies, groupings = ([of(clip) for clip in clips] for of in (company_of, bar_grouping_of))
    return StreamBatch(np.stack(waves), meters, np.array(companies), np.array(groupings), stacked)


def _render(spec: StreamSpec, seed: int, seconds: float) -> Clip:
    if spec.hard and stream(seed, "mix").random() < spec.hard:
        return render_slice(seed, draw_slice(seed), seconds=seconds, sample_rate=spec.sample_rate)
    return render(seed, seconds=seconds, sample_rate=spec.sample_rate, options=spec.options)


def batches(spec: StreamSpec, first: int, last: int, workers: int) -> Iterator[StreamBatch]:
    """Batches `first` to `last - 1`, in order, made ahead by `workers` processes."""
    for batch in ordered(partial(make_batch, spec), range(first, last), workers):
        if isinstance(batch, Crash):
            raise RunError(
                "a process died while it made training music", "Is there enough memory? Go on with --resume."
            )
        yield batch
