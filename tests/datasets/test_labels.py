"""Label cells: what they may say, what they fold into, and that nothing is ever guessed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beatmeter.datasets.labels import FOLD, parse_labels, to_class
from beatmeter.errors import DataError

CLASSES = ("3", "4", "5", "7", "9", "11")


@pytest.mark.parametrize(
    ("cell", "weights", "primary"),
    [
        ("3", {"3": 1}, "3"),
        (" 11 ", {"11": 1}, "11"),
        ("three", {"3": 1}, "3"),
        ("Seven", {"7": 1}, "7"),
        ("4.0", {"4": 1}, "4"),
        ("05", {"5": 1}, "5"),
        ("6/8", {"3": 1}, "3"),
        ("12/8", {"4": 1}, "4"),
        ("2/4", {"4": 1}, "4"),
        ("7/8", {"7": 1}, "7"),
        ("2", {"4": 1}, "4"),
        ("6", {"3": 1}, "3"),
        ("12", {"4": 1}, "4"),
        ("10", {"5": 1}, "5"),
        ("14", {"7": 1}, "7"),
        ("3,4", {"3": 1, "4": 1}, "3"),
        ("4, 3", {"4": 1, "3": 1}, "4"),
        ("3:0.7,4:1", {"3": 0.7, "4": 1}, "4"),
        ("3:0.7,4", {"3": 0.7, "4": 1}, "4"),
        ("three:0.5, five:0.9", {"3": 0.5, "5": 0.9}, "5"),
        ("3:1", {"3": 1}, "3"),
        ("3:.5", {"3": 0.5}, "3"),
        ("3:4", {"3": 1, "4": 1}, "3"),
        ("4:3", {"4": 1, "3": 1}, "4"),
        ("2:3", {"4": 1, "3": 1}, "4"),
        ("11:4", {"11": 1, "4": 1}, "11"),
        ("3:4:5", {"3": 1, "4": 1, "5": 1}, "3"),
        ("3,6", {"3": 1}, "3"),
        ("3:0.4,6:0.8", {"3": 0.8}, "3"),
    ],
)
def test_what_a_cell_means(cell: str, weights: dict[str, float], primary: str) -> None:
    labels = parse_labels(cell, CLASSES)
    assert labels.weights == weights
    assert labels.primary == primary


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("", "no label"),
        ("  ", "no label"),
        ("13", "'13' is not one of the classes 3, 4, 5, 7, 9, 11"),
        ("waltz", "'waltz' is not one of"),
        ("1:3", "weight 3 of meter '1' is outside"),
        ("3,", "'' is not one of"),
        ("3:0", "outside (0, 1]"),
        ("3:-1", "outside (0, 1]"),
        ("3:1.5,4:1", "outside (0, 1]"),
        ("3:nan", "outside (0, 1]"),
        ("3:x,4:1", "weight 'x' of meter '3' is not a number"),
        ("3:2,4:1", "weight 2 of meter '3' is outside"),
        ("2+2+3", "ambiguous"),
        ("3+4", "ambiguous"),
        ("3;4", "is not one of"),
        ("13:4", "'13' is not one of"),
        ("-3", "is not one of"),
        ("3" * 5000, "is not one of"),
        ("3" * 400 + ":4", "is not one of"),
        ("³", "is not one of"),
        ("\ud83d", "is not one of"),
    ],
)
def test_what_is_refused(cell: str, words: str) -> None:
    with pytest.raises(DataError) as error:
        parse_labels(cell, CLASSES)
    assert words in str(error.value)


def test_meters_fold_only_where_they_are_no_classes_themselves() -> None:
    assert to_class("6", CLASSES) == "3"
    assert to_class("6", ("3", "6")) == "6"
    assert to_class("6/8", ("3", "6")) == "6"
    with pytest.raises(DataError):
        to_class("6", ("4", "5"))
    assert not set(FOLD) & set(FOLD.values())


def test_classes_need_not_be_numbers() -> None:
    assert parse_labels("waltz", ("waltz", "tango, slow")) == ({"waltz": 1.0}, "waltz")
    assert parse_labels("tango, slow", ("waltz", "tango, slow")) == ({"tango, slow": 1.0}, "tango, slow")
    assert parse_labels("a+b", ("a+b",)).primary == "a+b"


weights = st.integers(1, 1000).map(lambda n: n / 1000)


@given(st.dictionaries(st.sampled_from(CLASSES), weights, min_size=1))
def test_weights_survive_the_round_trip(given_weights: dict[str, float]) -> None:
    labels = parse_labels(",".join(f"{name}:{weight!r}" for name, weight in given_weights.items()), CLASSES)
    assert labels.weights == given_weights
    heaviest = max(given_weights.values())
    assert labels.primary == next(name for name, weight in given_weights.items() if weight == heaviest)


@given(st.lists(st.sampled_from(CLASSES), min_size=2, unique=True))
def test_several_meters_without_weights(names: list[str]) -> None:
    for separator in (",", ":", ", "):
        labels = parse_labels(separator.join(names), CLASSES)
        assert labels.weights == dict.fromkeys(names, 1.0)
        assert labels.primary == names[0]


@given(st.text() | st.text("0123456789:,./+ x", max_size=12))
def test_any_text_is_read_or_refused(cell: str) -> None:
    try:
        labels = parse_labels(cell, CLASSES)
    except DataError:
        return
    assert labels.weights
    assert set(labels.weights) <= set(CLASSES)
    assert all(0 < weight <= 1 for weight in labels.weights.values())
    assert labels.weights[labels.primary] == max(labels.weights.values())
