"""Folders of noises whose level changes every second, in two classes, as sources of both regimes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from beatmeter.datasets import open_dataset
from beatmeter.learning.sources import Source, open_source
from beatmeter.runtime.config import change
from beatmeter.schema import Track
from beatmeter.settings import RunConfig

RATE = 24_000


def write_noises(folder: Path, lengths: Sequence[float]) -> Path:
    """A clip of each length (seconds), louder and softer every second, so that every row of it is another."""
    rng = np.random.default_rng(0)
    for i, seconds in enumerate(lengths):
        level = np.repeat(rng.uniform(0.05, 0.5, 40), RATE)[: round(seconds * RATE)]
        file = folder / str((3, 4)[i % 2]) / f"{i}.wav"
        file.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(file, level * rng.standard_normal(len(level)) * 0.2, RATE, subtype="PCM_16")
    return folder


def noise_source(
    folder: Path, cache: Path, regime: str, values: Mapping[str, Any], augment: Mapping[str, float]
) -> tuple[RunConfig, list[Track], Source]:
    """The settings, tracks and source of one regime: two layers of the embedded backbone, every track cropped
    unless `augment` says something else."""
    features = {"backbone": "embedded", "cache": str(cache), "layers": "1-2", **values.get("features", {})}
    given = {
        "regime": regime,
        "data": {"path": str(folder)},
        "augment": {"crop": 1.0, "shift": 0.0, "noise": 0.0, "gain": 0.0, **augment},
        "adapter": {"keep": "no"},
        **values,
        "features": features,
    }
    config = change(RunConfig(), given)
    tracks = list(open_dataset(folder, config.data, config.task.meters).tracks)
    source = open_source(config, torch.device("cpu"), lambda text: None)
    assert source.prepare(tracks, lambda text: None) == {}
    return config, tracks, source
