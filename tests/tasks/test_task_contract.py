"""What every task must keep, in both regimes: a new task joins by its line in TASKS and an entry in CASES."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from beatmeter.datasets.synthetic import SynthPlan, synthesise
from beatmeter.errors import ConfigError
from beatmeter.evaluation.records import read_records
from beatmeter.learning import checkpoints
from beatmeter.learning.loop import Model, optimiser_for, train_epoch
from beatmeter.learning.training import Prepared, evaluate_run, prepare, run
from beatmeter.runtime.config import change
from beatmeter.runtime.progress import SILENT
from beatmeter.schema import Curves, Items, Marks, ValuePredictions, as_classes
from beatmeter.settings import RunConfig
from beatmeter.tasks import TASKS, FrameOutputs, chosen_by, open_task

CPU = torch.device("cpu")
CASES: dict[str, dict[str, Any]] = {
    "meter": {"name": "meter"},
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
REGIMES = ("frozen", "streamed")


def said(record: Items) -> np.ndarray:
    """(item, ...) what a model says, whatever the record."""
    if isinstance(record, Marks):
        return np.array([len(m) + m.starts.sum() for m in record.marks])
    if isinstance(record, Curves):
        return np.stack(record.values)
    return record.values if isinstance(record, ValuePredictions) else as_classes(record).scores


def quiet(text: str) -> None:
    pass


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


class StoppedError(Exception):
    """Stands for Ctrl-C after the first epoch."""


def test_a_resumed_run_is_the_uninterrupted_one(settings: RunConfig, tmp_path: Path) -> None:
    run(settings, tmp_path / "whole", CPU, report=quiet)

    def stop(text: str) -> None:
        if "1/2" in text:  # the row of the first epoch of two
            raise StoppedError

    with pytest.raises(StoppedError):
        run(settings, tmp_path / "cut", CPU, report=stop)
    run(settings, tmp_path / "cut", CPU, resume=True, report=quiet)
    one, two = (checkpoints.read(tmp_path / name / "last.safetensors") for name in ("whole", "cut"))
    assert one[1]["epoch"] == two[1]["epoch"] == 2
    assert all(torch.equal(value, two[0][key]) for key, value in one[0].items()), "bit for bit"


def test_a_saved_run_gives_its_predictions_again(settings: RunConfig, tmp_path: Path) -> None:
    before = read_records(run(settings, tmp_path / "run", CPU, report=quiet).folder.predictions("val"))
    after = read_records(evaluate_run(tmp_path / "run", CPU, ["val"], report=quiet).folder.predictions("val"))
    assert before.ids == after.ids
    assert np.abs(said(before) - said(after)).max() < 1e-6


def model_of(settings: RunConfig) -> tuple[Model, Prepared]:
    ready = prepare(settings, CPU, quiet, SILENT)
    torch.manual_seed(0)
    return Model(
        ready.task, ready.task.study(ready.split("train")), ready.source, ready.task.head(ready.source.spec)
    ), ready


def test_any_split_of_a_step_into_batches_gives_the_same_gradient(settings: RunConfig) -> None:
    """Compared before Adam, which blows the rounding of gradients near zero up to its rate."""
    gradients = []
    cfg = change(
        settings, {"head": {"dropout": 0.3}, "training": {"batch": 8, "accumulation": 1, "clip": 1e9}}
    )
    for size in (8, 3, 1):
        model, ready = model_of(cfg)
        for module in model.source.encoder.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        tracks = ready.split("train")[:8]
        optimiser = optimiser_for(model, cfg)
        train_epoch(model, optimiser, tracks, model.task.truth(tracks, CPU), cfg, 1, size)
        gradients.append(
            [p.grad.clone() for g in optimiser.param_groups for p in g["params"] if p.grad is not None]
        )
    one, *others = (torch.cat([x.flatten() for x in g]) for g in gradients)
    assert float(one.norm()) > 0
    for other in others:
        assert len(other) == len(one)
        assert float((one - other).norm()) <= 1e-6 * float(one.norm())


def test_outputs_become_predictions_with_the_ids_and_targets_of_the_tracks(settings: RunConfig) -> None:
    model, ready = model_of(settings)
    tracks = ready.split("train")
    outputs = model.outputs(tracks, 4)
    for one in outputs.values if isinstance(outputs, FrameOutputs) else [outputs[0]]:
        assert one.shape[-1] == len(model.task.output.names)
    assert len(outputs) == len(tracks)
    record = model.task.decode(outputs, tracks, "train")
    assert record.ids == tuple(t.id for t in tracks)
    one = model.task.decode(outputs[:1], tracks[:1], "train")
    assert np.array_equal(said(one)[0], said(record)[0]), "an answer does not depend on its neighbours"


def test_what_is_known_of_the_train_split_is_plain_json(settings: RunConfig) -> None:
    model, _ = model_of(settings)
    assert json.loads(json.dumps(model.state, allow_nan=False)) == model.state


def test_steps_take_every_track_and_depend_on_the_seed_alone(settings: RunConfig) -> None:
    model, ready = model_of(settings)
    train = ready.split("train")
    steps = [model.task.sampler(train, np.random.default_rng(seed), 5) for seed in (3, 3, 4)]
    assert [s.tolist() for s in steps[0]] == [s.tolist() for s in steps[1]] != [s.tolist() for s in steps[2]]
    assert all(len(s) for s in steps[0])


def test_a_figure_that_the_task_does_not_have_picks_no_epoch(settings: RunConfig) -> None:
    task = open_task(settings)
    assert chosen_by(task, "auto") == task.selection[0]
    with pytest.raises(ConfigError, match="no validation figure"):
        chosen_by(task, "beauty")


def test_an_unknown_task_is_named_with_its_nearest(settings: RunConfig) -> None:
    with pytest.raises(ConfigError, match="there is no task 'metre'"):
        open_task(change(settings, {"task": {"name": "metre"}}))
