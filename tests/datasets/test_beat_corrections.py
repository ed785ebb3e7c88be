"""Corrected beats: what a reviewer may write, what comes of the count of the bar, and what is refused."""

from __future__ import annotations

import hashlib
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from meterfolders import encode, music

from beatmeter.cli.data import data
from beatmeter.datasets import Dataset, open_dataset
from beatmeter.datasets.annotations import Annotation, Grid, find_annotations, read_annotation
from beatmeter.datasets.annotations.edits import FLAG, Edit, correct
from beatmeter.datasets.corrections import LabelFile, corrected
from beatmeter.errors import DataError
from beatmeter.evaluation.corrections import Corrections
from beatmeter.settings import METERS, DataConfig

REVIEW = "id,kind,time,suggested,quality,new time,comment\n"
A = "audio/a.flac"
FOUR = [(0.5 + 0.5 * k, k % 4 + 1) for k in range(12)]  # 0.5 to 6.0 s, bars of four


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips with beats, one without; one has sections too."""
    path = tmp_path_factory.mktemp("m") / "MUSIC"
    for n, name in enumerate("abc"):
        audio = path / "audio" / f"{name}.flac"
        audio.parent.mkdir(parents=True, exist_ok=True)
        audio.write_bytes(encode(music(n, 7.0), ".flac"))
    for name in "ab":
        beats = path / "beats" / f"{name}.beats"
        beats.parent.mkdir(exist_ok=True)
        beats.write_text("".join(f"{t:.4f}\t{p}\n" for t, p in FOUR))
    (path / "lab").mkdir()
    (path / "lab" / "a.lab").write_text("0.5\t6.0\tverse\n")
    return path


def opened(folder: Path, tmp_path: Path, *texts: str) -> Dataset:
    paths = []
    for number, text in enumerate(texts):
        paths.append(tmp_path / f"review{number}.csv")
        paths[-1].write_text(text, encoding="utf-8")
    return open_dataset(folder, DataConfig(corrections=tuple(map(str, paths))), METERS, labelled=False)


def beats_of(dataset: Dataset, id: str = A) -> list[tuple[float, int]]:
    grid = find_annotations(dataset.tracks)[id].grid
    return list(zip(grid.times.round(4).tolist(), grid.places.tolist(), strict=True))


def test_a_review(folder: Path, tmp_path: Path) -> None:
    text = (
        f"{REVIEW}{A},shifted,1.500,1.560,0.01,suggested,\n{A},wrong,2.000,,0.01,drop,nothing there\n"
        f"{A},wrong,3.000,,0.02,keep,\n{A},missing,,4.2,0.02,keep,\n{A},missing,,1.2,0.02,,\n"
        f"audio/b.flac,wrong,0.500,,0.1,0.62,\naudio/b.flac,,,,,6.48,one more\nelsewhere,wrong,1,,0.1,drop,\n"
    )
    found = opened(folder, tmp_path, text)
    assert beats_of(found) == [
        (0.5, 1), (1.0, 2), (1.56, 3), (2.5, 1), *FOUR[5:]
    ]  # fmt: skip
    assert beats_of(found, "audio/b.flac") == [(0.62, 1), *FOUR[1:], (6.48, 1)]
    annotation = find_annotations(found.tracks)[A]
    assert annotation.grid.provenance.flags == (FLAG,)
    assert annotation.meta["corrections"] == "review0.csv: 1 moved, 1 removed"
    assert annotation.sections.labels == ("verse",)
    (done,) = found.corrections
    assert done["sha256"] == hashlib.sha256(text.encode()).hexdigest()
    assert [done[name] for name in ("moved", "removed", "added", "kept")] == [2, 1, 1, 1]
    assert done["not here"] == ["elsewhere"]
    assert done["beats"] == {A: [[1.5, 1.56], [2.0, None]], "audio/b.flac": [[0.5, 0.62], [None, 6.48]]}
    assert corrected(found.corrections) == "4 beats corrected"
    untouched = open_dataset(folder, DataConfig(), METERS, labelled=False)
    assert found.sha256 == untouched.sha256
    assert beats_of(untouched) == FOUR


def test_reviews_are_applied_in_order_and_with_those_of_labels(folder: Path, tmp_path: Path) -> None:
    first, second = f"{REVIEW}{A},wrong,2.0,,0.1,2.1,\n", f"{REVIEW}{A},wrong,2.1,,0.1,drop,\n"
    labels = "id,label,new label,comment\naudio/b.flac,,3,\n"
    found = opened(folder, tmp_path, first, labels, second)
    assert beats_of(found) == FOUR[:3] + FOUR[4:]
    assert {t.id: t.primary for t in found.tracks}["audio/b.flac"] == "3"
    assert corrected(found.corrections) == "1 label corrected, 2 beats corrected"
    meta = find_annotations(found.tracks)[A].meta
    assert meta["corrections"] == "review0.csv: 1 moved; review2.csv: 1 removed"
    with pytest.raises(
        DataError, match=r"review0\.csv:2: there is no beat at 2\.100 s.*Give the corrections that the review"
    ):
        opened(folder, tmp_path, second)
    with pytest.raises(DataError, match=r"review1\.csv:2: there is no beat at 2\.000 s"):
        opened(folder, tmp_path, first, first)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("wrong,2.0,,0.1,perhaps,", r":2: the new time 'perhaps' is no time in seconds.*keep, drop"),
        ("wrong,2.0,,0.1,nan,", ":2: the new time 'nan' is no time"),
        ("wrong,2.0,,0.1,-1,", ":2: a beat at -1 s lies before the audio"),
        ("wrong,2.0,,0.1,2,1,", r":2: this line has more cells.*decimal point: 12\.345"),
        ("wrong,two,,0.1,drop,", ":2: the time 'two' is no time in seconds"),
        ("wrong,2.0,,0.1,suggested,", ":2: no time is suggested"),
        ("missing,,2.2,0.1,drop,", r":2: this line has no beat to drop.*keep"),
        ("wrong,2.01,,0.1,drop,", r":2: there is no beat at 2\.010 s"),
        ("wrong,2.01,,0.1,keep,", r":2: there is no beat at 2\.010 s"),
        ("wrong,2.0,,0.1,2.47,", r":2: a beat at 2\.470 s would be 30 ms from the one at 2\.500"),
        ("wrong,2.0,,0.1,2.6,", r":2: the beat at 2\.000 s would pass its neighbour at 2\.600"),
        ("missing,,2.02,0.1,2.02,", r":2: a beat at 2\.020 s would be 20 ms from the one at 2\.000"),
        ("missing,,9,0.1,9,", r":2: 9\.000 s lies outside of what the annotation knows"),
        ("wrong,2.0,,0.1,drop,\nA,wrong,2.0,,0.1,2.1,", r":3: the beat at 2\.000 s .* again, after review0"),
        ("wrong,2.0,,0.1,keep,\nA,wrong,2.0,,0.1,drop,", ":3: .* is decided on again"),
        ("missing,,2.2,0.1,2.2,\nA,missing,,2.21,0.1,2.21,", r"a beat at 2\.210 s would be 10 ms"),
    ],
)
def test_what_is_refused(folder: Path, tmp_path: Path, text: str, message: str) -> None:
    rows = f"A,{text}".replace("A,", f"{A},")
    with pytest.raises(DataError, match=message if "review0" in message else rf"review0\.csv.*{message}"):
        opened(folder, tmp_path, f"{REVIEW}{rows}\n")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("audio/c.flac,wrong,2.0,,0.1,drop,", r"review0\.csv:2: no beats of 'audio/c.flac' are annotated"),
        ("audio/d.flac,wrong,2.0,,0.1,drop,", r"review0\.csv names no track of MUSIC\. Did you mean"),
        (",wrong,2.0,,0.1,drop,", r"review0\.csv:2: this line has an empty id"),
    ],
)
def test_tracks_that_are_not_there(folder: Path, tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        opened(folder, tmp_path, f"{REVIEW}{row}\n")


def test_reviews_are_told_apart_by_their_columns(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"review0\.csv has no column 'new time'"):
        opened(folder, tmp_path, f"id,kind,time,suggested,quality\n{A},wrong,2.0,,0.1\n")
    path = tmp_path / "beats.csv"
    path.write_text(f"{REVIEW}{A},wrong,2.0,,0.1,drop,\n")
    for reader in (LabelFile, Corrections):
        with pytest.raises(DataError, match=r"beats\.csv is a review of beats, and labels are"):
            reader.read(path)
    assert opened(folder, tmp_path, f"\ufeff{REVIEW}{A},wrong,2.0,,0.1,,\n").corrections[0]["beats"] == {}


def grid(places: list[int], **about: object) -> Grid:
    return Grid(1.0 + 0.5 * np.arange(len(places)), places, known=[[0.0, 60.0]], **about)


@pytest.mark.parametrize(
    ("lacking", "places"),
    [
        ([3], [1, 2, 3, 4, 1, 2, 3, 4, 1]),  # inside a bar
        ([4], [1, 2, 3, 4, 1, 2, 3, 4, 1]),  # a downbeat
        ([7], [1, 2, 3, 4, 1, 2, 3, 4, 1]),  # the last of a bar
        ([3, 4, 5], [1, 2, 3, 4, 1, 2, 3, 4, 1]),  # across the line of a bar
        ([5, 7], [1, 2, 3, 4, 1, 2, 3, 4, 1]),
        ([0], [1, 2, 3, 1, 2, 3, 1]),  # before all others
        ([6], [1, 2, 3, 1, 2, 3, 1, 2, 3, 1][:7]),  # after them
        ([2], [0, 0, 0, 0, 0]),  # nobody counts
    ],
)
def test_beats_that_are_added_get_their_places_back(lacking: list[int], places: list[int]) -> None:
    whole = grid(places)
    kept = np.setdiff1d(np.arange(len(places)), lacking)
    holey = Grid(whole.times[kept], whole.places[kept], known=whole.known)
    found = correct(holey, [Edit(None, float(whole.times[i])) for i in lacking])
    assert found.places.tolist() == places
    assert found.provenance.flags == (FLAG,)


def test_one_of_two_that_are_missing_is_counted_by_its_distance() -> None:
    holey = Grid([1.0, 2.5, 3.0, 5.0], [1, 4, 1, 1], known=[[0, 9]])
    assert correct(holey, [Edit(None, 2.0)]).places.tolist() == [1, 3, 4, 1, 1]
    assert correct(holey, [Edit(None, 1.5)]).places.tolist() == [1, 2, 4, 1, 1]


def test_a_beat_without_room_in_the_count_is_unknown_and_flagged() -> None:
    found = correct(grid([1, 2, 3, 4, 1]), [Edit(None, 1.75)])
    assert found.places.tolist() == [1, 2, 0, 3, 4, 1]
    assert found.provenance.flags == (FLAG, "a corrected beat has no place in the bar")


def test_a_removed_beat_leaves_the_count_and_a_new_jump_is_flagged() -> None:
    found = correct(grid([1, 2, 3, 4, 1]), [Edit(2.0, None)])
    assert found.places.tolist() == [1, 2, 4, 1]
    assert found.provenance.flags == (FLAG, "the count of the bar jumps at a corrected beat")
    extra = Grid([1.0, 1.5, 1.7, 2.0, 2.5], [1, 2, 2, 3, 4], known=[[0, 9]])
    assert correct(extra, [Edit(1.7, None)]).provenance.flags == (FLAG,)


def test_known_stretches_grow_to_a_beat_just_outside() -> None:
    known = Grid([1.0, 1.5], [1, 2], known=[[1.0, 2.0]])
    assert correct(known, [Edit(1.0, 0.9)]).known.tolist() == [[0.9, 2.0]]
    with pytest.raises(DataError, match="outside of what the annotation knows"):
        correct(known, [Edit(None, 3.0)])


@given(
    st.lists(st.integers(47, 53), min_size=4, max_size=30),
    st.integers(2, 7),
    st.data(),
)
def test_planted_errors_are_undone(gaps: list[int], bar: int, data: st.DataObject) -> None:
    """Beats that were moved and dropped in whole bars come back with their places."""
    times = 1 + np.cumsum(gaps) / 100
    whole = Grid(times, np.arange(len(times)) % bar + 1, known=[[0, 60]])
    inner = list(range(1, len(times) - 1))
    dropped = data.draw(st.lists(st.sampled_from(inner), unique=True, max_size=len(inner) // 2))
    kept = [i for i in range(len(times)) if i not in dropped]
    moved = {i: float(times[i]) + 0.005 * data.draw(st.integers(1, 6)) for i in kept[::2]}
    wrong = Grid([moved.get(i, float(times[i])) for i in kept], whole.places[kept], known=whole.known)
    edits = [Edit(None, float(times[i])) for i in dropped] + [
        Edit(t, float(times[i])) for i, t in moved.items()
    ]
    found = correct(wrong, edits)
    assert np.allclose(found.times, times)
    if bar in whole.places[kept] and all(b - a <= bar for a, b in pairwise(kept)):
        assert found.places.tolist() == whole.places.tolist()


def invoke(*words: object) -> Result:
    result = CliRunner().invoke(data, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_data_check_says_what_was_corrected(folder: Path, tmp_path: Path) -> None:
    review = tmp_path / "review.csv"
    review.write_text(f"{REVIEW}{A},wrong,2.0,,0.1,drop,\n{A},missing,,4.25,0.1,4.25,\n")
    told = invoke("check", folder, "--no-decode", "--corrections", review).stdout
    assert f"corrected by {review}: 0 moved, 1 removed, 1 added, 0 kept" in told
    assert f"doubtful: {A}: a corrected beat has no place in the bar" in told
    value = json.loads(invoke("check", folder, "--no-decode", "--json", "--corrections", review).stdout)
    assert value["corrections"][0]["beats"] == {A: [[2.0, None], [None, 4.25]]}


def test_corrected_annotations_are_files_of_their_own(folder: Path, tmp_path: Path) -> None:
    review, out = tmp_path / "review.csv", tmp_path / "out"
    review.write_text(f"{REVIEW}{A},shifted,2.0,2.06,0.1,suggested,\n")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    done = invoke("annotations", "correct", folder, "--corrections", review, "--out", out)
    assert done.exit_code == 0
    assert f"{out}: 2 annotations, of which 1 corrected" in done.stdout
    assert sorted(p.name for p in out.iterdir()) == ["a.json", "b.json"]
    found: Annotation = read_annotation(out / "a.json")
    assert (found.id, found.grid.provenance.flags) == (A, (FLAG,))
    assert found.grid.times.tolist() == [*(t for t, _ in FOUR[:3]), 2.06, *(t for t, _ in FOUR[4:])]
    assert found.sections.labels == ("verse",)
    assert read_annotation(out / "b.json").grid.provenance.flags == ()
    assert invoke("annotations", "correct", folder, "--corrections", review, "--out", out).exit_code == 0
    (out / "b.json").write_text("mine")
    with pytest.raises(DataError, match=r"b\.json is there already"):
        invoke("annotations", "correct", folder, "--corrections", review, "--out", out)
    assert (out / "b.json").read_text() == "mine"
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    with pytest.raises(DataError, match="no beat is corrected"):
        invoke("annotations", "correct", folder, "--out", tmp_path / "none")


def test_corrected_files_are_found_beside_the_audio(folder: Path, tmp_path: Path) -> None:
    review, copy = tmp_path / "review.csv", tmp_path / "MUSIC"
    for path in (folder / "audio").iterdir():
        (copy / "audio").mkdir(parents=True, exist_ok=True)
        (copy / "audio" / path.name).write_bytes(path.read_bytes())
    review.write_text(f"{REVIEW}{A},shifted,2.0,2.06,0.1,suggested,\n")
    invoke("annotations", "correct", folder, "--corrections", review, "--out", copy / "annotations")
    again = opened(copy, tmp_path)
    assert beats_of(again)[3] == (2.06, 4)
