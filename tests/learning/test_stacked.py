"""Many heads in one pass learn what each learns alone, whatever its own settings are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from beatmeter.errors import RunError
from beatmeter.evaluation.predictions import read_predictions
from beatmeter.evaluation.runs import RunFolder
from beatmeter.experiments.sweep import FailedRunsError, fit_many
from beatmeter.learning import checkpoints
from beatmeter.learning.training import Prepared, begin, finish, prepare
from beatmeter.runtime.config import change
from beatmeter.runtime.progress import SILENT
from beatmeter.settings import RunConfig

CPU = torch.device("cpu")
CELLS = [
    {"seed": 0},
    {"seed": 0, "head": {"dropout": 0.0}, "training": {"head_lr": 3e-3}},
    {"seed": 1, "head": {"noise": 0.2}, "training": {"epochs": 3, "warmup": 0.3}},
    {"seed": 2, "augment": {"lag_shift": 0}, "training": {"weight_decay": 0.1, "clip": 0.05}},
    {
        "seed": 2,
        "task": {"smoothing": 0.02, "loss": "pos_weight"},
        "training": {"mix_lr": 0.0, "patience": 1, "select": "loss", "head_lr": 2e-2},
    },
]


def quiet(text: str) -> None:
    pass


def trained(configs: list[RunConfig], ready: Prepared, folder: Path, stack: bool | None) -> list[RunFolder]:
    """Run folders: all together, or with `stack` None each alone."""
    runs = [begin(c, ready, folder / str(i), CPU, report=quiet) for i, c in enumerate(configs)]
    train, val = ready.split("train"), ready.split("val")
    if stack is None:
        for run in runs:
            fit_many([run], train, val, quiet)
    else:
        fit_many(runs, train, val, quiet, stack=stack)
    for run in runs:
        finish(run, ready, ["val", "test"])
    return [run.folder for run in runs]


@pytest.fixture
def configs(config: RunConfig) -> list[RunConfig]:
    return [change(config, cell) for cell in CELLS]


def apart(a: Tensor, b: Tensor) -> float:
    """How far two tensors are from each other, as a share of the second one's norm."""
    return float((a.double() - b.double()).norm() / b.double().norm().clamp_min(1e-30))


def test_the_first_step_of_stacked_heads_has_the_gradient_of_each_alone(
    configs: list[RunConfig], tmp_path: Path
) -> None:
    """After one step Adam's first moment is a tenth of the gradient. Later steps blow up the
    rounding of values that cancel, so the whole training is compared by norms, below."""
    once = [change(c, {"training": {"epochs": 1, "batch": 10_000, "warmup": 0.0}}) for c in configs]
    ready = prepare(once[0], CPU, quiet, SILENT)
    alone = trained(once, ready, tmp_path / "alone", None)
    together = trained(once, ready, tmp_path / "together", True)
    for one, two in zip(alone, together, strict=True):
        mine, theirs = checkpoints.read(one.last)[0], checkpoints.read(two.last)[0]
        steps = {float(value) for key, value in mine.items() if key.endswith(".step")}
        moments = [key for key in mine if key.endswith("exp_avg")]
        assert steps == {1.0}
        assert moments
        for key in moments:
            assert apart(mine[key], theirs[key]) < 2e-6, (one.path.name, key, apart(mine[key], theirs[key]))


