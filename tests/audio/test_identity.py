"""Track keys: the hash of the bytes, remembered by path, size, time and inode, by many processes at once."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
from dataclasses import replace
from pathlib import Path

import joblib
import pytest

from beatmeter.audio import identity
from beatmeter.audio.identity import CACHE_NAME, track_key, track_keys
from beatmeter.errors import AudioError

LONG_AGO = 1_000_000_000


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "audio"
    folder.mkdir()
    paths = [folder / os.fsdecode(name) for name in (b"a.wav", b"b c.wav", b"new\nline.wav", b"caf\xe9.wav")]
    for n, path in enumerate(paths):
        path.write_bytes(bytes([n]) * 1000)
        os.utime(path, (LONG_AGO, LONG_AGO))
    return paths


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were really read."""
    seen: list[Path] = []
    original = identity._hash
    monkeypatch.setattr(identity, "_hash", lambda path, *stop: (seen.append(path), original(path, *stop))[1])
    return seen


def test_a_key_is_the_hash_of_the_bytes(files: list[Path], tmp_path: Path) -> None:
    expected = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    assert [track_key(path) for path in files] == expected
    assert track_keys(files) == expected
    assert track_keys(files, tmp_path / "cache", jobs=3) == expected
    assert track_keys(files, tmp_path / "cache") == expected
    assert track_keys([], tmp_path / "cache") == []


def test_a_second_look_reads_nothing(files: list[Path], tmp_path: Path, hashed: list[Path]) -> None:
    seen: list[float] = []
    track_keys(files, tmp_path, tick=seen.append)
    assert hashed == files
    assert sum(seen) == len(files)
    seen.clear()
    track_keys(list(reversed(files)), tmp_path, tick=seen.append)
    assert hashed == files
    assert sum(seen) == len(files)


def test_a_changed_file_is_read_again(files: list[Path], tmp_path: Path, hashed: list[Path]) -> None:
    before = track_keys(files, tmp_path)
    hashed.clear()
    files[0].write_bytes(b"x" * 1000)  # the same size
    os.utime(files[0], (LONG_AGO + 1, LONG_AGO + 1))
    other = files[1].with_suffix(".new")
    other.write_bytes(b"y" * 1000)
    os.utime(other, (LONG_AGO, LONG_AGO))
    other.replace(files[1])  # the same size and time, another inode
    after = track_keys(files, tmp_path)
    assert hashed == files[:2]
    assert after[0] != before[0]
    assert after[1] == hashlib.sha256(b"y" * 1000).hexdigest()
    assert after[2:] == before[2:]


def test_a_file_changed_just_now_is_not_remembered(
    files: list[Path], tmp_path: Path, hashed: list[Path]
) -> None:
    files[0].write_bytes(b"a")
    track_keys(files, tmp_path)
    hashed.clear()
    files[0].write_bytes(b"b")
    assert track_keys(files, tmp_path)[0] == hashlib.sha256(b"b").hexdigest()
    assert hashed == files[:1]


def test_files_without_a_key_say_why(files: list[Path], tmp_path: Path) -> None:
    files[1].write_bytes(b"")
    keys = track_keys([*files, tmp_path / "absent", tmp_path, Path("a\0b")], tmp_path / "cache")
    problems = {i: key for i, key in enumerate(keys) if isinstance(key, AudioError)}
    assert {i: e.kind for i, e in problems.items()} == {
        1: "empty",
        4: "missing",
        5: "unreadable",
        6: "unreadable",
    }


def test_a_file_that_changes_meanwhile_has_no_key(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    original = hashlib.file_digest

    def slow(file, name):
        digest = original(file, name)
        files[0].write_bytes(b"more" * 1000)
        return digest

    monkeypatch.setattr(hashlib, "file_digest", slow)
    with pytest.raises(AudioError, match="changed while it was read"):
        track_key(files[0])


def test_reading_ends_in_the_middle_of_a_file_when_it_is_told_to(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, original, begun = threading.Event(), hashlib.file_digest, []

    def halfway(file, name):
        begun.append(file.name)
        if len(begun) == 2:
            file.read(500)
            stop.set()
        return original(file, name)

    monkeypatch.setattr(hashlib, "file_digest", halfway)
    keys = track_keys(files, tmp_path, stop=stop)
    assert keys[0] == hashlib.sha256(files[0].read_bytes()).hexdigest()
    assert [key.kind for key in keys[1:] if isinstance(key, AudioError)] == ["stopped"] * 3


@pytest.mark.parametrize(
    "change",
    [
        {"inode": 2**64 - 3},
        {"inode": 2**63},
        {"inode": 2**100 + 7},
        {"mtime": 2**62 - 2**64},
        {"mtime": -(2**63) - 1},
    ],
    ids=str,
)
def test_any_number_of_an_inode_or_a_time_is_remembered(
    files: list[Path],
    tmp_path: Path,
    hashed: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, int],
) -> None:
    expected = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    assert track_keys(files[:1], tmp_path) == expected[:1]  # as ever
    original = identity._state
    large = [change if path != files[0] else {} for path in files]
    monkeypatch.setattr(identity, "_state", lambda path: replace(original(path), **large[files.index(path)]))
    assert track_keys(files, tmp_path) == expected
    hashed.clear()
    assert track_keys(files, tmp_path) == expected
    assert hashed == []


@pytest.mark.parametrize("damage", ["junk", "cut", "schema"])
def test_a_damaged_memory_costs_only_time(files: list[Path], tmp_path: Path, damage: str) -> None:
    expected = track_keys(files, tmp_path)
    file = tmp_path / CACHE_NAME
    if damage == "junk":
        file.write_bytes(b"no database" * 500)
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:5000])
    else:
        file.unlink()
        with sqlite3.connect(file) as db:
            db.execute("CREATE TABLE keys (other TEXT)")
        db.close()
    assert track_keys(files, tmp_path) == expected
    assert track_keys(files, tmp_path) == expected


def test_a_memory_that_cannot_be_written_costs_only_time(files: list[Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    assert track_keys(files, tmp_path / "file") == [track_key(path) for path in files]


def test_a_locked_memory_costs_only_time(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "_BUSY", 0.05)
    expected = track_keys(files, tmp_path)
    db = sqlite3.connect(tmp_path / CACHE_NAME, isolation_level=None)
    db.execute("BEGIN EXCLUSIVE")
    assert track_keys(files, tmp_path) == expected
    db.close()


def test_many_processes_share_a_memory(tmp_path: Path) -> None:
    folder = tmp_path / "audio"
    folder.mkdir()
    paths = [folder / f"{n}.wav" for n in range(300)]
    for n, path in enumerate(paths):
        path.write_bytes(b"%d" % n)
        os.utime(path, (LONG_AGO, LONG_AGO))
    parts = [paths[i::3] + paths[:50] for i in range(3)]
    found = joblib.Parallel(n_jobs=2)(joblib.delayed(track_keys)(part, tmp_path) for part in parts)
    for part, keys in zip(parts, found, strict=True):
        assert keys == [track_key(path) for path in part]
    with sqlite3.connect(tmp_path / CACHE_NAME) as db:
        assert db.execute("SELECT count(*) FROM keys").fetchone() == (300,)
    db.close()
