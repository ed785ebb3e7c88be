"""The laboratory's commands, from run folders and from files made elsewhere; without audio, weights or
torch."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import click
import meter_controls as controls
import numpy as np
import pytest
from click.testing import CliRunner, Result
from waiting import PATIENCE

from beatmeter.cli.calibrate import calibrate
from beatmeter.cli.compare import compare, gate
from beatmeter.cli.ensemble import ensemble
from beatmeter.cli.report import report
from beatmeter.cli.systems import gather
from beatmeter.errors import BeatmeterError, ConfigError, DataError, EvaluationError
from beatmeter.evaluation.predictions import open_predictions, read_predictions, write_predictions
from beatmeter.schema import ClassPredictions


def noisy(p: ClassPredictions, seed: int, strength: float) -> ClassPredictions:
    z = np.log(p.scores / (1 - p.scores)) + np.random.default_rng(seed).normal(0, strength, p.scores.shape)
    return dataclasses.replace(p, scores=controls.sigmoid(z))


def make_run(folder: Path, seed: int, strength: float, config: str) -> Path:
    for split, base in (("val", 1), ("test", 2)):
        p = controls.selective(base, songs=120, split=split)
        write_predictions(folder / "predictions" / f"{split}.csv", noisy(p, 10 * seed + base, strength))
    (folder / "config.toml").write_text(f"seed = {seed}\n{config}")
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        make_run(top / f"frozen-{seed}", seed, 3.0, 'regime = "frozen"\n')
        make_run(top / f"lora-{seed}", seed + 5, 1.5, 'regime = "streamed"\n')
    return top


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What another program might have written: one file, both splits, ids, labels and scores only."""
    path = tmp_path_factory.mktemp("foreign") / "theirs.csv"
    lines = ["id,group,split,primary," + ",".join(f"score_{c}" for c in controls.CLASSES)]
    for split, base in (("val", 1), ("test", 2)):
        p = noisy(controls.selective(base, songs=120, split=split), base + 70, 2.5)
        for i, id in enumerate(p.ids):
            lines.append(
                ",".join(
                    [id, p.groups[i], split, p.classes[p.primary[i]], *(f"{s:.6f}" for s in p.scores[i])]
                )
            )
    path.write_text("\n".join(lines) + "\n")
    return path


