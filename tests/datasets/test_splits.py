"""Splits: groups whole, classes balanced, the same again for the same seed, and nothing that leaks."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beatmeter.datasets.dataset import JOINED, Dataset
from beatmeter.datasets.leaks import leaks, without_leaks
from beatmeter.datasets.splits import assign_splits, audio_keys, read_split, split_dataset, write_split
from beatmeter.errors import DataError
from beatmeter.schema import SPLITS, Track
from beatmeter.settings import SplitConfig


def track(
    name: str,
    label: str = "3",
    group: str = "",
    split: str | None = None,
    joined: bool = False,
    path: Path = Path("x.wav"),
) -> Track:
    return Track(
        name,
        path,
        {label: 1.0} if label else {},
        label or None,
        group,
        "here",
        split,
        {JOINED: "more"} if joined else {},
    )


def dataset(*tracks: Track) -> Dataset:
    return Dataset(tuple(tracks), (), "d", "manifest", "0" * 64)


def why(result: Dataset) -> dict[str, str]:
    return {e.id: e.kind for e in result.excluded}


pool = st.lists(st.tuples(st.sampled_from("3457"), st.integers(0, 25)), min_size=1, max_size=120)


@settings(max_examples=60)
@given(pool, st.integers(0, 3), st.sampled_from([(0.15, 0.15), (0.2, 0.0), (0.0, 0.3), (0.0, 0.0)]))
def test_groups_stay_whole_and_the_seed_decides(
    rows: list[tuple[str, int]], seed: int, shares: tuple[float, float]
) -> None:
    tracks = [track(f"t{i}", label, f"g{group}") for i, (label, group) in enumerate(rows)]
    config = SplitConfig(*shares, seed=seed)
    result = assign_splits(tracks, config)
    assert [replace(t, split=None) for t in result] == tracks
    assert all(len({t.split for t in result if t.group == group}) == 1 for group in {t.group for t in tracks})
    assert {t.split for t in result} <= {
        "train",
        *(["val"] if shares[0] else []),
        *(["test"] if shares[1] else []),
    }
    shuffled = assign_splits(tracks[::-1], config)
    assert {t.id: t.split for t in shuffled} == {t.id: t.split for t in result}
    assert leaks(result) == []


def test_classes_are_balanced() -> None:
    tracks = [
        track(f"{label}-{i}", label) for label, n in (("3", 400), ("4", 200), ("11", 20)) for i in range(n)
    ]
    result = assign_splits(tracks, SplitConfig())
    counts = Counter((t.split, t.primary) for t in result)
    assert counts == {
        (s, c): n * share // 100
        for c, n in (("3", 400), ("4", 200), ("11", 20))
        for s, share in (("train", 70), ("val", 15), ("test", 15))
    }
    other = assign_splits(tracks, SplitConfig(seed=1))
    assert Counter((t.split, t.primary) for t in other) == counts
    assert [t.split for t in other] != [t.split for t in result]


def test_classes_are_balanced_over_uneven_groups() -> None:
    tracks = [track(f"{g}-{i}", "345"[g % 3], f"g{g}") for g in range(90) for i in range(1 + g % 7)]
    result = assign_splits(tracks, SplitConfig())
    for label in "345":
        of_class = [t.split for t in result if t.primary == label]
        for split, share in (("train", 0.7), ("val", 0.15), ("test", 0.15)):
            assert of_class.count(split) / len(of_class) == pytest.approx(share, abs=0.03)


def test_a_lone_group_trains() -> None:
    assert [
        t.split for t in assign_splits([track("a"), track("b", "4"), track("c", "4", "b")], SplitConfig())
    ] == ["train"] * 3


def test_tracks_keep_their_own_split_and_groups_follow() -> None:
    tracks = [
        track("a", group="g", split="test"),
        track("b", group="g"),
        track("c", split="val"),
        track("d"),
        track("e", group="d"),
    ]
    assert [t.split for t in assign_splits(tracks, SplitConfig())] == [
        "test",
        "test",
        "val",
        "train",
        "train",
    ]


# files


def test_split_file_round_trip(tmp_path: Path) -> None:
    tracks = assign_splits([track(f"x,{i}", group=f"g {i % 7}") for i in range(50)], SplitConfig())
    digest = write_split(tmp_path / "s.csv", tracks)
    assert hashlib.sha256((tmp_path / "s.csv").read_bytes()).hexdigest() == digest
    assert write_split(tmp_path / "t.csv", tracks[::-1]) == digest
    assert read_split(tmp_path / "s.csv") == {t.id: t.split for t in tracks}
    files = [replace(t, path=tmp_path / f"{n}.wav") for n, t in enumerate(tracks)]
    for t in files:
        t.path.write_bytes(t.id.encode())
    config = SplitConfig(seed=9, file=str(tmp_path / "s.csv"))
    for other in (None, "val"):  # the file goes before the table
        assert split_dataset(dataset(*(replace(t, split=other) for t in files)), config).tracks == tuple(
            files
        )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id,group\na,b\n", "is no split file"),
        ("id,split\na,nowhere\n", "s.csv:2"),
        ("id,split\na,train\n,val\n", "s.csv:3"),
        ("id,split\na,train\na,val\n", "'a' is in two splits"),
        ("id,split\na\n", "s.csv:2: 1 cells"),
    ],
)
def test_split_files_that_make_no_sense(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(DataError) as error:
        read_split(tmp_path / "s.csv")
    assert words in str(error.value)


def test_a_split_file_of_other_tracks(tmp_path: Path, wavs: list[Path]) -> None:
    (tmp_path / "s.csv").write_text("id,split\na,train\nb,test\n")
    config = SplitConfig(file=str(tmp_path / "s.csv"))
    with pytest.raises(DataError, match="names none of these 1 track,"):
        split_dataset(dataset(track("z", path=wavs[0])), config)
    result = split_dataset(
        dataset(track("a", path=wavs[0]), track("b", path=wavs[1]), track("z", path=wavs[2])), config
    )
    assert {t.id: t.split for t in result.tracks} == {"a": "train", "b": "test"}
    assert why(result) == {"z": "split"}


# leaks

KEYS = {"a": "k1", "b": "k1", "c": "k2", "d": "k3", "e": "k4"}


def test_leaks_are_found() -> None:
    tracks = [
        track("a", split="test"),
        track("b", split="train"),
        track("c", group="g", split="val"),
        track("d", group="g", split="train"),
        track("e", split="train"),
    ]
    found = {(leak.track.id, leak.keeper.id, leak.what) for leak in leaks(tracks, KEYS)}
    assert found == {("b", "a", "audio"), ("d", "c", "group")}
    assert {leak.track.id for leak in leaks(tracks)} == {"d"}
    assert leaks([tracks[0], tracks[4]], KEYS) == []


def test_training_gives_way_to_val_and_val_to_test() -> None:
    tracks = [
        track("1", group="g", split="train"),
        track("2", group="g", split="val"),
        track("3", group="g", split="test"),
        track("4", split="train"),
    ]
    result = without_leaks(dataset(*tracks))
    assert [t.id for t in result.tracks] == ["3", "4"]
    assert why(result) == {"1": "leak", "2": "leak"}
    assert "its group 'g' is also in test (3)" in result.excluded[0].reason


@pytest.mark.parametrize(
    ("rows", "kept", "gone"),
    [
        ([("a", "3", "train"), ("b", "3", "train")], ["a"], {"b": "copy"}),
        ([("a", "3", "train"), ("b", "4", "train")], [], {"a": "conflict", "b": "conflict"}),
        ([("a", "3", "train"), ("b", "3", "test")], ["b"], {"a": "leak"}),
        ([("a", "3", "train"), ("b", "4", "test")], ["b"], {"a": "leak"}),
        ([("a", "3", "val"), ("b", "3", "test")], ["b"], {"a": "leak"}),
        ([("a", "3", None), ("b", "3", "test")], ["b"], {"a": "leak"}),
        ([("a", "3", None), ("b", "3", "train")], ["a"], {"b": "copy"}),
        ([("a", "", None), ("b", "3", None)], ["b"], {"a": "copy"}),
        (
            [("a", "3", "test"), ("b", "4", "test"), ("x", "3", "train")],
            [],
            {"a": "conflict", "b": "conflict", "x": "copy"},
        ),
    ],
)
def test_copies_of_one_recording(
    rows: list[tuple[str, str, str | None]], kept: list[str], gone: dict[str, str]
) -> None:
    result = without_leaks(dataset(*(track(*row[:2], split=row[2]) for row in rows)), {**KEYS, "x": "k1"})
    assert [t.id for t in result.tracks] == kept
    assert why(result) == gone


def test_extra_data_give_way_to_all() -> None:
    tracks = [
        track("a", "3", "g", None),
        track("b", "4", "", "train", joined=True),  # the same audio as a, labelled differently
        track("c", "3", "", "test"),
        track("d", "3", "c", "train", joined=True),  # the group of c
        track("e", "3", "own", "train", joined=True),
    ]
    result = without_leaks(dataset(*tracks), KEYS)
    assert [t.id for t in result.tracks] == ["a", "c", "e"]
    assert why(result) == {"b": "copy", "d": "leak"}


@pytest.fixture
def wavs(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{n}.wav" for n in range(40)]
    for n, path in enumerate(paths):
        path.write_bytes(b"%d" % n)
    return paths


def test_split_dataset(wavs: list[Path], tmp_path: Path) -> None:
    wavs[3].write_bytes(wavs[0].read_bytes())
    wavs[2].unlink()
    tracks = [track(f"t{n}", "345"[n % 3], f"g{n // 2}", path=path) for n, path in enumerate(wavs)]
    extra = [
        track(f"x{n}", "3", f"g{n}", "train", joined=True, path=tmp_path / f"x{n}.wav") for n in range(20)
    ]
    for t in extra:
        t.path.write_bytes(t.id.encode())
    result = split_dataset(
        dataset(*tracks, *extra), SplitConfig(val=0.2, test=0.2), cache=tmp_path / "cache", jobs=2
    )
    assert all(t.split in SPLITS for t in result.tracks)
    assert leaks(result.tracks, audio_keys(result.tracks)[0]) == []
    reasons = why(result)
    assert reasons.pop("t3") == "copy"
    assert reasons.pop("t2") == "missing"
    held = {t.group for t in result.tracks if t.split in ("val", "test")}
    assert 4 < len(held) < 12
    assert reasons == {t.id: "leak" for t in extra if t.group in held}
    assert len(result.tracks) + len(result.excluded) == 60
    assert result == split_dataset(
        dataset(*tracks, *extra), SplitConfig(val=0.2, test=0.2), cache=tmp_path / "cache"
    )


def test_ids_are_distinct() -> None:
    with pytest.raises(DataError, match="1 ids more than once, for instance 'a'"):
        dataset(track("a"), track("b"), track("a"))
