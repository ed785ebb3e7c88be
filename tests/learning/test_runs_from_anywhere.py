"""A run finds its data, cache and splits from any folder and after it was moved; what is away is said, and
nothing is made silently."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from beatmeter.cli import cli
from beatmeter.errors import RunError
from beatmeter.evaluation.runs import RunFolder
from beatmeter.runtime.config import differences, to_toml
from beatmeter.settings import RunConfig

CPU = torch.device("cpu")


def said_by(*arguments: str | Path) -> str:
    """All output of a command that ends well."""
    done = CliRunner().invoke(cli, list(map(str, arguments)))
    assert done.exception is None, (done.output, done.exception)
    return done.output


@pytest.fixture
def project(config: RunConfig, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder `here` with the data `music`, the cache `store` and the run `runs/a`, all given as relative
    paths."""
    here = tmp_path / "here"
    shutil.copytree(clips, here / "music")
    (tmp_path / "recipe.toml").write_text(
        to_toml({k: v for k, v in differences(config, RunConfig()).items() if k in ("head", "training")})
    )
    monkeypatch.chdir(here)
    order = (
        "train",
        "music",
        "--frozen",
        "--recipe",
        "../recipe.toml",
        "--set",
        "features.backbone=spectral",
        "--set",
        "features.window=2",
    )
    assert "new cache: store" in said_by(*order, "--cache", "store", "--out", "runs/a", "--device", "cpu")
    return here


def test_from_another_folder_and_moved_with_its_data(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for home in (project, project.rename(tmp_path / "moved")):
        run = home / "runs" / "a"
        if not run.exists():
            continue
        for order in (("evaluate", run), ("train", "--resume", run)):
            said = said_by(*order, "--device", "cpu")
            assert "0 to extract" in said
            assert "is not there" not in said
        assert "no clips" not in said_by("report", run)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_what_is_away_is_said_with_the_option_that_tells_where_it_is(project: Path, tmp_path: Path) -> None:
    run = project / "runs" / "a"
    (project / "music").rename(tmp_path / "songs")
    for order, hint in (
        (("evaluate", run), "evaluate .* --data DIR"),
        (("train", "--resume", run), "--resume .* --data DIR"),
    ):
        done = CliRunner().invoke(cli, list(map(str, order)))
        assert isinstance(done.exception, RunError)
        with pytest.raises(RunError, match=f"the data set of .*music.*{hint}"):
            raise done.exception
    assert "no clips to listen to" in said_by("report", run)
    own = said_by("evaluate", run, "--data", tmp_path / "songs", "--split", "test")
    assert "is the data set of this run" in own
    assert "6 items" in own, "its test split, not all tracks"
    (project / "store").rename(tmp_path / "kept")
    said = said_by("train", "--resume", run, "--data", tmp_path / "songs", "--cache", tmp_path / "kept")
    assert "0 to extract" in said
    assert not (project / "store").exists()
    said = said_by("evaluate", run, "--data", tmp_path / "songs")
    assert "the cache of" in said
    assert "a new one is begun in" in said


def test_an_unfinished_run_says_how_to_go_on_and_continue_does_it(config: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(to_toml(differences(config, RunConfig())))
    order = (
        "train",
        config.data.path,
        "--frozen",
        "--recipe",
        tmp_path / "recipe.toml",
        "--out",
        tmp_path / "run",
        "--device",
        "cpu",
    )
    said_by(*order, "--continue")  # nothing is there: it begins
    assert RunFolder(tmp_path / "run").finished
    again = CliRunner().invoke(cli, list(map(str, order)))
    assert "finished run" in str(again.exception)
    shutil.rmtree(tmp_path / "run" / "predictions")
    about = RunFolder(tmp_path / "run").about()
    del about["finished"]
    RunFolder(tmp_path / "run").about_file.unlink()
    RunFolder(tmp_path / "run").write_about(about)
    again = CliRunner().invoke(cli, list(map(str, order)))
    assert "unfinished run already (4 epochs done)" in str(again.exception)
    assert "--continue" in str(again.exception)
    other = CliRunner().invoke(cli, [*map(str, order), "--continue", "--seed", "7"])
    assert "seed 0, not 7" in str(other.exception)
    assert "continuing after epoch 4" in said_by(*order, "--continue")
    assert RunFolder(tmp_path / "run").finished
