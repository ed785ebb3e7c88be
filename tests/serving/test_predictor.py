"""Models that answer: a run, an ensemble of runs, packed copies of both, and the one that ships."""

from __future__ import annotations

import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from beatmeter.audio.decode import load
from beatmeter.cli import cli
from beatmeter.datasets import open_dataset
from beatmeter.datasets.synthetic import SynthPlan, synthesise
from beatmeter.errors import BeatmeterError, RunError
from beatmeter.evaluation.calibration import Calibration, Presence, ScoreMap, SelectiveRow, logit
from beatmeter.evaluation.predictions import open_predictions, write_predictions
from beatmeter.learning.training import run
from beatmeter.runtime.config import change
from beatmeter.serving.answer import Answer, Scored
from beatmeter.serving.judge import SHORTEST, Judge
from beatmeter.serving.models import EnsembleFolder, shipped_model, shipped_models
from beatmeter.serving.packing import pack
from beatmeter.serving.predictor import Predictor
from beatmeter.serving.scoring import Scorer
from beatmeter.settings import RunConfig

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough clips of 7 s to calibrate on: 24 for validation."""
    folder = tmp_path_factory.mktemp("music") / "clips"
    synthesise(folder, 96, SynthPlan(seconds=7.0, val=0.25))
    return folder


@pytest.fixture(scope="module")
def runs(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two runs and, beside them, their calibrations and the ensemble `both`."""
    folder = tmp_path_factory.mktemp("runs")
    for seed, (name, poolings) in enumerate((("lag", ("lag",)), ("both-poolings", ("stats", "lag")))):
        values = {
            "data": {"path": str(clips)},
            "features": {"backbone": "spectral", "cache": str(folder / "cache"), "window": 2},
            "head": {"poolings": poolings, "channels": 8, "hidden": 16, "dilations": (1, 2)},
            "seed": seed,
            "training": {"epochs": 10, "head_lr": 3e-3},
        }
        run(change(RunConfig(), values), folder / name, CPU, report=lambda text: None)
        assert CliRunner().invoke(cli, ["calibrate", str(folder / name), "--sounds", "14"]).exception is None
    order = [
        "ensemble",
        str(folder / "lag"),
        str(folder / "both-poolings"),
        "--out",
        str(folder / "both"),
        "--weight",
        "lag=0.5",
        "--weight",
        "both-poolings=0.5",
    ]
    result = CliRunner().invoke(cli, [*order, "--calibrated"])
    assert result.exception is None, result.output
    return folder, folder / "both"


def test_an_ensemble_hears_audio_as_it_joined_predictions(
    runs: tuple[Path, Path], clips: Path, config: RunConfig
) -> None:
    _, both = runs
    predictor = Predictor.load(both)
    test = open_predictions(both, "test")
    paths = {t.id: t.path for t in open_dataset(clips, config.data, config.task.meters).tracks}
    for id, scores in list(zip(test.ids, test.scores, strict=True))[:3]:
        assert np.allclose(predictor.scorer.hear(load(paths[id])).scores, scores, atol=1e-4)
    answer = predictor.predict(load(paths[test.ids[0]]), 24_000)
    assert answer.classes == test.classes


def test_packed_models_answer_like_their_runs_wherever_they_are_moved(
    runs: tuple[Path, Path], clips: Path, tmp_path: Path
) -> None:
    folder, both = runs
    index = pack([folder / "lag", folder / "both-poolings", both], tmp_path / "packed")
    moved = (tmp_path / "packed").rename(tmp_path / "elsewhere")
    best = max(index["models"], key=lambda name: index["models"][name]["validation"]["balanced_accuracy"][0])
    assert shipped_models(moved)["default"] == best
    assert shipped_model(where=moved) == moved / best
    assert not (moved / "lag" / "last.safetensors").exists()
    wave = load(next(iter(sorted((clips / "audio").iterdir()))))
    for name in ("lag", "both"):
        ours, theirs = (Predictor.load(where / name).predict(wave, 24_000) for where in (moved, folder))
        assert np.array_equal(ours.scores, theirs.scores)
        assert ours.second == theirs.second
    validation = open_predictions(folder / "lag", "val")
    right = (validation.scores.argmax(axis=1) == validation.primary)[validation.primary >= 0]
    assert index["models"]["lag"]["validation"]["accuracy"][0] == pytest.approx(float(right.mean()), abs=1e-4)
    for name in ("lag", "both-poolings"):
        write_predictions(folder / name / "predictions" / "elsewhere-val.csv", validation.take(np.arange(3)))
    for default in ("lag", "both-poolings"):
        runs_of_two = [folder / "lag", folder / "both-poolings"]
        index = pack(runs_of_two, tmp_path / "again", "elsewhere-val", default)
        assert [about["clips"] for about in index["models"].values()] == [3, 3]
        assert index["default"] == default


