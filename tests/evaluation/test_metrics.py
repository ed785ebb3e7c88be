"""Every metric against scikit-learn or scipy where they have it, with and without weights, and by its
properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from sklearn import metrics as sk

from beatmeter.errors import EvaluationError
from beatmeter.evaluation import metrics
from beatmeter.schema import ClassPredictions


class Case:
    """Random scores (with ties), labels and weights; every class occurs, some items have no label."""

    def __init__(self, seed: int, n: int = 60, c: int = 4, unlabelled: int = 5) -> None:
        random = np.random.default_rng(seed)
        self.primary = np.concatenate(
            [np.arange(c), random.integers(0, c, n - c - unlabelled), np.full(unlabelled, -1)]
        )
        self.targets = np.where(random.random((n, c)) < 0.15, 0.5, 0.0)
        self.targets[np.arange(n), self.primary] = 1.0
        self.targets[self.primary < 0] = 0.0
        self.scores = np.round(
            np.clip(random.random((n, c)) + 0.3 * (self.targets > 0), 0, 1), 1
        )  # one digit: many ties
        self.weights = random.integers(0, 4, n).astype(float)
        self.there = self.primary >= 0
        self.w = self.weights[self.there]
        self.y, self.Y, self.S = (
            self.primary[self.there],
            self.targets[self.there] > 0,
            self.scores[self.there],
        )


CASES = [Case(seed) for seed in range(5)]


@pytest.mark.parametrize("k", CASES)
@pytest.mark.parametrize("weighted", [False, True])
def test_single_answer_metrics_agree_with_scikit_learn(k: Case, weighted: bool) -> None:
    w, sw = (k.weights, k.w) if weighted else (None, None)
    guess = k.S.argmax(axis=1)
    assert metrics.accuracy(k.scores, k.primary, w) == pytest.approx(
        sk.accuracy_score(k.y, guess, sample_weight=sw)
    )
    assert metrics.balanced_accuracy(k.scores, k.primary, w) == pytest.approx(
        sk.balanced_accuracy_score(k.y, guess, sample_weight=sw)
    )
    np.testing.assert_allclose(
        metrics.confusion_matrix(k.scores, k.primary, w),
        sk.confusion_matrix(k.y, guess, labels=range(4), sample_weight=sw),
    )
    np.testing.assert_allclose(
        metrics.recall_per_class(k.scores, k.primary, w),
        sk.recall_score(k.y, guess, average=None, sample_weight=sw),
    )
    np.testing.assert_allclose(
        metrics.precision_per_class(k.scores, k.primary, w),
        sk.precision_score(k.y, guess, average=None, sample_weight=sw),
    )


@pytest.mark.parametrize("k", CASES)
@pytest.mark.parametrize("weighted", [False, True])
def test_multilabel_metrics_agree_with_scikit_learn(k: Case, weighted: bool) -> None:
    w, sw = (k.weights, k.w) if weighted else (None, None)
    np.testing.assert_allclose(
        metrics.average_precision(k.scores, k.targets, w),
        sk.average_precision_score(k.Y, k.S, average=None, sample_weight=sw),
    )
    assert metrics.mean_average_precision(k.scores, k.targets, w) == pytest.approx(
        sk.average_precision_score(k.Y, k.S, average="macro", sample_weight=sw)
    )
    assert metrics.lrap(k.scores, k.targets, w) == pytest.approx(
        sk.label_ranking_average_precision_score(k.Y, k.S, sample_weight=sw)
    )
    for t in (0.5, 0.4):
        assert metrics.macro_f1(k.scores, k.targets, t, w) == pytest.approx(
            sk.f1_score(k.Y, t < k.S, average="macro", sample_weight=sw)
        )
        assert metrics.subset_accuracy(k.scores, k.targets, t, w) == pytest.approx(
            sk.accuracy_score(k.Y, t < k.S, sample_weight=sw)
        )
    brier = [sk.brier_score_loss(k.Y[:, j], k.S[:, j], sample_weight=sw) for j in range(4)]
    np.testing.assert_allclose(metrics.brier_per_class(k.scores, k.targets, w), brier)
    loss = [sk.log_loss(k.Y[:, j], k.S[:, j], sample_weight=sw) for j in range(4)]
    np.testing.assert_allclose(metrics.log_loss_per_class(k.scores, k.targets, w), loss, rtol=1e-9)
    assert metrics.roc_auc(k.S[:, 0], k.Y[:, 0], None if w is None else k.w) == pytest.approx(
        sk.roc_auc_score(k.Y[:, 0], k.S[:, 0], sample_weight=sw)
    )
    assert 1 - metrics.hit_rate(k.scores, k.targets, w) == pytest.approx(
        np.average(~k.Y[np.arange(len(k.Y)), k.S.argmax(axis=1)], weights=sw)
    )


def test_selective_accuracy_leaves_the_least_sure_out() -> None:
    scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.6, 0.5], [0.5, 0.4]])
    primary = np.array([0, 1, 1, 0, -1])  # right, right, wrong, right; the last has no label
    assert metrics.selective_accuracy(scores, primary, 0.5) == 1.0
    assert metrics.selective_accuracy(scores, primary, 0.75) == pytest.approx(2 / 3)
    assert metrics.selective_accuracy(scores, primary, 0.625) == pytest.approx(
        2 / 2.5
    )  # half of the third item is inside
    assert metrics.selective_accuracy(scores, primary, 1.0) == pytest.approx(
        metrics.accuracy(scores, primary)
    )
    drawn = np.array([[1.0, 0, 0, 1, 5], [0, 2, 2, 0, 0]])
    np.testing.assert_allclose(metrics.selective_accuracy(scores, primary, 0.5, drawn), [1.0, 1.0])
    np.testing.assert_allclose(metrics.selective_accuracy(scores, primary, 0.8, drawn), [1.0, 2 / 3.2])


def test_one_meter_items_alone() -> None:
    scores = np.array([[0.9, 0.1, 0.2], [0.2, 0.8, 0.6], [0.7, 0.3, 0.1], [0.1, 0.2, 0.3]])
    targets = np.array([[1.0, 0, 0], [0.5, 0.5, 0], [0, 1, 0], [0, 0, 0]])
    p = ClassPredictions(
        classes=("3", "4", "5"),
        ids=tuple("abcd"),
        groups=tuple("abcd"),
        sources=("",) * 4,
        split="test",
        targets=targets,
        scores=scores,
        primary=np.array([0, 0, 1, -1]),
        times=np.full((4, 2), np.nan),
    )
    found = {
        name: metrics.estimate(metrics.metric(name), p, 200)
        for name in ("accuracy", "single_accuracy", "single_balanced_accuracy")
    }
    assert [(e.value, e.n) for e in found.values()] == [(pytest.approx(1 / 3), 3), (0.5, 2), (0.5, 2)]


def test_class_restricted_answers_only_what_occurs() -> None:
    scores = np.array([[0.2, 0.3, 0.9], [0.6, 0.1, 0.7], [0.1, 0.4, 0.3]])
    primary = np.array([1, 0, 1])  # class 2 never occurs
    assert metrics.accuracy(scores, primary) == pytest.approx(1 / 3)
    assert metrics.accuracy(scores, primary, restricted=True) == 1.0
    assert metrics.balanced_accuracy(scores, primary) == pytest.approx(0.25)
    assert metrics.balanced_accuracy(scores, primary, restricted=True) == 1.0
    assert np.isnan(metrics.recall_per_class(scores, primary)[2])


def test_classes_that_do_not_occur_do_not_enter_means() -> None:
    k = CASES[0]
    wide_scores, wide_targets = (
        np.column_stack([k.scores, np.full(len(k.scores), 0.9)]),
        np.column_stack([k.targets, np.zeros(len(k.targets))]),
    )
    assert metrics.mean_average_precision(wide_scores, wide_targets) == pytest.approx(
        float(metrics.mean_average_precision(k.scores, k.targets))
    )
    assert metrics.macro_f1(wide_scores, wide_targets) == pytest.approx(
        float(metrics.macro_f1(k.scores, k.targets))
    )


def test_pair_recall_wants_both_classes_strictly_on_top() -> None:
    scores = np.array([[0.9, 0.8, 0.1], [0.9, 0.1, 0.8], [0.5, 0.5, 0.5], [0.9, 0.1, 0.1]])
    targets = np.array([[1, 1, 0], [1, 1, 0], [1, 1, 0], [1, 0, 0]], dtype=float)
    np.testing.assert_array_equal(metrics.pairs_found(scores, targets), [1, 0, 0, np.nan])
    assert metrics.pair_recall(scores, targets) == pytest.approx(1 / 3)
    assert metrics.pair_recall(scores, targets, np.array([[2.0, 1, 1, 1], [0, 0, 0, 1]]))[0] == pytest.approx(
        0.5
    )


def test_entropy_is_the_mean_of_binary_entropies_in_bits() -> None:
    p = np.array([[0.5, 0.5], [0.0, 1.0], [0.1, 0.1], [0.3, 0.8]])
    expected = [np.mean([stats.entropy([q, 1 - q], base=2) for q in row]) for row in p]
    np.testing.assert_allclose(metrics.binary_entropy(p), expected, atol=1e-12)


def test_gap_is_first_minus_second() -> None:
    np.testing.assert_allclose(
        metrics.confidence_gap(np.array([[0.2, 0.9, 0.6], [0.4, 0.4, 0.1]])), [0.3, 0.0]
    )
    np.testing.assert_allclose(metrics.confidence_gap(np.array([[0.7]])), [0.7])


def test_calibration_error_by_hand() -> None:
    confidence = np.array([0.05, 0.08, 0.55, 0.95, 1.0])
    outcome = np.array([0.0, 1.0, 1.0, 1.0, np.nan])
    # ten bins: {.05, .08}: |.065 - .5| x 2, {.55}: .45, {.95}: .05; the last has no outcome
    assert metrics.calibration_error(confidence, outcome, bins=10) == pytest.approx(
        (2 * 0.435 + 0.45 + 0.05) / 4
    )
    curve = metrics.reliability(confidence, outcome, bins=10)
    assert curve.items.tolist() == [2, 0, 0, 0, 0, 1, 0, 0, 0, 1]
    assert curve.confidence[[0, 5, 9]] == pytest.approx([0.065, 0.55, 0.95])
    assert np.isnan(curve.outcome[1])


@pytest.mark.parametrize("name", metrics.METRICS)
def test_a_batch_of_weights_gives_what_single_weights_and_repeated_items_give(name: str) -> None:
    from beatmeter.schema import ClassPredictions

    k = Case(7, n=30)
    batch = np.random.default_rng(0).integers(0, 3, (6, 30)).astype(float)

    def predictions(at: np.ndarray) -> ClassPredictions:
        return ClassPredictions(
            classes=("3", "4", "5", "7"),
            ids=tuple(map(str, range(len(at)))),
            groups=tuple(map(str, at)),
            sources=("",) * len(at),
            split="test",
            targets=k.targets[at],
            scores=k.scores[at],
            primary=k.primary[at],
            times=np.full((len(at), 2), np.nan),
        )

    everything = predictions(np.arange(30))
    value = metrics.METRICS[name].value
    together = value(everything, batch)
    assert together.shape == (6,)
    for row, weights in zip(together, batch, strict=True):
        assert row == pytest.approx(float(value(everything, weights)), nan_ok=True)
        if "restricted" not in name:  # which classes occur is decided once, from all items
            assert row == pytest.approx(
                float(value(predictions(np.repeat(np.arange(30), weights.astype(int))), None)), nan_ok=True
            )


scores_and_targets = st.integers(1, 5).flatmap(
    lambda c: st.integers(1, 12).flatmap(
        lambda n: st.tuples(
            hnp.arrays(float, (n, c), elements=st.floats(0, 1)),
            hnp.arrays(float, (n, c), elements=st.sampled_from([0.0, 0.4, 1.0])),
        )
    )
)


@settings(max_examples=150)
@given(scores_and_targets)
def test_metrics_stay_in_range_and_perfect_scores_are_perfect(pair: tuple[np.ndarray, np.ndarray]) -> None:
    scores, targets = pair
    primary = np.where(targets.any(axis=1), targets.argmax(axis=1), -1)
    for value in (
        metrics.accuracy(scores, primary),
        metrics.balanced_accuracy(scores, primary),
        metrics.mean_average_precision(scores, targets),
        metrics.lrap(scores, targets),
        metrics.macro_f1(scores, targets),
        metrics.subset_accuracy(scores, targets),
        metrics.primary_ece(scores, primary),
        *metrics.binary_entropy(scores),
        *metrics.confidence_gap(scores),
    ):
        assert np.isnan(value) or -1e-12 <= value <= 1 + 1e-12
    truth = (targets > 0).astype(float)
    if truth.any():
        for value in (
            metrics.mean_average_precision(truth, targets),
            metrics.macro_f1(truth, targets),
            metrics.lrap(truth, targets),
            metrics.hit_rate(truth, targets),
        ):
            assert value == pytest.approx(1.0)
        assert metrics.brier_per_class(truth, targets).sum() == 0


@settings(max_examples=50)
@given(scores_and_targets, st.randoms(use_true_random=False))
def test_the_order_of_items_does_not_matter(pair: tuple[np.ndarray, np.ndarray], random: object) -> None:
    scores, targets = pair
    at = np.random.default_rng(3).permutation(len(scores))
    for metric in (metrics.mean_average_precision, metrics.lrap, metrics.macro_f1, metrics.pair_recall):
        assert float(metric(scores, targets)) == pytest.approx(
            float(metric(scores[at], targets[at])), nan_ok=True
        )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"scores": np.zeros(3)}, "not \\(item, class\\)"),
        ({"scores": np.array([[0.1, 1.5]])}, r"scores\[0, 1\] = 1.5.*sigmoid"),
        ({"scores": np.array([[0.1, np.nan]])}, r"scores\[0, 1\] = nan"),
        ({"scores": np.zeros((2, 2)), "primary": np.array([0, 2])}, r"primary\[1\] = 2"),
        ({"scores": np.zeros((2, 2)), "primary": np.array([0.0, 1.0])}, "class index"),
        ({"scores": np.zeros((2, 2)), "targets": np.zeros((2, 3))}, "targets have shape"),
        ({"scores": np.zeros((2, 2)), "targets": np.full((2, 2), -0.1)}, r"targets\[0, 0\]"),
        ({"scores": np.zeros((2, 2)), "weights": np.ones(3)}, "last axis must be the 2 items"),
        ({"scores": np.zeros((2, 2)), "weights": np.array([1.0, -1])}, r"weights\[1\] = -1"),
    ],
)
def test_validate_says_what_is_wrong(arguments: dict[str, np.ndarray], said: str) -> None:
    with pytest.raises(EvaluationError, match=said):
        metrics.validate(**arguments)


def test_nothing_labelled_is_nan_and_no_warning() -> None:
    scores, primary, targets = np.full((3, 2), 0.5), np.full(3, -1), np.zeros((3, 2))
    for value in (
        metrics.accuracy(scores, primary),
        metrics.mean_average_precision(scores, targets),
        metrics.lrap(scores, targets),
        metrics.primary_ece(scores, primary),
    ):
        assert math.isnan(value)
    assert metrics.accuracy(np.zeros((0, 2)), np.zeros(0, int)) != metrics.accuracy(
        np.zeros((0, 2)), np.zeros(0, int)
    )
