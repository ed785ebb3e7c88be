"""The page is made from lines alone: the newest of each title, targets met or not with why, a plot for each
table."""

from __future__ import annotations

from pathlib import Path

import page
import pytest
from harness import Bench, Comparison, Fact, Growth, Result, Target, from_line, to_line

RESULTS: list[Result] = [
    Comparison(
        "store",
        "scan",
        {"memmap": [1.0, 2.0, 4.0], "store": [0.5, 1.0, 4.0]},
        "memmap",
        "store",
        8.0,
        "GB",
        (Target("memmap", 1.5),),
    ),
    Comparison(
        "lora",
        "one step",
        {"plain": [3.0], "beatmeter": [2.0]},
        "plain",
        "beatmeter",
        targets=(Target("plain", 2.0),),
        note="Because.",
    ),
    Growth(
        "store",
        "time as tracks grow",
        (1.0, 10.0, 100.0),
        "tracks",
        {"write": [1.0, 2.0, 3.0], "open": [0.0, 0.1, 0.1]},
        "s",
    ),
    Fact("store", "opening", 0.2, "s", 1.0),
    Fact("training", "rate", 0.2, "clips/s", 1.0, "at least"),
]


@pytest.mark.parametrize("result", RESULTS, ids=lambda r: r.title)
def test_a_line_gives_its_result_back(result: Result) -> None:
    found, rest = from_line(to_line(result))
    assert found == result
    assert set(rest) == {"machine", "time", "load", "commit"}
    assert result.title in found.text()


def test_ratios_are_paired_and_medians() -> None:
    scan = RESULTS[0]
    assert isinstance(scan, Comparison)
    assert scan.ratios("store") == [2.0, 2.0, 1.0]
    assert scan.ratio("store") == 2.0
    assert scan.verdicts() == [("store: 2.00 x memmap (target 1.5)", True)]


def test_the_page_tells_targets_and_forgets_what_was_measured_again(tmp_path: Path) -> None:
    old = Fact("store", "opening", 7.0, "s", 1.0)
    lines = [to_line(r) for r in (old, *RESULTS)]
    (tmp_path / "results.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "store-gone.png").write_bytes(b"")
    page.write(tmp_path / "results.jsonl", tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert "## Targets: 2 of 4 met" in text
    assert "| store | opening | 0.2 s (at most 1 s) | yes |" in text
    assert "| lora | one step | beatmeter: 1.50 x plain (target 2) | **no**. Because. |" in text
    assert "7 s" not in text
    assert text.count("* Machine") == 1
    assert text.index("## Store") < text.index("## Training") < text.index("## Lora")
    plots = sorted(p.name for p in (tmp_path / "plots").iterdir())
    assert plots == [
        "history-store.png",
        "lora-one-step.png",
        "store-scan.png",
        "store-time-as-tracks-grow.png",
    ]
    assert all(f"](plots/{name})" in text for name in plots)


def test_nothing_is_recorded_unless_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BEATMETER_BENCH_LINES", str(tmp_path / "lines"))
    called: list[object] = []
    for timed in (False, True):
        bench = Bench(timed, "store", lambda way, **options: called.append(way))
        result = bench.compare(
            "copy", {"a": lambda: None, "b": lambda: None}, "a", "b", rounds=3, scale={"b": 2.0}
        )
        assert [len(s) for s in result.seconds.values()] == ([3, 3] if timed else [1, 1])
        assert len(called) == 1 + timed
        assert (tmp_path / "lines").exists() is timed
        assert ("x a" in capsys.readouterr().out) is timed
