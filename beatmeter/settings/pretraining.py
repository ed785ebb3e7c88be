"""Settings of `beatmeter pretrain`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from beatmeter.errors import ConfigError
from beatmeter.runtime.config import option
from beatmeter.settings.checks import at_most, positive


@dataclass(frozen=True)
class PretrainConfig:
    """How the embedded backbone is made."""

    seed: int = option(0, "seed of the first weights and of the stream of music")
    start: str = option(
        "", "backbone whose weights to go on from: 'embedded' or a folder; empty: fresh weights from the seed"
    )
    steps: int = option(2_200, "optimiser steps")
    clips: int = option(4, "clips per step")
    chunks: int = option(
        6, "consecutive 5-s chunks per clip, joined for lag pooling: 1, 2 or 6 are windows of 5, 10, 30 s"
    )
    long_after: float = option(
        1.0,
        "share of the steps after which every second batch is of a third of the clips, three times as long",
    )
    hard: float = option(
        0.0, "share of clips that are hard to hear: slow bars, rubato, dances, disguises, two meters"
    )
    longest_lag: float = option(7.5, "seconds, the longest lag that the clip's losses are given; 1 to 30")
    lr: float = option(2e-3, "peak learning rate")
    warmup: int = option(300, "steps to the peak; cosine to zero afterwards")
    weight_decay: float = option(0.01, "AdamW weight decay of matrices")
    clip: float = option(1.0, "largest gradient norm")
    average: float = option(
        0.0, "share of the weights' running mean that each step keeps, 0.999 for instance; 0: no mean"
    )
    frame_weight: float = option(
        1.0, "weight of the frame losses: beat, downbeat, bar phase, periods; 0 leaves them out"
    )
    lag_weight: float = option(2.0, "weight of the clip's meter through lag pooling; 0 leaves it out")
    chord_weight: float = option(0.0, "weight of changes of chord, frame by frame; 0 leaves them out")
    beat_phase_weight: float = option(
        0.0, "weight of the place between two beats, frame by frame; 0 leaves it out"
    )
    second_weight: float = option(
        0.0,
        "weight of a second meter, frame by frame: its downbeats, the place in its bars; 0 leaves them out",
    )
    company_weight: float = option(
        0.0, "weight of which meter or two meters the clip is in, through lag pooling; 0 leaves it out"
    )
    grouping_weight: float = option(
        0.0, "weight of how the clip's bars are grouped, through lag pooling; 0 leaves it out"
    )
    mask_weight: float = option(0.5, "weight of masked spectral regression; 0 leaves it out")
    mask_share: float = option(0.4, "share of frames that masks start to cover, in chunks that are masked")
    mask_chunks: float = option(0.3, "share of chunks that are masked")
    mel_bands: int = option(40, "bands of the masked regression")
    precision: Literal["auto", "float32", "bfloat16"] = option(
        "auto", "autocast; auto takes bfloat16 where the device is fast at it"
    )
    workers: int = option(1, "processes that synthesise music, for each that trains")
    save_every: int = option(250, "steps between checkpoints")

    def __post_init__(self) -> None:
        positive(self, "steps", "clips", "chunks", "lr", "warmup", "clip", "mel_bands", "save_every")
        at_most(
            self, steps=10**9, clips=4096, chunks=1000, lr=1e30, mel_bands=1000, workers=1024, seed=2**31 - 1
        )
        weights = [
            getattr(self, f"{name}_weight")
            for name in (
                *("frame", "lag", "chord", "beat_phase", "second"),
                *("company", "grouping", "mask"),
            )
        ]
        if min(*weights, self.workers, self.weight_decay) < 0:
            raise ConfigError("weights and workers must not be negative")
        if sum(weights) == 0:
            raise ConfigError(
                "pre-training needs at least one loss: frame_weight, lag_weight or mask_weight above 0"
            )
        if not 0 <= self.average < 1 or not 0 <= self.hard <= 1 or not 0 <= self.long_after <= 1:
            raise ConfigError(
                "average must be at least 0 and below 1; hard and long_after are shares from 0 to 1"
            )
        if not 1 <= self.longest_lag <= 30:
            raise ConfigError(
                f"longest_lag = {self.longest_lag:g} is not possible", "Write seconds from 1 to 30."
            )
