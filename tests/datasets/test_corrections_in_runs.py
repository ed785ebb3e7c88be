"""train and evaluate under corrected labels: recorded with the run, written beside what was there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from meterfolders import encode, music

from beatmeter.cli.train import evaluate, train
from beatmeter.errors import ConfigError
from beatmeter.evaluation.predictions import read_predictions


def run(command: object, *arguments: object) -> Result:
    result = CliRunner().invoke(command, [str(a) for a in arguments])  # type: ignore[arg-type]
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture(scope="module")
def music_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 short clips of two classes, split."""
    folder = tmp_path_factory.mktemp("music")
    for n in range(30):
        path = folder / ("train", "val", "test")[n % 3] / "34"[n // 3 % 2] / f"{n}.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(music(n, 1.2), ".flac"))
    return folder


def test_a_run_under_corrected_labels(music_folder: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first.csv", tmp_path / "second.csv"
    first.write_text(
        "id,label,new label,comment\ntrain/3/0.flac,3,4,\ntrain/3/6.flac,3,drop,\ntest/3/2.flac,3,keep,\n"
    )
    second.write_text("id,label,new label,comment\ntest/3/8.flac,3,4,\ntest/4/5.flac,4,drop,\n")
    out = tmp_path / "run"
    settings = (
        "--recipe",
        "spectral-lag",
        "--set",
        "training.epochs=1",
        "--set",
        f"features.cache={tmp_path / 'cache'}",
        "--device",
        "cpu",
    )
    told = run(train, music_folder, "--frozen", *settings, "--corrections", first, "--out", out)
    assert "9 train, 10 val, 10 test, 1 label corrected; 1 left out (1 correction)" in told.stderr
    (done,) = json.loads((out / "run.json").read_text())["data"]["corrections"]
    assert (done["relabelled"], done["left out"], done["kept"], len(done["sha256"])) == (1, 1, 1, 64)
    assert done["labels"] == {"train/3/0.flac": ["3", "4"]}
    assert "train/3/6.flac" in (out / "excluded.csv").read_text()

    before = (out / "predictions" / "test.csv").read_bytes()
    run(evaluate, out, "--split", "test", "--corrections", second, "--device", "cpu")
    assert (out / "predictions" / "test.csv").read_bytes() == before
    original, corrected = (
        read_predictions(out / "predictions" / f"{name}.csv") for name in ("test", "corrected-test")
    )
    assert set(original.ids) - set(corrected.ids) == {"test/4/5.flac"}
    labels = {p.ids[i]: p.classes[p.primary[i]] for p in (original,) for i in range(len(p))}
    now = {p.ids[i]: p.classes[p.primary[i]] for p in (corrected,) for i in range(len(p))}
    assert {name for name in now if now[name] != labels[name]} == {"test/3/8.flac"}
    assert json.loads((out / "evaluation" / "corrected-test.json").read_text())["items"] == 9
    with pytest.raises(ConfigError, match="takes no others"):
        run(train, "--resume", out, "--corrections", first)
