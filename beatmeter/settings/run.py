"""Every setting of a run, once: its name, default and the sentence that explains it. Recipes and `--set`
change these."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from beatmeter.errors import ConfigError
from beatmeter.runtime.config import option, section

MERT_330M = "m-a-p/MERT-v1-330M"
MERT_95M = "m-a-p/MERT-v1-95M"
EMBEDDED = "embedded"
UNTRAINED = "embedded-untrained"  # the same network with weights from a fixed seed: what training has to beat
SPECTRAL = "spectral"
MOST_CLASSES = 1000
CHUNK_SECONDS = 5.0  # of audio that a backbone hears at once
METERS = ("3", "4", "5", "7", "9", "11")  # classes of the task meter


def _positive(owner: object, *names: str) -> None:
    for name in names:
        if not getattr(owner, name) > 0:
            raise ConfigError(f"{name} = {getattr(owner, name)!r} must be above zero")


def _at_most(owner: object, **limits: float) -> None:
    """Sizes that no machine has room for are refused before anything is allocated; a tuple counts by its
    largest."""
    for name, limit in limits.items():
        value = getattr(owner, name)
        if (max(value, default=0) if isinstance(value, tuple) else value) > limit:
            raise ConfigError(f"{name} = {value!r} is too large", f"It may be {limit:g} at most.")


def _fraction(owner: object, *names: str) -> None:
    for name in names:
        if not 0 <= getattr(owner, name) < 1:
            raise ConfigError(f"{name} = {getattr(owner, name)!r} must be in [0, 1)")


@dataclass(frozen=True)
class DataConfig:
    """Which tracks."""

    path: str = option("", "dataset folder or table; the command line's DATASET")
    extra: tuple[str, ...] = option((), "further datasets whose tracks join training only")
    corrections: tuple[str, ...] = option(
        (),
        "files of corrected labels, applied in order: reviews of `beatmeter data audit` (id, label, new "
        "label)",
    )
    classes: int = option(
        0, "METER2800 tables to read: 2 or 4 classes; 0 takes the 4-class ones when they are there"
    )


@dataclass(frozen=True)
class SplitConfig:
    """How tracks without a split of their own are split; groups never cross."""

    val: float = option(0.15, "share of the groups for validation")
    test: float = option(0.15, "share of the groups for test")
    seed: int = option(0, "seed of the split, apart from the seed of training")
    file: str = option("", "a split file to use instead (id, group, split), as a run writes it")
    groups: tuple[str, ...] = option(
        (),
        "columns whose values never cross splits, together: `work,artist`; empty keeps the groups of the "
        "dataset",
    )

    def __post_init__(self) -> None:
        _fraction(self, "val", "test")
        if self.val + self.test >= 1:
            raise ConfigError(f"split.val + split.test = {self.val + self.test:g} leaves nothing to train on")


POOLING_KINDS = ("stats", "lag", "frames", "harmony", "chroma", "mel")
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

    backbone: str = option(MERT_330M, "hub id, local folder in the hub's format, 'embedded' or 'spectral'")
    revision: str = option("", "hub commit to pin; empty takes the one known for this backbone")
    layers: str = option("all", "transformer layers, 1-based: 'all', '1-6', '3,5,7'")
    poolings: tuple[str, ...] = option(
        ("stats", "lag"),
        "stats (mean, max per chunk), lag (log-lag autocorrelation), frames, harmony (any key and tempo), "
        "chroma, mel (log-mel bands of the audio as it is); NAME=KIND:LAYERS@RATE is one of its own, "
        "as in beats=frames:2+4@25",
    )
    statistics: tuple[str, ...] = option(("mean", "max"), "what stats pooling keeps: mean, max, std")
    window: int = option(6, "chunks joined into one lag window; 6 chunks are 30 s")
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
    cache: str = option("cache", "folder of feature stores")

    def __post_init__(self) -> None:
        _positive(self, "window", "frame_rate")
        _at_most(self, window=1000, frame_rate=1000)
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
    checkpointing: Literal["auto", "yes", "no"] = option(
        "auto",
        "recompute activations in the backward pass: less memory, more time; auto measures whether they fit",
    )

    def __post_init__(self) -> None:
        _positive(self, "r", "alpha", "layers")
        _at_most(self, r=4096, alpha=1e6, layers=1000)
        _fraction(self, "dropout")


@dataclass(frozen=True)
class TaskConfig:
    """What is learned."""

    name: str = option("meter", "task")
    column: tuple[str, ...] = option(
        (), "column that multiclass, multilabel or regression learn; regression takes several"
    )
    targets: str = option(
        "", "table of further columns, a row per track id (CSV; Parquet where pyarrow is installed)"
    )
    classes: tuple[str, ...] = option(
        (),
        "classes, in the order of the outputs; empty: 3, 4, 5, 7, 9, 11 for meter, the values found in the "
        "train split for a column",
    )
    units: tuple[str, ...] = option((), "unit of every column of a regression, for people")
    error: Literal["huber", "squared"] = option("huber", "loss of a regression, on standardised targets")
    smoothing: float = option(
        0.1, "target of a negative; for multiclass, how much of a target is spread over all classes"
    )
    loss: Literal["unbiased", "pos_weight"] = option(
        "unbiased",
        "unbiased weights by the hard label; pos_weight is plain BCEWithLogitsLoss, kept to show its bias",
    )
    weighting: Literal["balanced", "none"] = option(
        "balanced", "weight of a positive: negatives / positives of its class on the train split, or 1"
    )
    frame_loss: Literal["shift_tolerant", "dilated"] = option(
        "shift_tolerant", "of tasks on frames: forgive peaks that are a little off, or widen the targets"
    )
    weight_cap: float = option(100.0, "largest weight of a positive")

    def __post_init__(self) -> None:
        _fraction(self, "smoothing")
        _positive(self, "weight_cap")
        if len(set(self.classes)) != len(self.classes) or (not all(self.classes)):
            raise ConfigError("task.classes must be distinct and not empty")
        if len(self.classes) > MOST_CLASSES:
            raise ConfigError(f"task.classes are {len(self.classes)}, more than {MOST_CLASSES}")

    @property
    def meters(self) -> tuple[str, ...]:
        """The meters that labels are read as."""
        return self.classes or METERS


@dataclass(frozen=True)
class HeadConfig:
    """The head: features to logits."""

    poolings: tuple[str, ...] = option(
        ("stats",),
        "features.poolings that it reads, by name: stats (LayerNorm, Linear, GELU, Dropout), lag "
        "(convolutions over lag), frames (over time)",
    )
    hidden: int = option(256, "width of the hidden layer over stats")
    dropout: float = option(0.3, "dropout before the last layer")
    standardise: bool = option(
        True, "standardise every layer by the train split's mean and standard deviation before the mix"
    )
    channels: int = option(64, "convolution channels over lag")
    kernel: int = option(5, "convolution kernel over lag")
    dilations: tuple[int, ...] = option((1, 2, 4, 8, 16), "dilations of the convolutions over lag")
    over_time: Literal["tcn", "transformer"] = option(
        "tcn", "how tasks on frames look along time: dilated convolutions, or attention between all rows"
    )
    attention_layers: int = option(3, "layers of the transformer over time")
    noise: float = option(0.0, "Gaussian noise on the standardised features while training, in deviations")

    def __post_init__(self) -> None:
        _positive(self, "hidden", "channels", "kernel", "attention_layers")
        _at_most(
            self, hidden=16_384, channels=4096, kernel=1001, dilations=4096, noise=1000, attention_layers=64
        )
        if len(self.dilations) > 64 or min(self.dilations, default=1) < 1:
            raise ConfigError(f"dilations must be above zero, and 64 at most, not {len(self.dilations)}")
        _fraction(self, "dropout")
        if self.noise < 0:
            raise ConfigError(f"noise = {self.noise} must not be negative")
        if not self.poolings or len(set(self.poolings)) < len(self.poolings):
            raise ConfigError(
                f"head.poolings = {list(self.poolings)} is not possible",
                "Name one or more of features.poolings, each once.",
            )


@dataclass(frozen=True)
class AugmentConfig:
    """What training varies. Waveform settings act where audio streams; crop and lag_shift act in both
    regimes."""

    crop: float = option(
        0.5,
        "probability of a crop to at least half a track, by whole rows of each pooling: lag never crops a "
        "track of one window",
    )
    shift: float = option(
        0.5, "seconds, largest shift of the chunk grid inside the clip; audio never wraps around"
    )
    noise: float = option(0.005, "Gaussian noise, relative to the clip's rms")
    gain: float = option(6.0, "dB, largest change of level up or down")
    lag_shift: int = option(6, "bins, largest shift along the log-lag axis: a change of tempo")

    def __post_init__(self) -> None:
        if not 0 <= self.crop <= 1 or min(self.shift, self.noise, self.gain, self.lag_shift) < 0:
            raise ConfigError(f"augmentation settings must not be negative, crop at most 1: {self}")


@dataclass(frozen=True)
class TrainingConfig:
    """The loop."""

    epochs: int = option(30, "epochs at most")
    patience: int = option(10, "epochs without a better validation score before stopping")
    batch: int = option(4, "tracks per step of the device; frozen training multiplies it by accumulation")
    accumulation: int = option(8, "steps whose gradients are added up before the optimiser moves")
    head_lr: float = option(1e-4, "learning rate of the head")
    adapter_lr: float = option(1e-5, "learning rate of the backbone's adapter")
    mix_lr: float = option(
        1e-2, "learning rate of the layer mix, without weight decay; 0 leaves all layers equal"
    )
    weight_decay: float = option(1e-4, "AdamW weight decay")
    start: str = option(
        "",
        "run folder whose best head (and adapter, if it has one) is where training starts; empty starts from "
        "the seed",
    )
    warmup: float = option(0.0, "share of the steps in which the learning rates rise to their peak")
    clip: float = option(1.0, "largest gradient norm")
    select: str = option(
        "auto",
        "validation figure that picks the best epoch, or loss; auto is the first of the task; ties go to the "
        "lower loss",
    )
    memory: float = option(
        0.6,
        "share of the free memory that stored features may take; where they do not fit they are read for "
        "every batch",
    )
    waves: float = option(
        32.0, "GB of decoded audio that streamed training may keep in the cache; 0 decodes in every epoch"
    )
    longest: float = option(
        600.0,
        "seconds; longer tracks are left out of streamed training, which holds a track and its activations "
        "whole",
    )
    workers: int = option(1, "processes that decode audio")
    tensorboard: bool = option(
        False, "also write every epoch for TensorBoard, which is installed with 'beatmeter[tensorboard]'"
    )
    trackers: tuple[Literal["wandb", "mlflow"], ...] = option(
        (),
        "programs that hear of every epoch too: wandb, mlflow; installed with 'beatmeter[wandb]' and so on",
    )

    def __post_init__(self) -> None:
        if len(set(self.trackers)) < len(self.trackers):
            raise ConfigError(f"training.trackers = {list(self.trackers)} names one twice")
        _positive(
            self,
            "epochs",
            "patience",
            "batch",
            "accumulation",
            "head_lr",
            "adapter_lr",
            "clip",
            "longest",
            "workers",
        )
        _at_most(self, epochs=10**6, batch=65_536, accumulation=65_536, workers=1024, waves=1e6)
        _at_most(self, head_lr=1e30, adapter_lr=1e30, mix_lr=1e30, weight_decay=1e30)
        _fraction(self, "warmup", "memory")
        for name in ("mix_lr", "weight_decay", "waves"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} = {getattr(self, name)} must not be negative")


@dataclass(frozen=True)
class RunConfig:
    """Everything that makes a run, in one tree."""

    seed: int = option(0, "seed of initial weights, order and augmentation")
    regime: Literal["frozen", "streamed"] = option(
        "frozen", "frozen trains on stored features; streamed trains through the backbone"
    )
    limit: int = option(0, "tracks per split at most, for a smoke run; 0 takes all")
    data: DataConfig = section(DataConfig, "which tracks")
    split: SplitConfig = section(SplitConfig, "how they are split")
    features: FeatureConfig = section(FeatureConfig, "which features")
    adapter: AdapterConfig = section(AdapterConfig, "how the backbone moves")
    task: TaskConfig = section(TaskConfig, "what is learned")
    head: HeadConfig = section(HeadConfig, "the head")
    augment: AugmentConfig = section(AugmentConfig, "what training varies")
    training: TrainingConfig = section(TrainingConfig, "the loop")

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63 or self.limit < 0:
            raise ConfigError(
                f"seed = {self.seed} and limit = {self.limit} must not be negative, the seed below 2^63"
            )


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
        _positive(self, "steps", "clips", "chunks", "lr", "warmup", "clip", "mel_bands", "save_every")
        _at_most(
            self, steps=10**9, clips=4096, chunks=1000, lr=1e30, mel_bands=1000, workers=1024, seed=2**31 - 1
        )
        if min(self.frame_weight, self.lag_weight, self.mask_weight, self.workers, self.weight_decay) < 0:
            raise ConfigError("weights and workers must not be negative")
        if self.frame_weight + self.lag_weight + self.mask_weight == 0:
            raise ConfigError(
                "pre-training needs at least one loss: frame_weight, lag_weight or mask_weight above 0"
            )
