"""Ensembles learn from validation alone, useless members get nothing, and what is saved is what predicts."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import meter_controls as controls
import numpy as np
import pytest
from scipy import optimize
from sklearn.linear_model import LogisticRegression

from beatmeter.errors import EvaluationError
from beatmeter.evaluation.calibration import logit
from beatmeter.evaluation.comparison.ensemble import Ensemble, fit_mean, fit_stack, fit_weights, mean_of, tune
from beatmeter.evaluation.metrics import METRICS
from beatmeter.schema import ClassPredictions
from beatmeter.serving.meter_signal import SIGNATURES, MeterSignal, signal_of, signature_scores


def noisy(p: ClassPredictions, seed: int, strength: float) -> ClassPredictions:
    z = np.log(p.scores / (1 - p.scores)) + np.random.default_rng(seed).normal(0, strength, p.scores.shape)
    return dataclasses.replace(p, scores=controls.sigmoid(z))


def guessing(p: ClassPredictions, seed: int) -> ClassPredictions:
    return dataclasses.replace(p, scores=np.random.default_rng(seed).random(p.scores.shape))


def split(seed: int, name: str) -> dict[str, ClassPredictions]:
    p = controls.selective(seed, split=name)
    return {"a": noisy(p, seed + 1, 2.5), "b": noisy(p, seed + 2, 2.5), "guess": guessing(p, seed + 3)}


VAL, TEST = split(100, "val"), split(200, "test")


def value(name: str, p: ClassPredictions) -> float:
    return float(METRICS[name].value(p, None))


@pytest.mark.parametrize("fit", [fit_mean, fit_stack])
def test_ensembles_beat_their_members_on_songs_they_have_not_seen(fit: type) -> None:
    fitted = fit(VAL)
    combined = fitted.ensemble.combine(TEST)
    assert value("log_loss", combined) < min(value("log_loss", p) for p in TEST.values())
    assert value("accuracy", combined) > max(value("accuracy", p) for p in TEST.values()) + 0.03
    assert value("log_loss", fitted.validation) == pytest.approx(value("log_loss", combined), abs=0.04), (
        "out of fold: as good as on test, no better"
    )
    assert combined.ids == TEST["a"].ids
    assert combined.meta["ensemble"]["members"] == ["a", "b", "guess"]


def test_the_gain_is_told_over_the_best_member() -> None:
    fitted = fit_mean(VAL)
    best = fitted.best_member()
    assert value("log_loss", VAL[best]) == min(value("log_loss", p) for p in VAL.values())
    gain = fitted.gain()
    assert gain.value == pytest.approx(value("accuracy", fitted.validation) - value("accuracy", VAL[best]))
    assert gain.low > 0


def test_a_member_that_guesses_gets_no_weight() -> None:
    weights = fit_mean(VAL).ensemble.weights
    assert weights["guess"] == 0.0
    assert sum(weights.values()) == pytest.approx(1.0)
    assert min(weights["a"], weights["b"]) > 0.25


def test_weights_rise_from_zero_to_the_optimum() -> None:
    members = [VAL["a"], VAL["b"]]
    criterion = METRICS["log_loss"]
    found = tune(members, criterion)

    def loss(weight: float) -> float:
        scores = mean_of([m.scores for m in members], np.array([1 - weight, weight]))
        return float(criterion.value(dataclasses.replace(members[0], scores=scores), None))

    best = optimize.minimize_scalar(loss, bounds=(0, 1), method="bounded").x
    assert found[1] / found.sum() == pytest.approx(best, abs=0.03)
    same = tune([VAL["a"], VAL["a"]], criterion)
    assert same.tolist() == [1.0, 0.0], "a copy brings nothing, so it stays at 0"


def test_weights_by_hand_are_taken_as_they_are() -> None:
    e = fit_mean(VAL, {"b": 3.0, "guess": 1.0}).ensemble
    assert e.weights == {"a": 0.0, "b": 0.75, "guess": 0.25}
    np.testing.assert_allclose(e.combine(TEST).scores, 0.75 * TEST["b"].scores + 0.25 * TEST["guess"].scores)
    for wrong, said in (
        ({"z": 1.0}, "no member 'z'"),
        ({"a": -1.0}, "must not be negative"),
        ({"a": 0.0}, "not all 0"),
    ):
        with pytest.raises(EvaluationError, match=said):
            fit_mean(VAL, wrong)


def test_stacking_is_logistic_regression_where_the_ridge_is_weak() -> None:
    z = np.stack([logit(VAL["a"].scores[:, 0]), logit(VAL["b"].scores[:, 0])], axis=1)
    y = VAL["a"].targets[:, 0] > 0
    theirs = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(z, y)
    assert fit_weights(z, y.astype(float), 1e-9) == pytest.approx(
        [theirs.intercept_[0], *theirs.coef_[0]], abs=1e-3
    )
    strong = fit_weights(z, y.astype(float), 1e9)
    assert strong[1:] == pytest.approx([0.5, 0.5], abs=1e-4)


def test_stacking_minimises_what_it_says() -> None:
    random = np.random.default_rng(0)
    z, ridge = random.normal(0, 2, (80, 3)), 5.0
    y = (random.random(80) < 0.3).astype(float)

    def loss(w: np.ndarray) -> float:
        u = w[0] + z @ w[1:]
        return float((np.logaddexp(0, u) - y * u).sum() + ridge / 2 * np.square(w[1:] - 1 / 3).sum())

    assert loss(fit_weights(z, y, ridge)) == pytest.approx(
        optimize.minimize(loss, np.zeros(4), tol=1e-12).fun, abs=1e-6
    )


def test_rare_classes_keep_the_plain_mean_of_logits() -> None:
    few = {name: p.take(np.flatnonzero(p.primary != 5)) for name, p in VAL.items()}
    coefficients = fit_stack(few).ensemble.coefficients["11"]
    assert coefficients == pytest.approx({"intercept": 0.0, "a": 1 / 3, "b": 1 / 3, "guess": 1 / 3})


@pytest.mark.parametrize("fit", [fit_mean, fit_stack])
def test_saved_ensembles_predict_the_same(tmp_path: Path, fit: type) -> None:
    e = fit(VAL).ensemble
    e.save(tmp_path / "ensemble.json")
    back = Ensemble.load(tmp_path / "ensemble.json")
    assert back.combine(TEST).scores.tobytes() == e.combine(TEST).scores.tobytes()
    json.loads((tmp_path / "ensemble.json").read_text())
    with pytest.raises(EvaluationError, match="needs the member 'guess'"):
        back.combine({k: TEST[k] for k in "ab"})
    (tmp_path / "ensemble.json").write_text('{"format": 2}')
    with pytest.raises(EvaluationError, match="another format"):
        Ensemble.load(tmp_path / "ensemble.json")
    with pytest.raises(EvaluationError, match=r"there is no file .*none\.json"):
        Ensemble.load(tmp_path / "none.json")


def test_one_member_is_no_ensemble() -> None:
    with pytest.raises(EvaluationError, match="two members"):
        fit_mean({"a": VAL["a"]})


def test_signatures_share_out_the_probabilities() -> None:
    scores = signature_scores({"3": 0.6, "4": 0.2, "9": 0.2})
    assert sum(scores.values()) == pytest.approx(1.0)
    assert scores[3, 4] == pytest.approx(0.45)
    assert scores[6, 8] == pytest.approx(0.15)
    assert scores[9, 8] == pytest.approx(0.2)
    assert list(scores.values()) == sorted(scores.values(), reverse=True)
    for parts in SIGNATURES.values():
        assert sum(parts.values()) == pytest.approx(1.0)
    with pytest.raises(EvaluationError, match="class '13' has no time signatures"):
        signature_scores({"13": 1.0})
    with pytest.raises(EvaluationError, match="add up to nothing"):
        signature_scores({"3": 0.0})


def test_a_signal_is_silent_until_it_has_a_weight() -> None:
    heard = []

    @dataclasses.dataclass
    class Answer:
        classes: tuple[str, ...]
        scores: np.ndarray

    class Model:
        def predict(self, wave: np.ndarray, sample_rate: int) -> Answer:
            heard.append(len(wave))
            return Answer(("3", "7"), np.array([0.2, 0.8]))

    wave = np.zeros(100, dtype=np.float32)
    assert MeterSignal(lambda w, r: {"3": 1.0}).weighted(wave, 22050) == {}
    signal = signal_of(Model(), weight=0.5)
    assert signal.weighted(wave, 22050)[7, 8] == pytest.approx(0.5 * 0.8 * 0.75)
    assert heard == [100]
    with pytest.raises(EvaluationError, match="must not be negative"):
        MeterSignal(lambda w, r: {}, weight=-1.0)
