"""Every line says of which commit it is, and the page draws how its number moved."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import history
import page
import pytest
from harness import Comparison, Fact, Target, commit, from_line, to_line


def slower(times: float, base: str = "plain") -> Comparison:
    seconds = {base: [times, times], "ours": [1.0, 1.0]}
    return Comparison("store", "a scan", seconds, base, "ours", targets=(Target(base, 2.0),))


def test_the_page_draws_every_measurement_of_a_benchmark(tmp_path: Path) -> None:
    lines = tmp_path / "results.jsonl"
    old = json.loads(to_line(slower(1.0)))
    del old["commit"]  # as lines were before commits were kept
    results = [slower(9.0, "other"), slower(3.0), Fact("store", "opening", 1.0, "s", 2.0), slower(4.0)]
    lines.write_text("\n".join([json.dumps(old), *map(to_line, results)]) + "\n", encoding="utf-8")
    moved = history.courses(lines)
    assert [c.title for c in moved["store"]] == ["a scan"]  # measured once: nothing to draw
    (scan,) = moved["store"]
    assert scan.values == (1.0, 3.0, 4.0)  # not the one against another baseline
    assert scan.bound == 2.0
    assert scan.marks == (old["time"][:10], *[commit() or old["time"][:10]] * 2)
    page.write(lines, tmp_path)
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "![store, from commit to commit](plots/history-store.png)" in text
    assert (tmp_path / "plots" / "history-store.png").stat().st_size > 1000
    assert "ours: 4.00 x plain (target 2)" in text
    if commit():
        assert f"<sub>commit {commit()}, " in text
    on_a_gpu = json.loads(to_line(slower(5.0)))
    told = "On a GPU\n\nNot measured"
    assert (told in text) == (on_a_gpu["machine"]["accelerator"] == "none")
    on_a_gpu["machine"]["accelerator"] = "a fast one"
    lines.write_text(json.dumps(on_a_gpu) + "\n", encoding="utf-8")
    page.write(lines, tmp_path)
    assert told not in (tmp_path / "README.md").read_text(encoding="utf-8")


def test_a_line_names_the_commit_and_whether_the_tree_differs(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        who = ["-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false"]
        done = subprocess.run(["git", *who, *words], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    assert commit(tmp_path) == ""
    commit.cache_clear()
    (tmp_path / "beatmeter").mkdir()
    (tmp_path / "benchmarks").mkdir()
    code = tmp_path / "beatmeter" / "a.py"
    code.write_text("1\n")
    (tmp_path / "benchmarks" / "results.jsonl").write_text("")
    git("init")
    git("add", ".")
    git("commit", "-m", "one")
    assert commit(tmp_path) == git("rev-parse", "HEAD")[:10]
    for file, differs in ((tmp_path / "benchmarks" / "results.jsonl", False), (code, True)):
        commit.cache_clear()
        file.write_text("2\n")  # results are what a measurement itself writes
        assert commit(tmp_path).endswith("+") is differs
    commit.cache_clear()


def test_lines_are_read_back(tmp_path: Path) -> None:
    result, rest = from_line(to_line(slower(2.0)))
    assert result == slower(2.0)
    assert set(rest) == {"commit", "machine", "time", "load"}
    with pytest.raises(KeyError):
        from_line('{"result": "Fact"}')
