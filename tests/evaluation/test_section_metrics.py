"""Section metrics: mir_eval's figures on cases that can be counted by hand, one value per track, and
refusals."""

from __future__ import annotations

import numpy as np
import pytest

from beatmeter.errors import DataError
from beatmeter.evaluation.metrics.families import metrics_of, null_systems
from beatmeter.evaluation.metrics.sections import SECTION_METRICS, intervals_of, section_scores
from beatmeter.schema import MarkList, Marks

TRUTH = intervals_of(np.array([0.0, 10.0, 20.0, 30.0, 40.0]))
LETTERS = ("A", "B", "A", "C")


def test_the_truth_itself_is_perfect_under_any_names() -> None:
    scores = section_scores(TRUTH, LETTERS, TRUTH, ("x", "y", "x", "z"))
    assert list(scores) == list(SECTION_METRICS)
    assert all(value == pytest.approx(1.0) for value in scores.values())


def test_boundaries_are_counted_as_by_hand() -> None:
    found = intervals_of(
        np.array([0.0, 10.4, 22.0, 40.0])
    )  # of three inner ones: one within .5 s, two within 3 s
    scores = section_scores(TRUTH, LETTERS, found, None)
    assert scores["hr5"] == pytest.approx(2 * 1 / (2 + 3))
    assert scores["hr3"] == pytest.approx(2 * 2 / (2 + 3))
    assert scores["hr5_untrimmed"] == pytest.approx(2 * 3 / (4 + 5))
    assert scores["hr3_untrimmed"] == pytest.approx(2 * 4 / (4 + 5))
    assert np.isnan(scores["pairwise_f"])


def test_one_letter_for_all_pairs_everything() -> None:
    scores = section_scores(TRUTH, LETTERS, intervals_of(np.array([0.0, 40.0])), ("A",))
    share = (20**2 + 2 * 10**2) / 40**2  # of pairs that are alike in the truth
    assert scores["pairwise_f"] == pytest.approx(2 * share / (1 + share), abs=0.01)
    assert scores["hr5"] == 0.0
    assert scores["hr5_untrimmed"] > 0.5


def test_a_track_without_inner_boundaries_has_no_trimmed_score() -> None:
    whole = intervals_of(np.array([0.0, 40.0]))
    scores = section_scores(whole, ("A",), TRUTH, LETTERS)
    assert np.isnan(scores["hr5"])
    assert np.isnan(scores["hr3"])
    assert scores["hr3_untrimmed"] > 0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.zeros((0, 2)), "no table of start and end"),
        (np.array([[0.0, 5.0], [6.0, 9.0]]), "leave gaps or overlap"),
        (np.array([[0.0, 5.0], [5.0, 5.0]]), "has no length"),
        (np.array([[0.0, np.nan]]), "no length, or a time that is no number"),
    ],
)
def test_bad_sections_are_refused(wrong: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        section_scores(TRUTH, LETTERS, wrong, None)


def test_an_estimate_may_reach_beyond_the_truth_or_end_before_it() -> None:
    for edges in (
        [-3.0, 10.0, 20.0, 30.0, 44.0],
        [2.0, 10.0, 20.0, 30.0, 38.0],
        [0.0, 10.0, 20.0, 30.0, 40.0 + 1e-12],
    ):
        scores = section_scores(TRUTH, LETTERS, intervals_of(np.array(edges)), ("x", "y", "x", "z"))
        assert scores["pairwise_f"] > 0.85


def test_marks_with_sections_are_judged_beside_every_eight_bars() -> None:
    """One value per item; an item of which no sections are known counts for nothing."""
    bars = np.arange(0.0, 96.0, 2.0)
    beats = MarkList.moments("beat", bars, ["1"] * len(bars))
    edges = np.array([0.0, 16.0, 30.0, 48.0, 96.0])
    truth = beats + MarkList.spans("section", edges[:-1], edges[1:], "ABAC")
    found = MarkList.spans("section", [0.0, 16.2, 40.0], [16.2, 40.0, 96.0], "ABC")
    items = {"ids": tuple("abc"), "groups": tuple("abc"), "sources": ("",) * 3, "split": "test"}
    marks = Marks(
        marks=(found, MarkList(), found), truth=(truth, truth, beats), times=np.full((3, 2), np.nan), **items
    )
    metrics = {metric.name: metric for metric in metrics_of(marks)}
    assert set(SECTION_METRICS) < set(metrics)
    per_item = metrics["hr5"].per_item
    assert per_item is not None
    assert per_item(marks) == pytest.approx([2 * 1 / (2 + 3), 0.0, np.nan], nan_ok=True)
    assert metrics["hr5"].value(marks, None) == pytest.approx(0.2)
    steady = null_systems(marks, None)["steady"][0]
    assert per_item(steady)[0] == pytest.approx(
        2 * 2 / (5 + 3)
    )  # 16 and 48 of 16, 30, 48; it says 16, 32, 48, 64, 80
