"""Annotations: what may be built, where something is known, and how they are found beside audio."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from beatmeter.datasets import open_dataset
from beatmeter.datasets.annotations import (
    Annotation,
    Events,
    Folders,
    Grid,
    Provenance,
    Spans,
    find_annotations,
    joined,
    within,
    write_annotation,
)
from beatmeter.errors import DataError, SchemaError
from beatmeter.schema import Track
from beatmeter.settings import DataConfig

CLASSES = ("3", "4", "5", "7", "9", "11")


def test_what_contradicts_itself_cannot_be_built() -> None:
    for build, said in (
        (lambda: Provenance(tier=1), "no verifier"),
        (lambda: Provenance(tier=4), "tier 4"),
        (lambda: Provenance(confidence=1.5), "outside"),
        (lambda: Grid([1.0, 1.0], [1, 2]), "beat 2 is not after"),
        (lambda: Grid([1.0, np.nan], [1, 2]), "no finite time"),
        (lambda: Grid([1.0], [1, 2]), "1 beats have 2 places"),
        (lambda: Grid([1.0], [1], [[0.0, 0.0]]), "not above 0 bpm"),
        (lambda: Spans([0.0, 1.0], [1.5, 2.0], ("a", "b")), "span 2 begins before"),
        (lambda: Spans([0.0], [0.0], ("a",)), "span 1 does not end"),
        (lambda: Spans([0.0], [1.0], ("a",), energy=[[0.0] * 4]), "outside 1 to 10"),
        (lambda: Events([2.0, 1.0], ("a", "b")), "not in order"),
        (lambda: Events([1.0], ("",)), "no kind"),
        (lambda: Events([1.0], ("a",), known=[[2.0, 1.0]]), "ends before"),
        (lambda: Annotation(duration=-3.0), "duration"),
    ):
        with pytest.raises(SchemaError, match=said):
            build()


def test_a_time_is_known_inside_the_intervals_only() -> None:
    intervals = np.array([[1.0, 2.0], [3.0, 4.0]])
    times = np.array([0.9, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 4.1])
    assert within(times, intervals).tolist() == [False, True, True, True, False, True, True, False]
    assert not within(times, np.zeros((0, 2))).any()
    assert Grid([1.0], [1], known=intervals).is_known(np.array([2.5, 3.5])).tolist() == [False, True]
    assert joined(np.array([[3.0, 4.0], [0.0, 1.0], [0.5, 3.0]])).tolist() == [[0.0, 4.0]]
    assert joined(np.zeros((0, 2))).shape == (0, 2)


def test_a_grid_knows_its_bars_and_tempo() -> None:
    grid = Grid(np.arange(7) * 0.5, [3, 1, 2, 3, 1, 2, 3])
    assert (grid.bar, grid.tempo, grid.downbeats.tolist()) == (3, 120.0, [0.5, 2.0])
    assert Grid([], []).bar == 0


def test_a_grid_of_pulses_gives_the_beats_that_are_felt() -> None:
    pulses = Grid(np.arange(17) * 0.2, [6, 7, *[1, 2, 3, 4, 5, 6, 7] * 2, 1])
    felt = pulses.at_groups((3, 2, 2))
    np.testing.assert_allclose(felt.times, np.array([0, 2, 5, 7, 9, 12, 14, 16]) * 0.2)
    assert felt.places.tolist() == [3, 1, 2, 3, 1, 2, 3, 1]
    np.testing.assert_array_equal(felt.downbeats, pulses.downbeats)
    assert pulses.at_groups((2, 3)) is pulses  # not a bar of five
    assert pulses.at_groups(()) is pulses
    assert Spans([0.0, 2.0, 5.0], [2.0, 4.0, 6.0], "ABC").boundaries.tolist() == [0.0, 2.0, 4.0, 5.0, 6.0]


@pytest.fixture
def music(tmp_path: Path) -> Path:
    for name in ("audio/set/a.ogg", "audio/b.x.mp3"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"audio")
    return tmp_path


def track(music: Path, name: str, **extra: str) -> Track:
    return Track(name, music / name, extra=extra)


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_files_in_folders_beside_the_audio_are_found(music: Path) -> None:
    put(music / "beats" / "set" / "a.beats", "0.5\t1\n1.0\t2\n")
    put(music / "lab" / "set" / "a.lab", "0\t4\tA\n")
    put(music / "lab2" / "set" / "a.lab", "0\t4\tB\n")
    put(music / "audio" / "b.x.lab", "0\t4\tC\n")
    tracks = [track(music, "audio/set/a.ogg"), track(music, "audio/b.x.mp3"), track(music, "audio/none.wav")]
    found = find_annotations(tracks)
    assert set(found) == {"audio/set/a.ogg", "audio/b.x.mp3"}
    assert found["audio/set/a.ogg"].sections.labels == ("A",)
    assert len(found["audio/set/a.ogg"].grid) == 2
    assert found["audio/b.x.mp3"].sections.labels == ("C",)
    assert find_annotations(tracks[:1], Folders(sections="lab2"))["audio/set/a.ogg"].sections.labels == ("B",)
    write_annotation(
        music / "annotations" / "set" / "a.json", Annotation("a", sections=Spans([0.0], [2.0], ("D",)))
    )
    both = find_annotations(tracks[:1])["audio/set/a.ogg"]
    assert (both.id, both.sections.labels, len(both.grid)) == ("audio/set/a.ogg", ("D",), 2)


def test_a_manifest_names_files_and_other_json_is_left_alone(music: Path) -> None:
    put(music / "annotations" / "set" / "a.json", '{"meters": {"4": 1.0}, "bytes": 5}')
    put(music / "marks" / "one.beats", "0.5\t1\n")
    assert find_annotations([track(music, "audio/set/a.ogg")]) == {}
    assert (
        len(
            find_annotations([track(music, "audio/set/a.ogg", beats="marks/one.beats")])[
                "audio/set/a.ogg"
            ].grid
        )
        == 1
    )
    assert find_annotations([track(music, "audio/set/a.ogg", sections="7")]) == {}
    with pytest.raises(
        DataError, match=r"m.csv:3: the file marks/two.beats of the column 'beats' is not there"
    ):
        find_annotations([track(music, "audio/set/a.ogg", beats="marks/two.beats", row="m.csv:3")])


def test_a_set_of_the_generator_brings_its_beats(clips: Path) -> None:
    tracks = open_dataset(clips, DataConfig(), CLASSES).tracks[:3]
    found = find_annotations(tracks)
    assert len(found) == 3
    assert all(len(a.grid.downbeats) > 0 for a in found.values())


@pytest.mark.parametrize(
    ("name", "count", "sections"), [("structure-dev", 22, True), ("meter-dev", 139, False)]
)
def test_real_sets_are_read_as_they_lie(real_data: Path, name: str, count: int, sections: bool) -> None:
    if not (real_data / name / "manifest.csv").is_file():
        pytest.skip(f"no {name} here")
    tracks = open_dataset(real_data / name, DataConfig(), CLASSES, labelled=False).tracks
    found = find_annotations(tracks, Folders(sections="lab2"))
    assert len(found) == count
    assert all(len(a.grid) > 3 and (a.sections is not None) == sections for a in found.values())
