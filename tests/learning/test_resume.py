"""A killed run, resumed, ends with the same bits as one that was never interrupted."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hubfolders import write_hub_folder
from waiting import PATIENCE

from beatmeter.errors import RunError
from beatmeter.evaluation.runs import RunFolder
from beatmeter.learning import checkpoints
from beatmeter.learning.training import run
from beatmeter.runtime.config import change, differences, to_toml
from beatmeter.settings import RunConfig

CPU = torch.device("cpu")
FULL = bool(int(os.environ.get("BEATMETER_FULL", "0")))


DYING = """
import os, signal
from beatmeter.learning import checkpoints, history
history.EVERY = 0.0  # however fast an epoch is, it is written
write = checkpoints.write
def dying(path, tensors, about):
    if about["epoch"] == 3 and path.name.startswith("last"):
        os.kill(os.getpid(), signal.SIGKILL)
    write(path, tensors, about)
checkpoints.write = dying
from beatmeter.cli import main
main()
"""


def train(
    *arguments: str, code: str = "from beatmeter.cli import main; main()"
) -> subprocess.CompletedProcess[str]:
    """In a process of its own."""
    command = [sys.executable, "-c", code, "train", *arguments]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )


@pytest.mark.parametrize("regime", ["frozen", "streamed"] if FULL else ["streamed"])
def test_a_killed_run_resumes_bit_for_bit(regime: str, config: RunConfig, tmp_path: Path) -> None:
    if regime == "streamed":
        write_hub_folder(tmp_path / "hub")
        config = change(
            config, {"regime": regime, "limit": 4, "features": {"backbone": str(tmp_path / "hub")}}
        )
    config = change(config, {"training": {"epochs": 4}})
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(to_toml(differences(config, RunConfig())))
    data = [config.data.path, "--frozen" if regime == "frozen" else "--lora", "--recipe", str(recipe)]
    done = train(*data, "--out", str(tmp_path / "whole"))
    assert done.returncode == 0, done.stderr
    folder = RunFolder(tmp_path / "killed")
    killed = train(*data, "--out", str(folder.path), code=DYING)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(folder.read_log()) == 3
    assert checkpoints.read(folder.last)[1]["epoch"] == 2
    resumed = train("--resume", str(tmp_path / "killed"))
    assert resumed.returncode == 0, resumed.stderr
    whole, killed = RunFolder(tmp_path / "whole"), folder
    for name in ("last", "best"):
        one, two = checkpoints.read(getattr(whole, name))[0], checkpoints.read(getattr(killed, name))[0]
        assert one.keys() == two.keys()
        assert all(torch.equal(one[key], two[key]) for key in one), name
    assert [{**line, "seconds": 0} for line in whole.read_log()] == [
        {**line, "seconds": 0} for line in killed.read_log()
    ]
    for split in ("val", "test"):
        assert whole.predictions(split).read_bytes() == killed.predictions(split).read_bytes()


def test_another_run_is_never_overwritten(config: RunConfig, tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "run", config)
    with pytest.raises(RunError, match=r"holds an unfinished run already.*--continue.*--resume"):
        run(config, tmp_path / "run", CPU, report=lambda text: None)


@pytest.mark.parametrize(("change_it", "says"), [("label", "the data set"), ("audio", "the usable tracks")])
def test_a_run_does_not_go_on_with_other_data(
    change_it: str, says: str, config: RunConfig, clips: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(clips, data)
    config = change(config, {"data": {"path": str(data)}, "training": {"epochs": 1}})
    run(config, tmp_path / "run", CPU, report=lambda text: None)
    table = data / "manifest.csv"
    if change_it == "label":
        lines = table.read_text().splitlines(keepends=True)
        table.write_text("".join([*lines[:1], lines[1].replace(",3,", ",4,", 1), *lines[2:]]))
    else:
        (data / "audio" / "000000.flac").write_bytes(b"no audio")
    with pytest.raises(RunError, match=says):
        run(config, tmp_path / "run", CPU, resume=True, report=lambda text: None)


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    with pytest.raises(RunError, match="there is no checkpoint"):
        checkpoints.read(path)
    checkpoints.write(path, {"a": torch.zeros(3)}, {"epoch": 1})
    tensors, about = checkpoints.read(path)
    assert about["epoch"] == 1
    assert torch.equal(tensors["a"], torch.zeros(3))
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(RunError, match=r"best\.safetensors is not a whole safetensors file"):
        checkpoints.read(path)


def test_a_pickle_is_not_loaded(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    torch.save({"a": torch.zeros(3)}, path)
    with pytest.raises(RunError, match="is not a whole safetensors file"):
        checkpoints.read(path)
