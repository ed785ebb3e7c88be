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
    steps: int = option(2_200, "optimiser steps")
    clips: int = option(4, "clips per step")
    chunks: int = option(
        6, "consecutive 5-s chunks per clip, joined for lag pooling: 1, 2 or 6 are windows of 5, 10, 30 s"
    )
    lr: float = option(2e-3, "peak learning rate")
    warmup: int = option(300, "steps to the peak; cosine to zero afterwards")
    weight_decay: float = option(0.01, "AdamW weight decay of matrices")
    clip: float = option(1.0, "largest gradient norm")
    frame_weight: float = option(
        1.0, "weight of the frame losses: beat, downbeat, bar phase, periods; 0 leaves them out"
    )
    lag_weight: float = option(2.0, "weight of the clip's meter through lag pooling; 0 leaves it out")
    mask_weight: float = option(0.5, "weight of masked spectral regression; 0 leaves it out")
    mask_share: float = option(0.4, "share of frames that masks start to cover, in chunks that are masked")
    mask_chunks: float = option(0.3, "share of chunks that are masked")
    mel_bands: int = option(40, "bands of the masked regression")
    precision: Literal["auto", "float32", "bfloat16"] = option(
        "auto", "autocast; auto takes bfloat16 where the device is fast at it"
    )
    workers: int = option(1, "processes that synthesise music")
    save_every: int = option(250, "steps between checkpoints")

    def __post_init__(self) -> None:
        positive(self, "steps", "clips", "chunks", "lr", "warmup", "clip", "mel_bands", "save_every")
        at_most(
            self, steps=10**9, clips=4096, chunks=1000, lr=1e30, mel_bands=1000, workers=1024, seed=2**31 - 1
        )
        if min(self.frame_weight, self.lag_weight, self.mask_weight, self.workers, self.weight_decay) < 0:
            raise ConfigError("weights and workers must not be negative")
        if self.frame_weight + self.lag_weight + self.mask_weight == 0:
            raise ConfigError(
                "pre-training needs at least one loss: frame_weight, lag_weight or mask_weight above 0"
            )
