"""What the command line is tried on: a finished run, made once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from beatmeter.datasets.synthetic import SynthPlan, synthesise
from beatmeter.learning.training import run
from beatmeter.runtime.config import change
from beatmeter.settings import RunConfig


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the labelled clips `music` (7 s each), the store `cache`, and the run `run`, which is
    calibrated."""
    folder = tmp_path_factory.mktemp("place")
    synthesise(folder / "music", 72, SynthPlan(seconds=7.0))
    values = {
        "data": {"path": str(folder / "music")},
        "features": {"backbone": "spectral", "cache": str(folder / "cache"), "window": 2},
        "head": {"poolings": ("lag",), "channels": 8, "hidden": 16, "dilations": (1, 2)},
        "training": {"epochs": 6, "head_lr": 3e-3},
    }
    run(change(RunConfig(), values), folder / "run", torch.device("cpu"), report=lambda text: None)
    return folder
