"""How a training looks on a terminal: epochs under a legend in 80 columns, ten lines at the end, the rest in
files."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import meter_controls as controls
import numpy as np
import pytest

from beatmeter.evaluation.diagnostics import Limits
from beatmeter.evaluation.report import Evaluation
from beatmeter.evaluation.report.closing import closing_text
from beatmeter.runtime.display import width_of

Typed = Callable[..., tuple[int, str, str]]
FAST = Limits(permutations=100, replicates=100)
HISTORY = [{"epoch": n} for n in range(1, 25)]


def test_train_ends_with_ten_lines(typed: Typed, place: Path, tmp_path: Path) -> None:
    words = [
        "--set",
        "training.epochs=3",
        "--set",
        f"features.cache={place / 'other'}",
        "--set",
        "features.window=2",
    ]
    status, out, said = typed(
        "train", "--frozen", place / "music", "--recipe", "spectral-lag", *words, "--out", tmp_path / "run"
    )
    assert status == 0
    lines = out.splitlines()
    assert len(lines) <= 14
    assert lines[-2:] == [
        f"look          beatmeter report {tmp_path / 'run'} --open",
        f"use           beatmeter predict {tmp_path / 'run'} song.mp3",
    ]
    assert any(
        line.startswith("test  ") and "% right [" in line and "of 12 clips" in line and "chance 17%" in line
        for line in lines
    )
    for split in ("val", "test"):
        assert "metric" in (tmp_path / "run" / "evaluation" / f"{split}.txt").read_text()
    table = [line for line in said.splitlines() if "/3  " in line]
    assert len(table) == 3
    assert said.count("right %") == 1
    assert said.count("gap: first score minus second") == 1
    heading = next(line for line in said.splitlines() if "right %" in line)
    assert all(line.index("/3") == table[0].index("/3") for line in table)
    assert max(map(len, [*table, heading])) <= 80


@pytest.mark.parametrize(
    "control", [controls.polymetric, controls.leaky, controls.confused, controls.selective]
)
@pytest.mark.parametrize("width", [40, 80, 100])
def test_the_end_says_what_the_evaluation_found(control: type, width: int) -> None:
    e = Evaluation.of(control(0, songs=80), control(9, songs=80, split="val"), FAST)
    text = closing_text(Path("runs/first"), e, HISTORY, 21, width)
    assert max(width_of(line) for line in text.splitlines() if "runs/first" not in line) <= width, (
        "only names and commands may be longer"
    )
    flat = " ".join(text.split())
    assert flat.startswith("runs/first finished, best epoch 21 of 24 ")
    accuracy = e.measures.overall["accuracy"]
    assert (
        f"{100 * accuracy.value:.0f}% right [{100 * accuracy.low:.0f}, {100 * accuracy.high:.0f}] of "
        f"{accuracy.n} clips"
    ) in flat
    confusion = e.measures.confusion - np.diag(np.diag(e.measures.confusion))
    if confusion.any():
        i, j = np.unravel_index(confusion.argmax(), confusion.shape)
        assert f"({int(confusion.max())})" in flat
        assert f"{e.predictions.classes[i]} heard as" in flat or (confusion == confusion[i, j]).sum() > 1
    surplus = e.finding("reliability").values["surplus"]  # type: ignore[union-attr]
    if e.finding("reliability").level != "ok":  # type: ignore[union-attr]
        assert f"{'over' if surplus > 0 else 'under'}-confident by {abs(surplus):.2f}" in flat
        assert ("beatmeter calibrate runs/first" in flat) == (e.verdict != "chance")
    else:
        assert "honest" in flat
    heard = e.finding("polyrhythm")
    assert ("unknown: no clips of two meters" in flat) == (heard is None)
    assert "see the report" in flat or not [f for f in e.findings[1:] if f.level == "warning"]


def test_one_clip_no_history_no_split() -> None:
    p = controls.selective(0, songs=40)
    e = Evaluation.of(dataclasses.replace(p, split=""), limits=FAST)
    text = closing_text(Path("a-run-with-a-name-that-is-longer-than-a-third-of-the-line"), e, [], None, 80)
    assert text.splitlines()[0] == "a-run-with-a-name-that-is-longer-than-a-third-of-the-line"
    assert text.splitlines()[1].strip() == "finished"
    assert "evaluation/" not in text
    assert "finished" in closing_text(Path("r"), None, HISTORY, 3)
