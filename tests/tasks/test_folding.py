"""Groupings of additive bars: tracks are folded by their bars, a network learns where bars and groups begin,
and what ships fits the beats model that ships."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import save

from beatmeter.errors import RunError
from beatmeter.learning import groupings as learning
from beatmeter.learning.groupings import Example, example_of, threshold_of, train_network
from beatmeter.serving.models import SHIPPED
from beatmeter.tasks.structure.folding import PARTS, Grid, Reading, find_pulses, readings
from beatmeter.tasks.structure.grouping import (
    ADDITIVE,
    group,
    load_networks,
    save_networks,
    shipped_networks,
)

RATE, START = 25.0, 0.02
SEVEN = (2, 2, 3)


def bars_of(groups: tuple[int, ...], pulse: float, first: float) -> tuple[np.ndarray, np.ndarray]:
    """Curves (time, 2) of 30 s in bars of these groups, whose beats are the groups, and the downbeats."""
    starts = np.concatenate([[0], np.cumsum(groups)[:-1]])
    bars = first + pulse * sum(groups) * np.arange(40)
    beats = (bars[:, None] + pulse * starts).ravel()
    at = START + np.arange(750) / RATE
    near = [np.exp(-0.5 * ((at[:, None] - own) / 0.03) ** 2).max(axis=1) for own in (beats, bars)]
    return 0.02 + 0.9 * np.stack(near, axis=1), bars[bars < 29.5]


@pytest.mark.parametrize("pulse", [0.17, 0.31])
def test_a_track_is_folded_by_its_bars(pulse: float) -> None:
    curves, downbeats = bars_of(SEVEN, pulse, 0.9)
    grid = find_pulses(curves, RATE, START, "7")
    assert grid is not None
    found = readings(curves, RATE, START, grid, 7)
    example = example_of("7", ADDITIVE["7"].index(SEVEN), found, downbeats, curves, RATE, START)
    right = found[example.right]
    assert right.seconds == pytest.approx(7 * pulse, rel=0.02)
    assert example.true is not None
    for reading, begins in ((right, example.pulse), (example.true, 0)):
        bar = np.roll(reading.rows.mean(axis=0), -begins * PARTS, axis=0)
        assert set(np.argsort(-bar[:, 0])[:3]) == {0, 2 * PARTS, 4 * PARTS}, "beats at pulses 0, 2 and 4"
        assert bar[:, 1].argmax() == 0


def planted(count: int, seed: int) -> list[Example]:
    """Bars in which one channel tells where they begin, another where groups do, among noise, beside a
    reading that tells nothing."""
    rng = np.random.default_rng(seed)
    grid, found = Grid(np.arange(2.0), np.arange(2.0)), []
    for k in range(count):
        meter = ("5", "7")[k % 2]
        grouping = int(rng.integers(len(ADDITIVE[meter])))
        groups, pulses, pulse = ADDITIVE[meter][grouping], int(meter), int(rng.integers(int(meter)))
        rows = rng.normal(0, 0.5, (3, pulses * PARTS, 3))
        starts = (np.concatenate([[0], np.cumsum(groups)[:-1]]) + pulse) % pulses
        rows[:, starts * PARTS, 0] += 2
        rows[:, pulse * PARTS, 1] += 2
        other = Reading(grid, rng.normal(0, 0.5, (2, pulses * PARTS, 3)), 1.0, True)
        found.append(Example(meter, grouping, (other, Reading(grid, rows, 2.0, False)), 1, pulse))
    return found


def test_a_network_learns_where_groups_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "CLIPS", 8)
    network, unheard = train_network(planted(96, 0), seed=0, epochs=6), planted(40, 1)

    def right(networks: list) -> float:
        said = [group(networks, e.readings, e.meter) for e in unheard]
        assert all(sum(chances.values()) == pytest.approx(1, abs=1e-4) for chances in said)
        names = [max(chances, key=lambda name: chances[name]) for chances in said]
        groups = ["+".join(map(str, ADDITIVE[e.meter][e.grouping])) for e in unheard]
        return float(np.mean([a == b for a, b in zip(names, groups, strict=True)]))

    assert right([network]) > 0.75, "two or three are told apart"
    (tmp_path / "model.safetensors").write_bytes(save(save_networks([network, network], 0.7)))
    kept, threshold = load_networks(tmp_path / "model.safetensors")
    assert len(kept) == 2
    assert threshold == pytest.approx(0.7)
    assert right(kept) == pytest.approx(right([network]), abs=0.05)


def test_the_threshold_is_the_lowest_from_which_enough_are_right() -> None:
    sure = np.linspace(1, 0, 100)
    right = np.concatenate([np.ones(50), np.zeros(50)])
    assert (sure >= threshold_of(sure, right, 0.8)).sum() == 62, (
        "50 of 62 are more than four fifths, of 63 less"
    )
    assert threshold_of(sure, 1 - right) > 1, "never"


def test_no_groupings_are_read_from_another_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"nothing")
    with pytest.raises(RunError, match="holds no groupings"):
        load_networks(tmp_path / "a")


def test_what_ships_was_learned_from_the_beats_model_that_ships() -> None:
    networks, threshold = shipped_networks()
    assert len(networks) == 3
    assert 0.5 < threshold < 1
    beats = hashlib.sha256((SHIPPED / "beats" / "best.safetensors").read_bytes()).hexdigest()
    with safe_open(SHIPPED / "groupings" / "model.safetensors", "pt") as file:
        assert file.metadata() == {"beats": beats}, "run tools/groupings_model.py again"
