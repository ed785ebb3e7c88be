"""A small labelled data set of synthesised clips, shared by the tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from beatmeter.config import change
from beatmeter.datasets.synthetic import SynthPlan, synthesise
from beatmeter.settings import RunConfig


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 clips of 7 s: two chunks each, the second aligned to the end; train, val and test."""
    folder = tmp_path_factory.mktemp("music") / "clips"
    synthesise(folder, 48, SynthPlan(seconds=7.0))
    return folder


@pytest.fixture
def config(clips: Path, tmp_path: Path) -> RunConfig:
    """Spectral features with a lag head, quick to train."""
    values = {
        "data": {"path": str(clips)},
        "features": {"backbone": "spectral", "cache": str(tmp_path / "cache"), "window": 2},
        "head": {"poolings": ("stats", "lag"), "channels": 8, "hidden": 16, "dilations": (1, 2)},
        "training": {"epochs": 4, "head_lr": 1e-3, "batch": 4, "accumulation": 2, "patience": 4},
    }
    return change(RunConfig(), values)
