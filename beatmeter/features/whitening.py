"""Whitened features: the layers of the embedded backbone, averaged over time and joined, in coordinates in
which versions of one work vary alike in all directions.

    v = W z,    z = (mean over layers of (s_l - m_l) / d_l - c) / e

with s_l the mean of layer l over time, of length 1. m, d, c, e and W (within-class covariance normalisation,
Hatch 2006) are found on synthetic works and fixed: a file's vector does not depend on what else is embedded.
What it hears is how music sounds, not which piece it is.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from beatmeter.audio.decode import SAMPLE_RATE
from beatmeter.errors import RunError
from beatmeter.features.backbones import load_backbone
from beatmeter.features.landmarks import whitened
from beatmeter.features.listening import TrackListener
from beatmeter.features.pooling import Encoder, feature_spec
from beatmeter.runtime.artifacts import read_bytes, read_json, require, write_json
from beatmeter.runtime.atomic import write_bytes
from beatmeter.settings import EMBEDDED, FeatureConfig

KIND = "whitened features"
ARRAYS, ABOUT = "model.npz", "model.json"
NAMES = ("layer_mean", "layer_deviation", "mean", "deviation", "matrix")


@cache
def _encoder() -> Encoder:
    backbone = load_backbone(EMBEDDED)
    config = FeatureConfig(backbone=EMBEDDED, poolings=("stats",), statistics=("mean",))
    return Encoder(backbone, feature_spec(backbone, config, "float32")).eval()


def layers_of(wave: Float[np.ndarray, " sample"]) -> Float[np.ndarray, "layer dim"]:
    """The mean over time of every layer of the embedded backbone for a mono wave at 24 kHz, float64: on one
    thread, so that a wave has the same bits in any batch and process. Raises AudioError for one that is too
    short."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            listener = TrackListener({"": _encoder()}, len(wave), torch.device("cpu"))
            listener.push(np.ascontiguousarray(wave, dtype=np.float32))
            found = listener.finish()[""]["stats"][0, :, 0].double().numpy()
    finally:
        torch.set_num_threads(threads)
    result: np.ndarray = found
    return result


@dataclass(frozen=True)
class Whitening:
    """The formula of the module: `layer_mean` and `layer_deviation` (layer, dim), `mean` and `deviation`
    (dim,), `matrix` (dim, out); `about` says how they were found."""

    layer_mean: Float[np.ndarray, "layer dim"]
    layer_deviation: Float[np.ndarray, "layer dim"]
    mean: Float[np.ndarray, " dim"]
    deviation: Float[np.ndarray, " dim"]
    matrix: Float[np.ndarray, "dim out"]
    about: dict[str, Any]

    @classmethod
    def learned(
        cls, layers: Float[np.ndarray, "item layer dim"], works: Sequence[str], ridge: float
    ) -> Whitening:
        """From versions of works. Raises SchemaError where no work has two versions."""
        mean, deviation = layers.mean(axis=0), np.maximum(layers.std(axis=0), 1e-6)
        found = whitened(joined(layers, mean, deviation), works, ridge)
        return cls(mean, deviation, found.mean, found.deviation, found.matrix, {})

    def vectors(
        self, wave: Float[np.ndarray, " sample"], times: Float[np.ndarray, "part 2"]
    ) -> Float[np.ndarray, "part out"]:
        """Unit vectors, float32, of the parts of a mono wave at 24 kHz between `times` (s); nan is the
        whole."""
        parts = [
            wave if np.isnan(a) else wave[round(a * SAMPLE_RATE) : round(b * SAMPLE_RATE)] for a, b in times
        ]
        return np.stack([self.embed(layers_of(part)) for part in parts])

    def embed(self, layers: Float[np.ndarray, "layer dim"]) -> Float[np.ndarray, " out"]:
        """The vector of one recording, float32."""
        z = (joined(layers[None], self.layer_mean, self.layer_deviation)[0] - self.mean) / self.deviation
        vector = z @ self.matrix
        unit: np.ndarray = (vector / max(float(np.linalg.norm(vector)), 1e-12)).astype(np.float32)
        return unit

    @property
    def digest(self) -> str:
        """Hex sha256 of what decides the vectors."""
        found = hashlib.sha256(_encoder().spec.fingerprint.encode())
        for name in NAMES:
            found.update(np.ascontiguousarray(getattr(self, name), dtype="<f8").tobytes())
        return found.hexdigest()

    def save(self, folder: Path) -> None:
        """Write the two files of a model. Raises OSError."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **{name: getattr(self, name).astype(np.float32) for name in NAMES})
        write_bytes(folder / ARRAYS, buffer.getvalue())
        write_json(folder / ABOUT, self.about)

    @classmethod
    def load(cls, folder: Path) -> Whitening:
        """The model of a folder. Raises RunError."""
        hint = "Make it with `beatmeter similarity fit --kind whiten`."
        about = read_json(folder / ABOUT, RunError, hint)
        require(about, {"kind": str}, str(folder / ABOUT))
        data = read_bytes(folder / ARRAYS, RunError)
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                arrays = {name: file[name].astype(np.float64) for name in NAMES}
            layers, dim = arrays["layer_mean"].shape
            shapes = ((layers, dim), (layers, dim), (dim,), (dim,), (dim, arrays["matrix"].shape[1]))
            fits = tuple(a.shape for a in arrays.values()) == shapes
            fits = fits and all(np.isfinite(a).all() for a in arrays.values())
        except (KeyError, ValueError, TypeError, IndexError, zipfile.BadZipFile) as error:
            raise RunError(f"{folder / ARRAYS} is no whitening: {error}", hint) from None
        if not fits:
            raise RunError(f"{folder / ARRAYS} is no whitening: its arrays do not fit each other", hint)
        return cls(**arrays, about=about)


def joined(
    layers: Float[np.ndarray, "item layer dim"],
    mean: Float[np.ndarray, "layer dim"],
    deviation: Float[np.ndarray, "layer dim"],
) -> Float[np.ndarray, "item dim"]:
    """The mean of layers that are standardised, so that layers of any norm weigh alike."""
    found: np.ndarray = ((layers - mean) / deviation).mean(axis=1)
    return found
