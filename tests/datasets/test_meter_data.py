"""The sets that models of meter learn from together: every clip once, in its split, with its slice."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest

from beatmeter.datasets import open_dataset
from beatmeter.settings import DataConfig

TOOLS = Path(__file__).resolve().parents[2] / "tools"


def test_sets_are_joined_under_one_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(TOOLS))
    import meter_data

    counts = {"ordinary": 4, "hard": 4, "layers": 3, "short": 1, "unheard": 2}
    flags = [text for name, count in counts.items() for text in (f"--{name}", str(count))]
    monkeypatch.setattr(sys, "argv", ["meter_data.py", str(tmp_path), "--seconds", "3", *flags])
    meter_data.main()
    with (tmp_path / "manifest.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len({row["id"] for row in rows}) == len(rows) == sum(counts.values())
    assert {row["slice"] for row in rows if row["file"].startswith("layers/")} <= {"pairs", "layers"}
    plain = [row for row in rows if row["file"].split("/")[0] in ("ordinary", "unheard")]
    assert {row["slice"] for row in plain} == {"ordinary"}
    assert {row["slice"] for row in rows if row["file"].startswith("short/")} == {"short"}
    assert all(0.3 < float(row["bar"]) < 15 and row["rubato"] == "0" for row in plain)
    assert {row["split"] for row in rows if row["file"].startswith("unheard/")} == {"test"}
    with (tmp_path / "hard" / "manifest.csv").open(encoding="utf-8") as file:
        hard = [(row["id"], row["split"], row["slice"]) for row in csv.DictReader(file)]
    assert [(r["id"], r["split"], r["slice"]) for r in rows if r["file"].startswith("hard/")] == hard
    found = open_dataset(tmp_path / "manifest.csv", DataConfig(), ("3", "4", "5", "7", "9", "11"))
    assert len(found.tracks) + len(found.excluded) == len(rows)
    assert all(track.path.is_file() for track in found.tracks)
