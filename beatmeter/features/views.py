"""What similarity hears in a wave, without a neural network: pitch classes over time, rhythm, timbre.

Each view is of the spectral backbone: `chroma` 4 a second, rhythm as the log-lag autocorrelation averaged
over its channels, timbre as the mean log-mel spectrum minus its own mean, so that gain is in none of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from jaxtyping import Float

from beatmeter.audio.chunking import Layout
from beatmeter.features.backbones import load_backbone
from beatmeter.features.listening import TrackListener
from beatmeter.features.pooling import Encoder, feature_spec
from beatmeter.schema import FeatureSpec
from beatmeter.settings import SPECTRAL, FeatureConfig

POOLINGS = ("chroma", "lag", "stats")
BANDS = 64  # log-mel bands, the first of the states


@dataclass(frozen=True)
class Views:
    """`chroma` (row, 12) 4 a second, `rhythm` (160,) and `timbre` (64,), float32."""

    chroma: Float[np.ndarray, "row 12"]
    rhythm: Float[np.ndarray, " lag"]
    timbre: Float[np.ndarray, " band"]


@cache
def _encoder() -> Encoder:
    backbone = load_backbone(SPECTRAL)
    config = FeatureConfig(backbone=SPECTRAL, poolings=POOLINGS, statistics=("mean",))
    return Encoder(backbone, feature_spec(backbone, config, "float32")).eval()


def views_spec() -> FeatureSpec:
    """How the views are made."""
    return _encoder().spec


def views_of(wave: Float[np.ndarray, " sample"]) -> Views:
    """The views of a mono wave at 24 kHz. On one thread and track by track, so that a wave has the same
    bits in any batch and process. Raises AudioError for one that is too short."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            listener = TrackListener({"": _encoder()}, len(wave), torch.device("cpu"))
            listener.push(np.ascontiguousarray(wave, dtype=np.float32))
            found = listener.finish()[""]
    finally:
        torch.set_num_threads(threads)
    timbre = found["stats"][0, 0, 0, :BANDS]
    rhythm = found["lag"][0, 0].mean(dim=0)
    return Views(found["chroma"][0, :, 0].numpy(), rhythm.numpy(), (timbre - timbre.mean()).numpy())


def seconds_of(samples: int) -> Float[np.ndarray, "row 2"]:
    """Start and end in seconds of every chroma row of a wave."""
    from beatmeter.audio.chunking import rows

    spec = views_spec()
    times: np.ndarray = rows(Layout.of(samples, spec), spec["chroma"])[0]
    return times
