"""Corrected labels: what a reviewer may write, what comes of a dataset, and what is refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from meterfolders import MeterFolder, encode, music

from beatmeter.cli.data import data
from beatmeter.datasets import Dataset, open_dataset
from beatmeter.datasets.corrections import ORIGINAL, LabelFile
from beatmeter.datasets.labels import format_labels, parse_labels
from beatmeter.errors import DataError
from beatmeter.runtime.config import parse_assignment
from beatmeter.settings import DataConfig, RunConfig

CLASSES = ("3", "4", "5", "7", "9", "11")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six clips with labels, one with a label that is no class."""
    f = MeterFolder(tmp_path_factory.mktemp("m") / "METER2800")
    for seed, (split, clip, meter) in enumerate(
        [
            ("train", "FMA/1", "3"),
            ("train", "FMA/2", "4"),
            ("train", "FMA/3", "5"),
            ("val", "FMA/4", "7"),
            ("test", "FMA/5", "3"),
            ("test", "FMA/6", "4"),
        ]
    ):
        f.good(split, clip, meter, seed)
    f.row("train", "FMA/odd", "13")
    f.file("FMA/odd.mp3", encode(music(99), ".mp3"))
    f.write_tables()
    return f.path


def corrected(folder: Path, tmp_path: Path, *texts: str) -> Dataset:
    paths = []
    for number, text in enumerate(texts):
        paths.append(tmp_path / f"review{number}.csv")
        paths[-1].write_text(text, encoding="utf-8")
    return open_dataset(folder, DataConfig(corrections=tuple(map(str, paths))), CLASSES)


REVIEW = "id,label,new label,comment\n"


def test_a_review(folder: Path, tmp_path: Path) -> None:
    text = f"{REVIEW}FMA/1,3,,\nFMA/2,4,keep,sure\nFMA/3,5,drop,speech\n"
    text += 'FMA/4,7,"3:0.5,4",\nFMA/5,3,6/8,\nFMA/odd,,11,\n'
    found = corrected(folder, tmp_path, text)
    tracks = {t.id: t for t in found.tracks}
    assert {name: dict(t.labels) for name, t in tracks.items()} == {
        "FMA/1": {"3": 1.0},
        "FMA/2": {"4": 1.0},
        "FMA/4": {"3": 0.5, "4": 1.0},
        "FMA/5": {"3": 1.0},
        "FMA/6": {"4": 1.0},
        "FMA/odd": {"11": 1.0},
    }
    assert tracks["FMA/4"].primary == "4"
    assert {name: t.extra[ORIGINAL] for name, t in tracks.items() if ORIGINAL in t.extra} == {
        "FMA/4": "7",
        "FMA/odd": "",
    }
    assert [(e.id, e.kind, e.reason, e.split) for e in found.excluded] == [
        ("FMA/3", "correction", "left out by review0.csv:4: speech", "train")
    ]
    (done,) = found.corrections
    assert done["sha256"] == hashlib.sha256(text.encode()).hexdigest()
    assert (done["relabelled"], done["left out"], done["kept"], done["not here"]) == (2, 1, 1, [])
    assert done["labels"] == {"FMA/4": ["7", "4,3:0.5"], "FMA/odd": ["", "11"]}
    assert found.sha256 == open_dataset(folder, DataConfig(), CLASSES).sha256


def test_plain_corrections(folder: Path, tmp_path: Path) -> None:
    found = corrected(folder, tmp_path, 'id,label,reason\nFMA/1,"3,4",\nFMA/2,,noise\nelsewhere,3,\n')
    assert {t.id: dict(t.labels) for t in found.tracks}["FMA/1"] == {"3": 1.0, "4": 1.0}
    assert ("FMA/2", "correction", "left out by review0.csv:3: noise") in {
        (e.id, e.kind, e.reason) for e in found.excluded
    }
    assert found.corrections[0]["not here"] == ["elsewhere"]