def invoke(command: click.Command, *arguments: object) -> Result:
    result = CliRunner().invoke(command, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_compare_groups_seeds_and_says_who_is_better(runs: Path) -> None:
    result = invoke(compare, *(runs / n for n in ("frozen-0", "frozen-1", "lora-0", "lora-1")))
    assert "lora is better than frozen" in result.stdout
    assert "spread of seeds" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 100
    apart = invoke(compare, runs / "frozen-0", runs / "frozen-1", "--separate", "--changes", 2)
    assert "frozen-0 and frozen-1 are not distinguishable" in apart.stdout
    assert "more" in apart.stdout


def test_compare_takes_names_files_and_json(runs: Path, foreign: Path, tmp_path: Path) -> None:
    page, drawn = tmp_path / "c.html", tmp_path / "figures"
    options = [
        "--split",
        "test",
        "--metric",
        "accuracy",
        "--json",
        "--html",
        page,
        "--figures",
        drawn,
        "--seconds",
        0,
    ]
    result = invoke(compare, f"ours={runs / 'lora-0'},{runs / 'lora-1'}", foreign, *options)
    value = json.loads(result.stdout)
    assert list(value["metrics"]) == ["ours", "theirs"]
    assert [t["metric"] for t in value["pairs"][0]["tests"]] == ["accuracy"]
    assert "theirs is" in page.read_text()
    assert {p.suffix for p in drawn.iterdir()} == {".png", ".svg"}
    with pytest.raises(DataError, match="several splits: 'test', 'val'"):
        invoke(compare, runs / "lora-0", foreign)


def test_gather_names_systems(runs: Path) -> None:
    files = [str(runs / n / "predictions" / "test.csv") for n in ("frozen-0", "lora-0")]
    assert list(gather(files, group=True)) == ["frozen-0", "lora-0"], (
        "files in run folders are called after the run"
    )
    assert {
        k: len(v)
        for k, v in gather([str(runs / n) for n in ("lora-1", "frozen-0", "lora-0")], group=True).items()
    } == {"lora": 2, "frozen-0": 1}
    for wrong, said in (
        (["a=", "b=x"], "names no run"),
        (["a=x", "a=y"], "named twice"),
        ([files[0], files[0]], "named twice"),
    ):
        with pytest.raises(ConfigError, match=said):
            gather(wrong, group=True)


def test_calibrate_a_run_and_a_file(runs: Path, foreign: Path, tmp_path: Path) -> None:
    result = invoke(calibrate, runs / "frozen-0")
    assert "test calibrated" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 100
    assert json.loads((runs / "frozen-0" / "calibration.json").read_text())["fitted_on"]["split"] == "val"
    test = tmp_path / "test.csv"
    write_predictions(test, open_predictions(foreign, "test"))
    out = tmp_path / "theirs.json"
    value = json.loads(
        invoke(calibrate, foreign, "--apply", test, "--out", out, "--kind", "platt", "--json").stdout
    )
    assert {m["kind"] for m in value["maps"].values()} == {"platt"}
    calibrated = read_predictions(tmp_path / "test.calibrated.csv")
    assert calibrated.meta["calibrated"]["split"] == "val"
    assert (calibrated.scores != read_predictions(test).scores).any()
    with pytest.raises(DataError, match="no items of the split 'train'"):
        invoke(calibrate, foreign, "--split", "train")
    with pytest.raises(EvaluationError, match=r"(\d+) of the \1 items of test are not in val"):
        invoke(calibrate, foreign, "--sure-on", "test")


@pytest.mark.parametrize(("songs", "refused"), [(4, True), (60, False)])
def test_calibrate_does_not_learn_from_guesses(tmp_path: Path, songs: int, refused: bool) -> None:
    p = controls.selective(1, songs=songs, split="val")
    guessed = dataclasses.replace(p, scores=np.random.default_rng(0).random(p.scores.shape))
    write_predictions(tmp_path / "val.csv", guessed)
    result = CliRunner().invoke(calibrate, [str(tmp_path / "val.csv")])
    if refused:
        assert isinstance(result.exception, EvaluationError)
        assert "4 groups of labelled items teach nothing" in str(result.exception)
        assert not (tmp_path / "val.calibration.json").exists()
    else:
        assert result.exception is None
        assert "not surely above the" in result.stderr
        assert "no threshold reached" in result.stdout


def test_gate_tells_by_its_exit_status(runs: Path, foreign: Path) -> None:
    good = invoke(gate, runs / "lora-0", "--against", foreign, "--split", "test")
    value = json.loads(
        invoke(gate, runs / "lora-0", "--against", foreign, "--split", "test", "--json").stdout
    )
    assert good.exit_code == (0 if value["passed"] else 1)
    assert value["gains"] > value["losses"]
    bad = invoke(gate, runs / "frozen-0", "--against", runs / "lora-0")
    assert bad.exit_code == 1
    assert "not passed" in bad.stdout


@pytest.mark.parametrize("method", ["mean", "stack"])
def test_ensembles_are_runs_for_every_other_command(
    runs: Path, foreign: Path, tmp_path: Path, method: str
) -> None:
    out = tmp_path / "both"
    result = invoke(ensemble, runs / "lora-0", foreign, "--out", out, "--method", method)
    assert "out of fold: " in result.stdout
    assert "test: the ensemble against " in result.stdout
    for split in ("val", "test"):
        assert open_predictions(out, split).meta["run"] == "both"
    assert json.loads((out / "ensemble.json").read_text())["members"] == ["lora-0", "theirs"]
    assert "both" in invoke(compare, runs / "lora-0", out).stdout
    invoke(calibrate, out, "--sounds", "0")
    assert invoke(report, out, "--text").exit_code == 0
    assert (
        json.loads(invoke(gate, out, "--against", runs / "frozen-0", "--json").stdout)["candidate"] == "both"
    )


def test_ensemble_weights_by_hand_and_calibrated_members(runs: Path, tmp_path: Path) -> None:
    invoke(calibrate, runs / "lora-0", "--sounds", "0")
    invoke(calibrate, runs / "lora-1", "--sounds", "0")
    invoke(
        ensemble,
        runs / "lora-0",
        runs / "lora-1",
        "--out",
        tmp_path / "e",
        "--weight",
        "lora-0=3",
        "--weight",
        "lora-1=1",
        "--calibrated",
    )
    assert json.loads((tmp_path / "e" / "ensemble.json").read_text())["weights"] == {
        "lora-0": 0.75,
        "lora-1": 0.25,
    }
    with pytest.raises(EvaluationError, match="NAME=NUMBER"):
        invoke(ensemble, runs / "lora-0", runs / "lora-1", "--out", tmp_path / "f", "--weight", "lora-0=x")
    with pytest.raises(ConfigError, match="belongs to --method mean"):
        invoke(
            ensemble,
            runs / "lora-0",
            runs / "lora-1",
            "--out",
            tmp_path / "f",
            "--weight",
            "lora-0=1",
            "--method",
            "stack",
        )


def test_report_as_page_text_and_json(runs: Path, foreign: Path, tmp_path: Path) -> None:
    named = tmp_path / "named.html"
    made = invoke(report, runs / "lora-0", "--seconds", 0, "--figures", tmp_path / "figures", "--out", named)
    assert made.stdout.strip() == str(named)
    assert "<title>lora-0</title>" in named.read_text()
    assert (tmp_path / "figures" / "confusion.svg").exists()
    text = " ".join(invoke(report, foreign, "--split", "test", "--text").stdout.split())
    assert "verdict:" in text
    assert "of the split 'val'" in text, "a file with both splits gives its own validation"
    p = open_predictions(foreign, "test")
    corrections = tmp_path / "corrections.csv"
    corrections.write_text(f"id,label\n{p.ids[0]},\n")
    both = json.loads(
        invoke(report, foreign, "--split", "test", "--json", "--corrections", corrections).stdout
    )
    assert both["original"]["split"] == "test"
    assert both["corrected"]["items"] == both["original"]["items"] - 1
    with pytest.raises(DataError, match="no predictions for the split 'train'"):
        invoke(report, runs / "lora-0", "--split", "train")
    with pytest.raises(BeatmeterError, match="there is no file or folder"):
        invoke(report, tmp_path / "nothing.csv")


def test_the_laboratory_needs_no_torch(runs: Path, foreign: Path, tmp_path: Path) -> None:
    """Import and run every command in a fresh process that cannot import torch."""
    program = f"""
import sys
class Wall:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('torch', 'transformers', 'peft'):
            raise ImportError('no ' + name)
sys.meta_path.insert(0, Wall())
from click.testing import CliRunner
import beatmeter.cli as lab
calls = [
    (lab.compare, [{str(runs / "lora-0")!r}, {str(foreign)!r}, '--split', 'test', '--seconds', '0',
                   '--html', {str(tmp_path / "c.html")!r}]),
    (lab.calibrate, [{str(runs / "lora-0")!r}]),
    (lab.gate, [{str(runs / "lora-0")!r}, '--against', {str(foreign)!r}, '--split', 'test']),
    (lab.ensemble, [{str(runs / "lora-0")!r}, {str(foreign)!r}, '--out', {str(tmp_path / "e")!r}]),
    (lab.report, [{str(runs / "lora-0")!r}]),
]
for command, arguments in calls:
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code in (0, 1), (command.name, result.exception)
    assert isinstance(result.exception, SystemExit | None), (command.name, result.exception)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "<title>lora-0</title>" in (runs / "lora-0" / "report.html").read_text()


@pytest.mark.parametrize("command", [compare, calibrate, gate, ensemble, report])
def test_help_has_examples(command: click.Command) -> None:
    assert f"beatmeter {command.name}" in invoke(command, "--help").stdout
