"""Predictions to CSV and back: exact for what beatmeter wrote, clear about what is wrong with what others
wrote."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beatmeter.errors import DataError, SchemaError
from beatmeter.evaluation.predictions import open_predictions, read_predictions, sidecar, write_predictions
from beatmeter.schema import ClassPredictions

unit = st.floats(0, 1, allow_nan=False, width=64)
name = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)


@st.composite
def predictions(draw: st.DrawFn) -> ClassPredictions:
    classes = draw(
        st.lists(
            st.sampled_from(["3", "4", "5", "7", "9", "11", "5/8", "free, slow"]),
            min_size=1,
            max_size=5,
            unique=True,
        )
    )
    ids = draw(st.lists(name, max_size=6, unique=True))
    n, c = len(ids), len(classes)
    rows = st.lists(st.lists(unit, min_size=c, max_size=c), min_size=n, max_size=n)
    targets = np.array(draw(rows), dtype=float).reshape(n, c)
    scores = np.array(draw(rows), dtype=float).reshape(n, c)
    primary = np.array([int(row.argmax()) if row.any() else -1 for row in targets], dtype=int)
    starts = draw(st.lists(st.one_of(st.none(), st.floats(0, 1e6)), min_size=n, max_size=n))
    times = np.array(
        [(math.nan, math.nan) if s is None else (s, s + 5) for s in starts], dtype=float
    ).reshape(n, 2)
    return ClassPredictions(
        classes=tuple(classes),
        ids=tuple(ids),
        groups=tuple(draw(st.lists(name, min_size=n, max_size=n))),
        sources=tuple(draw(st.lists(st.one_of(st.just(""), name), min_size=n, max_size=n))),
        split=draw(st.sampled_from(["train", "val", "test"])),
        targets=targets,
        scores=scores,
        primary=primary,
        times=times,
        meta=draw(st.dictionaries(name, st.one_of(st.integers(), name), max_size=2)),
    )


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(p=predictions())
def test_what_is_written_is_read_back_bit_for_bit(tmp_path: Path, p: ClassPredictions) -> None:
    path = tmp_path / "test.csv"
    digest = write_predictions(path, p)
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    back = read_predictions(path)
    for field in ("ids", "groups", "sources", "split", "meta"):
        assert getattr(back, field) == getattr(p, field)
    assert back.classes == p.classes
    for field in ("targets", "scores", "primary", "times"):
        assert getattr(back, field).tobytes() == getattr(p, field).tobytes(), field


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "foreign.csv"
    path.write_bytes(text.encode())
    return path


def test_a_small_foreign_file_is_enough(tmp_path: Path) -> None:
    p = read_predictions(
        write(tmp_path, "\ufeffid,artist,primary,score_3,score_4\r\na,X,3,0.9,.1\r\nb,Y,,0.5,5e-1\r\n\r\n")
    )
    assert (p.classes, p.ids, p.groups, p.sources, p.split) == (
        ("3", "4"),
        ("a", "b"),
        ("a", "b"),
        ("", ""),
        "",
    )
    assert p.primary.tolist() == [0, -1]
    assert p.targets.tolist() == [[1.0, 0.0], [0.0, 0.0]]
    assert np.isnan(p.times).all()


def test_primary_follows_from_targets(tmp_path: Path) -> None:
    p = read_predictions(
        write(tmp_path, "id,target_3,target_4,score_3,score_4\na,0.5,1,0.2,0.3\nb,,0.2,0,1\n")
    )
    assert p.primary.tolist() == [1, 1]
    assert p.targets.tolist() == [[0.5, 1.0], [0.0, 0.2]]


HEAD = "id,primary,score_3,score_4\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no header"),
        ("id;primary;score_3\na;3;0.5\n", "semicolons"),
        ("name,primary,score_3\na,3,0.5\n", "no column 'id'"),
        ("id,primary,p3\na,3,0.5\n", "no score columns"),
        ("id,score_3,score_4\na,0.5,0.5\n", "no labels"),
        ("id,primary,score_3,scores_4\na,3,0.5,0.5\n", "Did you mean 'score_4'|scores_4"),
        ("id,primary,target_5,score_3\na,3,0,0.5\n", "target_5.*score_5"),
        ("id,id,primary,score_3\na,b,3,0.5\n", "'id' is there twice"),
        (HEAD + "a,3,0.5\n", "foreign.csv:2: 3 cells, the header has 4"),
        (HEAD + "a,3,0.5,2.5\n", "foreign.csv:2: score_4 = '2.5'.*sigmoid"),
        (HEAD + "a,3,0.5,\n", "foreign.csv:2: score_4 = ''"),
        (HEAD + "a,3,0.5,nan\n", "foreign.csv:2: score_4 = 'nan'"),
        (HEAD + "a,3,0.5,0,5\n", "foreign.csv:2: 5 cells"),
        (HEAD + "a,5,0.5,0.5\n", "foreign.csv:2: the label '5' has no score column.*score_5"),
        (HEAD + "a,3,0.5,0.5\na,4,0.5,0.5\n", "foreign.csv:3: 'a' stands on line 2 already"),
        (HEAD + ",3,0.5,0.5\n", "foreign.csv:2: the id is empty"),
        (HEAD + 'a,"3,0.5,0.5\n', "not valid CSV"),
        ("id,target_3,target_4,score_3,score_4\na,1,1,0.5,0.5\n", "classes 3, 4 have equal weight.*primary"),
        (
            "id,primary,target_3,target_4,score_3,score_4\na,3,0,1,0.5,0.5\n",
            "primary class '3' has no weight",
        ),
        ("id,primary,start,end,score_3\na,3,5,,0.5\n", "start and end of 'a'"),
        ("id,primary,start,end,score_3\na,3,5,4,0.5\n", "end must follow start"),
        ("id,primary,split,score_3\na,3,val,0.5\nb,3,test,0.5\n", "several splits: 'test', 'val'"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_predictions(write(tmp_path, text))


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no file or folder"):
        read_predictions(tmp_path / "none.csv")
    path = tmp_path / "latin.csv"
    path.write_bytes(HEAD.encode() + "caf\xe9,3,0.5,0.5\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"latin\.csv:2: not valid UTF-8"):
        read_predictions(path)


def test_a_split_is_picked(tmp_path: Path) -> None:
    path = write(tmp_path, "id,primary,split,score_3\na,3,val,0.5\nb,3,test,0.5\nc,3,,0.5\n")
    assert read_predictions(path, "val").ids == ("a", "c")
    with pytest.raises(DataError, match=r"no items of the split 'train'.*'test', 'val'"):
        read_predictions(write(tmp_path, "id,primary,split,score_3\na,3,val,0.5\nb,3,test,0.5\n"), "train")


def one(**changes: object) -> ClassPredictions:
    values = {
        "classes": ("3",),
        "ids": ("a",),
        "groups": ("a",),
        "sources": ("",),
        "split": "test",
        "meta": {},
    } | changes
    return ClassPredictions(
        targets=np.ones((1, 1)),
        scores=np.ones((1, 1)),
        primary=np.zeros(1, int),
        times=np.full((1, 2), np.nan),
        **values,
    )  # type: ignore[arg-type]


def test_a_csv_changed_alone_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "test.csv"
    write_predictions(path, one())
    path.write_text(path.read_text().replace("1.0\n", "0.5\n"))
    with pytest.raises(DataError, match=r"changed after test\.meta\.json"):
        read_predictions(path)
    sidecar(path).unlink()
    assert read_predictions(path).scores[0, 0] == 0.5


def test_a_foreign_json_beside_is_left_alone(tmp_path: Path) -> None:
    path = write(tmp_path, HEAD + "a,3,0.5,0.5\n")
    sidecar(path).write_text(json.dumps({"something": "else"}))
    assert read_predictions(path).meta == {}
    sidecar(path).write_text("{")
    with pytest.raises(DataError, match=r"foreign\.meta\.json"):
        read_predictions(path)


def test_run_folders_and_files_open_alike(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no predictions for the split 'test'.*predictions/<split>.csv"):
        open_predictions(tmp_path)
    write_predictions(tmp_path / "predictions" / "test.csv", one())
    assert (
        open_predictions(tmp_path).ids
        == open_predictions(tmp_path / "predictions" / "test.csv").ids
        == ("a",)
    )
    with pytest.raises(DataError, match=r"no predictions for the split 'val'.*It has predictions for: test"):
        open_predictions(tmp_path, "val")
    with pytest.raises(DataError, match="no items of the split 'val'"):
        open_predictions(tmp_path / "predictions" / "test.csv", "val")


def test_what_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "test.csv"
    write_predictions(path, one())
    before = path.read_bytes(), sidecar(path).read_bytes()
    with pytest.raises(DataError, match="not valid UTF-8"):
        write_predictions(path, one(ids=("a\udcff",)))
    with pytest.raises(SchemaError, match="cannot be written as JSON"):
        write_predictions(path, one(meta={"x": {1, 2}}))
    assert (path.read_bytes(), sidecar(path).read_bytes()) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["test.csv", "test.meta.json"]
    with pytest.raises(DataError, match="cannot write"):
        write_predictions(path / "below.csv", one())