def test_corrections_of_corrections(folder: Path, tmp_path: Path) -> None:
    first, second = f"{REVIEW}FMA/1,3,9,\n", f"{REVIEW}FMA/1,9,11,\n"
    track = {t.id: t for t in corrected(folder, tmp_path, first, second).tracks}["FMA/1"]
    assert (track.primary, track.extra[ORIGINAL]) == ("11", "3")
    with pytest.raises(
        DataError,
        match=r"review0\.csv:2: 'FMA/1' was labelled 9 at the review, it is 3 now\. Give the corrections",
    ):
        corrected(folder, tmp_path, second)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            f"{REVIEW}FMA/1,3,13,\n",
            r"review0\.csv:2: the label of 'FMA/1': meter '13' is not one of the classes",
        ),
        (
            f"{REVIEW}FMA/1,3,perhaps,\n",
            r"review0\.csv:2: .*'perhaps' is not one of the classes .*keep or drop",
        ),
        (f"{REVIEW}FMA/1,4,keep,\n", "was labelled 4 at the review, it is 3 now"),
        (f"{REVIEW}FMA/1,3,4,\nFMA/1,3,5,\n", r"review0\.csv:3: this line names 'FMA/1' again"),
        (f"{REVIEW},3,4,\n", r"review0\.csv:2: this line has an empty id"),
        (f"{REVIEW}FMA/1,3,3,4,\n", r"more cells than the header\. Labels that hold commas must be quoted"),
        (f"{REVIEW}FMA/11,3,4,\n", r"review0\.csv names no track of METER2800\. Did you mean 'FMA/1'\?"),
        ("name,label\n", "has no column 'id'"),
    ],
)
def test_what_is_refused(folder: Path, tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        corrected(folder, tmp_path, text)


def test_no_file_and_nothing_decided(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no file"):
        open_dataset(folder, DataConfig(corrections=(str(tmp_path / "none.csv"),)), CLASSES)
    found = corrected(folder, tmp_path, f"{REVIEW}FMA/1,3,,\n")
    assert found.tracks == open_dataset(folder, DataConfig(), CLASSES).tracks
    (tmp_path / "b.csv").write_bytes(b"id,label\n\xff,3\n")
    with pytest.raises(DataError, match="cannot read"):
        LabelFile.read(tmp_path / "b.csv")


def test_a_spreadsheets_byte_order_mark_does_no_harm(folder: Path, tmp_path: Path) -> None:
    assert len(corrected(folder, tmp_path, f"\ufeff{REVIEW}FMA/1,3,drop,\n").tracks) == 5


@given(st.dictionaries(st.sampled_from(CLASSES), st.floats(0.001, 1.0), min_size=1))
def test_labels_survive_writing(weights: dict[str, float]) -> None:
    primary = max(weights, key=lambda name: weights[name])
    found = parse_labels(format_labels(weights, primary), CLASSES)
    assert found.primary == primary
    assert found.weights == pytest.approx(weights, rel=1e-11)


def test_corrections_are_a_setting() -> None:
    assert parse_assignment("data.corrections=a.csv,b.csv", RunConfig()) == {
        "data": {"corrections": ["a.csv", "b.csv"]}
    }


def test_data_check_and_split_apply_them(folder: Path, tmp_path: Path) -> None:
    review = tmp_path / "review.csv"
    review.write_text(f"{REVIEW}FMA/3,5,drop,\nFMA/2,4,3,\nFMA/1,3,keep,\nother,3,4,\n")
    result = CliRunner().invoke(data, ["check", str(folder), "--corrections", str(review)])
    assert (
        f"corrected by {review}: 1 relabelled, 1 left out, 1 kept, 1 not of this dataset (other)"
        in result.stdout
    )
    assert (
        "left out: FMA/3 (data_train_4_classes.tab:4): correction: left out by review.csv:2" in result.stdout
    )
    value = json.loads(
        CliRunner().invoke(data, ["check", str(folder), "--corrections", str(review), "--json"]).stdout
    )
    assert value["corrections"][0]["labels"] == {"FMA/2": ["4", "3"]}
    out = tmp_path / "split.csv"
    CliRunner().invoke(
        data,
        ["split", str(folder), "--corrections", str(review), "--out", str(out), "--cache", str(tmp_path)],
    )
    assert "FMA/3" not in out.read_text()
