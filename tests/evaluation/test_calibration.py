"""Calibration maps by their likelihood and against scikit-learn, the choice between them, thresholds, priors,
abstention."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import meter_controls as controls
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import optimize
from scipy.special import expit

from beatmeter.errors import EvaluationError
from beatmeter.evaluation.calibration import (
    Calibration,
    ScoreMap,
    best_f1,
    fit_isotonic,
    fit_platt,
    fit_temperature,
    fold_of,
    logit,
    out_of_fold,
    selective_curve,
    selective_table,
)
from beatmeter.evaluation.diagnostics import detect
from beatmeter.evaluation.metrics import METRICS, log_loss_per_class
from beatmeter.schema import ClassPredictions


def sample(seed: int, slope: float, shift: float, n: int = 600) -> tuple[np.ndarray, np.ndarray]:
    """Scores whose true probabilities are expit(slope z + shift), and outcomes."""
    random = np.random.default_rng(seed)
    z = random.normal(0, 2, n)
    return expit(z), random.random(n) < expit(slope * z + shift)


@pytest.mark.parametrize("slope", [0.3, 1.0, 2.5])
def test_temperature_is_the_most_likely_one(slope: float) -> None:
    scores, present = sample(0, slope, 0.0)
    loss = lambda a: float(np.logaddexp(0, np.where(present, -a * logit(scores), a * logit(scores))).sum())  # noqa: E731
    best = optimize.minimize_scalar(loss, bounds=(1e-3, 50), method="bounded", options={"xatol": 1e-9}).x
    assert fit_temperature(scores, present).parameters["slope"] == pytest.approx(best, rel=1e-4)


@pytest.mark.parametrize(("slope", "shift"), [(0.5, -2.0), (1.0, 0.0), (2.0, 1.0)])
def test_platt_minimises_log_loss_of_soft_targets(slope: float, shift: float) -> None:
    scores, present = sample(1, slope, shift)
    n1, n0 = present.sum(), (~present).sum()
    t = np.where(present, (n1 + 1) / (n1 + 2), 1 / (n0 + 2))
    z = logit(scores)
    best = optimize.minimize(
        lambda w: (np.logaddexp(0, w[0] * z + w[1]) - t * (w[0] * z + w[1])).sum(), [1.0, 0.0], tol=1e-12
    ).x
    found = fit_platt(scores, present)
    assert found is not None
    assert [found.parameters["slope"], found.parameters["intercept"]] == pytest.approx(list(best), abs=1e-4)


def test_platt_survives_separable_scores_and_refuses_reversed_ones() -> None:
    scores, present = np.array([0.1] * 30 + [0.9] * 30), np.array([False] * 30 + [True] * 30)
    found = fit_platt(scores, present)
    assert found is not None
    assert np.isfinite(found.parameters["slope"])
    assert found(np.array([0.9]))[0] == pytest.approx(31 / 32)
    assert fit_platt(scores, ~present) is None


@settings(max_examples=60)
@given(
    hnp.arrays(float, st.integers(2, 40), elements=st.integers(0, 10).map(lambda k: k / 10)),
    st.randoms(use_true_random=False),
)
def test_isotonic_is_the_best_curve_that_never_falls(scores: np.ndarray, random: object) -> None:
    """By the formula max over i <= k of min over j >= k of the mean outcome from i to j, which no algorithm
    computes."""
    present = np.random.default_rng(len(scores)).random(len(scores)) < scores
    points, at = np.unique(scores, return_inverse=True)
    items, hits = np.bincount(at), np.bincount(at, present)
    means = [
        [hits[i : j + 1].sum() / items[i : j + 1].sum() if i <= j else np.nan for j in range(len(points))]
        for i in range(len(points))
    ]
    expected = np.array([max(min(means[i][k:]) for i in range(k + 1)) for k in range(len(points))])
    edge = 0.5 / (len(scores) + 1)
    everywhere = np.concatenate([scores, np.linspace(0, 1, 23)])
    fitted = fit_isotonic(scores, present)
    np.testing.assert_allclose(
        fitted(everywhere), np.interp(everywhere, points, expected.clip(edge, 1 - edge)), atol=1e-12
    )


def bent(seed: int, slope: float, shift: float, n: int = 900) -> ClassPredictions:
    """Items that all have class 3, so that none is without a label; the logits of the other classes say slope
    and shift too much."""
    random = np.random.default_rng(seed)
    z = random.normal(-1.5, 1.5, (n, 6))
    present = random.random((n, 6)) < expit(z)
    scores = expit(slope * z + shift)
    present[:, 0], scores[:, 0] = True, 0.99
    song = np.arange(n)
    return controls.build(scores, present.astype(float), np.zeros(n), song, "val")


@pytest.mark.parametrize(
    ("slope", "shift", "chosen"), [(1.0, 0.0, "none"), (3.0, 0.0, "temperature"), (0.5, 2.0, "platt")]
)
def test_the_simplest_kind_that_fits_is_chosen(slope: float, shift: float, chosen: str) -> None:
    votes = list(Calibration.fit(bent(1, slope, shift)).fitted_on["chosen"].values())[1:]
    assert votes.count(chosen) >= 4, votes


@pytest.mark.parametrize("control", [controls.selective, controls.leaky, controls.raised_floor])
def test_calibration_helps_on_songs_it_has_not_seen(control: type) -> None:
    c = Calibration.fit(control(100, split="val"))
    test = control(0)
    after = c.apply(test)
    for name in ("log_loss", "brier", "ece"):
        assert METRICS[name].value(after, None) < METRICS[name].value(test, None)
    assert METRICS["accuracy"].value(after, None) >= METRICS["accuracy"].value(test, None) - 0.02


def test_cross_validated_loss_is_what_decides_and_what_is_reported() -> None:
    v = controls.leaky(3, split="val")
    c = Calibration.fit(v)
    raw = log_loss_per_class(v.scores, v.targets)
    assert c.log_loss["none"] == pytest.approx(raw.tolist())
    for k, name in enumerate(c.classes):
        chosen = c.fitted_on["chosen"][name]
        assert c.log_loss[chosen][k] <= min(loss[k] for loss in c.log_loss.values()) + 0.05
    only = Calibration.fit(v, "platt")
    assert {m.kind for m in only.maps} == {"platt"}
    assert list(only.log_loss) == ["platt"]


def test_folds_keep_groups_whole_and_share_out_classes() -> None:
    v = controls.selective(1, songs=60)
    fold = fold_of(v, 5)
    by_group = {g: {int(f) for f, h in zip(fold, v.groups, strict=True) if h == g} for g in v.groups}
    assert all(len(f) == 1 for f in by_group.values())
    for k in (0, 1):
        assert len(set(fold[v.primary == k])) == 5
    seen: list[int] = []
    scores = out_of_fold(
        v, 5, 0, lambda s, y: seen.append(len(s)) or (lambda new: np.full(new.shape, len(s) / 1000))
    )  # type: ignore[func-returns-value]
    assert len(seen) == 5
    np.testing.assert_allclose(scores[:, 0] * 1000, [len(v) - (fold == f).sum() for f in fold])
    with pytest.raises(EvaluationError, match="too few to calibrate"):
        fold_of(dataclasses.replace(v, groups=("a",) * len(v)), 5)


def test_thresholds_of_calibrated_scores_hold_on_test() -> None:
    c = Calibration.fit(controls.polymetric(1, songs=700, split="val"))
    test = c.apply(controls.polymetric(2, songs=700))
    for name, alarms, tolerance in (("evaluation", 0.05, 0.025), ("production", 0.01, 0.012)):
        d = detect(test, c.threshold(name))
        assert d.false_alarms.value == pytest.approx(alarms, abs=tolerance)
        assert d.found.value > 0.8
        flagged = c.second_meter(test.scores, name) >= 0
        one = (test.targets > 0).sum(axis=1) == 1
        right = test.scores.argmax(axis=1) == test.primary
        assert flagged[one & right].mean() == pytest.approx(d.false_alarms.value)
    with pytest.raises(EvaluationError, match=r"no threshold 'productoin'.*production"):
        c.threshold("productoin")


@settings(max_examples=60)
@given(
    hnp.arrays(float, st.integers(2, 25), elements=st.integers(0, 20).map(lambda k: k / 20)),
    st.integers(0, 9),
)
def test_best_f1_is_the_best_of_all_thresholds(scores: np.ndarray, seed: int) -> None:
    present = np.random.default_rng(seed).random(len(scores)) < 0.4
    found = best_f1(scores, present)
    if not present.any():
        assert found == 0.5
        return

    def by_hand(t: float) -> float:
        said = scores > t
        return 2 * (said & present).sum() / (said.sum() + present.sum())

    tried = np.concatenate([[0.0], scores, scores + 0.01, np.maximum(scores - 0.01, 0)])
    assert by_hand(found) == pytest.approx(max(by_hand(t) for t in tried))
    assert 0 <= found <= 1


def test_priors_multiply_odds() -> None:
    c = Calibration.fit(controls.selective(1, split="val"))
    scores = controls.selective(2).scores
    plain, moved = c(scores), c(scores, {"9": 0.5})
    k = c.classes.index("9")
    ratio = (0.5 / 0.5) / (c.prevalence[k] / (1 - c.prevalence[k]))
    odds = lambda p: p / (1 - p)  # noqa: E731
    inside = (plain[:, k] > 1e-4) & (plain[:, k] < 1 - 1e-4)
    np.testing.assert_allclose(odds(moved[inside, k]), odds(plain[inside, k]) * ratio, rtol=1e-6)
    np.testing.assert_allclose(np.delete(moved, k, axis=1), np.delete(plain, k, axis=1), atol=1e-6)
    np.testing.assert_allclose(c(scores, dict(zip(c.classes, c.prevalence, strict=True))), plain, atol=1e-6)
    with pytest.raises(EvaluationError, match="no class '13'"):
        c(scores, {"13": 0.5})
    with pytest.raises(EvaluationError, match=r"prior of 3 is 1\.0"):
        c(scores, {"3": 1.0})


def test_abstaining_keeps_the_promised_share() -> None:
    c = Calibration.fit(controls.leaky(1, songs=500, split="val"))
    test = c.apply(controls.leaky(2, songs=500))
    sure = test.scores.max(axis=1)
    for coverage in (0.9, 0.8, 0.5):
        assert (sure >= c.confident_above(coverage=coverage)).mean() == pytest.approx(coverage, abs=0.06)
    threshold = c.confident_above(accuracy=0.9)
    right = test.scores.argmax(axis=1) == test.primary
    assert right[sure >= threshold].mean() >= 0.85
    assert c.confident_above(coverage=1.0) == 0.0
    with pytest.raises(EvaluationError, match="either a coverage or an accuracy"):
        c.confident_above()
    with pytest.raises(EvaluationError, match="not between 0 and 1"):
        c.confident_above(coverage=1.5)
    hopeless = Calibration.fit(controls.confused(1, split="val"))
    with pytest.raises(EvaluationError, match=r"no threshold reached an accuracy of 0\.999"):
        hopeless.confident_above(accuracy=0.999)


def test_selective_table_and_curve_agree_with_counting() -> None:
    p = controls.leaky(4)
    sure, right = p.scores.max(axis=1), p.scores.argmax(axis=1) == p.primary
    for row in selective_table(p):
        kept = sure >= row.threshold
        assert (row.coverage, row.accuracy) == (pytest.approx(kept.mean()), pytest.approx(right[kept].mean()))
    coverage, accuracy = selective_curve(p)
    assert coverage[-1] == 1.0
    assert accuracy[-1] == pytest.approx(right.mean())
    k = len(coverage) // 2
    top = np.argsort(-sure, kind="stable")[: round(coverage[k] * len(p))]
    assert accuracy[k] == pytest.approx(right[top].mean())


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    c = Calibration.fit(controls.raised_floor(1, split="val"))
    c.save(tmp_path / "c.json")
    back = Calibration.load(tmp_path / "c.json")
    assert back == c
    scores = controls.raised_floor(2).scores
    assert back(scores).tobytes() == c(scores).tobytes()


def test_classes_in_another_order_are_calibrated_by_name() -> None:
    c = Calibration.fit(controls.leaky(1, split="val"))
    p = controls.leaky(2)
    turned = dataclasses.replace(
        p,
        classes=p.classes[::-1],
        scores=p.scores[:, ::-1],
        targets=p.targets[:, ::-1],
        primary=len(p.classes) - 1 - p.primary,
    )
    np.testing.assert_array_equal(c.apply(turned).scores[:, ::-1], c.apply(p).scores)
    with pytest.raises(EvaluationError, match="calibration knows the classes"):
        c.apply(dataclasses.replace(p, classes=("3", "4", "5", "7", "9", "13")))


def test_what_is_no_calibration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="there is no calibration"):
        Calibration.load(tmp_path / "none.json")
    path = tmp_path / "c.json"
    for text, said in (
        ("{", "not valid JSON"),
        ("[]", "must hold a JSON object"),
        ('{"format": 7}', "format 1"),
        ('{"format": 1}', "classes is missing"),
    ):
        path.write_text(text)
        with pytest.raises(EvaluationError, match=said):
            Calibration.load(path)
    value = Calibration.fit(controls.selective(0, split="val")).to_json()
    value["maps"]["3"] = {"kind": "magic"}
    with pytest.raises(EvaluationError, match="kind 'magic'"):
        Calibration.from_json(json.loads(json.dumps(value)))
    with pytest.raises(EvaluationError, match="no calibration 'plat'"):
        Calibration.fit(controls.selective(0), "plat")
    with pytest.raises(EvaluationError, match="is not known"):
        ScoreMap("platt", {"slope": 1.0})
