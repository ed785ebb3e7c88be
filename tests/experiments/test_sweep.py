"""Sweeps: cells get names, finished ones are kept, interrupted ones go on, and commands tell what came of
them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hubfolders import write_hub_folder

from beatmeter.cli import cli
from beatmeter.errors import ConfigError, RunError
from beatmeter.evaluation.records import write_records
from beatmeter.evaluation.runs import RunFolder
from beatmeter.experiments import sweep
from beatmeter.experiments.cells import Cell, expand, parse_axis, parse_seeds
from beatmeter.experiments.sweep import FailedRunsError, run_cells, together
from beatmeter.learning.history import History
from beatmeter.learning.training import prepare
from beatmeter.runtime.config import change, differences, to_toml
from beatmeter.runtime.progress import Tick
from beatmeter.schema import Embeddings, ValuePredictions
from beatmeter.settings import RunConfig

CPU = torch.device("cpu")


def grid_command(config: RunConfig, folder: Path, axis: str) -> list[str]:
    """Two seeds of a grid by the settings of `config`, as they are typed; runs go to `folder`/out."""
    recipe = folder / "recipe.toml"
    recipe.write_text(to_toml(differences(config, RunConfig())))
    given = ["--frozen", "--recipe", str(recipe), "--seeds", "0-1", "--grid", axis]
    return ["train", config.data.path, *given, "--out", str(folder / "out")]


def test_seeds_are_read_and_refused() -> None:
    assert parse_seeds("3") == (3,)
    assert parse_seeds("0-3, 7,2") == (0, 1, 2, 3, 7)
    for text in ("", "a", "5-2", "1-2-3", "-1"):
        with pytest.raises(ConfigError, match="--seeds"):
            parse_seeds(text)


def test_a_grid_is_every_combination_with_every_seed() -> None:
    base = RunConfig()
    axes = [parse_axis("training.head_lr=1e-4,1e-3", base), parse_axis("head.dilations=1,2;1,2,4", base)]
    cells = expand(base, axes, [0, 1])
    assert len(cells) == 8
    assert cells[0].name == "head_lr-0.0001_dilations-1+2_seed-0"
    assert cells[-1].config.head.dilations == (1, 2, 4)
    assert cells[-1].config.training.head_lr == 1e-3
    assert {c.config.seed for c in cells} == {0, 1}
    assert [c.name for c in expand(base, [], [4])] == ["seed-4"]


def test_runs_of_vectors_and_values_are_ranked_by_their_own_metric(tmp_path: Path) -> None:
    labels, n = ("a", "a", "b", "b"), 4
    items = {"ids": tuple("wxyz"), "groups": labels, "sources": ("",) * n, "split": "val"}
    bare = {**items, "times": np.full((n, 2), np.nan)}
    near, far = np.eye(2)[[0, 0, 1, 1]], np.eye(2)[[0, 1, 0, 1]]
    more = {"labels": labels, "chroma": (np.zeros((0, 12)),) * n, "views": np.zeros((n, 0))}
    values = {"names": ("tempo",), "units": ("bpm",), "targets": np.zeros((n, 1))}
    records = [Embeddings(vectors=v.astype("f4"), **bare, **more) for v in (far, near)]
    records += [ValuePredictions(values=np.full((n, 1), v), **bare, **values) for v in (3.0, 1.0)]
    for first, second, title in ((*records[:2], "mAP"), (*records[2:], "tempo mean absolute error")):
        cells = expand(RunConfig(), [("head.dropout", [0.1, 0.2])], [0])
        for cell, record in zip(cells, (first, second), strict=True):
            suffix = "npz" if isinstance(record, Embeddings) else "csv"
            write_records(tmp_path / title / cell.name / "predictions" / f"val.{suffix}", record)
        text = sweep.summary(cells, [tmp_path / title / c.name for c in cells])
        assert f"val {title}" in text
        assert text.index("0.2") < text.index("0.1")  # the better one first
        assert text.splitlines()[1].split()[-2:] == ["1.000", "-"]


def test_impossible_grids_are_refused_by_name() -> None:
    base = RunConfig()
    with pytest.raises(
        ConfigError, match=r"unknown setting 'training.haed_lr'. Did you mean 'training.head_lr'"
    ):
        parse_axis("training.haed_lr=1,2", base)
    with pytest.raises(ConfigError, match="not of the form"):
        parse_axis("training.head_lr", base)
    with pytest.raises(ConfigError, match="must be in"):
        expand(base, [("head.dropout", [0.1, 2.0])], [0])
    with pytest.raises(ConfigError, match=r"dropout-0\.1_seed-0 twice"):
        expand(base, [("head.dropout", [0.1, 0.1])], [0])


def test_cells_share_a_pass_when_heads_have_one_shape_and_read_the_same() -> None:
    cells = expand(
        RunConfig(),
        [("head.hidden", [32, 64]), ("head.dropout", [0.1, 0.2]), ("augment.crop", [0.0, 0.5])],
        [0, 1],
    )
    groups = together([(c, Path(c.name)) for c in cells])
    assert [len(g) for g in groups] == [4, 4, 4, 4]
    assert all(
        len({(c.config.head.hidden, c.config.augment.crop) for c, _ in group}) == 1 for group in groups
    )


def test_a_sweep_goes_on_where_it_was(config: RunConfig, tmp_path: Path) -> None:
    cells = expand(change(config, {"training": {"epochs": 2}}), [("head.dropout", [0.1, 0.3])], [0, 1])
    lines: list[str] = []
    first = run_cells(cells[:2], tmp_path / "runs", CPU, report=lines.append)
    times = [RunFolder(path).last.stat().st_mtime_ns for path in first]
    half = RunFolder(tmp_path / "runs" / cells[2].name)  # stopped before its first checkpoint
    RunFolder.create(half.path, cells[2].config)
    lines.clear()
    paths = run_cells(cells, tmp_path / "runs", CPU, report=lines.append)
    assert lines[0].endswith("2 finished, 2 to do")
    assert [RunFolder(path).last.stat().st_mtime_ns for path in first] == times
    assert all(RunFolder(path).finished for path in paths)
    assert half.predictions("test").exists()
    with pytest.raises(RunError, match=r"holds a run with other settings"):
        run_cells(
            [Cell(cells[0].system, change(cells[0].config, {"training": {"epochs": 3}}))],
            tmp_path / "runs",
            CPU,
            report=lines.append,
        )


def test_an_interrupted_cell_ends_as_if_it_had_not_been(config: RunConfig, tmp_path: Path) -> None:
    cells = expand(change(config, {"training": {"epochs": 4}}), [], [0, 1])
    whole = run_cells(cells, tmp_path / "whole", CPU, report=lambda text: None)

    class Stop:
        @contextmanager
        def track(self, label: str, total: float, unit: str = "") -> Iterator[Tick]:
            done = 0.0

            def tick(n: float) -> None:
                nonlocal done
                done += n
                if label == "epochs" and done >= 4:
                    raise KeyboardInterrupt

            yield tick

    with pytest.raises(KeyboardInterrupt):
        run_cells(cells, tmp_path / "stopped", CPU, report=lambda text: None, progress=Stop())
    stopped = [RunFolder(tmp_path / "stopped" / c.name) for c in cells]
    assert [len(folder.read_log()) for folder in stopped] == [2, 2], "what was learned before is on disk"
    lines: list[str] = []
    run_cells(cells, tmp_path / "stopped", CPU, report=lines.append)
    assert sum("resuming" in line for line in lines) == 2
    for path, folder in zip(whole, stopped, strict=True):
        one, two = RunFolder(path).read_log(), folder.read_log()
        assert [line["epoch"] for line in two] == [1, 2, 3, 4]
        assert [line["train"]["loss"] for line in one] == pytest.approx(
            [line["train"]["loss"] for line in two], rel=1e-4
        )


@pytest.mark.parametrize("hidden", [16, 8000], ids=["stacked", "threads"])
def test_cells_that_diverge_leave_the_others_alone_and_are_tried_again(
    hidden: int, config: RunConfig, tmp_path: Path
) -> None:
    config = change(config, {"head": {"hidden": hidden}, "training": {"epochs": 2}})
    command = grid_command(config, tmp_path, "training.head_lr=1e-3,1e30")
    cells = [
        tmp_path / "out" / f"head_lr-{rate}_seed-{seed}" for rate in ("0.001", "1e+30") for seed in (0, 1)
    ]
    times = []
    for _ in range(2):
        result = CliRunner().invoke(cli, command)
        assert isinstance(result.exception, FailedRunsError)
        assert result.exception.exit_code != 0
        assert list(result.exception.failed) == cells[2:]
        assert str(result.exception).startswith("2 of 4 runs failed: ")
        assert all(path.name in str(result.exception) for path in cells[2:])
        assert "Lower the learning rates" in str(result.exception)
        assert "head_lr-0.001  " in result.stdout, "the others are told"
        assert "head_lr-1e+30  " not in result.stdout
        assert [RunFolder(path).finished for path in cells] == [True, True, False, False]
        times.append([RunFolder(path).last.stat().st_mtime_ns for path in cells[:2]])
    assert "2 finished, 2 to do" in result.stderr
    assert times[0] == times[1], "only what failed is tried again"


def test_a_streamed_cell_that_diverges_leaves_the_others_alone(config: RunConfig, tmp_path: Path) -> None:
    write_hub_folder(tmp_path / "hub")
    base = change(
        config,
        {
            "regime": "streamed",
            "limit": 4,
            "features": {"backbone": str(tmp_path / "hub")},
            "training": {"epochs": 1},
        },
    )
    cells = expand(base, [("training.head_lr", [1e30, 1e-3])], [0])
    with pytest.raises(FailedRunsError, match=r"1 of 2 runs failed: head_lr-1e\+30_seed-0: ") as told:
        run_cells(cells, tmp_path / "runs", CPU, report=lambda text: None)
    assert list(told.value.failed) == [tmp_path / "runs" / cells[0].name]
    assert RunFolder(tmp_path / "runs" / cells[1].name).finished


def test_cells_that_were_interrupted_are_resumed_from_one_preparation(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = expand(change(config, {"training": {"epochs": 3}}), [], [0, 1, 2])
    add, done = History.add, []

    def stop(history: History, *args: Any) -> bool:
        if len(done) == 4:  # in the second epoch: one head has it, the others do not
            raise KeyboardInterrupt
        done.append(history)
        return add(history, *args)

    with monkeypatch.context() as first:
        first.setattr(History, "add", stop)
        with pytest.raises(KeyboardInterrupt):
            run_cells(cells, tmp_path / "stopped", CPU, report=lambda text: None)
    stopped = [RunFolder(tmp_path / "stopped" / c.name) for c in cells]
    assert [len(folder.read_log()) for folder in stopped] == [2, 1, 1]
    prepared = []
    with monkeypatch.context() as counted:
        counted.setattr(sweep, "prepare", lambda *args: prepared.append(args) or prepare(*args))
        counted.setattr("beatmeter.learning.training.prepare", sweep.prepare)
        run_cells(
            [*cells, Cell("", change(cells[0].config, {"seed": 9}))],
            tmp_path / "stopped",
            CPU,
            report=lambda text: None,
        )
    assert len(prepared) == 1
    whole = run_cells(cells, tmp_path / "whole", CPU, report=lambda text: None)
    for path, folder in zip(whole, stopped, strict=True):
        one, two = RunFolder(path).read_log(), folder.read_log()
        assert [line["epoch"] for line in two] == [1, 2, 3]
        assert [line["train"]["loss"] for line in one] == pytest.approx(
            [line["train"]["loss"] for line in two], rel=1e-4
        )
        assert folder.finished


def test_the_command_trains_a_grid_and_tells_the_best_by_validation(
    config: RunConfig, tmp_path: Path
) -> None:
    command = grid_command(change(config, {"training": {"epochs": 2}}), tmp_path, "head.dropout=0.1,0.3")
    result = CliRunner().invoke(cli, command, catch_exceptions=False)
    assert result.exit_code == 0
    assert "dropout-0.1" in result.stdout
    assert f"beatmeter compare {tmp_path / 'out'}/*" in result.stdout
    folders = sorted((tmp_path / "out").iterdir())
    assert len(folders) == 4
    compared = CliRunner().invoke(cli, ["compare", *map(str, folders)], catch_exceptions=False)
    assert compared.exit_code == 0, compared.output
    refused = CliRunner().invoke(cli, ["train", "--resume", str(folders[0]), "--seeds", "0-3"])
    assert isinstance(refused.exception, ConfigError)
