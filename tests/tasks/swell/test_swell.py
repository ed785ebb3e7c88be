"""A task family that the package does not know, from one folder: it trains in both regimes, is evaluated,
reported and asked for answers, and keeps the contract of every task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hubfolders import write_hub_folder
from swell_task import NAME, SwellTask, make_clips
from task_contract import CPU, REGIMES, TaskContract, quiet

from beatmeter.cli import cli
from beatmeter.errors import ConfigError
from beatmeter.evaluation.records import read_records
from beatmeter.learning.training import run
from beatmeter.runtime.config import change
from beatmeter.schema import as_values
from beatmeter.serving.predictor import Predictor
from beatmeter.settings import RunConfig
from beatmeter.tasks import TASKS


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that a family needs of the package."""
    monkeypatch.setitem(TASKS, NAME, SwellTask)


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("swell")
    make_clips(folder, 12)
    write_hub_folder(folder / "backbone")  # small and random: levels are in the bands beside it
    return folder


def settings_of(music: Path, cache: Path, regime: str, **training: Any) -> RunConfig:
    values = {
        "regime": regime,
        "data": {"path": str(music)},
        "task": {"name": NAME},
        "features": {
            "backbone": str(music / "backbone"),
            "overlap": 1.0,
            "poolings": ("wide=frames:1+3@5", "fine=mel@25"),
            "cache": str(cache),
        },
        "adapter": {"kind": "lora", "r": 2},
        "head": {"poolings": ("fine", "wide"), "hidden": 16},
        "training": {"epochs": 2, "head_lr": 1e-2, "batch": 4, "accumulation": 2, **training},
    }
    return change(RunConfig(), values)


@pytest.fixture(params=REGIMES)
def settings(request: pytest.FixtureRequest, music: Path, tmp_path: Path) -> RunConfig:
    return settings_of(music, tmp_path / "cache", request.param)


class TestSwell(TaskContract):
    """The contract, frozen and through the backbone."""


def test_what_is_learned_is_evaluated_reported_and_predicted(music: Path, tmp_path: Path) -> None:
    outcome = run(
        settings_of(music, tmp_path / "cache", "frozen", epochs=25, patience=25),
        tmp_path / "run",
        CPU,
        report=quiet,
    )
    assert outcome.evaluations["test"].verdict == "better than chance"
    log = outcome.folder.read_log()
    assert min(line["val"]["error"] for line in log) < 0.5 * log[0]["val"]["error"]

    evaluated = as_values(read_records(outcome.folder.predictions("test")))
    clip = evaluated.ids[0]
    own = evaluated.take([i for i, id in enumerate(evaluated.ids) if id == clip])
    file = music / f"{clip.removeprefix('clip-')}.wav"
    said = CliRunner().invoke(cli, ["predict", str(tmp_path / "run"), str(file), "--json"])
    assert said.exit_code == 0, said.output
    rows = json.loads(said.stdout)["rows"]
    np.testing.assert_allclose([row["start"] for row in rows], own.times[:, 0], atol=1e-6)
    values = np.array([row[NAME] for row in rows])
    np.testing.assert_allclose(values, own.values[:, 0], atol=5e-3)  # the store keeps float16

    page = tmp_path / "page.html"
    shown = CliRunner().invoke(cli, ["report", str(tmp_path / "run"), "--out", str(page)])
    assert shown.exit_code == 0, shown.output
    assert NAME in page.read_text()

    predictor = Predictor.load(tmp_path / "run", CPU)
    with pytest.raises(ConfigError, match="it cannot hear windows that slide over audio"):
        predictor.windows()
