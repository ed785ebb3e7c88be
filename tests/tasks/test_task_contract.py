"""What every task must keep, in both regimes: a new task joins by its line in TASKS and an entry in CASES.

The parts of `structure` are tested as its parts, and each on its own too with BEATMETER_FULL=1."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from task_contract import REGIMES, TaskContract

from beatmeter.datasets.annotations import Annotation, Events, Grid, Spans, write_annotation
from beatmeter.datasets.synthetic import SynthPlan, synthesise
from beatmeter.errors import ConfigError
from beatmeter.runtime.config import change
from beatmeter.settings import RunConfig
from beatmeter.tasks import TASKS, open_task

CASES: dict[str, dict[str, Any]] = {
    "meter": {"name": "meter"},
    "beats": {"name": "beats"},
    "similarity": {"name": "similarity", "column": "pulse", "targets": "targets.csv", "dim": 8},
    "boundaries": {"name": "boundaries"},
    "functions": {"name": "functions"},
    "events": {"name": "events", "frame_loss": "dilated"},
    "structure": {"name": "structure", "weights": (1.0, 1.0, 0.5, 0.5)},
    "energy": {"name": "energy"},
    "multiclass": {"name": "multiclass", "column": "pulse", "targets": "targets.csv"},
    "multilabel": {"name": "multilabel", "column": "tags", "targets": "targets.csv"},
    "regression": {
        "name": "regression",
        "column": ("tempo", "size"),
        "units": ("bpm", ""),
        "targets": "targets.csv",
    },
}
HEAD = {"poolings": ("own", "mel"), "channels": 8, "dilations": (1, 4)}
FRAMES: dict[str, dict[str, Any]] = {  # what tasks on frames read
    name: {"features": {"overlap": 1.0, "poolings": (f"own=frames:2+4@{rate}", f"mel@{rate}")}, "head": HEAD}
    for name, rate in {
        "beats": 25,
        "structure": 25,
        "boundaries": 5,
        "functions": 5,
        "events": 5,
        "energy": 5,
    }.items()
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
    plant_structure(folder)
    return folder


def plant_structure(folder: Path) -> None:
    """Two sections with functions, a build-up and a drop in every clip: what they are is of no account."""
    manifest = folder / "manifest.csv"
    rows = list(csv.DictReader(manifest.read_text().splitlines()))
    for i, row in enumerate(rows):
        middle, whole = 2.0 + 0.1 * (i % 12), np.array([[0.0, 6.0]])
        beats = np.arange(0.2, 6.0, 0.5)
        annotation = Annotation(
            id=row["id"],
            duration=6.0,
            grid=Grid(beats, np.arange(len(beats)) % 4 + 1, known=whole),
            sections=Spans([0, middle], [middle, 6], ("A", "B"), ("build-up", "drop"), known=whole),
            events=Events([0.4, middle], ("build-up", "drop"), lengths=[middle - 0.4, 0], known=whole),
        )
        file = folder / "annotations" / f"{i:06d}.json"
        write_annotation(file, annotation)
        row["annotation"] = str(file.relative_to(folder))
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    manifest.write_text(text.getvalue())


def cases() -> list[tuple[str, str]]:
    """Tasks and regimes; what is a part of another case is left out, and of tasks that stream
    alike one streams."""
    full = bool(int(os.environ.get("BEATMETER_FULL", "0")))
    left = () if full else ("boundaries", "functions", "events")
    once = () if full else ("energy", "beats", "multiclass", "multilabel", "regression")
    return [(t, r) for t in CASES if t not in left for r in REGIMES if r == "frozen" or t not in once]


@pytest.fixture(params=cases(), ids="-".join)
def settings(request: pytest.FixtureRequest, music: Path) -> RunConfig:
    task, regime = request.param
    values = {
        "regime": regime,
        "limit": 10 if regime == "streamed" else 0,  # a step of 8 and one of 2
        "data": {"path": str(music)},
        "task": CASES[task] | ({"targets": str(music / "targets.csv")} if "targets" in CASES[task] else {}),
        "features": {"backbone": "embedded", "layers": "2,4", "cache": str(music / "cache"), "window": 1},
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
