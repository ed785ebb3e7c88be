"""Planted errors in beats: a tenth shifted, a tenth dropped; of the twenty worst-ranked many are real."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from beatmeter.cli.data import data
from beatmeter.datasets import open_dataset
from beatmeter.datasets.annotations import Grid, find_annotations
from beatmeter.errors import DataError
from beatmeter.experiments.audit.events import RATE, Doubt, out_of_fold, rank_events
from beatmeter.settings import METERS, DataConfig


@pytest.fixture(scope="module")
def tracks(clips: Path):
    return open_dataset(clips, DataConfig(), METERS).tracks[::2]


def test_the_worst_ranked_beats_are_errors_that_were_planted(tracks) -> None:
    grids, planted = {}, {}
    rng = np.random.default_rng(0)
    for id, annotation in find_annotations(tracks).items():
        true = annotation.grid
        draw, times = rng.random(len(true)), true.times.copy()
        shifted, dropped = draw < 0.1, (draw >= 0.1) & (draw < 0.2)
        times[shifted] += rng.uniform(0.08, 0.15, shifted.sum()) * rng.choice([-1, 1], shifted.sum())
        order = np.argsort(times[~dropped])
        kept = times[~dropped][order]
        apart = np.diff(kept, prepend=-np.inf) > 0.01
        grids[id] = Grid(kept[apart], true.places[~dropped][order][apart], known=true.known)
        planted[id] = (times[shifted], true.times[shifted | dropped])

    def is_real(doubt: Doubt) -> bool:
        wrong, absent = planted[doubt.id]
        if doubt.kind == "missing":
            return bool((np.abs(absent - doubt.suggested) < 0.05).any())
        return bool((np.abs(wrong - doubt.time) < 1e-9).any())

    ranked = rank_events(out_of_fold(tracks, grids), grids)
    real = [is_real(doubt) for doubt in ranked]
    assert np.mean(real) < 0.3
    assert sum(real[:20]) >= 8
    assert [d.quality for d in ranked] == sorted(d.quality for d in ranked)


def test_a_shifted_a_missing_and_a_right_beat() -> None:
    curve = np.full(200, 0.01)
    beats = np.array([0.5, 1.0, 1.5, 2.0, 2.5, 3.0])
    curve[(beats * RATE).astype(int)] = 0.9
    grid = Grid([0.5, 1.0, 1.38, 2.0, 3.0], [1, 2, 3, 4, 2], known=[[0.0, 4.0]])
    worst = rank_events({"a": curve}, {"a": grid})[:3]
    assert {d.kind for d in worst} == {"shifted", "missing"}
    shifted = next(d for d in worst if d.kind == "shifted")
    assert (shifted.time, round(shifted.suggested, 2)) == (1.38, 1.5)
    assert any(d.kind == "missing" and round(d.suggested, 2) == 2.5 for d in worst)
    unknown = Grid(grid.times, grid.places, known=[[0.0, 1.2]])
    assert not any(d.kind == "missing" for d in rank_events({"a": curve}, {"a": unknown}))
    assert rank_events({}, {}) == []


def test_one_group_or_no_beats_cannot_be_audited(tracks, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is one group"):
        out_of_fold(tracks[:1], {tracks[0].id: Grid([1.0], [1])})
    (tmp_path / "a.wav").write_bytes(b"x")
    result = CliRunner().invoke(
        data, ["annotations", "audit", str(tmp_path), "--out", str(tmp_path / "r.csv")]
    )
    assert isinstance(result.exception, DataError)
    assert "has annotated beats" in str(result.exception)
