"""One run folder, one process that trains in it: races to make it, to hold it and to resume it have one
winner, and say who it is."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from waiting import PATIENCE

from beatmeter.errors import RunError
from beatmeter.evaluation.runs import RunFolder
from beatmeter.experiments.cells import expand
from beatmeter.experiments.sweep import FailedRunsError, run_cells
from beatmeter.learning.pretraining.loop import pretrain
from beatmeter.learning.training import run
from beatmeter.runtime import lock
from beatmeter.runtime.config import change
from beatmeter.settings import PretrainConfig, RunConfig

CPU = torch.device("cpu")
RACERS = 60

# Every racer waits at a pipe until all are there; who gets in stays in until all others have been told.
RACE = """
import os, sys, traceback
from pathlib import Path
from beatmeter.errors import RunError
from beatmeter.evaluation.runs import RunFolder
from beatmeter.settings import RunConfig

what, path, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
ready, go, done = os.pipe(), os.pipe(), os.pipe()
for _ in range(count):
    if os.fork() == 0:
        os.close(go[1])
        os.write(ready[1], b"r")
        os.read(go[0], 1)  # ends when the parent closes its end: for all at once
        try:
            if what == "create":
                RunFolder.create(path, RunConfig())
                os.write(done[1], b"W")
            else:
                with RunFolder(path).held():
                    os.write(done[1], b"W")
                    os.read(ready[0], 1)  # until the parent says that all others were told
        except RunError as error:
            os.write(done[1], b"L" if path.name in str(error) else b"?")
        except BaseException:
            traceback.print_exc()
            os.write(done[1], b"X")
        os._exit(0)
for _ in range(count):
    os.read(ready[0], 1)
os.close(go[1])
print("".join(sorted(os.read(done[0], 1).decode() for _ in range(count))))
os.write(ready[1], b"e")
for _ in range(count):
    os.wait()
"""


def race(what: str, path: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", RACE, what, str(path), str(RACERS)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip() + done.stderr


@pytest.mark.parametrize("what", ["create", "hold"])
def test_of_sixty_processes_at_once_one_gets_in(what: str, tmp_path: Path) -> None:
    for attempt in range(3):
        assert race(what, tmp_path / f"run-{attempt}") == "L" * (RACERS - 1) + "W"


def test_all_that_train_are_told_who_does(config: RunConfig, tmp_path: Path) -> None:
    config = change(config, {"training": {"epochs": 1}})
    who = rf"process {os.getpid()} on {platform.node()} .*training in "
    with RunFolder(tmp_path / "run").held(), pytest.raises(RunError, match=who):
        run(config, tmp_path / "run", CPU, report=lambda text: None)
    run(config, tmp_path / "run", CPU, report=lambda text: None)
    with RunFolder(tmp_path / "run").held(), pytest.raises(RunError, match=who):
        run(config, tmp_path / "run", CPU, resume=True, report=lambda text: None)
    with (
        lock.held(tmp_path / "music" / ".lock", "pre-training in music"),
        pytest.raises(RunError, match=f"process {os.getpid()} .*pre-training"),
    ):
        pretrain(PretrainConfig(), tmp_path / "music", CPU, report=lambda text: None)
    assert not (tmp_path / "music").exists()


def test_a_sweep_leaves_a_cell_that_another_trains_and_finishes_the_others(
    config: RunConfig, tmp_path: Path
) -> None:
    cells = expand(change(config, {"training": {"epochs": 1}}), [], [0, 1])
    with RunFolder(tmp_path / cells[0].name).held(), pytest.raises(FailedRunsError, match=r"seed-0.*process"):
        run_cells(cells, tmp_path, CPU, report=lambda text: None)
    assert [RunFolder(tmp_path / cell.name).finished for cell in cells] == [False, True]
    run_cells(cells, tmp_path, CPU, report=lambda text: None)
    assert all(RunFolder(tmp_path / cell.name).finished for cell in cells)


def test_what_a_killed_process_held_is_free(tmp_path: Path) -> None:
    code = "import signal, sys; from pathlib import Path; from beatmeter.evaluation.runs import RunFolder\n"
    code += "with RunFolder(Path(sys.argv[1])).held():\n    print('in', flush=True); signal.pause()"
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "in\n"
    with pytest.raises(RunError, match=f"process {process.pid} on"), RunFolder(tmp_path).held():
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    with RunFolder(tmp_path).held():
        assert f"process {os.getpid()} " in (tmp_path / ".lock").read_text()
    assert tmp_path.exists(), "a folder that was there before stays"
    process.stdout.close()


def test_a_lock_that_is_no_file_is_one_line(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".lock")
    with pytest.raises(RunError, match=r"\.lock"), RunFolder(tmp_path).held():
        pass
