"""Evaluation of a streamed run: tracks too long to be held are heard as they are read, with the same
scores."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from beatmeter.datasets import open_dataset
from beatmeter.features.tracks import Excerpt, LongTrack
from beatmeter.learning.sources import Streamed, open_source
from beatmeter.runtime.config import change
from beatmeter.settings import RunConfig

CPU = torch.device("cpu")


def streamed(config: RunConfig, folder: Path, saved: bool, longest: float) -> Streamed:
    values = {
        "regime": "streamed",
        "features": {"backbone": "embedded", "cache": str(folder), "window": 2},
        "head": {"poolings": ("lag",)},
        "training": {"longest": longest},
    }
    config = change(config, values)
    spec = open_source(config, CPU, report=lambda text: None).spec if saved else None
    source = open_source(config, CPU, report=lambda text: None, spec=spec)
    assert isinstance(source, Streamed)
    source.encoder.eval()
    return source


def test_a_saved_run_hears_tracks_that_training_leaves_out(
    config: RunConfig, clips: Path, tmp_path: Path
) -> None:
    tracks = open_dataset(clips, config.data, config.task.meters).tracks[:3]
    broken = replace(tracks[2], id="broken", path=tmp_path / "broken.wav")
    broken.path.write_bytes(b"RIFF")
    training = streamed(config, tmp_path / "a", False, 5.0)
    assert set(training.prepare([*tracks, broken], lambda text: None)) == {t.id for t in (*tracks, broken)}, (
        "7 s are too long to train on"
    )
    features = []
    for longest in (600.0, 5.0):
        source = streamed(config, tmp_path / f"{longest}", True, longest)
        assert set(source.prepare([*tracks, broken], lambda text: None)) == {"broken"}
        with torch.inference_mode():
            (batch,) = source.batches(tracks, [np.arange(3)])
            features.append(source.encoder(batch.inputs)["lag"])
        assert all(isinstance(x, LongTrack) == (longest == 5.0) for x in batch.inputs)
    torch.testing.assert_close(
        features[0], features[1], rtol=1e-3, atol=1e-3
    )  # kept waves are rounded to 16 bits


def test_many_chunks_are_encoded_a_few_at_a_time(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = streamed(config, tmp_path, True, 600.0)
    wave = (0.1 * np.random.default_rng(0).standard_normal(24_000 * 42)).astype(np.float32)
    sizes: list[int] = []
    source.backbone.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    with torch.inference_mode():
        once = source.encoder([Excerpt(wave), Excerpt(wave[: 24_000 * 31])])["lag"]
        assert sizes == [16], "few chunks go together"
        sizes.clear()
        monkeypatch.setattr("beatmeter.features.tracks.TOGETHER", 6)
        found = source.encoder([Excerpt(wave), Excerpt(wave[: 24_000 * 31])])["lag"]
    assert sum(sizes) == 16
    assert max(sizes) <= 6
    torch.testing.assert_close(found, once, rtol=1e-4, atol=1e-4)