def test_thresholds_of_a_second_meter_are_those_of_production(runs: tuple[Path, Path]) -> None:
    folder, both = runs
    expected = Calibration.load(folder / "lag" / "calibration.json").threshold("production")
    thresholds = Predictor.load(folder / "lag").thresholds
    assert thresholds is not None
    assert np.array_equal(thresholds, expected)
    assert Predictor.load(both).thresholds is None


def test_predict_takes_a_model_or_the_default(
    runs: tuple[Path, Path], clips: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder, _ = runs
    song = str(next(iter(sorted((clips / "audio").iterdir()))))
    by_run = CliRunner().invoke(cli, ["predict", str(folder / "lag"), song, "--json"])
    pack([folder / "lag", folder / "both-poolings"], tmp_path)
    monkeypatch.setattr("beatmeter.serving.models.SHIPPED", tmp_path)
    monkeypatch.setattr(shipped_models, "__defaults__", (tmp_path,))
    monkeypatch.setattr(shipped_model, "__defaults__", (None, tmp_path))
    by_name = CliRunner().invoke(cli, ["predict", "lag", song, "--json"])
    assert json.loads(by_run.stdout)["scores"] == json.loads(by_name.stdout)["scores"]
    by_default = CliRunner().invoke(cli, ["predict", song, "--json"])
    default = CliRunner().invoke(
        cli, ["predict", str(tmp_path / shipped_models()["default"]), song, "--json"]
    )
    assert json.loads(by_default.stdout) == json.loads(default.stdout)
    listed = CliRunner().invoke(cli, ["models"])
    assert listed.stdout.count("(the default)") == 1
    assert "lag" in listed.stdout


def test_packing_never_writes_over_a_run(runs: tuple[Path, Path], tmp_path: Path) -> None:
    folder, both = runs
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    with pytest.raises(RunError, match="more than a packed model"):
        pack([folder / "lag"], folder)
    with pytest.raises(RunError, match="not packed"):
        pack([folder / "lag", both], tmp_path / "half")
    assert not (tmp_path / "half").exists()
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    once, twice = (
        pack([folder / "lag", folder / "both-poolings", both], tmp_path / "packed") for _ in range(2)
    )
    assert once == twice


@pytest.mark.parametrize(
    ("change_it", "says"),
    [
        (lambda folder: pack([folder / "both"], folder / "out"), "joins"),
        (lambda folder: pack([folder / "lag"], folder / "out", default="lga"), "'lga' is not packed"),
        (lambda folder: pack([folder / "cache"], folder / "out"), "neither a run folder nor an ensemble"),
        (lambda folder: pack([folder / "lag", folder / "lag"], folder / "out"), "the same name"),
        (lambda folder: shipped_model("lga", folder / "nothing"), "there is no model 'lga'"),
        (lambda folder: EnsembleFolder(folder / "lag").runs(), "made elsewhere"),
    ],
)
def test_what_cannot_be_packed_or_found_is_named(change_it, says: str, runs: tuple[Path, Path]) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(RunError, match=says):
        change_it(runs[0])


def test_a_model_without_files_is_told_so(runs: tuple[Path, Path]) -> None:
    error = CliRunner().invoke(cli, ["predict", str(runs[0] / "lag")]).exception
    assert isinstance(error, BeatmeterError)
    assert "name the files" in str(error)


def test_predictions_of_other_data_are_named_like_splits(
    runs: tuple[Path, Path], clips: Path, tmp_path: Path
) -> None:
    folder, _ = runs
    other = shutil.copytree(clips, tmp_path / "other")
    table = (other / "manifest.csv").read_text().splitlines(keepends=True)
    (other / "manifest.csv").write_text("".join(table[:-1]))
    for name in ("lag", "both-poolings"):
        assert (
            CliRunner().invoke(cli, ["evaluate", str(folder / name), "--data", str(other)]).exception is None
        )
    order = [
        "ensemble",
        str(folder / "lag"),
        str(folder / "both-poolings"),
        "--out",
        str(tmp_path / "out"),
        "--split",
        "other-test",
    ]
    assert CliRunner().invoke(cli, order).exception is None
    assert len(open_predictions(tmp_path / "out", "other-test")) == 95


def test_calibrate_teaches_a_run_when_no_meter_is_heard_and_its_ensemble_takes_the_mean(
    runs: tuple[Path, Path], clips: Path, tmp_path: Path
) -> None:
    folder, both = runs
    about = Calibration.load(folder / "lag" / "calibration.json").presence
    assert about is not None
    assert about.about["music"]["items"] == 48  # each of 24 clips whole, and an excerpt
    assert about.about["sounds"]["items"] == 14  # one of each kind
    shutil.copytree(folder / "lag", tmp_path / "lag")
    shutil.copytree(folder / "both-poolings", tmp_path / "both-poolings")
    shutil.copytree(both, tmp_path / "both")
    assert CliRunner().invoke(cli, ["calibrate", str(tmp_path / "both")]).exception is None, (
        "no audio is heard again"
    )
    wave = load(next(iter(sorted((clips / "audio").iterdir()))))
    heard = [
        Predictor.load(tmp_path / name).predict(wave, 24_000).heard
        for name in ("lag", "both-poolings", "both")
    ]
    odds = [float(logit(np.array([h]))[0]) for h in heard]
    assert odds[2] == pytest.approx((odds[0] + odds[1]) / 2, abs=1e-3)
    assert Predictor.load(tmp_path / "both").note is None
    assert "is called sure" in str(Predictor.load(both).note)
    (tmp_path / "lag" / "calibration.json").unlink()
    error = CliRunner().invoke(cli, ["calibrate", str(tmp_path / "both")]).exception
    assert isinstance(error, RunError)
    assert "the member lag cannot tell music from sound" in str(error)


def test_calibrate_hears_other_music_that_the_run_never_learned_from(
    runs: tuple[Path, Path], clips: Path, tmp_path: Path
) -> None:
    folder, both = runs
    shutil.copytree(folder / "lag", tmp_path / "lag")
    with (clips / "manifest.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))

    def music(split: str) -> list[str]:
        """Other music: ten clips of a split of the run, said to be of validation."""
        chosen = [row | {"split": "val"} for row in rows if row["split"] == split][:10]
        (tmp_path / split / "audio").mkdir(parents=True, exist_ok=True)
        for row in chosen:
            shutil.copy(clips / row["file"], tmp_path / split / row["file"])
        with (tmp_path / split / "manifest.csv").open("w", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(chosen)
        return ["--music", str(tmp_path / split), "--sounds", "14"]

    assert CliRunner().invoke(cli, ["calibrate", str(tmp_path / "lag"), *music("test")]).exception is None
    before, after = (Calibration.load(place / "lag" / "calibration.json") for place in (folder, tmp_path))
    assert after.presence is not None
    about = after.presence.about
    assert (about["music"]["items"], about["other music"]["items"]) == (20, 48)
    assert replace(after, presence=None) == replace(before, presence=None), (
        "the rest is of its own validation"
    )
    for model, split, said in (
        (tmp_path / "lag", "train", r"learned from 10 of the validation tracks"),
        (both, "test", "is an ensemble"),
    ):
        error = CliRunner().invoke(cli, ["calibrate", str(model), *music(split)]).exception
        assert isinstance(error, BeatmeterError)
        assert re.search(said, str(error))


def test_calibrate_says_what_to_do_when_the_music_is_not_there(
    runs: tuple[Path, Path], tmp_path: Path
) -> None:
    shutil.copytree(runs[0] / "lag", tmp_path / "lag")
    order = ["calibrate", str(tmp_path / "lag"), "--data"]
    error = CliRunner().invoke(cli, [*order, str(tmp_path / "gone")]).exception
    assert isinstance(error, BeatmeterError)
    assert "is not there" in str(error)
    synthesise(tmp_path / "other", 6, SynthPlan(seed=5, seconds=1.0))
    error = CliRunner().invoke(cli, [*order, str(tmp_path / "other")]).exception
    assert isinstance(error, BeatmeterError)
    assert "none of the 24 validation tracks" in str(error)
    assert "--sounds 0" in str(error.hint)
    assert CliRunner().invoke(cli, [*order, str(tmp_path / "other"), "--sounds", "0"]).exception is None
    assert Calibration.load(tmp_path / "lag" / "calibration.json").presence is None


def calibrated(heard: float | None) -> Calibration:
    """A calibration that calls 0.6 sure, by which a meter is heard with this probability."""
    presence = None if heard is None else Presence((1.0,), float(logit(np.array([heard]))[0]), {})
    rows = (
        SelectiveRow(1.0, 0.0, 0.8, 0.7, 0.9),
        SelectiveRow(0.7, 0.6, 0.95, 0.9, 0.99),
        SelectiveRow(0.3, 0.8, 0.97, 0.9, 1.0),
    )
    two = (ScoreMap("none"), ScoreMap("none"))
    limits = {"production": (0.3, 0.3)}
    return Calibration(("3", "4"), two, limits, (0.5, 0.5), rows, {}, {}, rows[1], presence)


def judged(heard: float | None, score: float, seconds: float = 30.0, abstain: float = 0.0) -> Answer:
    """The answer to a score of 3 by this calibration."""
    return Judge(calibrated(heard), abstain=abstain)(
        ("3", "4"), Scored(np.array([score, 0.4]), np.zeros(1)), seconds
    )


def test_sure_is_a_statement_that_needs_a_meter_a_score_and_time() -> None:
    assert judged(0.9, 0.7).sure
    assert not judged(0.9, 0.55).sure, "below the score from which answers are sure"
    assert not judged(0.9, 0.7, seconds=SHORTEST - 1).sure
    assert not judged(0.9, 0.7, abstain=0.7).sure, "abstaining works on top"
    assert judged(0.9, 0.85, abstain=0.7).sure
    assert not judged(None, 0.7).sure, "who cannot tell sound without meter is never sure"
    assert not Judge()(("3", "4"), Scored(np.array([0.99, 0.1]), np.zeros(1)), 30.0).sure


def test_what_sure_means_is_what_the_calibration_states() -> None:
    def stated(calibration: Calibration | None) -> str:
        return Predictor(
            cast(Scorer, SimpleNamespace(classes=("3", "4"), about="")), Judge(calibration)
        ).statement

    calibration = calibrated(0.5)
    assert stated(calibration) == "on validation 70 % of answers, 95 % of them right"
    other = replace(calibration, sure=calibration.selective[2])
    assert stated(other) == "on validation 30 % of answers, 97 % of them right"
    for mute in (None, replace(calibration, sure=None), replace(calibration, presence=None)):
        assert stated(mute) == "no answer of this model"


def test_no_meter_heard_names_none() -> None:
    heard, none = judged(0.6, 0.7), judged(0.4, 0.99)
    assert (heard.meter, heard.second) == ("3", "4")
    assert (none.meter, none.second, none.sure) == (None, None, False)
    assert none.heard == pytest.approx(0.4)
    assert json.loads(json.dumps(none.to_json()))["meter"] is None
    assert judged(None, 0.7).meter == "3"


def test_evaluation_files_arrays_and_windows_get_one_answer(runs: tuple[Path, Path], clips: Path) -> None:
    """What `evaluate` wrote, what `predict` says of the file, what robustness says of its samples, and what a
    timeline says of the only window."""
    run_folder = runs[0] / "lag" if (runs[0] / "lag").exists() else runs[0]
    evaluated = open_predictions(run_folder, "test")
    predictor = Predictor.load(run_folder, CPU)
    tracks = {t.id: t for t in open_dataset(clips, RunConfig().data, RunConfig().task.meters).tracks}
    path = tracks[evaluated.ids[0]].path
    raw = predictor.scorer.hear(load(path)).scores
    np.testing.assert_allclose(raw, evaluated.scores[0], atol=5e-3)  # the store keeps float16
    ((_, of_file),) = predictor.predict_files([path])
    assert isinstance(of_file, Answer)
    of_samples = predictor.predict(load(path), predictor.scorer.sample_rate)
    _, (of_window,) = predictor.hear(path, window=7.0, hop=7.0)
    np.testing.assert_allclose(of_samples.scores, of_file.scores, atol=1e-6)
    np.testing.assert_allclose(of_window.scores, of_file.scores, atol=1e-4)
