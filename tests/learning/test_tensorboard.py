"""TensorBoard's files are written when they are asked for; asked for in vain is said before hours of work."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from beatmeter.errors import ConfigError
from beatmeter.evaluation.runs import RunFolder
from beatmeter.learning.history import History
from beatmeter.learning.training import run
from beatmeter.runtime.config import change
from beatmeter.settings import RunConfig
from beatmeter.tasks.base import LOSS

LINE = {"epoch": 1, "train": {"loss": 2.0}, "val": {"loss": 1.5, "accuracy": 0.25}}


@pytest.mark.parametrize("wanted", [True, False])
def test_every_epoch_is_there_where_it_is_wanted(wanted: bool, config: RunConfig, tmp_path: Path) -> None:
    config = change(config, {"training": {"tensorboard": wanted}})
    folder = RunFolder.create(tmp_path / "run", config)
    history = History(folder, {}, config.training, LOSS)
    history.add(LINE, {}, lambda: {"w": torch.zeros(1)}, dict)
    history.close()
    assert folder.tensorboard.exists() == wanted
    if wanted:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(folder.tensorboard)).Reload()
        assert [(e.step, e.value) for e in events.Scalars("val/accuracy")] == [(1, 0.25)]


def test_what_is_not_installed_is_said_before_anything_is_done(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    config = change(config, {"training": {"tensorboard": True}})
    with pytest.raises(ConfigError, match=r"not installed.*pip install 'beatmeter\[tensorboard\]'"):
        run(config, tmp_path / "run", torch.device("cpu"), report=lambda text: None)
    assert not Path(config.features.cache).exists()
