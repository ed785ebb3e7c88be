"""Every setting, once: its name, default and a sentence on it. Recipes and `--set` change these."""

from beatmeter.settings.features import (
    CHUNK_SECONDS,
    EMBEDDED,
    EMBEDDED_HARD,
    MERT_95M,
    MERT_330M,
    POOLING_KINDS,
    SPECTRAL,
    UNTRAINED,
    WITH_RATE,
    AdapterConfig,
    FeatureConfig,
    NamedPooling,
)
from beatmeter.settings.pretraining import PretrainConfig
from beatmeter.settings.run import (
    METERS,
    MOST_CLASSES,
    AugmentConfig,
    DataConfig,
    HeadConfig,
    RunConfig,
    SplitConfig,
    TaskConfig,
    TrainingConfig,
)

__all__ = [
    "CHUNK_SECONDS",
    "EMBEDDED",
    "EMBEDDED_HARD",
    "MERT_95M",
    "MERT_330M",
    "METERS",
    "MOST_CLASSES",
    "POOLING_KINDS",
    "SPECTRAL",
    "UNTRAINED",
    "WITH_RATE",
    "AdapterConfig",
    "AugmentConfig",
    "DataConfig",
    "FeatureConfig",
    "HeadConfig",
    "NamedPooling",
    "PretrainConfig",
    "RunConfig",
    "SplitConfig",
    "TaskConfig",
    "TrainingConfig",
]
