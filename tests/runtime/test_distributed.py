"""Two processes learn what one learns: the same tracks in every step, gradients added up, the first process
writes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hubfolders import write_hub_folder
from waiting import PATIENCE

from beatmeter.evaluation.predictions import read_predictions
from beatmeter.evaluation.runs import RunFolder
from beatmeter.learning import checkpoints
from beatmeter.learning.pretraining import loop
from beatmeter.runtime.artifacts import read_json_lines
from beatmeter.runtime.config import change, differences, to_toml
from beatmeter.runtime.distributed import ALONE, Ranks, join
from beatmeter.settings import PretrainConfig, RunConfig

FULL = bool(int(os.environ.get("BEATMETER_FULL", "0")))
ONE = [sys.executable, "-m", "beatmeter"]
TORCHRUN = [
    sys.executable,
    *[
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--rdzv-backend",
        "c10d",
        "--rdzv-endpoint",
        "localhost:0",
    ],
]
ACCELERATE = [
    sys.executable,
    *["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"],
    *[
        "--mixed_precision",
        "no",
        "--dynamo_backend",
        "no",
        "--main_process_port",
        "0",
    ],  # nothing is asked, and the port is a free one
]


def start(*command: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=PATIENCE, check=False)


@pytest.mark.parametrize("regime", ["frozen", "streamed"] if FULL else ["streamed"])
def test_two_processes_learn_what_one_learns(regime: str, config: RunConfig, tmp_path: Path) -> None:
    """Dropout of the head, noise, shifts and crops included; only the backbone's own dropout draws for each
    process."""
    values: dict[str, object] = {
        "head": {"noise": 0.1},
        "training": {"epochs": 3, "batch": 3, "accumulation": 3},
    }  # 9 tracks a step: 4 and 5
    if regime == "streamed":
        write_hub_folder(tmp_path / "hub", hidden_dropout=0.0, attention_dropout=0.0, feat_proj_dropout=0.0)
        values |= {
            "regime": regime,
            "limit": 10,
            "features": {"backbone": str(tmp_path / "hub")},
            "adapter": {"dropout": 0.0},
        }
        values["training"] = {"epochs": 2, "batch": 2, "accumulation": 3, "adapter_lr": 1e-3}
    config = change(config, values)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(to_toml(differences(config, RunConfig())))
    folders = []
    commands = {"one": ONE, "torchrun": [*TORCHRUN, "-m", "beatmeter"]}
    if regime == "frozen":
        commands["accelerate"] = [*ACCELERATE, "-m", "beatmeter"]
    for name, command in commands.items():
        arguments = [
            "train",
            config.data.path,
            "--frozen" if regime == "frozen" else "--lora",
            "--recipe",
            str(recipe),
            "--out",
            str(tmp_path / name),
        ]
        done = start(*command, *arguments, "--device", "cpu")
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.count("  finished") == 1, "one process reports"
        folders.append(RunFolder(tmp_path / name))
    one, *others = folders
    for two in others:
        require_alike(one, two)


class StoppedError(Exception):
    pass


def test_two_processes_pretrain_what_one_does(tmp_path: Path) -> None:
    """They go on with what one process began, steps of long windows among the rest."""
    values: dict[str, object] = {
        "steps": 3,
        "clips": 6,
        "chunks": 1,
        "warmup": 2,
        "save_every": 1,
        "hard": 0.5,
    }
    values |= {"long_after": 0.0, "average": 0.5, "precision": "float32", "company_weight": 1.0}
    values |= {"lag_weight": 0.0}  # and so no check on held-out clips
    config, folders = change(PretrainConfig(), values), [tmp_path / name for name in ("one", "two")]

    def stop(text: str) -> None:
        raise StoppedError  # after the checkpoint of step 1

    loop.pretrain(config, folders[0], torch.device("cpu"), report=lambda text: None)
    with pytest.raises(StoppedError):
        loop.pretrain(config, folders[1], torch.device("cpu"), report=stop)
    done = start(*TORCHRUN, "-m", "beatmeter", "pretrain", "--resume", str(folders[1]), "--device", "cpu")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count("backbone: ") == 1, "one process reports"
    one, two = (checkpoints.read(folder / "last.safetensors", {})[0] for folder in folders)
    assert one.keys() == two.keys()
    keys = [key for key in one if key.startswith("optimiser.") and key.endswith("exp_avg")]
    far = torch.cat([(one[key] - two[key]).flatten() for key in keys]).norm()
    assert far < 1e-2 * torch.cat([one[key].flatten() for key in keys]).norm()
    logs = [read_json_lines(folder / "log.jsonl").values for folder in folders]
    assert [line["step"] for line in logs[0]] == [line["step"] for line in logs[1]] == [1, 2, 3]
    for a, b in zip(*logs, strict=True):
        assert {**a, "seconds": 0} == pytest.approx({**b, "seconds": 0}, rel=1e-3)


ENDED = """
import sys
import torch
from beatmeter.errors import RunError
from beatmeter.runtime import distributed
ranks, _ = distributed.join(torch.device("cpu"))
if ranks.main:
    raise RunError("the first had to end")
