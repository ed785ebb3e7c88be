"""The diagnostics by their formulas, and the controls they must tell apart."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable
from itertools import combinations

import meter_controls as controls
import numpy as np
import pytest
from scipy import optimize, stats

from beatmeter.errors import EvaluationError
from beatmeter.evaluation.diagnostics import (
    EVALUATION,
    PRODUCTION,
    Limits,
    co_occurrence,
    correlation,
    detect,
    diagnose,
    entropy,
    fit_noise_floor,
    fit_quadrants,
    floor_warning,
    gap,
    label_null,
    negative_floor,
    pair_correlations,
    polyrhythm,
    spills,
    worst_correlation,
)
from beatmeter.evaluation.diagnostics.noise_floor import weighted_quantile
from beatmeter.schema import ClassPredictions, Finding

FAST = Limits(permutations=300, replicates=40)


def small(scores: list[list[float]], labels: list[str], groups: str | None = None) -> ClassPredictions:
    """Predictions of classes 3, 4, 5 by hand; labels like "3" or "3,4", the first is primary."""
    classes = ("3", "4", "5")
    n = len(scores)
    targets = np.zeros((n, 3))
    for i, text in enumerate(labels):
        for c in filter(None, text.split(",")):
            targets[i, classes.index(c)] = 1.0
    return ClassPredictions(
        classes=classes,
        ids=tuple(map(str, range(n))),
        groups=tuple(groups or map(str, range(n))),
        sources=("",) * n,
        split="test",
        targets=targets,
        scores=np.array(scores, dtype=float),
        primary=np.array([classes.index(t.split(",")[0]) if t else -1 for t in labels]),
        times=np.full((n, 2), np.nan),
    )


def test_co_occurrence_counts_items_with_two_classes_above_0_4() -> None:
    f = co_occurrence(
        small([[0.9, 0.41, 0.1], [0.9, 0.4, 0.1], [0.5, 0.6, 0.7], [0.2, 0.3, 0.1]], ["3", "3", "5", "3,4"])
    )
    assert f.values["share"]["all"]["value"] == 0.5
    assert f.values["share"]["single_meter"]["value"] == pytest.approx(2 / 3)
    assert f.values["share"]["several_meters"]["value"] == 0.0
    assert f.values["pairs"] == [
        {"pair": ["3", "4"], "items": 2},
        {"pair": ["3", "5"], "items": 1},
        {"pair": ["4", "5"], "items": 1},
    ]
    assert f.values["per_predicted_class"]["5"]["value"] == 1.0
    assert f.level == "warning"


def test_gap_per_predicted_class_and_bands() -> None:
    f = gap(small([[0.9, 0.1, 0.0], [0.6, 0.2, 0.1], [0.5, 0.6, 0.1]], ["3", "3", "3"]))
    assert [f.values[k] for k in ("mean", "median")] == pytest.approx([(0.8 + 0.4 + 0.1) / 3, 0.4])
    assert f.values["std"] == pytest.approx(np.std([0.8, 0.4, 0.1]))
    assert f.values["bands"] == pytest.approx({"low": 1 / 3, "middle": 1 / 3, "high": 1 / 3})
    assert f.values["per_predicted_class"]["3"]["items"] == 2
    assert f.values["per_predicted_class"]["4"]["mean"] == pytest.approx(0.1)
    assert f.values["verdict"] == "partly selective"


def test_quadrants_are_fixed_or_fitted_and_never_medians() -> None:
    p = controls.polymetric(1)
    fixed = fit_quadrants(None)
    assert (fixed.gap, fixed.entropy, fixed.fitted) == (0.3, 0.5, ())
    fitted = fit_quadrants(controls.leaky(3))
    assert "gap" in fitted.fitted
    good = p.scores.argmax(axis=1) == p.primary
    f = entropy(p, fixed)
    cells = f.values["quadrants"]
    assert sum(c["share"] for c in cells.values()) == pytest.approx(1.0)
    assert sum(c["accuracy"]["n"] for c in cells.values()) == len(p)
    assert cells["clear"]["accuracy"]["value"] == pytest.approx(good[fixed.of(p) == 0].mean())
    sure = dataclasses.replace(
        p, scores=np.where(p.targets == 1, 0.99, 0.01)
    )  # all clear: medians would say half of them are not
    assert entropy(sure, fixed).values["quadrants"]["clear"]["share"] == 1.0
    assert not fit_quadrants(sure).fitted, "nothing is wrong, so nothing can be fitted"


def test_fitted_quadrants_maximise_youdens_j() -> None:
    v = controls.leaky(3)
    fitted = fit_quadrants(v)
    gaps = np.sort(v.scores, axis=1)[:, -1] - np.sort(v.scores, axis=1)[:, -2]
    good = v.scores.argmax(axis=1) == v.primary
    j = lambda t: (gaps[good] >= t).mean() - (gaps[~good] >= t).mean()  # noqa: E731
    assert j(fitted.gap) == pytest.approx(max(j(t) for t in gaps))


def test_correlation_is_pearsons_and_constant_outputs_have_none() -> None:
    scores = np.random.default_rng(0).random((40, 4))
    scores[:, 3] = 0.2
    r = correlation(scores)
    for i, j in combinations(range(3), 2):
        assert r[i, j] == pytest.approx(stats.pearsonr(scores[:, i], scores[:, j]).statistic)
    assert (r[3] == 0).all()
    p = small(scores[:, :3].tolist(), ["3"] * 40)
    pair, worst = worst_correlation(p)
    assert worst == pytest.approx(max(r[i, j] for i, j in combinations(range(3), 2)))
    assert set(pair) <= {"3", "4", "5"}


def test_the_null_keeps_labels_and_breaks_the_rest() -> None:
    """Outputs that answer their own label, and labels that come together: r is high and the null knows it. An
    output that copies another beyond its label is above the null."""
    random = np.random.default_rng(0)
    both = random.random(600) < 0.5
    present = np.column_stack([both, both ^ (random.random(600) < 0.1)])
    honest = controls.sigmoid(np.where(present, 2.0, -2.0) + random.normal(0, 1, present.shape))
    null = label_null(honest, present, 500)[:, 0, 1]
    r = correlation(honest)[0, 1]
    assert r > 0.3
    assert np.quantile(null, 0.025) < r < np.quantile(null, 0.975)
    copying = np.column_stack([honest[:, 0], np.clip(0.8 * honest[:, 0] + 0.1 * honest[:, 1], 0, 1)])
    assert correlation(copying)[0, 1] > label_null(copying, present, 500)[:, 0, 1].max()


def test_the_null_shuffles_within_own_label_only() -> None:
    present = np.array([[1, 1], [1, 0], [0, 1], [0, 0]], dtype=bool)
    scores = np.array([[0.9, 0.8], [0.7, 0.1], [0.2, 0.6], [0.1, 0.3]])
    seen = {round(float(r), 9) for r in label_null(scores, present, 200)[:, 0, 1]}
    orders = [(a, b, c, d) for a, c in ((0.8, 0.6), (0.6, 0.8)) for b, d in ((0.1, 0.3), (0.3, 0.1))]
    assert seen == {round(float(stats.pearsonr(scores[:, 0], order).statistic), 9) for order in orders}


def test_permutation_p_values_have_their_size_with_segments_of_songs() -> None:
    """No leakage, but segments of a song share their level: 5 % of pairs may be called significant, not
    more."""
    random = np.random.default_rng(3)
    found = 0
    for seed in range(60):
        songs = np.repeat(np.arange(50), 6)
        scores = controls.sigmoid(random.normal(0, 1, (50, 3))[songs] + random.normal(0, 0.3, (300, 3)))
        p = small(scores.tolist(), ["3"] * 300)
        p = dataclasses.replace(p, groups=tuple(map(str, songs)))
        found += any(
            c.p < 0.05 for c in pair_correlations(p, dataclasses.replace(FAST, permutations=200), seed)
        )
    assert found / 60 < 0.15


def test_spill_names_the_direction() -> None:
    scores = [[0.9, 0.6, 0.1]] * 30 + [[0.1, 0.9, 0.1]] * 30 + [[0.1, 0.1, 0.9]] * 30
    found = {(s.of, s.to): s for s in spills(small(scores, ["3"] * 30 + ["4"] * 30 + ["5"] * 30))}
    assert found["3", "4"].verdict == "leakage"
    assert found["4", "3"].share.value == 0.0
    raised = spills(small([[0.9, 0.1, 0.6]] * 30 + [[0.1, 0.9, 0.6]] * 30, ["3"] * 30 + ["4"] * 30))
    assert {s.verdict for s in raised if s.to == "5"} == {"raised floor"}


def test_noise_floor_is_the_second_activation_of_clean_items() -> None:
    v = controls.polymetric(5, songs=600, split="val")
    floor = fit_noise_floor(v, replicates=200)
    clean = ((v.targets > 0).sum(axis=1) == 1) & (v.scores.argmax(axis=1) == v.primary)
    second = np.sort(v.scores[clean], axis=1)[:, -2]
    other = np.argsort(v.scores[clean], axis=1)[:, -2]
    assert (floor.overall.items, floor.overall.mean) == (clean.sum(), pytest.approx(second.mean()))
    for name, level in {"median": 50, "p90": 90, "p95": 95, "p99": 99}.items():
        e = floor.overall.quantiles[name]
        assert e.value == pytest.approx(np.percentile(second, level))
        assert e.low <= e.value <= e.high
    k = v.classes.index("4")
    assert floor.by_class["4"].at(EVALUATION) == pytest.approx(np.percentile(second[other == k], 95))
    assert floor.by_predicted["3"].items == (v.primary[clean] == 0).sum()
    assert sum(f.items for f in floor.by_pair.values()) == clean.sum()
    for level, needed in ((EVALUATION, 20), (PRODUCTION, 100)):
        for c, t in zip(v.classes, floor.thresholds(level), strict=True):
            own = (other == v.classes.index(c)).sum() >= needed
            assert t == (floor.by_class[c] if own else floor.overall).at(level)


def test_thresholds_from_validation_hold_on_test() -> None:
    floor = fit_noise_floor(controls.polymetric(6, songs=800, split="val"), replicates=50)
    test = controls.polymetric(7, songs=800)
    evaluation, production = (
        detect(test, floor.thresholds(EVALUATION)),
        detect(test, floor.thresholds(PRODUCTION)),
    )
    assert evaluation.false_alarms.value == pytest.approx(0.05, abs=0.02)
    assert production.false_alarms.value == pytest.approx(0.01, abs=0.01)
    assert evaluation.found.value >= production.found.value > 0.7


def test_noise_floor_needs_right_answers() -> None:
    wrong = small([[0.1, 0.9, 0.1]], ["3"])
    with pytest.raises(EvaluationError, match=r"no single-meter item .* answered right"):
        fit_noise_floor(wrong)
    findings = {f.name: f for f in diagnose(wrong, limits=FAST)}
    assert "noise_floor" not in findings
    assert findings["summary"].values["steps"][3]["answer"] == "none"


def test_weighted_quantile_is_that_of_repeated_items() -> None:
    random = np.random.default_rng(0)
    values, weights = random.random(50), random.integers(0, 4, (20, 50)).astype(float)
    for level in (0.5, 0.9, 0.95, 0.99):
        expected = [
            np.quantile(np.repeat(values, w.astype(int)), level, method="inverted_cdf") for w in weights
        ]
        np.testing.assert_allclose(weighted_quantile(values, weights, level), expected)


@pytest.mark.parametrize(("w", "e"), [(1.0, 0.1), (10.0, 0.1), (25.0, 0.1), (5.0, 0.02)])
def test_floor_of_the_loss_is_its_minimum(w: float, e: float) -> None:
    """w e / (w e + 1 - e) minimises binary cross-entropy with pos_weight at the smoothed target of a
    negative."""
    loss = lambda q: -(w * e * np.log(q) + (1 - e) * np.log(1 - q))  # noqa: E731
    best = optimize.minimize_scalar(
        loss, bounds=(1e-6, 1 - 1e-6), method="bounded", options={"xatol": 1e-10}
    ).x
    assert negative_floor(w, e) == pytest.approx(best, abs=1e-6)


def test_floor_warning_names_the_classes() -> None:
    assert negative_floor(10, 0.1) == pytest.approx(0.53, abs=0.005)
    f = floor_warning(("3", "9"), [negative_floor(1, 0.1), negative_floor(36, 0.1)])
    assert (f.level, set(f.values["reaching"])) == ("warning", {"9"})
    assert floor_warning(("3",), [0.1]).level == "ok"
    with pytest.raises(EvaluationError, match="smoothing"):
        negative_floor(1, 1.0)
    p = controls.raised_floor(0)
    told = dataclasses.replace(p, meta={"loss": {"smoothing": 0.1, "weights": [1, 1, 6, 6, 30, 30]}})
    assert next(f for f in diagnose(told, limits=FAST) if f.name == "loss_floor").level == "warning"
    with pytest.raises(EvaluationError, match=r"meta\['loss'\]"):
        diagnose(dataclasses.replace(p, meta={"loss": {"floors": ["x"]}}), limits=FAST)


def verdicts(control: Callable[..., ClassPredictions], songs: int, seeds: int = 100) -> Counter[str]:
    return Counter(
        str(diagnose(control(seed, songs=songs), limits=FAST)[0].values["verdict"]) for seed in range(seeds)
    )


@pytest.mark.parametrize(
    ("control", "verdict"),
    [(controls.polymetric, "polyrhythm"), (controls.leaky, "leakage")],
)
def test_controls_are_told_apart_over_100_seeds(
    control: Callable[..., ClassPredictions], verdict: str
) -> None:
    """Stated in docs/diagnostics.md: at most 1 % errors from 60 songs on, over 100 seeds."""
    assert verdicts(control, songs=60)[verdict] >= 99


@pytest.mark.parametrize(
    ("control", "verdict"),
    [
        (controls.selective, "selective"),
        (controls.confused, "confused"),
        (controls.raised_floor, "raised floor"),
    ],
)
def test_other_controls_get_their_word(control: Callable[..., ClassPredictions], verdict: str) -> None:
    assert verdicts(control, songs=60, seeds=20)[verdict] >= 19


def test_a_model_that_guesses_is_not_accused_of_leakage() -> None:
    """All outputs follow one loudness and no label: they correlate, and it means nothing."""
    random = np.random.default_rng(0)
    p = controls.selective(0, songs=100)
    scores = controls.sigmoid(random.normal(0, 1, (len(p), 1)) + random.normal(0, 0.3, p.scores.shape))
    f = diagnose(dataclasses.replace(p, scores=scores), limits=FAST)
    assert f[0].values["verdict"] == "chance"
    assert "not surely above the 17% of guessing" in f[0].text
    assert next(x for x in f if x.name == "leakage").values["verdict"] == "leakage", (
        "the finding itself still says so"
    )


def test_weak_leakage_needs_more_songs() -> None:
    """A leak that lifts the follower from 0.08 to 0.27 only is found from 150 songs on."""
    assert (
        verdicts(lambda seed, songs: controls.leaky(seed, songs, strength=1.5), songs=150, seeds=20)[
            "leakage"
        ]
        >= 19
    )


def test_polyrhythm_area_is_the_rank_of_the_second_activation() -> None:
    p = controls.polymetric(0)
    f = polyrhythm(p)
    assert isinstance(f, Finding)
    second, two = np.sort(p.scores, axis=1)[:, -2], (p.targets > 0).sum(axis=1) == 2
    assert f.values["area"]["value"] == pytest.approx(
        stats.mannwhitneyu(second[two], second[~two]).statistic / two.sum() / (~two).sum()
    )
    assert polyrhythm(controls.selective(0)) is None


def test_findings_are_plain_json_deterministic_and_complete() -> None:
    p, v = controls.polymetric(1), controls.polymetric(2, split="val")
    first, again = diagnose(p, v, FAST), diagnose(p, v, FAST)
    assert first == again
    names = [f.name for f in first]
    assert names == [
        "summary",
        "performance",
        "co_occurrence",
        "gap",
        "entropy",
        "leakage",
        "noise_floor",
        "polyrhythm",
        "reliability",
        "sources",
    ]
    json.dumps([dict(f.values) for f in first], allow_nan=False)
    assert next(f for f in first if f.name == "noise_floor").values["fitted_on"] == "val"
    alone = next(f for f in diagnose(p, limits=FAST) if f.name == "noise_floor")
    assert alone.values["same_items"]
    assert "fit on validation" in alone.text


def test_items_without_labels_and_tiny_sets_do_not_break_it() -> None:
    p = small([[0.9, 0.1, 0.2], [0.1, 0.8, 0.3], [0.5, 0.5, 0.5]], ["3", "", "5"])
    assert diagnose(p, limits=FAST)[0].name == "summary"
    assert diagnose(small([[0.9, 0.1, 0.2]], ["3"]), limits=FAST)[0].name == "summary"
    with pytest.raises(EvaluationError, match="none of the 1 predictions has a label"):
        diagnose(small([[0.9, 0.1, 0.2]], [""]))
    with pytest.raises(EvaluationError, match="no predictions of the split 'test'"):
        diagnose(p.take([]))
    with pytest.raises(EvaluationError, match="validation has the classes"):
        diagnose(p, controls.polymetric(0))
