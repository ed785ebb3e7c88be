"""Figures go to the trackers that are asked for, in order and to the right run; one that lacks is told before
hours of work, and one that fails stops nothing."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from beatmeter.errors import ConfigError
from beatmeter.evaluation.runs import RunFolder
from beatmeter.learning import trackers
from beatmeter.learning.history import History
from beatmeter.learning.training import run
from beatmeter.runtime.config import change
from beatmeter.settings import RunConfig
from beatmeter.tasks.base import LOSS

Typed = Callable[..., tuple[int, str, str]]
LINE = {
    "epoch": 1,
    "train": {"loss": 2.0},
    "val": {"loss": 1.5, "accuracy": 0.25},
    "layer_weights": {"lag": [0.5]},
}
FIGURES = {"train/loss": 2.0, "val/loss": 1.5, "val/accuracy": 0.25, "layer_weights/lag/01": 0.5}


class FakeWandb:
    """What of wandb is used, remembered."""

    def __init__(self) -> None:
        self.begun: list[dict[str, Any]] = []
        self.said: list[tuple[dict[str, float], int]] = []
        self.summary: dict[str, float] = {}
        self.finished = 0
        self.id = "abc123"

    def init(self, **about: Any) -> FakeWandb:
        self.begun.append(about)
        return self

    def log(self, values: dict[str, float], step: int) -> None:
        self.said.append((values, step))

    def finish(self) -> None:
        self.finished += 1


class FakeClient:
    """What of MLflow's client is used, remembered over all clients."""

    said: list[tuple[Any, ...]]

    def get_experiment_by_name(self, name: str) -> None:
        return None

    def create_experiment(self, name: str) -> str:
        self.said.append(("experiment", name))
        return "7"

    def create_run(self, experiment: str, run_name: str) -> Any:
        self.said.append(("run", experiment, run_name))
        return SimpleNamespace(info=SimpleNamespace(run_id="r1"))

    def log_param(self, run: str, key: str, value: str) -> None:
        self.said.append(("param", run, key, value))

    def log_metric(self, run: str, key: str, value: float, step: int) -> None:
        self.said.append(("metric", run, key, value, step))

    def set_terminated(self, run: str) -> None:
        self.said.append(("end", run))


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    fake = FakeWandb()
    module = ModuleType("wandb")
    module.init = fake.init  # type: ignore[attr-defined]
    _there(monkeypatch, "wandb", module)
    return fake


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    FakeClient.said = []
    module = ModuleType("mlflow")
    module.MlflowClient = FakeClient  # type: ignore[attr-defined]
    _there(monkeypatch, "mlflow", module)
    return FakeClient.said


def _there(monkeypatch: pytest.MonkeyPatch, name: str, module: ModuleType) -> None:
    """As if it were installed."""
    monkeypatch.setitem(sys.modules, name, module)
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: module if n == name else real(n))


def history(folder: RunFolder, config: RunConfig, after: dict[str, Any] | None = None) -> History:
    return History(folder, {}, config.training, LOSS, after)


