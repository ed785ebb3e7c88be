"""beatmeter data check | split | synth, as they are typed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from meterfolders import MeterFolder, build, encode, music

from beatmeter.cli.data import data
from beatmeter.datasets.splits import read_split
from beatmeter.errors import ConfigError, DataError


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(data, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture(scope="module")
def broken(tmp_path_factory) -> MeterFolder:
    return build(tmp_path_factory.mktemp("m") / "METER2800")


def test_check_names_every_row_and_counts(broken: MeterFolder) -> None:
    result = run("check", broken.path)
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    for name, kind in broken.excluded.items():
        told = [line for line in lines if line.startswith(f"left out: {name} (")]
        assert len(told) == 1
        assert f": {kind}: " in told[0]
    assert f"METER2800 (meter2800): {len(broken.kept)} tracks" in result.stdout
    assert any(line.split() == ["FMA", "val", "1", "1", "1", "1", "0", "0", "4"] for line in lines)
    assert lines[-1].startswith(f"{len(broken.excluded)} left out: ")


def test_check_as_json(broken: MeterFolder) -> None:
    result = run("check", broken.path, "--json", "--jobs", 2)
    value = json.loads(result.stdout)
    assert result.exit_code == value["status"] == 1
    assert {e["id"]: e["kind"] for e in value["excluded"]} == broken.excluded
    assert value["tracks"] == len(broken.kept)


def test_check_of_a_clean_folder_and_of_none(tmp_path: Path) -> None:
    (tmp_path / "3").mkdir()
    (tmp_path / "3" / "a.flac").write_bytes(encode(music(1), "flac"))
    assert run("check", tmp_path).exit_code == 0
    assert run("check", tmp_path / "3").exit_code == 0
    (tmp_path / "3" / "a.flac").write_bytes(b"")
    result = run("check", tmp_path)
    assert result.exit_code == 2
    assert "nothing is left to use" in result.stderr
    with pytest.raises(DataError, match="there is no dataset"):
        run("check", tmp_path / "absent")


def test_check_with_other_classes_tables_and_extra_data(tmp_path: Path) -> None:
    f = MeterFolder(tmp_path / "main")
    f.good("train", "FMA/1", "3", 1)
    f.good("test", "FMA/2", "4", 2)
    f.write_tables(classes="2")
    f.good("train", "FMA/3", "5", 3)
    f.write_tables()
    extra = tmp_path / "extra"
    (extra / "7").mkdir(parents=True)
    (extra / "7" / "new.flac").write_bytes(encode(music(4), "flac"))
    (extra / "7" / "known.mp3").write_bytes((tmp_path / "main/FMA/2.mp3").read_bytes())
    result = run("check", tmp_path / "main", "--extra-data", extra, "--json")
    value = json.loads(result.stdout)
    assert {(e["id"], e["kind"]) for e in value["excluded"]} == {("7/known.mp3", "leak")}
    assert value["counts"][-1] == {"source": "extra", "split": "train", "classes": {"7": 1}}
    assert json.loads(run("check", tmp_path / "main", "--tables", 2, "--json").stdout)["tracks"] == 2
    value = json.loads(run("check", tmp_path / "main", "--classes", "3, 4", "--json").stdout)
    assert [(e["id"], e["kind"]) for e in value["excluded"]] == [("FMA/3", "label")]
    with pytest.raises(ConfigError):
        run("check", tmp_path / "main", "--classes", "3,3")


def test_split(tmp_path: Path) -> None:
    music_folder = tmp_path / "music"
    for n in range(40):
        path = music_folder / "34"[n % 2] / f"song{n // 4}_seg{n % 4:02d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d" % min(n, 38))
    result = run(
        "split",
        music_folder,
        "--out",
        tmp_path / "s.csv",
        "--val",
        0.2,
        "--test",
        0.2,
        "--cache",
        tmp_path / "cache",
    )
    assert result.exit_code == 1
    assert "left out: 4/song9_seg03.wav: conflict: the same audio has different labels" in result.stdout
    split = read_split(tmp_path / "s.csv")
    assert len(split) == 38
    for song in range(10):
        assert len({s for name, s in split.items() if f"song{song}_" in name}) == 1
    assert set(split.values()) == {"train", "val", "test"}
    assert "sha256" in result.stdout
    again = run(
        "split",
        music_folder,
        "--out",
        tmp_path / "t.csv",
        "--val",
        0.2,
        "--test",
        0.2,
        "--cache",
        tmp_path / "cache",
    )
    assert (tmp_path / "t.csv").read_bytes() == (tmp_path / "s.csv").read_bytes()
    assert again.exit_code == 1


def test_split_of_nothing(tmp_path: Path) -> None:
    (tmp_path / "3").mkdir()
    (tmp_path / "3" / "a.wav").write_bytes(b"")
    with pytest.raises(DataError, match="no tracks to split"):
        run("split", tmp_path, "--out", tmp_path / "s.csv", "--cache", tmp_path / "cache")


def test_synth(tmp_path: Path) -> None:
    result = run("synth", tmp_path / "s", "--clips", 12, "--seconds", 1.5, "--seed", 5)
    assert (result.exit_code, result.stdout) == (
        0,
        f"{tmp_path / 's' / 'manifest.csv'}: 12 clips made, 0 kept\n",
    )
    assert run("synth", tmp_path / "s", "--clips", 18, "--seconds", 1.5, "--seed", 5).stdout.endswith(
        "6 clips made, 12 kept\n"
    )
    assert run("check", tmp_path / "s").exit_code == 0
    with pytest.raises(DataError, match="other settings"):
        run("synth", tmp_path / "s", "--clips", 12, "--seconds", 1.5)


@pytest.mark.parametrize("command", [(), ("check",), ("split",), ("synth",)])
def test_help_has_examples_and_is_quick(command: tuple[str, ...]) -> None:
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert "beatmeter data" in result.stdout


def test_names_that_are_no_text_are_printed(tmp_path: Path) -> None:
    (tmp_path / "3").mkdir()
    for name in (b"caf\xe9.wav", b"new\nline.wav"):
        (tmp_path / "3" / os.fsdecode(name)).write_bytes(b"x")
    code = "from beatmeter.cli.data import data; data()"
    done = subprocess.run([sys.executable, "-c", code, "check", tmp_path], capture_output=True, check=False)
    assert done.returncode == 2
    assert b"left out: 3/caf\\udce9.wav: unreadable: libsndfile cannot read" in done.stdout
    assert b"left out: 3/new\\nline.wav: unreadable" in done.stdout
