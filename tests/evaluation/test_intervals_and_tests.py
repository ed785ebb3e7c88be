"""Intervals hold what they promise, tests have the size they claim, both agree with scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from beatmeter.errors import EvaluationError
from beatmeter.evaluation import metrics


@given(st.integers(1, 500), st.data())
def test_wilson_is_scipys(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    expected = stats.binomtest(k, n).proportion_ci(0.95, method="wilson")
    assert metrics.wilson(k, n) == pytest.approx((expected.low, expected.high), abs=1e-12)
    low, high = metrics.wilson(k, n)
    assert 0 <= low <= k / n <= high <= 1


def test_wilson_without_items_says_nothing_and_nonsense_is_refused() -> None:
    assert metrics.wilson(0, 0) == (0.0, 1.0)
    for wrong in ((3, 2), (-1, 2)):
        with pytest.raises(EvaluationError, match="not possible"):
            metrics.wilson(*wrong)
    with pytest.raises(EvaluationError, match="confidence"):
        metrics.wilson(1, 2, 1.0)


def songs(random: np.random.Generator, groups: int, size: int, alike: float) -> tuple[np.ndarray, list[str]]:
    """Outcomes of mean 0.8; with chance `alike` all segments of a song share one."""
    shared = random.random(groups) < 0.8
    outcomes = np.where(
        random.random((groups, 1)) < alike, shared[:, None], random.random((groups, size)) < 0.8
    )
    return outcomes.astype(float).ravel(), [str(g) for g in range(groups) for _ in range(size)]


@pytest.mark.parametrize("alike", [0.0, 0.5, 1.0])
def test_intervals_of_grouped_shares_cover_the_truth(alike: float) -> None:
    """95 % intervals must hold 0.8 in 95 % of 400 draws; the naive ones fail badly when segments are
    alike."""
    random = np.random.default_rng(1)
    covered = naive = 0
    for _ in range(400):
        outcomes, groups = songs(random, 60, 8, alike)
        e = metrics.share(outcomes, groups)
        covered += e.low <= 0.8 <= e.high
        low, high = metrics.wilson(outcomes.sum(), len(outcomes))
        naive += low <= 0.8 <= high
    assert covered / 400 >= 0.92
    if alike == 1.0:
        assert naive / 400 < 0.75


def test_share_of_single_items_is_wilson_and_of_one_group_is_vague() -> None:
    outcomes = np.array([1.0, 0, 1, 1, np.nan])
    e = metrics.share(outcomes, list("abcde"))
    assert (e.value, e.n) == (0.75, 4)
    assert (e.low, e.high) == metrics.wilson(3, 4)
    vague = metrics.share(np.array([1.0, 0, 1, 1]), ["a"] * 4)
    assert vague.high - vague.low > 0.7
    assert metrics.share(np.array([np.nan]), ["a"]).n == 0


def test_bootstrap_draws_whole_groups() -> None:
    groups = ["a", "a", "b", "c", "c", "c"]
    (weights,) = metrics.bootstrap_weights(groups, 500, seed=3)
    assert weights.shape == (500, 6)
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 3:] == weights[:, 3:4]).all()
    assert (weights[:, 0] + weights[:, 2] + weights[:, 3] == 3).all()
    assert np.concatenate(list(metrics.bootstrap_weights(groups, 500, seed=3))).tobytes() == weights.tobytes()
    with pytest.raises(EvaluationError, match="no items"):
        next(metrics.bootstrap_weights([], 5))


def test_bootstrap_interval_matches_scipys_for_single_items() -> None:
    random = np.random.default_rng(0)
    scores = random.random((200, 3))
    primary = np.where(random.random(200) < 0.7, scores.argmax(axis=1), 0)
    ours = metrics.group_bootstrap(
        lambda w: metrics.accuracy(scores, primary, w), [str(i) for i in range(200)], 4000, seed=1
    )
    right = (scores.argmax(axis=1) == primary).astype(float)
    theirs = stats.bootstrap(
        (right,), np.mean, n_resamples=4000, method="percentile", rng=2
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.012)


def test_bootstrap_interval_of_balanced_accuracy_covers_the_truth() -> None:
    random = np.random.default_rng(5)
    covered = 0
    for _ in range(200):
        primary = random.integers(0, 3, 150)
        right = random.random(150) < np.array([0.9, 0.7, 0.5])[primary]
        scores = np.eye(3)[np.where(right, primary, (primary + 1) % 3)]
        e = metrics.group_bootstrap(
            lambda w, s=scores, y=primary: metrics.balanced_accuracy(s, y, w),
            [str(i) for i in range(150)],
            300,
        )
        covered += e.low <= 0.7 <= e.high
    assert covered / 200 >= 0.9


def test_interval_leaves_out_replicates_without_a_value() -> None:
    draws = np.array([[1.0, np.nan], [2.0, np.nan], [np.nan, np.nan]])
    low, high = metrics.interval(draws)
    assert (low[0], high[0]) == pytest.approx((1.025, 1.975))
    assert np.isnan(low[1])


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_the_exact_binomial_test(gains: int, losses: int) -> None:
    expected = stats.binomtest(gains, gains + losses).pvalue if gains + losses else 1.0
    assert metrics.mcnemar(gains, losses) == pytest.approx(expected)


def test_mcnemar_of_many_items() -> None:
    assert metrics.mcnemar(1000, 1150) == pytest.approx(stats.binomtest(1000, 2150).pvalue, rel=1e-9)
    assert metrics.mcnemar(50_000, 50_000) == 1.0
    with pytest.raises(EvaluationError, match="counts"):
        metrics.mcnemar(-1, 2)


@pytest.mark.parametrize(("gains", "losses"), [(0, 0), (5, 1), (8, 7), (1, 9)])
def test_sign_flips_of_single_items_are_mcnemar(gains: int, losses: int) -> None:
    differences = np.array([1.0] * gains + [-1.0] * losses + [0.0] * 30 + [np.nan])
    assert metrics.sign_flip(differences, [str(i) for i in range(len(differences))]) == pytest.approx(
        metrics.mcnemar(gains, losses)
    )


def test_sign_flips_of_many_groups_approach_mcnemar() -> None:
    differences = np.array([1.0] * 40 + [-1.0] * 20)
    p = metrics.sign_flip(differences, [str(i) for i in range(60)], permutations=50_000)
    assert p == pytest.approx(metrics.mcnemar(40, 20), abs=0.003)


def test_grouped_sign_flips_keep_their_size_where_mcnemar_does_not() -> None:
    """Two equal systems whose differences are shared by the segments of a song: 5 % false alarms, not 40
    %."""
    random = np.random.default_rng(2)
    flips = naive = 0
    for seed in range(300):
        per_song = random.choice([-1.0, 0.0, 1.0], 40, p=[0.2, 0.6, 0.2])
        differences, groups = np.repeat(per_song, 8), [str(g) for g in range(40) for _ in range(8)]
        flips += metrics.sign_flip(differences, groups, permutations=500, seed=seed) < 0.05
        naive += metrics.mcnemar(int((differences > 0).sum()), int((differences < 0).sum())) < 0.05
    assert flips / 300 < 0.08
    assert naive / 300 > 0.3


def test_paired_bootstrap_sees_what_is_there_and_not_what_is_not() -> None:
    random = np.random.default_rng(4)
    primary, groups = random.integers(0, 3, 300), [str(i // 2) for i in range(300)]

    def system(share: float) -> np.ndarray:
        return np.eye(3)[np.where(random.random(300) < share, primary, (primary + 1) % 3)]

    poor, good = system(0.6), system(0.8)
    d = metrics.paired_bootstrap(
        lambda w: metrics.accuracy(poor, primary, w), lambda w: metrics.accuracy(good, primary, w), groups
    )
    assert d.low < d.value < d.high
    assert d.p < 0.01
    assert d.value == pytest.approx(float(metrics.accuracy(good, primary) - metrics.accuracy(poor, primary)))
    same = metrics.paired_bootstrap(
        lambda w: metrics.accuracy(poor, primary, w), lambda w: metrics.accuracy(poor, primary, w), groups
    )
    assert (same.value, same.low, same.high, same.p) == (0.0, 0.0, 0.0, 1.0)


@settings(max_examples=100)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_by_its_definition(p: list[float]) -> None:
    adjusted = metrics.holm(p)
    order = np.argsort(p, kind="stable")
    m = len(p)
    for rank, i in enumerate(order):
        assert adjusted[i] == pytest.approx(max(min(1.0, (m - r) * p[order[r]]) for r in range(rank + 1)))


def test_holm_leaves_untested_out() -> None:
    adjusted = metrics.holm([0.01, math.nan, 0.04])
    assert adjusted[0] == pytest.approx(0.02)
    assert math.isnan(adjusted[1])
    assert adjusted[2] == pytest.approx(0.04)
    with pytest.raises(EvaluationError, match="not a p-value"):
        metrics.holm([1.5])
