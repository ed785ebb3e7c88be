"""What every task must keep, in both regimes: a new task joins by its line in TASKS and an entry in CASES."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from task_contract import REGIMES, TaskContract

from beatmeter.datasets.synthetic import SynthPlan, synthesise
from beatmeter.errors import ConfigError
from beatmeter.runtime.config import change
from beatmeter.settings import RunConfig
from beatmeter.tasks import TASKS, open_task

CASES: dict[str, dict[str, Any]] = {
    "meter": {"name": "meter"},
    "beats": {"name": "beats"},
    "similarity": {"name": "similarity", "column": "pulse", "targets": "targets.csv", "dim": 8},
    "multiclass": {"name": "multiclass", "column": "pulse", "targets": "targets.csv"},
    "multilabel": {"name": "multilabel", "column": "tags", "targets": "targets.csv"},
    "regression": {
        "name": "regression",
        "column": ("tempo", "size"),
        "units": ("bpm", ""),
        "targets": "targets.csv",
    },
}
FRAMES: dict[str, dict[str, Any]] = {  # what tasks on frames read
    "beats": {
        "features": {"overlap": 1.0, "poolings": ("beats=frames:2+4@25", "mel@25")},
        "head": {"poolings": ("beats", "mel"), "channels": 8, "dilations": (1, 4)},
    }
}


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("music") / "clips"
    synthesise(folder, 24, SynthPlan(seconds=6.0))
    rows = ["id,pulse,tags,size"]
    for i, row in enumerate(csv.DictReader((folder / "manifest.csv").read_text().splitlines())):
        fast = float(row["tempo"]) > 140
        tags = ";".join(["fast"] * fast + ["odd"] * (row["class"] in ("5", "7", "9", "11")) + ["music"])
        size = "" if i % 3 == 0 else str(len(row["grouping"]))  # a third is not known
        rows.append(f"{row['id']},{'fast' if fast else 'slow'},{tags},{size}")
    (folder / "targets.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(params=[(task, regime) for task in CASES for regime in REGIMES], ids="-".join)
def settings(request: pytest.FixtureRequest, music: Path, tmp_path: Path) -> RunConfig:
    task, regime = request.param
    values = {
        "regime": regime,
        "data": {"path": str(music)},
        "task": CASES[task] | ({"targets": str(music / "targets.csv")} if "targets" in CASES[task] else {}),
        "features": {"backbone": "embedded", "layers": "2,4", "cache": str(tmp_path / "cache"), "window": 1},
        "adapter": {"kind": "last_layers", "layers": 1},
        "head": {"poolings": ("stats",), "hidden": 16},
        "training": {"epochs": 2, "head_lr": 1e-3, "batch": 4, "accumulation": 2},
    }
    return change(change(RunConfig(), values), FRAMES.get(task, {}))


def test_every_task_has_a_case() -> None:
    assert set(CASES) == set(TASKS)


class TestTasks(TaskContract):
    """Every task of the registry."""


def test_an_unknown_task_is_named_with_its_nearest(settings: RunConfig) -> None:
    with pytest.raises(ConfigError, match="there is no task 'metre'"):
        open_task(change(settings, {"task": {"name": "metre"}}))
