"""Whatever cannot be written, by whatever command: one line on stderr that names it, exit status 2, never a
traceback."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from beatmeter.runtime.atomic import WriteError, write_text, writing

Typed = Callable[..., tuple[int, str, str]]
# PLACE: see conftest; FILE: a regular file; FOLDER: an empty folder
BELOW_A_FILE = (
    "timeline PLACE/run CLIP --plot FILE/plot.png",
    "predict PLACE/run CLIP --jams FILE/annotations",
    "report PLACE/run --seconds 0 --out FILE/report.html",
    "report PLACE/run --seconds 0 --out FOLDER/report.html --figures FILE/figures",
    "compare PLACE/run PLACE/run/predictions/test.csv --html FILE/page.html",
    "compare PLACE/run PLACE/run/predictions/test.csv --figures FILE/figures",
    "calibrate PLACE/run --out FILE/calibration.json",
    "ensemble PLACE/run a=PLACE/run/predictions/val.csv --validation val --split val --out FILE/both",
    (
        "ablate smoothing PLACE/music --recipe spectral-lag --seeds 0 --jobs 1 --cache PLACE/other --out "
        "FILE/ablation"
    ),
    "study PLACE/music --only *spectral*lag* --seeds 0 --jobs 1 --cache PLACE/other --out FILE/study",
    "robustness PLACE/music --model PLACE/run --way gain --limit 2 --out FILE/robustness",
    (
        "train --frozen PLACE/music --recipe spectral-lag --set features.cache=PLACE/other --set "
        "training.epochs=1 --out FILE/run"
    ),
    (
        "train --frozen PLACE/music --recipe spectral-lag --set features.cache=PLACE/other --set "
        "training.epochs=1 --seeds 0-1 --out FILE/runs"
    ),
    "train --frozen PLACE/music --recipe spectral-lag --set features.cache=FILE/cache --out FOLDER/run",
    "extract PLACE/music --recipe spectral-lag --cache FILE/cache",
    "extract PLACE/music --recipe spectral-lag --cache FOLDER/cache --watch --status FILE/status",
    "pretrain --out FILE/pretrain --set steps=1",
    "demo --out FILE/demo --clips 18 --jobs 1",
    "data synth FILE/synth --clips 1 --seconds 1",
    "data split PLACE/music --cache PLACE/cache --out FILE/split.csv",
    "data audit PLACE/music --features PLACE/cache --out FILE/review",
    "cache export PLACE/cache --out FILE/features.h5",
    "models pack PLACE/run --out FILE/models",
)
OVER_A_FOLDER = (
    "timeline PLACE/run CLIP --plot FOLDER.png",
    "report PLACE/run --seconds 0 --out FOLDER",
    "compare PLACE/run PLACE/run/predictions/test.csv --html FOLDER",
    "calibrate PLACE/run --out FOLDER",
    "data split PLACE/music --cache PLACE/cache --out FOLDER",
    "cache export PLACE/cache --out FOLDER --overwrite",
)


def refused(typed: Typed, place: Path, folder: Path, command: str) -> str:
    """Type the command, and check that it ends as it should; its one line."""
    (folder / "file").write_text("not a folder")
    for name in ("folder", "folder.png"):
        (folder / name).mkdir()
    clip = next(iter(sorted((place / "music" / "audio").iterdir())))
    words = [
        word.replace("PLACE", str(place))
        .replace("FILE", str(folder / "file"))
        .replace("FOLDER", str(folder / "folder"))
        .replace("CLIP", str(clip))
        for word in command.split()
    ]
    status, _, said = typed(*words)
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert (status, len(errors)) == (2, 1), said
    assert "Traceback" not in said
    assert said.splitlines()[-1] == errors[0], "the error is the last word"
    return errors[0]


@pytest.mark.parametrize("command", BELOW_A_FILE)
def test_a_place_below_a_regular_file(typed: Typed, place: Path, tmp_path: Path, command: str) -> None:
    assert str(tmp_path / "file") in refused(typed, place, tmp_path, command)


@pytest.mark.parametrize("command", OVER_A_FOLDER)
def test_a_folder_where_a_file_should_go(typed: Typed, place: Path, tmp_path: Path, command: str) -> None:
    error = refused(typed, place, tmp_path, command)
    assert str(tmp_path / "folder") in error
    assert list((tmp_path / "folder").iterdir()) == []
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")], "nothing is left beside it"


@pytest.mark.parametrize(
    ("command", "inside"),
    [
        (
            "ablate smoothing PLACE/music --recipe spectral-lag --seeds 0 --jobs 1 --cache FOLDER/cache",
            "table-val.json",
        ),
        (
            "ablate smoothing PLACE/music --recipe spectral-lag --seeds 0 --jobs 1 --cache FOLDER/cache",
            "figure-val.svg",
        ),
        ("study PLACE/music --only *spectral*lag* --seeds 0 --jobs 1 --cache FOLDER/cache", "table.md"),
        (
            "study PLACE/music --only *spectral*lag* --seeds 0 --jobs 1 --cache FOLDER/cache",
            "figure-test.png",
        ),
        ("robustness FOLDER/no-such-music --model PLACE/run --way gain", "robustness.json"),
    ],
)
def test_a_table_that_cannot_be_written_is_told_before_the_work(
    typed: Typed, place: Path, tmp_path: Path, command: str, inside: str
) -> None:
    (tmp_path / "out" / inside).mkdir(parents=True)
    error = refused(typed, place, tmp_path, f"{command} --out {tmp_path / 'out'}")
    assert str(tmp_path / "out" / inside) in error
    assert [p.name for p in (tmp_path / "out").iterdir()] == [inside], "no run was begun"
    assert list((tmp_path / "folder").iterdir()) == [], "nothing was extracted"


@pytest.mark.parametrize(
    ("command", "inside"),
    [
        ("report RUN --seconds 0", "report.html"),
        ("calibrate RUN", "calibration.json"),
        ("evaluate RUN", "predictions/test.csv"),
        ("evaluate RUN", "evaluation/test.json"),
        ("train --resume RUN", "run.json"),
    ],
)
def test_the_files_of_a_run_that_cannot_be_replaced(
    typed: Typed, place: Path, tmp_path: Path, command: str, inside: str
) -> None:
    shutil.copytree(place / "run", tmp_path / "run")
    (tmp_path / "run" / inside).unlink(missing_ok=True)
    (tmp_path / "run" / inside / "occupied").mkdir(parents=True)
    error = refused(typed, place, tmp_path, command.replace("RUN", str(tmp_path / "run")))
    assert str(tmp_path / "run" / inside) in error


@pytest.mark.parametrize(
    "command",
    [
        "models",
        "models --json",
        "--help",
        "train --settings",
        "cache info PLACE/cache",
        "compare a=PLACE/run b=PLACE/run",
    ],
)
@pytest.mark.parametrize(
    ("where", "reason"), [("/dev/full", "No space left on device"), ("closed", "Bad file descriptor")]
)
def test_standard_output_that_takes_nothing(place: Path, command: str, where: str, reason: str) -> None:
    if where != "closed" and not Path(where).exists():
        pytest.skip(f"{where} is Linux's own")
    words = [word.replace("PLACE", str(place)) for word in command.split()]
    redirect = ">&-" if where == "closed" else f">{where}"
    shell = ["sh", "-c", f'exec "$@" {redirect}', "sh", sys.executable, "-m", "beatmeter", *words]
    done = subprocess.run(shell, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith(f"error: cannot write standard output: {reason}")


def test_a_misspelt_command_keeps_its_exit_status_where_stderr_takes_nothing() -> None:
    for redirect in ("2>&-", "2>/dev/full"):
        done = subprocess.run(
            ["sh", "-c", f'exec "$@" {redirect}', "sh", sys.executable, "-m", "beatmeter", "modls"],
            check=False,
        )
        assert done.returncode == 2, redirect


def test_the_reader_of_a_pipe_may_leave() -> None:
    command = f"{sys.executable} -m beatmeter models; echo $? >&2"
    done = subprocess.run(["sh", "-c", f"({command}) | true"], stderr=subprocess.PIPE, text=True, check=False)
    assert done.stderr.splitlines()[-1] == "0"
    assert "Traceback" not in done.stderr


def test_a_write_error_names_the_file_that_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(WriteError, match="Not a directory") as caught:
        write_text(tmp_path / "file" / "below" / "name", "text")
    assert caught.value.filename == str(tmp_path / "file" / "below" / "name")
    with pytest.raises(WriteError) as caught, writing(tmp_path / "a"), writing(tmp_path / "b"):
        raise OSError(28, os.strerror(28))
    assert (caught.value.errno, caught.value.filename) == (28, str(tmp_path / "b"))
