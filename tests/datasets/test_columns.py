"""Columns as targets, tables of targets by id, and groups as the union of columns."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from beatmeter.datasets import Dataset, open_dataset
from beatmeter.datasets.columns import (
    grouped_by,
    labelled_by,
    number_of,
    one_class,
    require_columns,
    several_labels,
    with_targets,
)
from beatmeter.datasets.splits import split_dataset
from beatmeter.errors import DataError
from beatmeter.schema import Track
from beatmeter.settings import METERS, DataConfig, SplitConfig


def track(name: str, **cells: str) -> Track:
    return Track(name, Path(name), extra=cells)


def dataset(*tracks: Track) -> Dataset:
    return Dataset(tracks, (), "here", "manifest", "0" * 64)


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    """Eight files, by two composers and four artists, in a table without a class."""
    rows = ["file,composer,artist"]
    for i in range(8):
        soundfile.write(tmp_path / f"{i}.wav", np.random.default_rng(i).normal(size=24_000) * 0.1, 24_000)
        rows.append(f"{i}.wav,{'Bach' if i < 4 else 'Satie'},{'ABCD'[i // 2]}")
    (tmp_path / "manifest.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def test_a_manifest_without_a_class_is_a_manifest(songs: Path) -> None:
    for place in (songs, songs / "manifest.csv"):
        found = open_dataset(place, DataConfig(), METERS, labelled=False)
        assert (found.kind, len(found.tracks)) == ("manifest", 8)
        assert found.tracks[0].extra["composer"] == "Bach"


def test_classes_of_a_column_become_labels_and_unknown_ones_are_listed() -> None:
    found = labelled_by(
        dataset(track("a", who="Bach "), track("b", who="?"), track("c", who="NaN"), track("d")),
        "who",
        one_class,
    )
    assert [(t.id, t.primary) for t in found.tracks] == [("a", "Bach")]
    assert [(e.id, e.kind) for e in found.excluded] == [
        ("b", "unlabelled"),
        ("c", "unlabelled"),
        ("d", "unlabelled"),
    ]
    assert several_labels(track("a", tags="piano; strings|piano,"), "tags") == ("piano", "strings")


def test_numbers_are_read_or_refused() -> None:
    assert number_of(track("a", tempo="120.5"), "tempo") == 120.5
    assert np.isnan(number_of(track("a", tempo="n/a"), "tempo"))
    for cell in ("fast", "inf"):
        with pytest.raises(DataError, match="is not a number"):
            number_of(track("a", tempo=cell), "tempo")


def test_an_unknown_column_is_named_with_its_nearest() -> None:
    with pytest.raises(DataError, match=r"task.column = 'compser' is no column.*Did you mean 'composer'"):
        require_columns([track("a", composer="Bach")], ["compser"], "task.column")


def test_targets_join_by_id(tmp_path: Path) -> None:
    table = tmp_path / "targets.csv"
    table.write_text("id,mood\na,calm\nz,wild\n")
    before = dataset(track("a", mood="?"), track("b", mood="sad"))
    found = with_targets(before, table)
    assert [t.extra["mood"] for t in found.tracks] == ["calm", "sad"]
    assert found.sha256 != before.sha256
    for text, what in (
        ("name,mood\na,x\n", "no column 'id'"),
        ("id,mood\na,x\na,y\n", "twice"),
        ("id,mood\nq,x\n", "names none of the 2 tracks"),
    ):
        table.write_text(text)
        with pytest.raises(DataError, match=what):
            with_targets(before, table)


def test_parquet_needs_pyarrow_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match="needs pyarrow"):
        with_targets(dataset(track("a")), tmp_path / "targets.parquet")


def test_parquet_is_read_where_pyarrow_is(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(
        pyarrow.table({"id": ["a", "b"], "tempo": [120.0, None]}), tmp_path / "targets.parquet"
    )
    found = with_targets(dataset(track("a"), track("b")), tmp_path / "targets.parquet")
    assert [t.extra["tempo"] for t in found.tracks] == ["120.0", ""]


def test_groups_are_the_connected_components_of_several_columns() -> None:
    rows = [("w1", "x"), ("w1", "y"), ("w2", "y"), ("w3", "z"), ("", "z"), ("", "")]
    tracks = [track(str(i), work=work, artist=artist) for i, (work, artist) in enumerate(rows)]
    groups = [t.group for t in grouped_by(tracks, ["work", "artist"])]
    assert groups[0] == groups[1] == groups[2] != groups[3] == groups[4]
    assert groups[5] == "5", "what says nothing stays by itself"
    assert len({t.group for t in grouped_by(tracks, ["work"])}) == 5
    with pytest.raises(DataError, match=r"split.groups = 'wrk'.*Did you mean 'work'"):
        grouped_by(tracks, ["wrk"])


def test_groups_of_columns_never_cross_splits(songs: Path) -> None:
    found = open_dataset(songs, DataConfig(), METERS, labelled=False)
    split = split_dataset(found, SplitConfig(val=0.25, test=0.25, groups=("artist",)))
    by_artist: dict[str, set[str | None]] = {}
    for t in split.tracks:
        by_artist.setdefault(t.extra["artist"], set()).add(t.split)
    assert all(len(splits) == 1 for splits in by_artist.values())
    assert {t.split for t in split.tracks} == {"train", "val", "test"}