def test_stacked_heads_are_what_each_would_be_alone(configs: list[RunConfig], tmp_path: Path) -> None:
    ready = prepare(configs[0], CPU, quiet, SILENT)
    alone = trained(configs, ready, tmp_path / "alone", None)
    together = trained(configs, ready, tmp_path / "together", True)
    epochs = []
    for one, two in zip(alone, together, strict=True):
        for name in ("best", "last"):
            mine, about = checkpoints.read(getattr(one, name))
            theirs, other = checkpoints.read(getattr(two, name))
            assert mine.keys() == theirs.keys(), "the optimiser's moments are there too: it can be resumed"
            assert about["epoch"] == other["epoch"]
            for key, value in mine.items():
                assert apart(value, theirs[key]) < 5e-4, (one.path.name, name, key)
        epochs.append(len(one.read_log()))
        for a, b in zip(one.read_log(), two.read_log(), strict=True):
            assert a["learning_rates"] == pytest.approx(b["learning_rates"])
            assert a["train"] == pytest.approx(b["train"], rel=1e-4)
            assert a["val"]["accuracy"] == b["val"]["accuracy"]
        for split in ("val", "test"):
            mine_said, theirs_said = (
                read_predictions(one.predictions(split)),
                read_predictions(two.predictions(split)),
            )
            assert mine_said.ids == theirs_said.ids
            assert np.abs(mine_said.scores - theirs_said.scores).max() < 1e-4
            assert two.evaluation(split).exists()
    assert len(set(epochs)) > 1, "some left the stack before others"


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("stack", [True, False], ids=["stacked", "in step"])
def test_heads_that_share_an_order_read_one_batch_and_learn_what_each_learns_alone(
    stack: bool, config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = change(config, {"training": {"epochs": 2}})
    shared = [change(own, {"seed": s, "training": {"order": "shared"}}) for s in (0, 3)]
    shared[1] = change(shared[1], {"head": {"noise": 0.2}, "training": {"clip": 0.05, "head_lr": 3e-3}})
    ready = prepare(own, CPU, quiet, SILENT)
    alone = trained([own, *shared], ready, tmp_path / "alone", None)
    seeds: list[tuple[int, ...]] = []
    batches = ready.source.batches

    def watched(tracks: Any, parts: Any, seed: tuple[int, ...] | None = None) -> Any:
        seeds.extend([] if seed is None else [seed])
        return batches(tracks, parts, seed)

    monkeypatch.setattr(ready.source, "batches", watched)
    together = trained(shared, ready, tmp_path / "together", stack)
    assert seeds == [(0, 1), (0, 2)], "one pass an epoch, whatever the seeds"
    for one, two in zip(alone[1:], together, strict=True):
        mine, theirs = checkpoints.read(one.last)[0], checkpoints.read(two.last)[0]
        assert mine.keys() == theirs.keys(), "the optimiser's moments are there too: it can be resumed"
        assert all(apart(value, theirs[key]) < 5e-4 for key, value in mine.items())
        for a, b in zip(one.read_log(), two.read_log(), strict=True):
            assert a["learning_rates"] == b["learning_rates"]
            assert a["train"] == pytest.approx(b["train"], rel=1e-4)
    first, same, other = (checkpoints.read(run.last)[0] for run in alone)
    assert all(torch.equal(value, same[key]) for key, value in first.items()), "seed 0 is the order of all"
    assert not all(torch.equal(value, other[key]) for key, value in first.items())


def test_cells_on_threads_are_what_each_would_be_alone(configs: list[RunConfig], tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        alone = trained(configs[:3], prepare(configs[0], CPU, quiet, SILENT), tmp_path / "alone", None)
        threads = trained(configs[:3], prepare(configs[0], CPU, quiet, SILENT), tmp_path / "threads", False)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    for one, two in zip(alone, threads, strict=True):
        a, b = checkpoints.read(one.last)[0], checkpoints.read(two.last)[0]
        assert all(torch.allclose(a[key], b[key], atol=1e-6) for key in a)
        assert [line["epoch"] for line in one.read_log()] == [line["epoch"] for line in two.read_log()]


def test_a_loss_that_is_not_finite_names_its_cell(config: RunConfig, tmp_path: Path) -> None:
    configs = [change(config, {"seed": s, "training": {"head_lr": lr}}) for s, lr in ((0, 1e-3), (1, 1e30))]
    ready = prepare(configs[0], CPU, quiet, SILENT)
    with pytest.raises(RunError, match=r"the loss of 1 is not finite in epoch"):
        trained(configs, ready, tmp_path, True)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("stack", "order"),
    [(True, "own"), (False, "own"), (False, "shared")],
    ids=["stacked", "threads", "in step"],
)
def test_a_head_that_diverges_costs_only_itself(
    stack: bool, order: str, config: RunConfig, tmp_path: Path
) -> None:
    configs = [
        change(config, {"seed": s, "training": {"head_lr": lr, "order": order}})
        for s, lr in ((0, 1e-3), (1, 1e30), (2, 1e-3))
    ]
    ready = prepare(configs[0], CPU, quiet, SILENT)
    alone = trained([configs[0], configs[2]], ready, tmp_path / "alone", None)
    runs = [begin(c, ready, tmp_path / "together" / str(i), CPU, report=quiet) for i, c in enumerate(configs)]
    with pytest.raises(
        FailedRunsError,
        match=r"^1 of 3 runs failed: 1: the loss.* is not finite in epoch 1\. Lower the learning rates",
    ) as told:
        fit_many(runs, ready.split("train"), ready.split("val"), quiet, stack=stack)
    assert list(told.value.failed) == [runs[1].folder.path]
    for one, two in zip(alone, (runs[0].folder, runs[2].folder), strict=True):
        for name in ("best", "last"):
            mine, theirs = checkpoints.read(getattr(one, name))[0], checkpoints.read(getattr(two, name))[0]
            assert all(
                torch.allclose(value, theirs[key], atol=1e-5, rtol=1e-4) for key, value in mine.items()
            )
        assert len(one.read_log()) == len(two.read_log())
