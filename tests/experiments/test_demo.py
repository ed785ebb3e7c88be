"""The demo shows what it says: the change of meter is heard and drawn, the wall takes all but the bass, and
every row of the table is of the same clips."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from beatmeter.cli.demo import SENTENCES, settings_of, show_learned
from beatmeter.datasets.synth.draws import stream
from beatmeter.datasets.synth.examples import CHANGE, RATE, WALTZ, changing_piece, example_pieces
from beatmeter.datasets.synth.forms import Form
from beatmeter.datasets.synth.meters import draw_meters
from beatmeter.datasets.synth.slices import SLICES
from beatmeter.evaluation.comparison.compare import MetricTest, Pair
from beatmeter.evaluation.metrics import Estimate
from beatmeter.experiments import demo
from beatmeter.runtime.config import change
from beatmeter.runtime.progress import SILENT

Typed = Callable[..., tuple[int, str, str]]
CPU = torch.device("cpu")


def test_the_first_minute_hears_and_draws_the_change(typed: Typed, tmp_path: Path) -> None:
    status, out, _ = typed("demo", "--out", tmp_path, "--listen-only")
    assert status == 0
    made, heard = (
        next(line for line in out.splitlines() if line.strip().startswith(w)) for w in ("made", "heard")
    )
    made, heard = made.split()[1], heard.split()[1]
    assert len(made) == len(heard)
    assert made == "4" * (len(made) // 2) + "7" * (len(made) // 2)
    assert set(heard) == {"4", "7"}
    assert heard == "".join(sorted(heard)), "one change"
    right = np.mean([a == b for a, b in zip(made, heard, strict=True)])
    assert right > 0.85, "found within some seconds"
    assert "It hears 4 (probability 0." in out or "It hears 4 (probability 1." in out
    for name in ("change.flac", "change.svg"):
        assert str(tmp_path / name) in out
        assert (tmp_path / name).stat().st_size > 1000
    assert "beatmeter predict YOUR-MUSIC/" in out


def test_the_pieces_are_what_they_are_said_to_be() -> None:
    pieces = example_pieces()
    assert list(pieces) == ["waltz", "seven", "change", "rain"]
    assert len(changing_piece()) == round(CHANGE[-1][1] * RATE)
    assert np.array_equal(pieces["change"][round(CHANGE[1][0] * RATE) :], pieces["seven"])
    drawn = (dance_of(seed).name for seed in itertools.count(1))
    assert next(seed for seed, name in enumerate(drawn, 1) if name == "fast waltz") == WALTZ


def dance_of(seed: int) -> Form:
    row = SLICES["dance"]
    return draw_meters(stream(seed, "meter"), 3, "single", 30.0, row.options, row.form_of).form


def test_a_wall_lets_through_the_bass_alone() -> None:
    t = np.arange(RATE) / RATE
    level = {}
    for hz in (60.0, 2000.0):
        both = np.sin(2 * np.pi * 60 * t) + np.sin(2 * np.pi * 2000 * t)
        spectrum = np.abs(np.fft.rfft(demo.through_the_wall(both, RATE)[RATE // 4 :][: RATE // 2]))
        level[hz] = spectrum[round(hz / 2)]
    assert 20 * np.log10(level[60.0] / level[2000.0]) > 60
    assert not demo.through_the_wall(np.zeros(100), RATE).any()


def test_every_row_is_of_the_same_clips(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = demo.make_music(tmp_path, 18, 5.0, 1, SILENT)
    before = {path: path.stat().st_mtime_ns for path in (data / "audio").iterdir()}
    assert demo.make_music(tmp_path, 18, 5.0, 1, SILENT) == data
    assert {path: path.stat().st_mtime_ns for path in (data / "audio").iterdir()} == before, (
        "what is there is kept"
    )
    few = {"training": {"epochs": 1}}
    configs = {name: change(c, few) for name, c in settings_of(tmp_path, data).items()}
    learned = demo.learn(tmp_path, data, configs, CPU, lambda text: None)
    assert [row.name for row in learned.rows] == ["as it ships", "frozen", "LoRA"]
    assert {row.accuracy.n for row in learned.rows} == {6}
    assert (learned.train, learned.classes) == (6, 6)
    frozen, lora = (row.folder for row in learned.rows[1:])
    assert f'start = "{frozen}"' in (lora / "config.toml").read_text()
    show_learned(learned)
    said = " ".join(capsys.readouterr().out.split())  # lines end where the terminal does
    for name, sentence in SENTENCES.items():
        assert name in said
        assert sentence.split()[0] in said
    assert "right of 6" in said
    assert "LoRA" in said.rsplit("into features, learned too", 1)[1]
    assert "log loss" in said


@pytest.mark.parametrize(
    ("gains", "losses", "p", "said"),
    [
        (0, 0, 1.0, "LoRA changes no answer of frozen. It is better at saying how sure it is"),
        (5, 1, 0.2, "right on 5 pieces on which frozen is wrong, and wrong on 1"),
        (5, 1, 0.2, "[-2, +17], which may be luck with so few pieces"),
        (9, 0, 0.01, "+8 points [-2, +17], and no luck"),
    ],
)
def test_what_lora_did_is_told_as_it_is(
    gains: float, losses: float, p: float, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    accuracy = MetricTest("accuracy", "frozen", "LoRA", 0.08, -0.02, 0.17, p, p)
    loss = MetricTest("log_loss", "frozen", "LoRA", -0.01, -0.016, -0.004, 0.002, 0.002, "lower")
    pair = Pair("frozen", "LoRA", (accuracy, loss), gains, losses, p, p, (), ())
    row = demo.Row("LoRA", Estimate(0.85, 0.73, 0.92, 54, "wilson"), 60.0, Path("runs/lora"))
    show_learned(demo.Learned((row,), pair, 90, 6))
    assert said in " ".join(capsys.readouterr().out.split())
