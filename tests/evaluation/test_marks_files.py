"""Marks and curves: checked when built, exact in their files, taken and aligned like every record, refused by
name when damaged."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from beatmeter.errors import DataError, SchemaError
from beatmeter.evaluation.predictions import read_predictions, sidecar
from beatmeter.evaluation.records import read_records, write_records
from beatmeter.schema import Curves, MarkList, Marks, as_curves, as_marks


def song(shift: float = 0.0) -> MarkList:
    beats = MarkList.moments("beat", shift + np.arange(8) / 3, ["1", "2", "3", "4"] * 2, np.linspace(0, 1, 8))
    return beats + MarkList.spans(
        "section", [shift, shift + 1.5], [shift + 1.5, shift + 8 / 3], ["A", "B, quiet"]
    )


def marks() -> Marks:
    known = MarkList.spans("known", [0.0], [2.5], ["beat"])
    return Marks(
        ids=("a", "b", "c"),
        groups=("g", "g", "h"),
        sources=("", "x", ""),
        split="val",
        times=np.array([[np.nan, np.nan], [1.0, 4.0], [np.nan, np.nan]]),
        meta={"run": "r"},
        marks=(song(), song(0.1), MarkList()),
        truth=(song(0.01) + known, MarkList(), MarkList()),
    )


def curves() -> Curves:
    rng = np.random.default_rng(0)
    return Curves(
        ids=("a", "b", "c"),
        groups=("g", "g", "h"),
        sources=("", "x", ""),
        split="test",
        times=np.full((3, 2), np.nan),
        names=("beat", "downbeat"),
        rate=25.0,
        starts=np.array([0.02, 0.02, 0.0]),
        values=tuple(rng.random((n, 2)).astype(np.float32) for n in (7, 0, 30)),
        truth=(song(), MarkList(), song(0.2)),
    )


def same(a: MarkList, b: MarkList) -> bool:
    numbers = all(
        np.array_equal(getattr(a, name), getattr(b, name), equal_nan=True)
        for name in ("starts", "ends", "scores")
    )
    return a.kinds == b.kinds and a.names == b.names and numbers


def test_marks_come_back_bit_for_bit(tmp_path: Path) -> None:
    there, back = marks(), read_records(_written(tmp_path, marks()))
    assert isinstance(back, Marks)
    assert (back.ids, back.groups, back.sources, back.split, back.meta) == (
        there.ids,
        there.groups,
        there.sources,
        there.split,
        there.meta,
    )
    assert np.array_equal(back.times, there.times, equal_nan=True)
    assert all(
        same(a, b)
        for name in ("marks", "truth")
        for a, b in zip(getattr(back, name), getattr(there, name), strict=True)
    )


def _written(folder: Path, record: Marks | Curves) -> Path:
    write_records(folder / "test.csv", record)
    return folder / ("test.csv" if isinstance(record, Marks) else "test.npz")


def test_curves_come_back_bit_for_bit(tmp_path: Path) -> None:
    there, back = curves(), read_records(_written(tmp_path, curves()))
    assert isinstance(back, Curves)
    assert (back.ids, back.names, back.rate, back.split) == (there.ids, there.names, there.rate, there.split)
    assert all(np.array_equal(a, b) for a, b in zip(back.values, there.values, strict=True))
    assert np.array_equal(back.starts, there.starts)
    assert [len(t) for t in back.truth] == [10, 0, 10]
    assert same(back.decoded(back.truth).truth[0], back.truth[0])
    assert back.seconds(2)[:2] == pytest.approx([0.0, 0.04])


def test_items_are_taken_and_aligned_with_their_marks_and_curves() -> None:
    for record in (marks(), curves()):
        taken = record.align([record.keys[2], record.keys[0]])
        assert taken.ids == ("c", "a")
        assert same(taken.truth[1], record.truth[0])
    assert len(as_curves(curves().take([2])).values[0]) == 30


def test_marks_are_in_order_whatever_the_order_they_come_in() -> None:
    mixed = MarkList.moments("beat", [3.0, 1.0, 2.0], ["3", "1", "2"]) + MarkList.moments("drop", [1.5])
    assert mixed.names == ("1", "", "2", "3")
    assert mixed.downbeats.tolist() == [1.0]
    assert mixed.beats.tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: MarkList.moments("beat", [math.nan]), "no finite time"),
        (lambda: MarkList.spans("section", [1.0], [0.5]), "ends before it begins"),
        (lambda: MarkList.moments("", [1.0]), "no kind"),
        (lambda: MarkList.moments("beat", [1.0], scores=np.array([1.5])), "outside"),
        (lambda: MarkList.moments("beat", [1.0], ["1", "2"]), "2 names"),
        (
            lambda: Curves(**{**curves().__dict__, "values": (np.full((3, 2), 1.5), *curves().values[1:])}),
            "leave",
        ),
        (
            lambda: Curves(**{**curves().__dict__, "values": (np.full((3, 1), 0.5), *curves().values[1:])}),
            "not \\(time, 2\\)",
        ),
        (lambda: Curves(**{**curves().__dict__, "rate": 0.0}), "rate"),
        (lambda: as_marks(curves()), "hold no marks"),
        (lambda: as_curves(marks()), "hold no curves"),
    ],
)
def test_what_cannot_be_is_refused(make: object, what: str) -> None:
    with pytest.raises(SchemaError, match=what):
        make()  # type: ignore[operator]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("a,,,,,,said,beat,1,1.0,1.0,", "role = 'said'"),
        ("z,,,,,,marks,beat,1,1.0,1.0,", "no line of its own"),
        ("a,,,,,,marks,beat,1,soon,1.0,", "from = 'soon'"),
        ("a,,,,,,marks,beat,1,1.0,1.0,7", "score = '7'"),
        ("a,,,,,,marks,section,A,2.0,1.0,", "ends before"),
    ],
)
def test_a_line_that_makes_no_sense_is_named(line: str, what: str, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text(
        "id,group,source,split,start,end,role,kind,name,from,to,score\na,,,,,,,,,,,\n" + line + "\n"
    )
    with pytest.raises(DataError, match=what):
        read_records(path)


def test_damaged_curves_are_refused(tmp_path: Path) -> None:
    path = _written(tmp_path, curves())
    whole, about = path.read_bytes(), json.loads(sidecar(path).read_text())
    path.write_bytes(whole[:-20])
    with pytest.raises(DataError, match="was changed after"):
        read_records(path)
    path.write_bytes(whole)
    sidecar(path).write_text(json.dumps({**about, "ids": ["a"]}))
    with pytest.raises(DataError, match="1 ids"):
        read_records(path)
    sidecar(path).unlink()
    with pytest.raises(DataError, match="no file"):
        read_records(path)


def test_what_needs_scores_of_classes_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds curves over time"):
        read_predictions(_written(tmp_path, curves()))
    with pytest.raises(DataError, match="holds marks, and scores of classes"):
        read_predictions(_written(tmp_path, marks()))
