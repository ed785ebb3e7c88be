"""Settings of the first waist: which features, and how the backbone moves when audio streams through it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from beatmeter.errors import ConfigError
from beatmeter.runtime.config import option
from beatmeter.settings.checks import at_most, fraction, positive

MERT_330M = "m-a-p/MERT-v1-330M"
MERT_95M = "m-a-p/MERT-v1-95M"
EMBEDDED = "embedded"
EMBEDDED_HARD = "embedded-hard"
UNTRAINED = "embedded-untrained"  # the same model with weights from a fixed seed: the untrained baseline
SPECTRAL = "spectral"
CHUNK_SECONDS = 5.0  # of audio that a backbone hears at once
POOLING_KINDS = ("stats", "lag", "rhythm", "frames", "harmony", "chroma", "mel")
WITH_RATE = ("frames", "chroma", "mel")
_POOLING = re.compile(
    r"(?:(?P<name>[a-z][a-z0-9_-]*)=)?(?P<kind>[a-z]+)(?::(?P<layers>[^@:]+))?(?:@(?P<rate>[0-9.]+))?"
)


@dataclass(frozen=True)
class NamedPooling:
    """One of `features.poolings`: a kind under a name, with layers and a rate (Hz, frames and chroma) where
    it has its own."""

    name: str
    kind: str
    layers: str = ""
    rate: float | None = None

    @classmethod
    def read(cls, text: str) -> NamedPooling:
        """`KIND`, or any part of `NAME=KIND:LAYERS@RATE`; layers as `features.layers` has them, "+" may stand
        for ","."""
        form = "Write it as frames, or as beats=frames:2+4@25 (name, kind, layers, Hz)."
        match = _POOLING.fullmatch(text.replace(" ", ""))
        if not match or match["kind"] not in POOLING_KINDS:
            raise ConfigError(
                f"features.poolings: {text!r} is not possible",
                f"Choose from: {', '.join(POOLING_KINDS)}. {form}",
            )
        try:
            rate = float(match["rate"]) if match["rate"] else None
        except ValueError:
            raise ConfigError(
                f"features.poolings: {match['rate']!r} in {text!r} is not a rate", form
            ) from None
        if rate is not None and (match["kind"] not in WITH_RATE or not 0 < rate <= 1000):
            raise ConfigError(
                f"features.poolings: {text!r} cannot have {rate:g} Hz",
                f"Only {', '.join(WITH_RATE)} have a rate, above 0 and up to 1000 Hz. {form}",
            )
        return cls(
            match["name"] or match["kind"], match["kind"], (match["layers"] or "").replace("+", ","), rate
        )


@dataclass(frozen=True)
class FeatureConfig:
    """First waist: which features. They decide the fingerprint of the store."""

    backbone: str = option(
        MERT_330M,
        "hub id, local folder in the hub's format, 'embedded', 'embedded-hard' or 'spectral'",
    )
    revision: str = option("", "hub commit to pin; empty takes the one known for this backbone")
    layers: str = option("all", "transformer layers, 1-based: 'all', '1-6', '3,5,7'")
    poolings: tuple[str, ...] = option(
        ("stats", "lag"),
        "stats (mean, max per chunk), lag (log-lag autocorrelation), rhythm (the same, also with the tempo "
        "straightened), frames, harmony (any key and tempo), "
        "chroma, mel (log-mel bands of the audio as it is); NAME=KIND:LAYERS@RATE is one of its own, "
        "as in beats=frames:2+4@25",
    )
    statistics: tuple[str, ...] = option(("mean", "max"), "what stats pooling keeps: mean, max, std")
    window: int = option(6, "chunks joined into one lag window; 6 chunks are 30 s")
    longest_lag: float = option(
        7.5, "seconds, the longest lag of lag and rhythm pooling: a bar must fit into it; 1 to 30"
    )
    frame_rate: float = option(5.0, "Hz of frame pooling: 75, 25, 15, 5, 3 or 1")
    overlap: float = option(
        0.0,
        "seconds that neighbouring chunks share: of frames the middle of every chunk is kept, so that no "
        "seam is heard; not with lag",
    )
    normalise: Literal["auto", "yes", "no"] = option(
        "auto", "zero mean and unit variance per chunk; auto does what the checkpoint says"
    )
    dtype: Literal["auto", "float32", "bfloat16"] = option(
        "auto", "compute dtype; auto takes bfloat16 where the device is fast at it"
    )
    states: int = option(
        -1,
        "layer whose states are kept beside the poolings, for a later run that trains only layers above it "
        "(adapter.keep); 0: what the first layer takes, -1: none",
    )
    cache: str = option("cache", "folder of feature stores")

    def __post_init__(self) -> None:
        positive(self, "window", "frame_rate")
        at_most(self, window=1000, frame_rate=1000, states=1000)
        if self.states < -1:
            raise ConfigError(f"features.states = {self.states} is no layer", "Write -1 for none.")
        if not 1 <= self.longest_lag <= 30:
            raise ConfigError(
                f"features.longest_lag = {self.longest_lag:g} is not possible", "Write seconds from 1 to 30."
            )
        if not 0 <= self.overlap <= CHUNK_SECONDS - 1:
            raise ConfigError(
                f"features.overlap = {self.overlap:g} is not possible",
                f"Chunks of 5 s share 0 to {CHUNK_SECONDS - 1:g} s.",
            )
        unknown = [n for n in self.statistics if n not in ("mean", "max", "std")]
        if unknown or not self.statistics:
            raise ConfigError(
                f"features.statistics = {list(self.statistics)} is not possible",
                "Choose from: mean, max, std.",
            )
        names = [pooling.name for pooling in self.named_poolings]
        if not names or len(set(names)) < len(names):
            raise ConfigError(
                f"features.poolings = {list(self.poolings)} is not possible",
                "Name one or more poolings, each once.",
            )

    @property
    def named_poolings(self) -> tuple[NamedPooling, ...]:
        """The poolings one by one."""
        return tuple(NamedPooling.read(text) for text in self.poolings)


@dataclass(frozen=True)
class AdapterConfig:
    """How the backbone moves when audio streams end to end."""

    kind: Literal["lora", "last_layers", "full"] = option("lora", "lora, the last layers, or every weight")
    r: int = option(16, "LoRA rank")
    alpha: float = option(32.0, "LoRA scale numerator: the update is scaled by alpha / r")
    dropout: float = option(0.05, "LoRA dropout")
    targets: tuple[str, ...] = option(("q_proj", "v_proj"), "names of the linear maps that get LoRA")
    layers: int = option(2, "how many of the last layers train, for last_layers")
    lora_layers: int = option(0, "how many of the last layers get LoRA, the others no gradients; 0: all")
    keep: Literal["auto", "yes", "no"] = option(
        "auto",
        "compute what lies below the first layer that trains once, keep it in the cache and read it in every "
        "epoch; auto: where that changes no result; yes: also where the network drops some states of it in "
        "training",
    )
    checkpointing: Literal["auto", "yes", "no"] = option(
        "auto",
        "recompute activations in the backward pass: less memory, more time; auto measures whether they fit",
    )

    def __post_init__(self) -> None:
        positive(self, "r", "alpha", "layers")
        if self.lora_layers < 0:
            raise ConfigError(f"lora_layers = {self.lora_layers} must not be negative")
        at_most(self, r=4096, alpha=1e6, layers=1000, lora_layers=1000)
        fraction(self, "dropout")
