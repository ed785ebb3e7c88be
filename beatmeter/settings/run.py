"""Settings of a run: data, split, task, head, augmentation and training, and all of them in one tree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from beatmeter.errors import ConfigError
from beatmeter.runtime.config import option, section
from beatmeter.settings.checks import at_most, fraction, positive
from beatmeter.settings.features import AdapterConfig, FeatureConfig

MOST_CLASSES = 1000
METERS = ("3", "4", "5", "7", "9", "11")  # classes of the task meter


@dataclass(frozen=True)
class DataConfig:
    """Which tracks."""

    path: str = option("", "dataset folder or table; the command line's DATASET")
    extra: tuple[str, ...] = option((), "further datasets whose tracks join training only")
    corrections: tuple[str, ...] = option(
        (),
        "files of corrected labels or beats, applied in order: reviews of `beatmeter data audit` (id, label, "
        "new label) and of `beatmeter data annotations audit` (id, time, suggested, new time)",
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
        fraction(self, "val", "test")
        if self.val + self.test >= 1:
            raise ConfigError(f"split.val + split.test = {self.val + self.test:g} leaves nothing to train on")


@dataclass(frozen=True)
class TaskConfig:
    """What is learned."""

    name: str = option("meter", "task")
    column: tuple[str, ...] = option(
        (),
        "column that multiclass, multilabel or regression learn, regression takes several; of similarity, "
        "whose values say what belongs together (work by default)",
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
    groupings: bool = option(
        False, "meter learns how the pulses of a bar are grouped too (2+2+3), from the column grouping"
    )
    two_meters: bool = option(
        False, "meter learns whether two meters sound at once too, an output of its own beside the classes"
    )
    pairs: str = option(
        "",
        "what similarity learns from: empty for tracks of one value of the column, crops for two crops of "
        "every track, or a CSV of pairs (a, b) or triplets (anchor, positive, negative) of track ids",
    )
    pair_loss: Literal["supcon", "multi_similarity", "triplet"] = option(
        "supcon", "loss of similarity, over all pairs of an optimiser step"
    )
    temperature: float = option(0.1, "temperature of supcon")
    margin: float = option(0.2, "margin of triplet, in cosines; of multi_similarity, around hard pairs")
    per_label: int = option(2, "tracks of one label that go into a step of similarity together")
    dim: int = option(128, "numbers of a vector of similarity")
    factors: tuple[str, ...] = option(
        (),
        "columns that similarity should not listen to, such as instrument, key: reports say how well its "
        "vectors tell them apart (tempo~0.04: numbers within 4 percent are the same)",
    )
    frame_smoothing: float = option(0.0, "of tasks on frames: how far targets keep away from 0 and 1")
    doubt: Literal["none", "small_loss", "co_teaching"] = option(
        "none",
        "of tasks on frames: leave out the marks that a model believes least, by its own loss, or by that of "
        "another one that learns beside it",
    )
    doubted: float = option(0.1, "share of the marks of a track that are thought to be wrong")
    parts: tuple[str, ...] = option(
        ("beats", "boundaries", "functions", "events"), "tasks on frames that structure learns on one encoder"
    )
    weights: tuple[float, ...] = option((), "weight of the loss of each part of structure; empty: 1 each")

    def __post_init__(self) -> None:
        fraction(self, "smoothing", "doubted")
        positive(self, "weight_cap", "temperature", "margin", "dim")
        at_most(self, dim=4096, per_label=1024, temperature=100, margin=2)
        if self.per_label < 2:
            raise ConfigError(f"task.per_label = {self.per_label}: two tracks make a pair")
        if not 0 <= self.frame_smoothing < 0.5:
            raise ConfigError(f"task.frame_smoothing = {self.frame_smoothing} must be in [0, 0.5)")
        if any(not weight >= 0 for weight in self.weights) or (self.weights and not sum(self.weights)):
            raise ConfigError(f"task.weights = {list(self.weights)} must not be negative, nor all 0")
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
        "features.poolings that it reads, by name: stats (LayerNorm, Linear, GELU, Dropout), lag and rhythm "
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
    noise: float = option(
        0.0, "Gaussian noise on the standardised features in training, in standard deviations"
    )
    mix: Literal["softmax", "mean", "one", "concat"] = option(
        "softmax",
        "how the head of similarity joins layers: learned weights, their mean, one, or all side by side",
    )
    layer: int = option(0, "the layer, for mix = one; 0 is the last of the features")
    map: Literal["affine", "mlp"] = option("affine", "from joined layers to the vector of similarity")

    def __post_init__(self) -> None:
        positive(self, "hidden", "channels", "kernel", "attention_layers")
        at_most(
            self, hidden=16_384, channels=4096, kernel=1001, dilations=4096, noise=1000, attention_layers=64
        )
        if len(self.dilations) > 64 or min(self.dilations, default=1) < 1:
            raise ConfigError(f"dilations must be above zero, and 64 at most, not {len(self.dilations)}")
        fraction(self, "dropout")
        if self.layer < 0:
            raise ConfigError(f"layer = {self.layer} must not be negative")
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
    order: Literal["own", "shared"] = option(
        "own",
        "order of tracks, crops and shifts: own draws them from the seed; shared is the same for every seed, "
        "so that seeds differ in initial weights and dropout alone",
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
        positive(
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
        at_most(self, epochs=10**6, batch=65_536, accumulation=65_536, workers=1024, waves=1e6)
        at_most(self, head_lr=1e30, adapter_lr=1e30, mix_lr=1e30, weight_decay=1e30)
        fraction(self, "warmup", "memory")
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