try:
    ranks.add([torch.ones(1)])
except RunError as error:
    print("told:", error)
    raise
"""


def test_a_process_that_is_left_alone_says_so(tmp_path: Path) -> None:
    (tmp_path / "ended.py").write_text(ENDED)
    done = start(*TORCHRUN, str(tmp_path / "ended.py"))
    assert done.returncode != 0
    assert "told: another process of this training has ended" in done.stdout


def require_alike(one: RunFolder, two: RunFolder) -> None:
    for name in ("best", "last"):
        a, b = checkpoints.read(getattr(one, name))[0], checkpoints.read(getattr(two, name))[0]
        assert a.keys() == b.keys()
        for key, value in a.items():
            assert torch.allclose(value, b[key], atol=2e-6, rtol=1e-4), key
    for a_line, b_line in zip(one.read_log(), two.read_log(), strict=True):
        assert a_line["train"] == pytest.approx(b_line["train"], rel=1e-4)
        assert a_line["val"]["loss"] == pytest.approx(b_line["val"]["loss"], rel=1e-4)
    for split in ("val", "test"):
        mine, theirs = read_predictions(one.predictions(split)), read_predictions(two.predictions(split))
        assert np.abs(mine.scores - theirs.scores).max() < 1e-5
    assert two.finished


WAITING = """
import sys
from pathlib import Path
import torch
from beatmeter.runtime import distributed
ranks, device = distributed.join(torch.device("cpu"))
group = torch.distributed.distributed_c10d._get_default_group()
timeout = group._get_backend(torch.device("cpu")).options._timeout
Path(sys.argv[1], str(ranks.index)).write_text(str(timeout.total_seconds()))
distributed.leave()
"""


def test_others_wait_for_days_while_the_first_prepares(tmp_path: Path) -> None:
    (tmp_path / "waiting.py").write_text(WAITING)
    done = start(*TORCHRUN, str(tmp_path / "waiting.py"), str(tmp_path))
    assert done.returncode == 0, done.stderr[-3000:]
    assert all(float((tmp_path / name).read_text()) > 7 * 24 * 3600 for name in "01")


def test_shares_cover_everything_once() -> None:
    for n in (0, 1, 5, 9, 64):
        for count in (1, 2, 3, 8):
            taken = [i for index in range(count) for i in range(n)[Ranks(index, count).share(n)]]
            assert taken == list(range(n))


def test_a_process_without_a_launcher_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    ranks, device = join(torch.device("cpu"))
    assert ranks is ALONE
    assert device == torch.device("cpu")
    assert ranks.gather(3) == [3]
    x = torch.ones(3)
    ranks.add([x])
    assert torch.equal(x, torch.ones(3))


def test_many_heads_and_many_processes_are_refused_together(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    from click.testing import CliRunner

    from beatmeter.cli import cli

    monkeypatch.setenv("WORLD_SIZE", "2")
    found = CliRunner().invoke(cli, ["train", config.data.path, "--frozen", "--seeds", "0-3"])
    assert "in one process" in str(found.exception)
