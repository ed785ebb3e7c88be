"""The controlled comparison: systems and baselines on two sets, every figure that of the metrics, nothing
trained twice."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from beatmeter.cli import cli
from beatmeter.cli.study import _chosen
from beatmeter.datasets import open_dataset
from beatmeter.datasets.synthetic import SynthPlan, synthesise
from beatmeter.errors import BeatmeterError, DataError
from beatmeter.evaluation.metrics import METRICS
from beatmeter.evaluation.predictions import read_predictions
from beatmeter.experiments.ablation.plan import load_plan
from beatmeter.experiments.baselines import Majority, Tempogram
from beatmeter.schema import Track
from beatmeter.settings import DataConfig

CLASSES = ("3", "4", "5", "7", "9", "11")


@pytest.fixture(scope="module")
def out(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The outcome of a study of two systems with two seeds, on two sets."""
    folder = tmp_path_factory.mktemp("study")
    synthesise(folder / "others", 36, SynthPlan(seed=5, seconds=7.0))
    (folder / "others" / "audio" / "000035.flac").write_bytes(
        b"no audio"
    )  # what systems cannot hear, baselines do not count
    order = [
        "study",
        str(clips),
        "--on",
        str(folder / "others" / "manifest.csv"),
        "--only",
        "spectral, mean+max",
        "--only",
        "spectral, lag 30 s",
        "--seeds",
        "0-1",
    ]
    order += [
        "--set",
        "training.epochs=2",
        "--cache",
        str(folder / "cache"),
        "--out",
        str(folder / "out"),
        "--jobs",
        "1",
    ]
    result = CliRunner().invoke(cli, order)
    assert result.exit_code == 0, result.output + str(result.exception)
    stamps = {p: p.stat().st_mtime_ns for p in (folder / "out").rglob("predictions/*.csv")}
    assert CliRunner().invoke(cli, order).exit_code == 0
    assert {p: p.stat().st_mtime_ns for p in (folder / "out").rglob("predictions/*.csv")} == stamps, (
        "finished work is kept"
    )
    return folder / "out"


def test_every_figure_is_that_of_the_metrics(out: Path) -> None:
    found = {s["set"]: s for s in json.loads((out / "table.json").read_text())}
    assert set(found) == {"clips test split", "others"}
    for name, split in (("clips test split", "test"), ("others", "others-test")):
        runs = [p for p in out.glob(f"*/predictions/{split}.csv") if "mean+max" in p.parent.parent.name]
        assert len(runs) == 2
        for metric, m in found[name]["metrics"]["spectral, mean+max"].items():
            values = [float(METRICS[metric].value(read_predictions(p), None)) for p in runs]  # type: ignore[arg-type]
            assert m["mean"]["value"] == pytest.approx(np.mean(values), abs=1e-9)
    assert found["others"]["items"] == 35
    with (out / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {"spectral, lag 30 s", "spectral, mean+max", "majority", "tempogram"} == {
        r["system"] for r in rows
    }
    assert {"class=3", "class=11"} <= {r["part"] for r in rows}
    assert all(float(r["low"]) <= float(r["mean"]) <= float(r["high"]) for r in rows if r["mean"] != "nan")


def test_tables_and_figures_are_there(out: Path) -> None:
    text = (out / "table.txt").read_text()
    assert "clips test split" in text
    assert max(map(len, text.splitlines())) < 140
    assert (out / "table.md").read_text().count("| majority |") >= 2
    assert {p.name for p in out.glob("figure-*")} == {
        "figure-test.png",
        "figure-test.svg",
        "figure-others.png",
        "figure-others.svg",
    }


def test_baselines_learn_from_training_alone(clips: Path) -> None:
    tracks = open_dataset(clips, DataConfig(), CLASSES).tracks
    train = [t for t in tracks if t.split == "train"]
    majority = Majority(CLASSES)
    majority.fit(train)
    counts = np.bincount([CLASSES.index(str(t.primary)) for t in train], minlength=6)
    assert (majority.predictions(train, "train").scores.argmax(axis=1) == counts.argmax()).all()
    tempogram = Tempogram(CLASSES)
    tempogram.fit(train)
    p = tempogram.predictions(train, "train")
    assert np.allclose(p.scores.sum(axis=1), 1)
    assert float(METRICS["accuracy"].value(p, None)) > float(
        METRICS["accuracy"].value(majority.predictions(train, "train"), None)
    )  # type: ignore[arg-type]
    with pytest.raises(DataError, match="folds of groups"):
        Tempogram(CLASSES).fit([Track("a", train[0].path, {"3": 1.0}, group="one")])


def test_the_plan_names_what_it_says_and_takes_other_backbones() -> None:
    systems = load_plan("comparison").systems
    assert {"spectral, lag 30 s", "embedded, lag 30 s, LoRA", "embedded untrained, lag 30 s"} <= set(systems)
    for name, values in systems.items():
        assert ("LoRA" in name) == (values.get("adapter", {}).get("kind") == "lora")
        assert name.startswith("embedded") == values.get("features", {}).get(
            "backbone", "spectral"
        ).startswith("embedded")
        assert ("mean+max" in name) == ("stats" in values.get("head", {}).get("poolings", ["lag"]))
        window = {"5": 1, "10": 2, "30": 6}[name.split("lag ")[1].split()[0]] if "lag" in name else 6
        assert values.get("features", {}).get("window", 6) == window


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--only", "nothing"], "no system matches"),
        (["--set", "features.window=2"], "varies features.window"),
    ],
)
def test_wrong_orders_are_refused_in_words(more: list[str], says: str, clips: Path) -> None:
    error = CliRunner().invoke(cli, ["study", str(clips), *more]).exception
    assert isinstance(error, BeatmeterError)
    assert says in str(error)


def test_further_backbones_and_a_choice_keep_what_systems_start_from() -> None:
    plan = _chosen(
        load_plan("comparison"), ("hub/Big-95M",), ("Big-95M, lag 30 s, full", "spectral, lag 30 s")
    )
    assert set(plan.systems) == {"spectral, lag 30 s", "Big-95M, lag 30 s", "Big-95M, lag 30 s, full"}
    cells = plan.cells(plan.base, Path("data"), Path("cache"), Path("out"))
    (full,) = cells["Big-95M, lag 30 s, full"]
    assert full.config.features.backbone == "hub/Big-95M"
    assert full.config.training.start == f"out/{cells['Big-95M, lag 30 s'][0].name}"


def test_a_choice_without_the_baseline_is_tested_against_its_first_system() -> None:
    plan = _chosen(load_plan("comparison"), (), ("embedded, lag 30 s, LoRA",))
    assert plan.baseline == "embedded, lag 30 s"
    assert list(plan.cells(plan.base, Path("data"), Path("cache"), Path("out"))) == [
        "embedded, lag 30 s",
        "embedded, lag 30 s, LoRA",
    ]
