"""Tasks over columns by the command line: train, report, predict, evaluate elsewhere, and clear refusals."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from beatmeter.datasets.synthetic import SynthPlan, synthesise
from beatmeter.evaluation.records import read_records
from beatmeter.schema import ClassPredictions, ValuePredictions


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips, and a table of targets: fast or slow, tags, and a number of which a third is not known."""
    folder = tmp_path_factory.mktemp("columns")
    synthesise(folder / "clips", 24, SynthPlan(seconds=3.0, val=0.2, test=0.2))
    rows = ["id,pulse,tags,size"]
    for i, row in enumerate(csv.DictReader((folder / "clips" / "manifest.csv").read_text().splitlines())):
        fast = float(row["tempo"]) > 140
        tags = ";".join(["fast"] * fast + ["odd"] * (row["class"] in ("5", "7", "9", "11")) + ["music"])
        rows.append(
            f"{row['id']},{'fast' if fast else 'slow'},{tags},{'' if i % 3 == 0 else len(row['grouping'])}"
        )
    (folder / "targets.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def beatmeter(typed: Callable[..., tuple[int, str, str]]) -> Callable[..., str]:
    """A command as it is typed, which must end with `status`: what it printed; with `all`, and on a refusal,
    what it said too."""

    def command(*words: object, status: int = 0, all: bool = False) -> str:
        code, out, err = typed(*words)
        assert code == status, out + err
        return out + err if all else err if status else out

    return command


def train(music: Path, name: str, column: str, *more: str) -> list[str]:
    settings = {
        "features.backbone": "spectral",
        "features.cache": music / "cache",
        "task.name": name,
        "task.column": column,
        "task.targets": music / "targets.csv",
        "training.epochs": 2,
        "head.hidden": 8,
    }
    chosen = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    return ["train", "--frozen", str(music / "clips"), *chosen, *more]


@pytest.mark.parametrize(
    ("name", "column"), [("multiclass", "pulse"), ("multilabel", "tags"), ("regression", "size,tempo")]
)
def test_from_training_to_answers(
    beatmeter: Callable[..., str], music: Path, tmp_path: Path, name: str, column: str
) -> None:
    run, song = tmp_path / "run", music / "clips" / "audio" / "000001.flac"
    ended = beatmeter(*train(music, name, column, "--out", str(run)), all=True)
    assert "1/2" in ended
    assert "verdict" in ended
    assert "constant" in ended, "the null systems stand beside the answer"
    record = read_records(run / "predictions" / "test.csv")
    assert isinstance(record, ValuePredictions if name == "regression" else ClassPredictions)
    text = beatmeter("report", run, "--text")
    assert text == (run / "evaluation" / "test.txt").read_text()
    assert (
        json.loads(beatmeter("report", run, "--json"))["verdict"]
        == json.loads((run / "evaluation" / "test.json").read_text())["verdict"]
    )
    page = Path(beatmeter("report", run, "--figures", tmp_path / "figures").splitlines()[-1]).read_text()
    assert "Metrics beside systems that heard nothing" in page
    assert list((tmp_path / "figures").glob("*.svg"))
    answer = json.loads(beatmeter("predict", run, song, "--json"))
    key = {"multiclass": "answer", "multilabel": "labels", "regression": "values"}[name]
    assert answer[key] or name == "multilabel"
    header, line = csv.reader(beatmeter("predict", run, song, "--csv").splitlines())
    assert header[:3] == ["file", "answer", "seconds"]
    assert len(line) == len(header)
    elsewhere = beatmeter("evaluate", run, "--data", music / "clips" / "manifest.csv", "--json")
    assert json.loads(elsewhere[elsewhere.index("{") :])["test"]["items"] == len(record)
    joined = ["ensemble", f"a={run}", f"b={run}", "--out", tmp_path / "joined"]
    for refused in (
        ["timeline", run, song],
        ["calibrate", run],
        joined,
        ["predict", run, song, "--abstain", "0.2"],
    ):
        said = beatmeter(*refused, status=2)
        assert "Traceback" not in said
        assert said.startswith("error: "), said


def test_an_answer_of_predict_is_that_of_the_evaluation(
    beatmeter: Callable[..., str], music: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    beatmeter(*train(music, "regression", "tempo", "--out", str(run)))
    record = read_records(run / "predictions" / "val.csv")
    assert isinstance(record, ValuePredictions)
    rows = csv.DictReader((music / "clips" / "manifest.csv").read_text().splitlines())
    files = {row["id"]: music / "clips" / row["file"] for row in rows}
    said = json.loads(beatmeter("predict", run, files[record.ids[0]], "--json"))["values"]["tempo"]
    assert said == pytest.approx(float(record.values[0, 0]), rel=1e-3)  # the store keeps half precision


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        (("task.column=puls",), "Did you mean 'pulse'"),
        (("task.column=kind", "task.classes=single"), "there is nothing to tell apart"),
        (("task.name=regression", "task.column=seconds"), "seconds is 3 for all tracks"),
        (("task.name=regression", "task.column=style"), "is not a number"),
        (("task.name=multiclas",), "Did you mean 'multiclass'"),
        (("split.groups=composer",), "split.groups = 'composer' is no column"),
        (("task.targets=none.csv",), "there is no file"),
    ],
)
def test_what_cannot_be_learned_is_one_line(
    beatmeter: Callable[..., str], music: Path, tmp_path: Path, settings: tuple[str, ...], what: str
) -> None:
    changes = [part for setting in settings for part in ("--set", setting)]
    said = beatmeter(*train(music, "multiclass", "pulse", *changes, "--out", str(tmp_path / "run")), status=2)
    assert what in " ".join(said.split())
    assert not (tmp_path / "run").exists()
