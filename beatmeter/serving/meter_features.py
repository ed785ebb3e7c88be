"""Features as a scikit-learn transformer: names of audio files in, one row of numbers for each file out."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any, Self

import numpy as np
from jaxtyping import Float
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags

from beatmeter.errors import AudioError, ConfigError
from beatmeter.features.poolings import pooling_class
from beatmeter.features.service import FeatureService
from beatmeter.learning.sources import Frozen, in_order
from beatmeter.runtime.config import change
from beatmeter.runtime.device import choose_device
from beatmeter.runtime.paths import StrPath, as_path
from beatmeter.schema import PoolingSpec, Track
from beatmeter.settings import NamedPooling, RunConfig

TOGETHER = 64  # files whose features are read at once


class MeterFeatures(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Audio files to features, as a step of a scikit-learn pipeline.

        make_pipeline(MeterFeatures(), StandardScaler(), LogisticRegression()).fit(files, labels)

    `backbone`, `pooling` and `layers` are settings of `train` (`beatmeter config show`); the default is the
    log-lag autocorrelation of spectra, which needs no neural network and keeps the order of time. `pooling`
    may name several, as in "stats,lag". With `cache`, features are computed once and kept in that folder;
    without, they are computed in every call. `errors` says what becomes of a file that cannot be used:
    "raise", or "nan" for a row of NaN. Nothing is learned: `fit` only checks the settings.
    """

    def __init__(
        self,
        *,
        backbone: str = "spectral",
        pooling: str = "lag",
        layers: str = "all",
        cache: StrPath | None = None,
        errors: str = "raise",
        device: str = "auto",
        jobs: int = 1,
    ) -> None:
        self.backbone = backbone
        self.pooling = pooling
        self.layers = layers
        self.cache = cache
        self.errors = errors
        self.device = device
        self.jobs = jobs

    def fit(self, files: Any, y: Any = None) -> Self:
        """Check the settings. Raises ConfigError."""
        self._poolings()
        return self

    def transform(self, files: Any) -> Float[np.ndarray, "file feature"]:
        """(file, feature) float32 in the order of `files`: paths, a sequence of them, or one column of a
        table. Raises AudioError for the first file that cannot be used, unless `errors` is "nan"."""
        paths, poolings = _paths(files), self._poolings()
        tracks = [Track(str(i), path) for i, path in enumerate(paths)]
        width = sum(int(np.prod(p.row_shape)) for p in poolings)
        found = np.full((len(tracks), width), np.nan, dtype=np.float32)
        with self._config() as config:
            device = choose_device(self.device)
            service = FeatureService(config.features, device, self.jobs)
            source = Frozen(service, config.head.poolings, config.augment, device, config.training.memory)
            failed = source.prepare(tracks, _silent)
            for id, reason in failed.items():
                if self.errors == "raise":
                    raise AudioError(f"{paths[int(id)]}: {reason}", "errors='nan' gives it a row of NaN.")
            usable = [track for track in tracks if track.id not in failed]
            for batch in source.batches(usable, in_order(len(usable), TOGETHER)) if usable else ():
                rows = [int(usable[i].id) for i in batch.index]
                parts = [source.features(batch)[p.name].flatten(1).cpu().numpy() for p in poolings]
                found[rows] = np.concatenate(parts, axis=1)
        return found

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """(feature,) names such as lag_layer1_channel0_lag17."""
        names = []
        for p in self._poolings():
            axes = [[f"layer{n}" for n in p.layers]]
            axes += [[f"{axis}{i}" for i in range(n)] for axis, n in zip(p.axes, p.shape, strict=True)]
            own = [p.name]
            for axis in axes:
                own = [f"{before}_{here}" for before in own for here in axis]
            names += own
        return np.array(names, dtype=object)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.no_validation = True
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        return tags

    def _settings(self, cache: str) -> RunConfig:
        if self.errors not in ("raise", "nan"):
            raise ConfigError(f"errors = {self.errors!r} is not possible", "Choose from: raise, nan.")
        names = [part.strip() for part in str(self.pooling).split(",")]
        values = {"backbone": self.backbone, "poolings": names, "layers": self.layers, "cache": cache}
        head = {"poolings": [NamedPooling.read(name).name for name in names]}
        settings = {"features": values, "head": head, "augment": {"crop": 0.0}}
        return change(RunConfig(), settings, "MeterFeatures")

    @contextlib.contextmanager
    def _config(self) -> Iterator[RunConfig]:
        """Settings with a place for features: the cache, or a folder that is gone afterwards."""
        if self.cache is not None:
            yield self._settings(str(as_path(self.cache)))
            return
        with tempfile.TemporaryDirectory(prefix="beatmeter-features-") as folder:
            yield self._settings(folder)

    def _poolings(self) -> list[PoolingSpec]:
        """The poolings in the order in which they were named, which is that of the columns."""
        config = self._settings("cache")
        spec = FeatureService(config.features, choose_device(self.device)).spec
        loose = [p.name for p in spec.poolings if not pooling_class(p).per_track]
        if loose:
            raise ConfigError(
                f"MeterFeatures: the pooling {loose[0]!r} has a row for every moment, not one for a file",
                "Choose from: stats, lag, harmony.",
            )
        return [spec[pooling.name] for pooling in config.features.named_poolings]


def _paths(files: Any) -> list[Path]:
    """One path, a sequence of them, or one column of a table."""
    if isinstance(files, str | PathLike):
        return [as_path(files)]
    values = np.asarray(files, dtype=object)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise ConfigError(
            f"MeterFeatures wants names of files, one a row, not an array of shape {values.shape}",
            "For instance: MeterFeatures().fit_transform(['a.mp3', 'b.flac']).",
        )
    return [as_path(value) for value in values.tolist()]


def _silent(text: str) -> None:
    pass
