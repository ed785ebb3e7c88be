"""The output for two meters at once: learned from labels, believed from a stated share of false alarms on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from beatmeter.errors import EvaluationError
from beatmeter.evaluation.calibration import Calibration, Pairs
from beatmeter.evaluation.comparison.ensemble import Ensemble
from beatmeter.schema import ClassPredictions, Track
from beatmeter.serving.answer import Scored
from beatmeter.serving.judge import Judge
from beatmeter.serving.scoring import witness_of_pairs
from beatmeter.settings import RunConfig, TaskConfig
from beatmeter.tasks import open_task
from beatmeter.tasks.meter import TWO_WEIGHT, MeterTask


def task(**settings: bool) -> MeterTask:
    found = open_task(RunConfig(task=TaskConfig(**settings)))
    assert isinstance(found, MeterTask)
    return found


def test_it_learns_from_labels_beside_the_classes_and_groupings() -> None:
    both, plain = task(groupings=True, two_meters=True), task(groupings=True)
    one = Track("one", Path("a.wav"), {"3": 1.0}, extra={"grouping": "3+3"})
    two = Track("two", Path("b.wav"), {"3": 1.0, "4": 0.8}, primary="3")
    targets = both.targets([one, two])
    assert both.width == plain.width + 1 == 6 + 23 + 1
    assert targets.values[:, -1].tolist() == [0, 1]
    assert targets.mask[:, -1].all()

    def loss(of: MeterTask, x: torch.Tensor) -> float:
        t = of.targets([one, two])
        state = {"weight": [1.0] * 6}
        total, _ = of.loss(x, torch.from_numpy(t.values).float(), torch.from_numpy(t.mask), state)
        return float(total)

    outputs = torch.zeros(2, both.width)
    without = loss(plain, outputs[:, :-1])
    assert loss(both, outputs) == pytest.approx(without + TWO_WEIGHT * 2 * np.log(2))
    outputs[:, -1] = torch.tensor([-4.0, 4.0])
    assert without < loss(both, outputs) < without + 0.01
    said = both.doubled(outputs.numpy())
    assert said == pytest.approx([0.018, 0.982], abs=1e-3)
    assert plain.doubled(outputs.numpy()[:, :-1]) == [None, None]
    assert both.grouped(outputs.numpy())[0].keys() == plain.grouped(outputs.numpy()[:, :-1])[0].keys()
    assert both.decode(outputs.numpy(), [one, two]).scores.shape == (2, 6)


def test_the_threshold_keeps_the_share_of_false_alarms() -> None:
    rng = np.random.default_rng(0)
    two = np.arange(500) % 5 == 0
    chances = np.where(two, rng.beta(4, 4, 500), rng.beta(2, 8, 500))
    found = Pairs.fit(chances.tolist(), two.tolist())
    assert found is not None
    assert found.alarms == np.mean(chances[~two] >= found.threshold) <= 0.05
    assert np.mean(chances[~two] >= found.threshold - 0.02) > 0.05, "no lower threshold would do"
    assert found.caught == np.mean(chances[two] >= found.threshold) > 0.4
    assert (found.singles, found.doubles) == (400, 100)
    alike = Pairs.fit([0.5] * 100, [False] * 90 + [True] * 10)
    assert alike is not None
    assert (alike.alarms, alike.caught) == (0, 0), "of equal chances none is named rather than all"
    assert Pairs.fit([0.1] * 100, [False] * 100) is None
    assert Pairs.fit([0.1] * 11, [False] * 10 + [True]) is None


@pytest.fixture
def calibration() -> Calibration:
    tracks = [Track(str(i), Path(f"{i}.wav"), {"34"[i % 2]: 1.0}) for i in range(40)]
    scores = np.random.default_rng(1).random((40, 2))
    validation = ClassPredictions.of_tracks(tracks, ("3", "4"), scores, "val")
    return Calibration.fit(validation, kind="none")


def test_a_second_meter_is_named_by_it_where_validation_says_from_when_on(calibration: Calibration) -> None:
    pairs = Pairs(threshold=0.6, alarms=0.05, caught=0.5, singles=100, doubles=20)
    scores, classes = np.array([0.9, 0.2]), ("3", "4")

    def second(two: float | None, of: Calibration) -> str | None:
        return Judge(of)(classes, Scored(scores, np.zeros(0), two=two), 30.0).second

    never = replace(calibration, thresholds={**calibration.thresholds, "production": (0.99, 0.99)})
    assert second(0.7, replace(never, pairs=pairs)) == "4"
    assert second(0.5, replace(never, pairs=pairs)) is None
    assert second(0.7, never) is None, "without a threshold for it, the scores decide"
    assert second(None, replace(never, pairs=pairs)) is None
    answer = Judge(replace(never, pairs=pairs))(classes, Scored(scores, np.zeros(0), two=0.7), 30.0)
    assert answer.to_json()["two"] == 0.7
    assert "two" not in Judge(never)(classes, Scored(scores, np.zeros(0)), 30.0).to_json()


def test_a_calibration_keeps_it(calibration: Calibration, tmp_path: Path) -> None:
    pairs = Pairs(threshold=0.6, alarms=0.05, caught=0.5, singles=100, doubles=20)
    replace(calibration, pairs=pairs).save(tmp_path / "calibration.json")
    assert Calibration.load(tmp_path / "calibration.json").pairs == pairs
    value = replace(calibration, pairs=pairs).to_json()
    with pytest.raises(EvaluationError, match="threshold"):
        Calibration.from_json({**value, "pairs": {**value["pairs"], "threshold": "high"}})


def test_an_ensemble_believes_its_weightiest_member_that_learned_it() -> None:
    joined = Ensemble(("3",), ("a", "b", "c"), "mean", {"a": 0.5, "b": 0.2, "c": 0.3}, {}, {})
    assert witness_of_pairs(joined, ["b", "c"]) == "c"
    assert witness_of_pairs(joined, []) is None
