"""A run that reads more than another begins with all that the other knows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from beatmeter.errors import FingerprintError, RunError
from beatmeter.evaluation.predictions import read_predictions
from beatmeter.learning import checkpoints
from beatmeter.learning.training import run
from beatmeter.runtime.config import change
from beatmeter.settings import RunConfig

CPU = torch.device("cpu")
SHORT = {
    "head": {"poolings": ("lag",)},
    "limit": 3,
    "training": {"epochs": 2},
    "features": {"poolings": ("lag",)},
}
WIDE = {
    "features": {"poolings": ("rhythm",)},
    "head": {"poolings": ("rhythm",)},
    "task": {"groupings": True, "two_meters": True},
    "training": {"epochs": 1, "head_lr": 1e-12, "mix_lr": 0.0},
}


def test_straightened_time_begins_as_plain_time_and_more_outputs_without_a_say(
    config: RunConfig, tmp_path: Path
) -> None:
    """The tempo of these clips hardly moves, so straightened time says nearly what plain time says."""
    narrow = change(config, SHORT)
    first = run(narrow, tmp_path / "first", CPU, report=lambda line: None)
    wide = change(change(narrow, WIDE), {"training": {"start": str(tmp_path / "first")}})
    said: list[str] = []
    second = run(wide, tmp_path / "second", CPU, report=said.append)
    assert any("its head is widened" in line for line in said)
    one, other = (read_predictions(o.folder.predictions("test")) for o in (first, second))
    assert np.ptp(one.scores) > 0.01
    assert np.abs(one.scores - other.scores).max() < 0.1 * np.ptp(one.scores)
    tensors, _ = checkpoints.read(second.folder.best)
    assert tensors["head.output.weight"].shape[0] == 6 + 23 + 1
    weight, old = tensors["head.branches.rhythm.first.weight"], checkpoints.read(first.folder.best)[0]
    half = old["head.branches.lag.first.weight"] / 2
    n = half.shape[1]
    assert torch.allclose(weight[:, :n], half, atol=1e-6)
    assert torch.allclose(weight[:, n : 2 * n], half, atol=1e-6)
    assert float(weight[:, 2 * n :].abs().sum()) < 1e-6
    scale = tensors["standardise.rhythm.scale"]
    assert torch.equal(scale[:, :10], checkpoints.read(first.folder.best)[0]["standardise.lag.scale"])
    assert float((scale[:, 10:] - 1).abs().min()) > 0, "the new channels are standardised by the train split"
    longer = change(wide, {"features": {"longest_lag": 14.0}})
    run(longer, tmp_path / "longer", CPU, report=said.append, predict="val")
    for wrong in ({"channels": 4}, {"dilations": (1,)}):
        with pytest.raises(RunError, match="not of the shape"):
            run(change(wide, {"head": wrong}), tmp_path / str(wrong), CPU, report=lambda line: None)
    back = {"training": {"start": str(tmp_path / "second")}}
    with pytest.raises((RunError, FingerprintError), match="start"):
        run(change(narrow, back), tmp_path / "back", CPU, report=lambda line: None)
