"""Sweeps: cells get names, finished ones are kept, interrupted ones go on, and commands tell what came of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from beatmeter.cells import Cell, expand, parse_axis, parse_seeds
from beatmeter.cli import cli
from beatmeter.config import change, differences, to_toml
from beatmeter.errors import ConfigError, RunError
from beatmeter.runs import RunFolder
from beatmeter.settings import RunConfig
from beatmeter.sweep import run_cells, together

CPU = torch.device("cpu")


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


def test_impossible_grids_are_refused_by_name() -> None:
    base = RunConfig()
    with pytest.raises(ConfigError, match=r"unknown setting 'training.haed_lr'. Did you mean 'training.head_lr'"):
        parse_axis("training.haed_lr=1,2", base)
    with pytest.raises(ConfigError, match="not of the form"):
        parse_axis("training.head_lr", base)
    with pytest.raises(ConfigError, match="must be in"):
        expand(base, [("head.dropout", [0.1, 2.0])], [0])
    with pytest.raises(ConfigError, match=r"dropout-0\.1_seed-0 twice"):
        expand(base, [("head.dropout", [0.1, 0.1])], [0])


def test_cells_share_a_pass_when_heads_have_one_shape_and_read_the_same() -> None:
    cells = expand(RunConfig(), [("head.hidden", [32, 64]), ("head.dropout", [0.1, 0.2]), ("augment.crop", [0.0, 0.5])], [0, 1])
    groups = together([(c, Path(c.name)) for c in cells])
    assert [len(g) for g in groups] == [4, 4, 4, 4]
    assert all(len({(c.config.head.hidden, c.config.augment.crop) for c, _ in group}) == 1 for group in groups)


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
        run_cells([Cell(cells[0].system, change(cells[0].config, {"training": {"epochs": 3}}))], tmp_path / "runs", CPU, report=lines.append)


def test_an_interrupted_cell_ends_as_if_it_had_not_been(config: RunConfig, tmp_path: Path) -> None:
    cells = expand(change(config, {"training": {"epochs": 4}}), [], [0, 1])
    whole = run_cells(cells, tmp_path / "whole", CPU, report=lambda text: None)

    class Stop:
        def __init__(self, label: str, total: int) -> None:
            self.label, self.done = label, 0

        def update(self, n: int) -> None:
            self.done += n
            if self.label == "epochs" and self.done >= 4:
                raise KeyboardInterrupt

        def close(self) -> None:
            pass

    with pytest.raises(KeyboardInterrupt):
        run_cells(cells, tmp_path / "stopped", CPU, report=lambda text: None, progress=Stop)
    stopped = [RunFolder(tmp_path / "stopped" / c.name) for c in cells]
    assert [len(folder.read_log()) for folder in stopped] == [2, 2], "what was learned before is on disk"
    lines: list[str] = []
    run_cells(cells, tmp_path / "stopped", CPU, report=lines.append)
    assert sum("resuming" in line for line in lines) == 2
    for path, folder in zip(whole, stopped, strict=True):
        one, two = RunFolder(path).read_log(), folder.read_log()
        assert [line["epoch"] for line in two] == [1, 2, 3, 4]
        assert [line["train"]["loss"] for line in one] == pytest.approx([line["train"]["loss"] for line in two], rel=1e-4)


def test_the_command_trains_a_grid_and_tells_the_best_by_validation(config: RunConfig, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(to_toml(differences(change(config, {"training": {"epochs": 2}}), RunConfig())))
    command = ["train", config.data.path, "--frozen", "--recipe", str(recipe), "--seeds", "0-1", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(cli, [*command, "--grid", "head.dropout=0.1,0.3"], catch_exceptions=False)
    assert result.exit_code == 0
    assert "dropout-0.1" in result.stdout
    assert f"beatmeter compare {tmp_path / 'out'}/*" in result.stdout
    folders = sorted((tmp_path / "out").iterdir())
    assert len(folders) == 4
    compared = CliRunner().invoke(cli, ["compare", *map(str, folders)], catch_exceptions=False)
    assert compared.exit_code == 0, compared.output
    refused = CliRunner().invoke(cli, ["train", "--resume", str(folders[0]), "--seeds", "0-3"])
    assert isinstance(refused.exception, ConfigError)
