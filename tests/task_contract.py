"""What every task keeps, in both regimes: a class that tests of a task inherit, and give `settings`."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from beatmeter.errors import ConfigError
from beatmeter.evaluation.records import read_records
from beatmeter.evaluation.runs import RunFolder
from beatmeter.learning import checkpoints
from beatmeter.learning.loop import train_epoch
from beatmeter.learning.model import Model
from beatmeter.learning.optimiser import optimiser_for
from beatmeter.learning.training import Prepared, evaluate_run, prepare, run
from beatmeter.runtime.config import change
from beatmeter.runtime.progress import SILENT
from beatmeter.schema import Curves, Embeddings, Items, Marks, ValuePredictions, as_classes
from beatmeter.settings import RunConfig
from beatmeter.tasks import FrameOutputs, chosen_by, open_task

CPU = torch.device("cpu")
REGIMES = ("frozen", "streamed")
RUNS: dict[str, Path] = {}  # finished runs by their settings


def said(record: Items) -> np.ndarray:
    """(item, ...) what a model says, whatever the record."""
    if isinstance(record, Marks):
        return np.array([len(m) + m.starts.sum() for m in record.marks])
    if isinstance(record, Curves):
        return np.stack(record.values)
    if isinstance(record, Embeddings):
        return record.vectors
    return record.values if isinstance(record, ValuePredictions) else as_classes(record).scores


def quiet(text: str) -> None:
    pass


class StoppedError(Exception):
    """Stands for Ctrl-C after the first epoch."""


def model_of(settings: RunConfig) -> tuple[Model, Prepared]:
    torch.manual_seed(0)  # adapters are drawn from the global generator, whatever ran before
    ready = prepare(settings, CPU, quiet, SILENT)
    torch.manual_seed(0)
    return Model(
        ready.task, ready.task.study(ready.split("train")), ready.source, ready.task.head(ready.source.spec)
    ), ready


class TaskContract:
    """Tests of one task; `settings` is a fixture with the settings of a run of it on a few short clips."""

    @pytest.fixture
    def finished(self, settings: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """A run with these settings, made once for all tests."""
        name = hashlib.sha256(repr(settings).encode()).hexdigest()
        if name not in RUNS:
            RUNS[name] = run(
                settings, tmp_path_factory.mktemp("finished") / "run", CPU, report=quiet
            ).folder.path
        return RUNS[name]

    def test_a_resumed_run_is_the_uninterrupted_one(
        self, settings: RunConfig, finished: Path, tmp_path: Path
    ) -> None:
        def stop(text: str) -> None:
            if "1/2" in text:  # the row of the first epoch of two
                raise StoppedError

        with pytest.raises(StoppedError):
            run(settings, tmp_path / "cut", CPU, report=stop)
        run(settings, tmp_path / "cut", CPU, resume=True, report=quiet)
        one, two = (checkpoints.read(path / "last.safetensors") for path in (finished, tmp_path / "cut"))
        assert one[1]["epoch"] == two[1]["epoch"] == 2
        assert all(torch.equal(value, two[0][key]) for key, value in one[0].items()), "bit for bit"

    def test_a_saved_run_gives_its_predictions_again(self, finished: Path) -> None:
        before = read_records(RunFolder(finished).predictions("val"))
        after = read_records(evaluate_run(finished, CPU, ["val"], report=quiet).folder.predictions("val"))
        assert before.ids == after.ids
        assert np.abs(said(before) - said(after)).max() < 1e-6

    def test_any_split_of_a_step_into_batches_gives_the_same_gradient(self, settings: RunConfig) -> None:
        """Compared before Adam, which blows the rounding of gradients near zero up to its rate."""
        gradients = []
        cfg = change(
            settings,
            {
                "head": {"dropout": 0.3},
                "training": {"batch": 8, "accumulation": 1, "clip": 1e9},
                "adapter": {"checkpointing": "no"},  # else the memory that is free now decides for each size
            },
        )
        for size in (8, 3, 1):
            model, ready = model_of(cfg)
            for module in model.source.encoder.modules():  # the backbone's own dropout draws for a batch
                if isinstance(module, torch.nn.Dropout):
                    module.p = 0.0
                if isinstance(getattr(module, "dropout", None), float):
                    module.dropout = 0.0
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
            apart = float((one - other).norm() / one.norm())
            assert apart <= 1e-6, apart

    def test_outputs_become_predictions_with_the_ids_and_targets_of_the_tracks(
        self, settings: RunConfig
    ) -> None:
        model, ready = model_of(settings)
        tracks = ready.split("train")
        outputs = model.outputs(tracks, 4)
        for one in outputs.values if isinstance(outputs, FrameOutputs) else [outputs[0]]:
            assert one.shape[-1] == len(model.task.output.names)
        assert len(outputs) == len(tracks)
        record = model.task.decode(outputs, tracks, "train")
        assert tuple(dict.fromkeys(record.ids)) == tuple(t.id for t in tracks), (
            "rows of a track stay together"
        )
        one = model.task.decode(outputs[:1], tracks[:1], "train")
        assert np.array_equal(said(one)[0], said(record)[0]), "an answer does not depend on its neighbours"

    def test_what_is_known_of_the_train_split_is_plain_json(self, settings: RunConfig) -> None:
        model, _ = model_of(settings)
        assert json.loads(json.dumps(model.state, allow_nan=False)) == model.state

    def test_steps_take_every_track_and_depend_on_the_seed_alone(self, settings: RunConfig) -> None:
        model, ready = model_of(settings)
        train = ready.split("train")
        steps = [model.task.sampler(train, np.random.default_rng(seed), 5) for seed in (3, 3, 4)]
        assert (
            [s.tolist() for s in steps[0]] == [s.tolist() for s in steps[1]] != [s.tolist() for s in steps[2]]
        )
        assert all(len(s) for s in steps[0])

    def test_a_figure_that_the_task_does_not_have_picks_no_epoch(self, settings: RunConfig) -> None:
        task = open_task(settings)
        assert chosen_by(task, "auto") == task.selection[0]
        with pytest.raises(ConfigError, match="no validation figure"):
            chosen_by(task, "beauty")