@pytest.mark.parametrize("wanted", [True, False])
def test_every_epoch_is_there_where_it_is_wanted(wanted: bool, config: RunConfig, tmp_path: Path) -> None:
    config = change(config, {"training": {"tensorboard": wanted}})
    folder = RunFolder.create(tmp_path / "run", config)
    epochs = history(folder, config)
    epochs.add(LINE, {}, lambda: {"w": torch.zeros(1)}, dict)
    epochs.close()
    assert folder.tensorboard.exists() == wanted
    if wanted:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(folder.tensorboard)).Reload()
        assert [(e.step, e.value) for e in events.Scalars("val/accuracy")] == [(1, 0.25)]


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_what_is_not_installed_is_said_before_anything_is_done(
    name: str, config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    asked: dict[str, Any] = {"tensorboard": True} if name == "tensorboard" else {"trackers": [name]}
    config = change(config, {"training": asked})
    with pytest.raises(
        ConfigError, match=rf"{name}, and it is not installed.*pip install 'beatmeter\[{name}\]'"
    ):
        run(config, tmp_path / "run", torch.device("cpu"), report=lambda text: None)
    assert not Path(config.features.cache).exists()


def test_weights_and_biases_hears_of_epochs_and_a_resumed_run_is_the_same_run(
    config: RunConfig, tmp_path: Path, wandb: FakeWandb
) -> None:
    config = change(config, {"training": {"trackers": ["wandb"]}})
    folder = RunFolder.create(tmp_path / "first", config)
    epochs = history(folder, config)
    epochs.add(LINE, {}, lambda: {"w": torch.zeros(1)}, dict)
    assert wandb.said == [], "nothing that is not on disk"
    epochs.close()
    assert wandb.said == [(FIGURES, 1)]
    assert (wandb.begun[0]["name"], wandb.begun[0]["id"], wandb.finished) == ("first", None, 1)
    assert wandb.begun[0]["config"]["features.backbone"] == "spectral"
    again = history(folder, config, {"best": LINE, "epoch": 1})
    again.add({**LINE, "epoch": 2}, {}, lambda: {"w": torch.zeros(1)}, dict)
    again.close()
    assert wandb.begun[1]["id"] == "abc123"
    assert [step for _, step in wandb.said] == [1, 2]


def test_a_whole_run_reaches_mlflow_and_a_finished_one_can_be_sent(
    config: RunConfig, tmp_path: Path, mlflow: list[tuple[Any, ...]], wandb: FakeWandb, typed: Typed
) -> None:
    config = change(config, {"training": {"trackers": ["mlflow"], "epochs": 2}})
    outcome = run(config, tmp_path / "run", torch.device("cpu"), report=lambda text: None)
    assert mlflow[:2] == [("experiment", "beatmeter"), ("run", "7", "run")]
    assert ("param", "r1", "training.epochs", "2") in mlflow
    assert [m[4] for m in mlflow if m[0] == "metric" and m[2] == "val/loss"] == [1, 2]
    accuracy = outcome.evaluations["test"].to_json()["metrics"]["accuracy"]["value"]
    assert ("metric", "r1", "test/accuracy", accuracy, 0) in mlflow
    assert mlflow[-1] == ("end", "r1")
    assert wandb.begun == []
    status, out, said = typed("track", tmp_path / "run", "--to", "wandb")
    assert (status, out) == (0, "")
    assert "2 epochs sent to wandb" in said
    assert [step for _, step in wandb.said] == [1, 2]
    assert wandb.summary["test/accuracy"] == accuracy


def test_a_tracker_that_fails_is_told_of_once_and_stops_nothing(
    config: RunConfig,
    tmp_path: Path,
    mlflow: list[tuple[Any, ...]],
    monkeypatch: pytest.MonkeyPatch,
    typed: Typed,
) -> None:
    def broken(self: FakeClient, *words: object, **more: object) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(FakeClient, "log_metric", broken)
    config = change(config, {"training": {"trackers": ["mlflow"], "epochs": 2}})
    said: list[str] = []
    outcome = run(config, tmp_path / "run", torch.device("cpu"), report=said.append)
    assert outcome.folder.finished
    told = [line for line in said if "mlflow" in line]
    assert f"beatmeter track {tmp_path / 'run'} --to mlflow" in told[0]
    assert "no route to host" in told[0]
    assert len(told) == 2, "once while it trains, once for the results"
    status, _, errors = typed("track", tmp_path / "run", "--to", "mlflow")
    assert status == 1
    assert "no route to host" in errors


def test_what_is_not_used_is_not_imported(config: RunConfig, tmp_path: Path) -> None:
    code = (
        "import sys, beatmeter.learning.training, beatmeter.cli.track;"
        "print([m for m in ('wandb', 'mlflow', 'tensorboard') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_figures_of_every_kind_of_evaluation(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    (tmp_path / "evaluation").mkdir()
    folder.evaluation("val").write_text('{"metrics": {"accuracy": {"value": 0.5}, "ece": {"value": null}}}')
    folder.evaluation("test").write_text('{"metrics": [{"name": "mae", "value": 2}]}')
    assert trackers.results(folder) == {"test/mae": 2.0, "val/accuracy": 0.5}
