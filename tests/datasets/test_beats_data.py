"""The sets that models of beats learn from together, and those of which every track teaches."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.mark.parametrize("teaches", [False, True])
def test_sets_of_all_kinds_are_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, teaches: bool) -> None:
    monkeypatch.syspath_prepend(str(TOOLS))
    import beats_data

    counts = {"clips": 4, "hard": 2, "slow": 3, "fast": 1}
    flags = [text for name, count in counts.items() for text in (f"--{name}", str(count))]
    flags += ["--excerpt", "10", "--seed", "3", *(["--train"] if teaches else [])]
    monkeypatch.setattr(sys, "argv", ["beats_data.py", str(tmp_path), *flags])
    beats_data.main()
    with (tmp_path / "manifest.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {name: sum(row["source"] == name for row in rows) for name in counts} == counts
    assert len({row["id"] for row in rows}) == len(rows)
    assert all((tmp_path / row[column]).is_file() for row in rows for column in ("file", "beats"))
    assert ({row["split"] for row in rows} == {"train"}) == teaches
    assert all(float(row["tempo"]) < 87 for row in rows if row["source"] == "slow")
