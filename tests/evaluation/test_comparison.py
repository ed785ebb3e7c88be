"""Comparisons on the same items: what does not fit is refused, equal systems stay indistinguishable, better
ones are found."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import meter_controls as controls
import numpy as np
import pytest

from beatmeter.errors import DataError, EvaluationError
from beatmeter.evaluation.comparison.alignment import align, with_classes
from beatmeter.evaluation.comparison.compare import compare
from beatmeter.evaluation.comparison.gate import gate
from beatmeter.evaluation.corrections import Corrections
from beatmeter.evaluation.metrics import METRICS, correct, mcnemar
from beatmeter.evaluation.report.lab_text import comparison_text, gate_text
from beatmeter.schema import ClassPredictions


def noisy(p: ClassPredictions, seed: int, strength: float) -> ClassPredictions:
    """The same items by a model with noise of this strength on its logits."""
    z = np.log(p.scores / (1 - p.scores)) + np.random.default_rng(seed).normal(0, strength, p.scores.shape)
    return dataclasses.replace(p, scores=controls.sigmoid(z))


def single_items(p: ClassPredictions) -> ClassPredictions:
    return dataclasses.replace(p, groups=p.ids)


BASE = controls.selective(0, songs=150)


def test_members_come_into_one_order() -> None:
    turned = BASE.take(np.random.default_rng(0).permutation(len(BASE)))
    classes = ("11", "9", "7", "5", "4", "3")
    aligned = align({"a": BASE, "b": with_classes(turned, classes)})
    b = aligned.members["b"]
    assert (b.ids, b.classes) == (BASE.ids, BASE.classes)
    for field in ("scores", "targets", "primary"):
        np.testing.assert_array_equal(getattr(b, field), getattr(BASE, field))
    assert aligned.left_out == {"a": 0, "b": 0}


def test_what_does_not_fit_is_named() -> None:
    fewer = BASE.take(np.arange(3, len(BASE)))
    with pytest.raises(
        EvaluationError, match=rf"b lacks 3 of the {len(BASE)} items of a, first 'test/0_0'.*--common"
    ):
        align({"a": BASE, "b": fewer})
    aligned = align({"a": BASE, "b": fewer}, common=True)
    assert len(aligned.members["a"]) == len(fewer)
    assert aligned.left_out == {"a": 3, "b": 0}
    with pytest.raises(EvaluationError, match="no item in common"):
        align({"a": BASE, "b": dataclasses.replace(BASE, ids=tuple(f"x{i}" for i in BASE.ids))}, common=True)
    other = BASE.primary.copy()
    other[5] = (other[5] + 1) % 6
    relabelled = dataclasses.replace(BASE, primary=other, targets=np.eye(6)[other])
    with pytest.raises(EvaluationError, match=r"a and b label 1 items differently, first 'test/\d+_5'"):
        align({"a": BASE, "b": relabelled})
    with pytest.raises(EvaluationError, match="group 'test/0_0' differently"):
        align({"a": BASE, "b": dataclasses.replace(BASE, groups=BASE.ids)})
    with pytest.raises(EvaluationError, match="a answers the classes"):
        align({"a": BASE, "b": dataclasses.replace(BASE, classes=("3", "4", "5", "7", "9", "13"))})
    with pytest.raises(EvaluationError, match="two systems"):
        compare({"a": [BASE]})


def test_a_comparison_says_what_counting_says() -> None:
    a, b = single_items(noisy(BASE, 1, 2.5)), single_items(noisy(BASE, 2, 2.0))
    c = compare({"a": [a], "b": [b]}, seed=3)
    (pair,) = c.pairs
    right_a, right_b = correct(a.scores, a.primary) == 1, correct(b.scores, b.primary) == 1
    assert (pair.gains, pair.losses) == ((right_b & ~right_a).sum(), (right_a & ~right_b).sum())
    assert pair.mcnemar == mcnemar(int(pair.gains), int(pair.losses))
    assert pair.sign_flip == pytest.approx(pair.mcnemar, abs=0.02), (
        "single items: sign flips are McNemar's test"
    )
    for t in pair.tests:
        value = METRICS[t.metric].value
        assert t.difference == pytest.approx(float(value(b, None)) - float(value(a, None)))
        assert t.low <= t.difference <= t.high
        assert t.adjusted == t.p, "one pair: nothing to adjust"
    assert sum(k.gains for k in pair.classes) == pair.gains
    assert len(pair.changes) == pair.gains + pair.losses
    first = pair.changes[0]
    i = first.index
    assert (first.id, first.label) == (a.ids[i], a.classes[a.primary[i]])
    assert first.gained == bool(right_b[i])
    assert c.metrics["a"]["accuracy"].mean.value == pytest.approx(right_a.mean())
    json.dumps(c.to_json(), allow_nan=False)


def test_equal_systems_are_not_distinguishable_and_unequal_ones_are() -> None:
    false_alarms = sum(
        compare(
            {"a": [noisy(BASE, 2 * s, 2.0)], "b": [noisy(BASE, 2 * s + 1, 2.0)]},
            ["accuracy"],
            replicates=50,
            seed=s,
        )
        .pairs[0]
        .tests[0]
        .verdict
        != "not distinguishable"
        for s in range(60)
    )
    assert false_alarms <= 8
    found = compare({"a": [noisy(BASE, 1, 4.0)], "b": [noisy(BASE, 2, 1.5)]})
    assert {t.verdict for t in found.pairs[0].tests if t.metric in ("accuracy", "map", "log_loss")} == {
        "better"
    }
    back = compare({"b": [noisy(BASE, 2, 1.5)], "a": [noisy(BASE, 1, 4.0)]})
    assert back.pairs[0].tests[0].verdict == "worse"
    same = compare({"a": [BASE], "b": [BASE]})
    assert {t.verdict for t in same.pairs[0].tests} == {"not distinguishable"}
    assert not same.pairs[0].changes


def test_holm_runs_over_the_pairs_of_each_metric() -> None:
    systems = {name: [noisy(BASE, i, 2.5 - 0.4 * i)] for i, name in enumerate("abcd")}
    assert len(compare(systems, ["accuracy"]).pairs) == 3
    c = compare(systems, ["accuracy", "map"], all_pairs=True)
    assert len(c.pairs) == 6
    for k in range(2):
        tests = [p.tests[k] for p in c.pairs]
        smallest = min(tests, key=lambda t: t.p)
        assert smallest.adjusted == pytest.approx(min(1.0, 6 * smallest.p))
        assert all(t.adjusted >= t.p for t in tests)


def test_seeds_of_one_system_are_averaged_and_spread_is_shown() -> None:
    runs = [noisy(BASE, s, 2.0) for s in range(3)]
    c = compare({"a": runs, "b": [noisy(BASE, 9, 2.0)]}, ["accuracy", "balanced_accuracy"])
    m = c.metrics["a"]["accuracy"]
    values = [float(METRICS["accuracy"].value(p, None)) for p in runs]
    assert m.seeds == pytest.approx(values)
    assert m.mean.value == pytest.approx(np.mean(values))
    assert m.spread == pytest.approx(np.std(values, ddof=1))
    pair = c.pairs[0]
    assert pair.gains - pair.losses == pytest.approx(len(BASE) * pair.tests[0].difference), (
        "gains and losses add up to the difference"
    )
    assert np.isnan(pair.mcnemar)
    text = comparison_text(c)
    assert "spread of seeds" in text
    assert f"±{m.spread:.3f}" in text
    assert max(map(len, text.splitlines())) <= 100
    # two lucky seeds and one bad: the interval over seeds is wider than over groups alone
    uneven = (
        compare(
            {"a": [noisy(BASE, 0, 0.5), noisy(BASE, 1, 0.5), noisy(BASE, 2, 6.0)], "b": [BASE]}, ["accuracy"]
        )
        .metrics["a"]["accuracy"]
        .mean
    )
    assert uneven.high - uneven.low > 1.5 * (m.mean.high - m.mean.low)


def test_metrics_that_are_not_defined_are_left_out_and_unknown_ones_refused() -> None:
    c = compare({"a": [BASE], "b": [noisy(BASE, 1, 1.0)]}, ["accuracy", "pair_recall"])
    assert [t.metric for t in c.pairs[0].tests] == ["accuracy"], "no item has two meters"
    with pytest.raises(EvaluationError, match=r"no metric 'accurcy'.*accuracy"):
        compare({"a": [BASE], "b": [BASE]}, ["accurcy"])


def answers(right: str) -> ClassPredictions:
    """Items of class 3 of which those marked 1 are answered right."""
    n = len(right)
    scores = np.array([[0.9, 0.1] if r == "1" else [0.1, 0.9] for r in right])
    return ClassPredictions(
        classes=("3", "4"),
        ids=tuple(map(str, range(n))),
        groups=tuple(map(str, range(n))),
        sources=("",) * n,
        split="test",
        targets=np.tile([1.0, 0.0], (n, 1)),
        scores=scores,
        primary=np.zeros(n, int),
        times=np.full((n, 2), np.nan),
    )


@pytest.mark.parametrize(
    ("new", "old", "matrix", "passed"),
    [
        (
            "1" * 60 + "1" * 20 + "0" * 10 + "0" * 10,
            "1" * 60 + "0" * 20 + "1" * 10 + "0" * 10,
            (60, 10, 20, 10),
            True,
        ),
        (
            "1" * 60 + "1" * 15 + "0" * 15 + "0" * 10,
            "1" * 60 + "0" * 15 + "1" * 15 + "0" * 10,
            (60, 10, 15, 15),
            False,
        ),  # ratio 1
        (
            "1" * 80 + "1" * 8 + "0" * 2 + "0" * 10,
            "1" * 80 + "0" * 8 + "1" * 2 + "0" * 10,
            (80, 10, 8, 2),
            False,
        ),  # agree on 90 %
        (
            "1" * 30 + "1" * 40 + "0" * 10 + "0" * 20,
            "1" * 30 + "0" * 40 + "1" * 10 + "0" * 20,
            (30, 20, 40, 10),
            False,
        ),  # on 50 %
    ],
)
def test_the_gate_by_hand(new: str, old: str, matrix: tuple[int, int, int, int], passed: bool) -> None:
    g = gate(answers(new), answers(old))
    assert (g.both_right, g.both_wrong, g.gains, g.losses) == matrix
    assert g.agreement.value == pytest.approx((matrix[0] + matrix[1]) / 100)
    assert g.complementarity.value == pytest.approx(matrix[2] / matrix[3])
    assert g.either.value == pytest.approx((100 - matrix[1]) / 100)
    assert g.mcnemar == mcnemar(matrix[2], matrix[3])
    assert g.passed is passed
    assert g.complementarity.low <= g.complementarity.value <= g.complementarity.high
    text = gate_text(g)
    assert ("not passed" in text) is not passed
    assert max(map(len, text.splitlines())) <= 100


def test_the_gate_without_losses_is_infinite_and_still_json() -> None:
    g = gate(answers("1" * 70 + "1" * 25 + "0" * 5), answers("1" * 70 + "0" * 25 + "0" * 5))
    assert np.isinf(g.complementarity.value)
    assert g.passed
    value = json.loads(json.dumps(g.to_json(), allow_nan=False))
    assert value["complementarity"]["value"] is None
    assert value["passed"]
    same = gate(answers("10"), answers("10"))
    assert np.isnan(same.complementarity.value)
    assert not same.passed
    with pytest.raises(EvaluationError, match="its own opponent"):
        gate(answers("10"), answers("10"), ("a", "a"))


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "corrections.csv"
    path.write_text(text)
    return path


def test_corrections_change_labels_and_leave_out(tmp_path: Path) -> None:
    p = controls.selective(0, songs=10)
    a, b, c = p.ids[0], p.ids[1], p.ids[2]
    found = Corrections.read(
        write(tmp_path, f'id,label,reason\n{a},"4:0.5,7",heard\n{b},,speech\n{c},12/8,\nunknown,3,\n')
    )
    corrected, touched = found.apply(p)
    assert touched == [a, b, c]
    assert len(corrected) == len(p) - 1
    assert b not in corrected.ids
    assert corrected.targets[0].tolist() == [0, 0.5, 0, 1, 0, 0]
    assert corrected.classes[corrected.primary[0]] == "7"
    assert corrected.classes[corrected.primary[1]] == "4"
    np.testing.assert_array_equal(corrected.scores[0], p.scores[0])
    assert corrected.meta["corrections"] == "corrections.csv"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id,meter\na,3\n", "no column 'label'"),
        ("id,label\na,3\na,4\n", "corrections.csv:3: this line names 'a' again"),
        ("id,label\n,3\n", "corrections.csv:2: this line has an empty id"),
        ("id,label\na,3,4\n", "more cells"),
    ],
)
def test_corrections_that_cannot_be_read(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        Corrections.read(write(tmp_path, text))


def test_corrections_that_do_not_fit(tmp_path: Path) -> None:
    p = controls.selective(0, songs=10)
    with pytest.raises(DataError, match="there is no file"):
        Corrections.read(tmp_path / "none.csv")
    with pytest.raises(DataError, match=f"the label of '{p.ids[0]}'.*13"):
        Corrections.read(write(tmp_path, f"id,label\n{p.ids[0]},13\n")).apply(p)
    with pytest.raises(DataError, match=r"names no item of these predictions.*Did you mean 'test/0_0'"):
        Corrections.read(write(tmp_path, "id,label\nval/0_0,3\n")).apply(p)
