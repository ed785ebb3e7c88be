"""The second output of meter: groupings are learned where they are known, and said where they are likely."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from beatmeter.cli import answers
from beatmeter.learning.training import run
from beatmeter.runtime.config import change
from beatmeter.schema import Track
from beatmeter.serving.answer import Answer
from beatmeter.serving.predictor import Predictor
from beatmeter.serving.scoring import mean_groupings
from beatmeter.settings import RunConfig, TaskConfig
from beatmeter.tasks import open_task
from beatmeter.tasks.groupings import Groupings
from beatmeter.tasks.meter import MeterTask

METERS = ("3", "4", "5", "7", "9", "11")


def track(meter: str, grouping: str = "") -> Track:
    return Track(f"{meter} {grouping}", Path("a.wav"), {meter: 1.0}, extra={"grouping": grouping})


def task(groupings: bool) -> MeterTask:
    found = open_task(RunConfig(task=TaskConfig(groupings=groupings)))
    assert isinstance(found, MeterTask)
    return found


def test_targets_are_of_the_class_of_a_track() -> None:
    known = Groupings(METERS)
    targets = known.targets([track("7", "2+2+3"), track("7", "4+3"), track("7", "7"), track("3")])
    at = known.names.index(("7", "2+2+3"))
    assert targets.values[:, at].tolist() == [1, 1, 0, 0]
    assert targets.values.sum() == 2
    assert targets.mask.any(axis=1).tolist() == [True, True, False, False]
    assert {known.names[i][0] for i in np.flatnonzero(targets.mask[0])} == {"7"}
    assert len(Groupings(()).names) == 0


def test_the_loss_is_the_meters_where_no_grouping_is_known_and_falls_with_the_right_one() -> None:
    plain, both = task(groupings=False), task(groupings=True)
    unknown, known = [track("7"), track("4", "5")], [track("7", "3+2+2"), track("3", "3+3")]
    outputs = torch.zeros(2, 6 + len(both.groupings.names))

    def loss(of: MeterTask, tracks: list[Track], x: torch.Tensor) -> float:
        t = of.targets(tracks)
        state = {"weight": [1.0] * 6}
        total, count = of.loss(x, torch.from_numpy(t.values).float(), torch.from_numpy(t.mask), state)
        assert float(count) == 2
        return float(total)

    assert loss(both, unknown, outputs) == pytest.approx(loss(plain, unknown, outputs[:, :6]))
    even = loss(both, known, outputs)
    assert even == pytest.approx(loss(plain, known, outputs[:, :6]) + 0.2 * 2 * np.log(3))
    right = outputs.clone()
    right[0, 6 + both.groupings.names.index(("7", "3+2+2"))] = 3
    assert loss(both, known, right) < even
    elsewhere = outputs.clone()
    elsewhere[0, 6 + both.groupings.names.index(("9", "2+2+2+3"))] = 3
    assert loss(both, known, elsewhere) == pytest.approx(even)


def test_outputs_become_probabilities_that_add_up_in_every_class() -> None:
    both = task(groupings=True)
    outputs = np.random.default_rng(0).normal(size=(3, 6 + len(both.groupings.names)))
    for by_class in both.grouped(outputs):
        assert set(by_class) == set(METERS)
        assert all(sum(p.values()) == pytest.approx(1) for p in by_class.values())
    tracks = [track("7", "2+2+3")] * 3
    assert both.decode(outputs, tracks).scores.shape == (3, 6)
    assert task(groupings=False).grouped(outputs[:, :6]) == [{}] * 3


def answer(*scores: float, **groupings: dict[str, float]) -> Answer:
    return Answer(("3", "7"), np.array(scores), 30.0, groupings={k[1:]: v for k, v in groupings.items()})


def test_the_grouping_of_the_answered_class_is_said_where_it_is_likely() -> None:
    known = {"_7": {"2+2+3": 0.7, "3+2+2": 0.3}, "_3": {"3": 0.6, "3+3": 0.4}}
    assert answers.words(answer(0.1, 0.9, **known)) == "7 in a bar, as 2+2+3"
    assert answers.words(answer(0.9, 0.1, **known)) == "3 in a bar"
    assert answer(0.1, 0.9, **known).to_json()["subdivision"] == "additive"
    assert answer(0.9, 0.1, **known).to_json()["grouping"] == "3"
    unsure = answer(0.1, 0.9, _7={"2+2+3": 0.4, "3+2+2": 0.35, "2+3+2": 0.25})
    assert unsure.grouping is None
    assert answers.words(unsure) == "7 in a bar"
    nothing = Answer(("3", "7"), np.array([0.1, 0.9]), 30.0, heard=0.1, groupings={"7": {"2+2+3": 1.0}})
    assert nothing.grouping is None
    header = answers.csv_header(("3", "7")).split(",")
    row = answers.csv_row("a.wav", answer(0.1, 0.9, **known), ("3", "7")).split(",")
    assert row[header.index("grouping")] == "2+2+3"
    assert len(row) == len(header)


def test_lines_have_room_for_groupings_and_columns_have_one_for_them() -> None:
    lines = answers.Lines(["a.wav"], ("3", "11"), 100, scores=False)
    long = Answer(("3", "11"), np.array([0.1, 0.9]), 30.0, groupings={"11": {"2+2+3+2+2": 0.9}})
    short = answer(0.9, 0.1)
    assert lines.answer("a.wav", long).index("likely") == lines.answer("a.wav", short).index("likely")
    assert answers.columns("a.wav", long, scores=False).split("\t")[5] == "2+2+3+2+2"


def test_an_ensemble_takes_the_mean_of_those_who_know() -> None:
    one, two = {"7": {"2+2+3": 0.8, "3+2+2": 0.2}}, {"7": {"2+2+3": 0.4, "3+2+2": 0.6}}
    assert mean_groupings([one, {}, two])["7"]["2+2+3"] == pytest.approx(0.6)
    assert mean_groupings([{}, {}]) == {}


def test_a_run_learns_groupings_from_its_column_and_its_answers_have_them(
    config: RunConfig, clips: Path, tmp_path: Path
) -> None:
    settings = {
        "features": {"poolings": ("rhythm",), "longest_lag": 14.0},
        "head": {"poolings": ("rhythm",)},
        "training": {"epochs": 1},
        "task": {"groupings": True, "two_meters": True},
    }
    out = tmp_path / "run"
    outcome = run(change(config, settings), out, torch.device("cpu"), predict="val", report=lambda line: None)
    assert outcome.evaluations["val"].predictions.scores.shape[1] == 6  # type: ignore[union-attr]
    predictor = Predictor.load(out)
    _, said = next(iter(predictor.predict_files([clips / "audio" / "000000.flac"])))
    assert isinstance(said, Answer)
    assert set(said.groupings) == set(METERS)
    assert sum(said.groupings["7"].values()) == pytest.approx(1)
    assert said.two is not None
    assert 0 < said.two < 1
