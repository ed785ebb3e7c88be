"""Finding the file that a table means, and never one outside the folder."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest

from beatmeter.datasets.files import (
    AudioFolder,
    MissingFileError,
    audio_names,
    clean,
    find_audio,
    is_audio,
    song,
    stem,
)
from beatmeter.errors import DataError


def make(root: Path, *names: str) -> AudioFolder:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return AudioFolder(root)


def names(root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in find_audio(root)]


def test_what_counts_as_audio() -> None:
    assert all(map(is_audio, ["a.wav", "A.MP3", "b.c.Flac", "x.m4a", "y.opus", "z.webm"]))
    assert not any(map(is_audio, ["a.txt", "wav", "._a.wav", ".a.wav", "a.wav.bak", ""]))


def test_walk_is_sorted_and_leaves_junk_alone(tmp_path: Path) -> None:
    make(
        tmp_path,
        "b/2.wav",
        "a/1.mp3",
        "B/3.flac",
        "a/._1.mp3",
        "__MACOSX/a/1.mp3",
        ".hidden/x.wav",
        "a/note.txt",
        "0.ogg",
    )
    assert names(tmp_path) == ["0.ogg", "B/3.flac", "a/1.mp3", "b/2.wav"]


def test_links_are_followed_and_loops_survived(tmp_path: Path) -> None:
    root = tmp_path / "root"
    make(root, "a/1.wav")
    make(tmp_path / "elsewhere", "2.wav", "deep/3.wav")
    (root / "loop").symlink_to(root)
    (root / "a" / "up").symlink_to("..")
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(root)
    (root / "self.wav").symlink_to(root / "self.wav")
    (root / "one.wav").symlink_to(root / "a" / "1.wav")
    assert names(root) == ["a/1.wav", "linked/2.wav", "linked/deep/3.wav", "one.wav", "self.wav"]


def test_names_need_not_be_text(tmp_path: Path) -> None:
    make(tmp_path, os.fsdecode(b"caf\xe9/x y.wav"), "new\nline.wav")
    folder = AudioFolder(tmp_path)
    assert folder.find(os.fsdecode(b"caf\xe9/x y.mp3")).is_file()
    assert folder.find("new\nline.wav").is_file()


@pytest.mark.parametrize(
    ("cell", "found"),
    [
        ("/FMA/062182.wav", "FMA/062182.mp3"),
        ("FMA/062182", "FMA/062182.mp3"),
        ("./FMA//062182.wav", "FMA/062182.mp3"),
        ("FMA\\062182.wav", "FMA/062182.mp3"),
        ("fma/062182.WAV", "FMA/062182.mp3"),
        ("FMA/../FMA/062182.wav", "FMA/062182.mp3"),
        ("/MAG/same.wav", "MAG/same.wav"),
        ("/FMA/same.wav", "FMA/same.flac"),
        ("/GTZAN/blues.00000.wav", "GTZAN/genres/blues/blues.00000.au"),
        ("/OWN/nested.wav", "OWN/OWN/nested.mp3"),
        ("/OWN/both.flac", "OWN/both.flac"),
        ("/OWN/both.mp3", "OWN/both.mp3"),
        ("/OWN/both.wav", "OWN/both.flac"),
        ("/OWN/Case.wav", "OWN/Case.mp3"),
        ("/OWN/case.wav", "OWN/case.mp3"),
        (" top.wav ", "top.ogg"),
    ],
)
def test_what_a_name_finds(tmp_path: Path, cell: str, found: str) -> None:
    folder = make(
        tmp_path,
        *(
            "FMA/062182.mp3",
            "FMA/._062182.mp3",
            "FMA/same.flac",
            "MAG/same.wav",
            "GTZAN/genres/blues/blues.00000.au",
            "OWN/OWN/nested.mp3",
        ),
        *("OWN/both.mp3", "OWN/both.flac", "OWN/Case.mp3", "OWN/case.mp3", "top.ogg"),
    )
    assert folder.find(cell) == tmp_path / found


def test_unicode_forms_are_one_name(tmp_path: Path) -> None:
    folder = make(tmp_path, unicodedata.normalize("NFD", "Dvořák/é.wav"))
    assert folder.find(unicodedata.normalize("NFC", "dvořák/É.mp3")).is_file()


def test_a_stem_alone_is_enough_only_when_asked(tmp_path: Path) -> None:
    folder = make(tmp_path, "audio/artist_title_seg00.mp3", "a/twin.wav", "b/twin.wav")
    with pytest.raises(MissingFileError):
        folder.find("/WIKI/artist_title_seg00.wav")
    assert (
        folder.find("/WIKI/artist_title_seg00.wav", anywhere=True)
        == tmp_path / "audio/artist_title_seg00.mp3"
    )
    with pytest.raises(MissingFileError, match="several files could be") as error:
        folder.find("/WIKI/twin.wav", anywhere=True)
    assert error.value.kind == "ambiguous"


@pytest.mark.parametrize(
    "cell", ["../x.wav", "/../x.wav", "a/../../x.wav", "..\\x.wav", "a/b/../../../x.wav", ".."]
)
def test_nothing_outside(tmp_path: Path, cell: str) -> None:
    make(tmp_path, "x.wav")
    folder = make(tmp_path / "root", "a/y.wav")
    with pytest.raises(MissingFileError, match="outside") as error:
        folder.find(cell)
    assert error.value.kind == "outside"


def test_absolute_names(tmp_path: Path) -> None:
    make(tmp_path, "x.wav")
    folder = make(tmp_path / "root", "a/y.wav")
    assert folder.find(str(tmp_path / "root/a/y.wav")) == tmp_path / "root/a/y.wav"
    with pytest.raises(MissingFileError, match="outside") as error:
        folder.find(str(tmp_path / "x.wav"))
    assert error.value.kind == "outside"


@pytest.mark.parametrize("cell", ["", "/", ".", "absent.wav", "a/absent.wav", "x\0.wav", "n" * 5000])
def test_missing(tmp_path: Path, cell: str) -> None:
    with pytest.raises(MissingFileError) as error:
        make(tmp_path, "a/y.wav").find(cell)
    assert error.value.kind == "missing"
    assert "\0" not in str(error.value)


def test_stems_and_songs() -> None:
    assert str(stem(clean("GTZAN/blues.00000.wav"))) == "GTZAN/blues.00000"
    assert str(stem(clean("GTZAN/blues.00000"))) == "GTZAN/blues.00000"
    assert song("dave_brubeck_take_five_seg07") == "dave_brubeck_take_five"
    assert song("a_seg1_seg02") == "a_seg1"
    assert song("take_five") is None
    assert song("_seg01") is None


def test_a_folder_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "a/y.wav")
    original = os.scandir

    def refuse(path):
        if str(path).endswith("/a"):
            raise PermissionError(13, "Permission denied", str(path))
        return original(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"cannot list .*/a: Permission denied"):
        find_audio(tmp_path)


def test_a_folder_that_goes_away_while_it_is_walked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "a/y.wav", "b/z.wav")
    original = os.stat

    def vanish(path, **options):
        if str(path).endswith("/a"):
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return original(path, **options)

    monkeypatch.setattr(os, "stat", vanish)
    with pytest.raises(DataError, match=r"cannot list .*/a: No such file"):
        find_audio(tmp_path)
    skipped: list[OSError] = []
    assert audio_names(tmp_path, skipped.append) == ["b/z.wav"]
    assert [error.filename for error in skipped] == [str(tmp_path / "a")]
