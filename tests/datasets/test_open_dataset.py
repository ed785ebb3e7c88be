"""Opening a dataset: which kind it is, which rows become tracks, and what becomes of the others."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from meterfolders import MeterFolder, build

from beatmeter.datasets import Dataset, open_dataset
from beatmeter.datasets.meter2800 import NON_MUSIC, split_of
from beatmeter.errors import DataError
from beatmeter.settings import DataConfig

CLASSES = ("3", "4", "5", "7", "9", "11")
FILE_KINDS = {"missing", "outside", "label", "non-music"}  # what shows without opening any audio


def opened(path: Path, *extra: Path, labelled: bool = True, classes: int = 0) -> Dataset:
    return open_dataset(
        path, DataConfig(path=str(path), extra=tuple(map(str, extra)), classes=classes), CLASSES, labelled
    )


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def why(dataset: Dataset) -> dict[str, str]:
    return {e.id: e.kind for e in dataset.excluded}


# METER2800


@pytest.fixture(scope="module")
def broken(tmp_path_factory) -> MeterFolder:
    return build(tmp_path_factory.mktemp("m") / "METER2800")


def test_every_row_of_meter2800_is_accounted_for(broken: MeterFolder) -> None:
    dataset = opened(broken.path)
    assert (dataset.kind, dataset.name) == ("meter2800", "METER2800")
    assert why(dataset) == {name: kind for name, kind in broken.excluded.items() if kind in FILE_KINDS}
    found = {t.id: (t.primary, t.split) for t in dataset.tracks}
    assert {name: found[name] for name in broken.kept} == broken.kept
    assert len(dataset.tracks) + len(dataset.excluded) == sum(map(len, broken.rows.values()))
    for t in dataset.tracks:
        assert t.path.is_file()
        assert t.source == t.id.split("/")[0]
        assert t.extra["row"].startswith(f"data_{t.split}_4_classes.tab:")
    assert {t.extra["alt_meter"] for t in dataset.tracks if t.primary == "3"} == {"6"}


def test_exclusions_point_at_their_row(broken: MeterFolder) -> None:
    dataset = opened(broken.path)
    lines = (broken.path / "data_train_4_classes.tab").read_text().splitlines()
    strange = next(e for e in dataset.excluded if e.id == "FMA/strange")
    table, line = strange.row.split(":")
    assert table == "data_train_4_classes.tab"
    assert "FMA/strange" in lines[int(line) - 1]
    gtzan = [e for e in dataset.excluded if e.source == "GTZAN"]
    assert len(gtzan) == 2
    assert all("not in the public archives" in e.reason for e in gtzan)


def test_without_labels_wanted_bad_labels_stay(broken: MeterFolder) -> None:
    dataset = opened(broken.path, labelled=False)
    unlabelled = {t.id for t in dataset.tracks if not t.labels}
    assert unlabelled == {name for name, kind in broken.excluded.items() if kind == "label"}
    assert dataset.labelled() == opened(broken.path)


def test_tab_and_csv_say_the_same(tmp_path: Path) -> None:
    folders = []
    for suffix in (".tab", ".csv"):
        f = MeterFolder(tmp_path / suffix[1:])
        for n, meter in enumerate(("3", "4", "5", "7")):
            f.row(("train", "val", "test")[n % 3], f"FMA/{n}", meter)
            touch(f.path, f"FMA/{n}.mp3")
        f.write_tables(suffix)
        folders.append(opened(f.path))
    assert [(t.id, t.labels, t.split) for t in folders[0].tracks] == [
        (t.id, t.labels, t.split) for t in folders[1].tracks
    ]
    assert len(folders[0].tracks) == 4
    assert folders[0].sha256 != folders[1].sha256


def test_two_and_four_classes(tmp_path: Path) -> None:
    f = MeterFolder(tmp_path)
    touch(tmp_path, "FMA/1.mp3", "FMA/2.mp3")
    f.row("train", "FMA/1", "3")
    f.write_tables(classes="2")
    assert len(opened(tmp_path).tracks) == 1
    f.row("train", "FMA/2", "5")
    f.write_tables(".csv", classes="4")
    f.write_tables(".tab", classes="4")
    assert len(opened(tmp_path).tracks) == 2
    assert opened(tmp_path).tracks[0].extra["row"] == "data_train_4_classes.tab:2"
    assert len(opened(tmp_path, classes=2).tracks) == 1
    for name in tmp_path.glob("*_2_*"):
        name.unlink()
    with pytest.raises(DataError, match="no tables of 2 classes"):
        opened(tmp_path, classes=2)


def test_one_table_alone(broken: MeterFolder) -> None:
    dataset = opened(broken.path / "data_val_4_classes.tab")
    assert {t.split for t in dataset.tracks} == {"val"}
    assert dataset.kind == "meter2800"


def test_a_table_without_its_columns(tmp_path: Path) -> None:
    touch(tmp_path, "FMA/1.mp3")
    (tmp_path / "data_train_4_classes.tab").write_text("filename\tlabel\n/FMA/1.wav\tthree\n")
    with pytest.raises(DataError, match="lacks the columns meter"):
        opened(tmp_path)


def test_rows_listed_twice(tmp_path: Path) -> None:
    f = MeterFolder(tmp_path)
    for name in ("again", "disputed", "leak", "valtest"):
        touch(tmp_path, f"FMA/{name}.mp3")
    f.row("train", "FMA/again", "3")
    f.row("train", "FMA/again", "3")
    f.row("train", "FMA/disputed", "3")
    f.row("train", "FMA/disputed", "4")
    f.row("train", "FMA/leak", "3")
    f.row("test", "FMA/leak", "4")
    f.row("val", "FMA/valtest", "3")
    f.row("test", "FMA/valtest", "3")
    f.write_tables()
    dataset = opened(tmp_path)
    assert {t.id: (t.primary, t.split) for t in dataset.tracks} == {
        "FMA/again": ("3", "train"),
        "FMA/leak": ("4", "test"),
        "FMA/valtest": ("3", "test"),
    }
    assert sorted((e.id, e.kind, e.split) for e in dataset.excluded) == [
        ("FMA/again", "duplicate", "train"),
        ("FMA/disputed", "conflict", "train"),
        ("FMA/disputed", "conflict", "train"),
        ("FMA/leak", "leak", "train"),
        ("FMA/valtest", "leak", "val"),
    ]


def test_known_non_music(tmp_path: Path) -> None:
    f = MeterFolder(tmp_path)
    for n in (*NON_MUSIC, "143"):
        touch(tmp_path, f"MAG/{n}.mp3")
        f.row("train", f"MAG/{n}", "3")
    f.write_tables()
    assert why(opened(tmp_path)) == {f"MAG/{n}": "non-music" for n in ("0143", "0144", "00361")}


# WIKIMETER


def wikimeter(root: Path, prefix: str = "WIKI", folder: str = "WIKI") -> Path:
    rows = [
        ("queen_under_seg00", "four", "4"),
        ("queen_under_seg01", "four", "4"),
        ("king_frame_seg00", "three", "3:0.7,4:1"),
        ("money_seg00", "seven", "7,4"),
    ]
    lines = [
        "filename\tlabel\tmeter\talt_meter",
        *(f'"/{prefix}/{name}.wav"\t"{word}"\t{meter}\t0' for name, word, meter in rows),
    ]
    touch(root, *(f"{folder}/{name}.mp3" for name, _, _ in rows))
    (root / "data_wikimeter.tab").write_text("\n".join(lines))
    return root


@pytest.mark.parametrize(
    ("prefix", "folder"), [("WIKI", "WIKI"), ("WIKIMETER", "audio"), ("ODDMETER-WIKI", "x/y")]
)
def test_wikimeter(tmp_path: Path, prefix: str, folder: str) -> None:
    dataset = opened(wikimeter(tmp_path, prefix, folder))
    assert dataset.kind == "wikimeter"
    assert dataset.excluded == ()
    assert {t.id: (dict(t.labels), t.primary) for t in dataset.tracks} == {
        f"{prefix}/queen_under_seg00": ({"4": 1}, "4"),
        f"{prefix}/queen_under_seg01": ({"4": 1}, "4"),
        f"{prefix}/king_frame_seg00": ({"3": 0.7, "4": 1}, "4"),
        f"{prefix}/money_seg00": ({"7": 1, "4": 1}, "7"),
    }
    assert [t.group for t in dataset.tracks] == ["song:queen_under"] * 2 + ["song:king_frame", "song:money"]


def test_label_tables_with_their_split_in_the_name(tmp_path: Path) -> None:
    wikimeter(tmp_path)
    text = (tmp_path / "data_wikimeter.tab").read_text()
    (tmp_path / "data_wikimeter.tab").unlink()
    (tmp_path / "wiki-train.tab").write_text("\n".join(text.splitlines()[:4]))
    (tmp_path / "wiki-test.tab").write_text("\n".join([text.splitlines()[0], text.splitlines()[4]]))
    assert [t.split for t in opened(tmp_path).tracks] == ["test", "train", "train", "train"]
    (tmp_path / "more.tab").write_text(text)
    with pytest.raises(
        DataError, match=r"several tables: more\.tab, wiki-test\.tab, wiki-train\.tab.*Name the one"
    ):
        opened(tmp_path)
    assert len(opened(tmp_path / "more.tab").tracks) == 4


def test_split_of_a_name() -> None:
    assert split_of(Path("data_val_4_classes.tab")) == "val"
    assert split_of(Path("Test.csv")) == "test"
    assert split_of(Path("training_trains.csv")) is None
    assert split_of(Path("train_test.csv")) is None


# manifests


def manifest(root: Path, text: str, name: str = "manifest.csv", *files: str) -> Dataset:
    touch(root, *(files or ("a.wav", "b.flac", "c/d.ogg", "e.mp3")))
    (root / name).write_text(text)
    return opened(root)


def test_manifest(tmp_path: Path) -> None:
    text = (
        "File,Class,group,source,split,tempo\na.wav,3,one,here,train,120\nb.wav,11:4,one,,validation,\n"
        "c/d.ogg,2:3,,,TEST,90\ne.mp3,13,,,,\nnone.wav,3,,,,\nx.wav\na.wav,3,one,here,train,120\nc/d.ogg,3,,,nowhere,\n"
    )
    dataset = manifest(tmp_path, text)
    assert dataset.kind == "manifest"
    assert {t.id: (dict(t.labels), t.primary, t.group, t.source, t.split) for t in dataset.tracks} == {
        "a.wav": ({"3": 1}, "3", "one", "here", "train"),
        "b.flac": ({"11": 1, "4": 1}, "11", "one", tmp_path.name, "val"),
        "c/d.ogg": ({"4": 1, "3": 1}, "4", "c/d.ogg", tmp_path.name, "test"),
    }
    assert dataset.tracks[0].extra["tempo"] == "120"
    assert [(e.id, e.kind, e.row) for e in dataset.excluded] == [
        ("none.wav", "missing", "manifest.csv:6"),
        ("x.wav", "row", "manifest.csv:7"),
        ("c/d.ogg", "row", "manifest.csv:9"),
        ("a.wav", "duplicate", "manifest.csv:8"),
        ("e.mp3", "label", "manifest.csv:5"),
    ]


def test_manifest_columns_by_other_names(tmp_path: Path) -> None:
    for text in (
        "path\tmeter\tartist\na.wav\t5\tx\n",
        "filename;label;tune\na.wav;five;x\n",
        "id,audio,class,song\nz,a.wav,10,x\n",
    ):
        dataset = manifest(tmp_path, text)
        assert [(t.primary, t.group) for t in dataset.tracks] == [("5", "x")]
    assert dataset.tracks[0].id == "z"
    assert [
        t.group
        for t in manifest(
            tmp_path,
            "file,class\nx_seg01.wav,3\nx_seg02.wav,3\n",
            "manifest.csv",
            "x_seg01.wav",
            "x_seg02.wav",
        ).tracks
    ] == ["song:x"] * 2


def test_parts_of_files_are_not_taken_for_files(tmp_path: Path) -> None:
    dataset = manifest(
        tmp_path, "file,class,start,end\na.wav,3,0,\nb.wav,3,0.0,\nc/d.wav,3,5,\ne.wav,3,,30\n"
    )
    assert {t.id for t in dataset.tracks} == {"a.wav", "b.flac"}
    assert all("cut that part" in e.reason for e in dataset.excluded)


def test_a_table_in_a_folder_of_music_is_found_or_left_alone(tmp_path: Path) -> None:
    assert manifest(tmp_path, "file,class\na.wav,3\n", "labels.csv").kind == "manifest"
    (tmp_path / "labels.csv").unlink()
    for name, text in (
        ("split.csv", "id,group,split\na.wav,x,train\n"),
        ("features.csv", "path,tempo\na.wav,120\n"),
        ("junk.csv", "\0,"),
    ):
        (tmp_path / name).write_text(text)
    assert opened(tmp_path, labelled=False).kind == "folder"
    with pytest.raises(DataError, match="names no files"):
        manifest(tmp_path, "class,x\n3,4\n")


def test_an_unlabelled_manifest(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav")
    (tmp_path / "manifest.csv").write_text("file,group\na.wav,x\n")
    assert [t.labels for t in opened(tmp_path, labelled=False).tracks] == [{}]
    assert why(opened(tmp_path)) == {"a.wav": "unlabelled"}


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                ["a.wav", "b.wav", "c/d.ogg", "../x.wav", "none.wav", "", " e.mp3", "a.wav\0", "\udce9.wav"]
            ),
            st.sampled_from(["3", "4", "3:4", "3,11:0.5", "13", "", "x", "7/8"]),
            st.sampled_from(["", "train", "val", "test", "nowhere"]),
            st.sampled_from(["", "g", "h"]),
        ),
        max_size=12,
    )
)
def test_no_row_is_ever_lost(tmp_path_factory, rows: list[tuple[str, ...]]) -> None:
    root = tmp_path_factory.mktemp("d")
    touch(root, "a.wav", "b.flac", "c/d.ogg", "e.mp3")
    lines = ["file,class,split,group", *(",".join(f'"{cell}"' for cell in row) for row in rows), ""]
    (root / "manifest.csv").write_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))
    listed = sum(any(cell.strip() for cell in row) for row in rows)
    for labelled in (True, False):
        dataset = opened(root, labelled=labelled)
        assert len(dataset.tracks) + len(dataset.excluded) == listed
        assert all(t.path.is_file() and (t.labels or not labelled) for t in dataset.tracks)
        assert all(e.reason and e.kind and e.row for e in dataset.excluded)
        for text in (*(t.id for t in dataset.tracks), *(e.reason + e.id + e.path for e in dataset.excluded)):
            assert text.isprintable()


# folders and files


def test_a_flat_folder_is_unlabelled(tmp_path: Path) -> None:
    touch(tmp_path, "b.wav", "a.mp3", "sub/c.flac", "notes.txt")
    dataset = opened(tmp_path, labelled=False)
    assert dataset.kind == "folder"
    assert [t.id for t in dataset.tracks] == ["a.mp3", "b.wav", "sub/c.flac"]
    assert all(
        not t.labels and t.split is None and t.group == t.id and t.source == tmp_path.name
        for t in dataset.tracks
    )
    assert set(why(opened(tmp_path)).values()) == {"unlabelled"}


def test_folders_named_by_class(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "3/a.wav",
        "four/b.wav",
        "3+4/c.wav",
        "2/d.wav",
        "13/e.wav",
        "x/5/f.wav",
        "test/7/g_seg01.wav",
        "train/h.wav",
    )
    found = {t.id: (dict(t.labels), t.primary, t.split) for t in opened(tmp_path, labelled=False).tracks}
    assert found == {
        "3/a.wav": ({"3": 1}, "3", None),
        "four/b.wav": ({"4": 1}, "4", None),
        "3+4/c.wav": ({"3": 1, "4": 1}, "3", None),
        "2/d.wav": ({"4": 1}, "4", None),
        "13/e.wav": ({}, None, None),
        "x/5/f.wav": ({"5": 1}, "5", None),
        "test/7/g_seg01.wav": ({"7": 1}, "7", "test"),
        "train/h.wav": ({}, None, "train"),
    }
    assert {t.group for t in opened(tmp_path).tracks if "seg" in t.id} == {"song:g"}


def test_a_single_file(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp3", "b.mp3", "a.txt")
    dataset = opened(tmp_path / "a.mp3", labelled=False)
    assert (dataset.kind, [t.id for t in dataset.tracks]) == ("file", ["a.mp3"])
    with pytest.raises(DataError, match="is no dataset"):
        opened(tmp_path / "a.txt")


def test_what_is_no_dataset(tmp_path: Path) -> None:
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(DataError, match=r"METER2800 tables .*manifest\.csv"):
            opened(path)


def test_the_hash_follows_the_table(tmp_path: Path) -> None:
    first = manifest(tmp_path, "file,class\na.wav,3\n").sha256
    assert manifest(tmp_path, "file,class\na.wav,3\n").sha256 == first
    assert manifest(tmp_path, "file,class\na.wav,4\n").sha256 != first
    assert len(first) == 64


# extra data


def test_extra_data_join_training_only(tmp_path: Path) -> None:
    main, extra = tmp_path / "main", tmp_path / "extra"
    manifest(main, "file,class,split\na.wav,3,train\nb.wav,4,test\n")
    manifest(
        extra,
        "file,class,split,group\nb.wav,4,,x\nc/d.wav,5,train,x\ne.mp3,7,test,y\nnone.wav,7,,\n",
        "manifest.csv",
        "b.wav",
        "c/d.wav",
        "e.mp3",
    )
    dataset = opened(main, extra)
    assert {t.id: (t.split, t.source) for t in dataset.tracks} == {
        "a.wav": ("train", "main"),
        "b.flac": ("test", "main"),
        "b.wav": ("train", "extra"),
        "c/d.wav": ("train", "extra"),
    }
    assert [t.extra.get("joined") for t in dataset.tracks] == [None, None, "extra", "extra"]
    assert why(dataset) == {"none.wav": "missing", "e.mp3": "leak"}
    assert {e.source for e in dataset.excluded} == {"extra"}
    assert dataset.sha256 not in (opened(main).sha256, opened(extra).sha256)
    again = opened(main, main)
    assert len(again.tracks) == 2
    assert sorted((e.id, e.kind) for e in again.excluded) == [("a.wav", "duplicate"), ("b.flac", "leak")]
