"""Comparing systems that answer with numbers or marks: paired, with intervals, beside null systems."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.stats import permutation_test

from beatmeter.cli import cli
from beatmeter.errors import EvaluationError
from beatmeter.evaluation.comparison.records import compare_records
from beatmeter.evaluation.records import write_records
from beatmeter.schema import MarkList, Marks, ValuePredictions


def values(noise: float, seed: int, n: int = 40) -> ValuePredictions:
    """Tempo and size of the same items, answered with some noise; sizes are known of half of them."""
    truth = np.random.default_rng(0)
    targets = np.column_stack([truth.normal(120, 30, n), truth.normal(4, 1, n)])
    targets[::2, 1] = np.nan
    said = np.nan_to_num(targets, nan=4.0)
    return ValuePredictions(
        ids=tuple(f"clip {i}" for i in range(n)),
        groups=tuple(str(i) for i in range(n)),
        sources=("",) * n,
        split="test",
        times=np.full((n, 2), np.nan),
        meta={"loss": {"constant": [120.0, 4.0]}},
        names=("tempo", "size"),
        units=("bpm", ""),
        values=said + noise * np.random.default_rng(seed).normal(size=(n, 2)) * [30, 1],
        targets=targets,
    )


def test_differences_are_paired_and_their_p_is_that_of_flipped_groups() -> None:
    rough, fine = values(0.5, 1), values(0.2, 2)
    found = compare_records({"rough": [rough], "fine": [fine]}, replicates=500)
    errors = [np.abs(p.values - p.targets)[:, 0] for p in (rough, fine)]
    test = found.pairs[0].tests[0]
    assert test.metric == "tempo: absolute_error"
    assert test.difference == pytest.approx(float(np.mean(errors[1] - errors[0])))
    assert test.low < test.difference < test.high < 0
    assert test.verdict == "better", "a lower error"
    whole = found.metrics["rough"]["tempo: absolute_error"].mean
    assert whole.value == pytest.approx(float(errors[0].mean()))
    assert whole.low < whole.value < whole.high
    expected = permutation_test(errors, _paired, permutation_type="samples", n_resamples=9999)
    assert test.p == pytest.approx(expected.pvalue, abs=0.01)
    assert found.metrics["rough"]["size: absolute_error"].mean.n == 20, "where sizes are known"
    nulls = found.nulls["constant"]
    assert nulls["tempo: absolute_error"] == pytest.approx(float(np.abs(120 - rough.targets[:, 0]).mean()))
    assert {t.metric for t in found.pairs[0].tests} == set(found.titles)


def _paired(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.mean(b - a))


def test_equal_systems_are_not_told_apart_and_items_may_come_in_another_order() -> None:
    one = values(0.3, 1)
    found = compare_records({"a": [one], "b": [one.take(np.arange(len(one))[::-1])]}, replicates=100)
    assert all(t.difference == pytest.approx(0) for t in found.pairs[0].tests)
    assert {t.verdict for t in found.pairs[0].tests} == {"not distinguishable"}


def test_seeds_of_a_system_have_a_mean_and_a_spread() -> None:
    found = compare_records(
        {"a": [values(0.3, 1), values(0.3, 2)], "b": [values(0.3, 3)]}, ["absolute_error"], replicates=200
    )
    one = found.metrics["a"]["tempo: absolute_error"]
    assert one.mean.value == pytest.approx(np.mean(one.seeds))
    assert one.spread == pytest.approx(np.std(one.seeds, ddof=1))
    assert set(found.titles) == {"tempo: absolute_error", "size: absolute_error"}


def test_marks_are_compared_by_what_each_item_gives() -> None:
    truth = [np.arange(6, 30, 0.5 + 0.01 * i) for i in range(12)]

    def record(late: float) -> Marks:
        return Marks(
            ids=tuple(map(str, range(12))),
            groups=tuple(map(str, range(12))),
            sources=("",) * 12,
            split="test",
            times=np.full((12, 2), np.nan),
            marks=tuple(MarkList.moments("beat", t + late) for t in truth),
            truth=tuple(MarkList.moments("beat", t) for t in truth),
        )

    found = compare_records({"late": [record(0.12)], "right": [record(0.01)]}, replicates=100)
    test = next(t for t in found.pairs[0].tests if "beat" in t.metric)
    assert test.difference > 0.9
    assert test.verdict == "better"
    other = replace(record(0.0), truth=tuple(MarkList.moments("beat", t + 1) for t in truth))
    with pytest.raises(EvaluationError, match="a and b label 12 items differently, first '0'"):
        compare_records({"a": [record(0.0)], "b": [other]})


def test_what_cannot_be_compared_is_refused_in_one_line() -> None:
    one = values(0.3, 1)
    with pytest.raises(EvaluationError, match="a answers tempo, size, b speed, size"):
        compare_records({"a": [one], "b": [replace(one, names=("speed", "size"))]})
    with pytest.raises(EvaluationError, match="there is no metric 'accurate'"):
        compare_records({"a": [one], "b": [one]}, ["accurate"])
    unknown = replace(one, targets=np.full_like(one.targets, np.nan))
    with pytest.raises(EvaluationError, match="none of the 40 items has a target"):
        compare_records({"a": [unknown], "b": [unknown]})
    with pytest.raises(EvaluationError, match="b lacks 10 of the 40 items of a"):
        compare_records({"a": [one], "b": [one.take(np.arange(30))]})
    assert (
        compare_records({"a": [one], "b": [one.take(np.arange(30))]}, common=True, replicates=100).left_out
        == 10
    )


def test_the_command_prints_tables_and_json(tmp_path: Path) -> None:
    for name, noise in (("rough", 0.5), ("fine", 0.1)):
        write_records(tmp_path / f"{name}.csv", values(noise, 1))
    files = [str(tmp_path / f"{name}.csv") for name in ("rough", "fine")]
    shown = CliRunner().invoke(cli, ["compare", *files])
    assert shown.exit_code == 0, shown.output
    assert "tempo: mean absolute error" in shown.output
    assert "the constant answer of the train split" in shown.output
    assert "better" in shown.output
    printed = CliRunner().invoke(cli, ["compare", *files, "--json", "--metric", "r2"])
    assert json.loads(printed.output)["pairs"][0]["tests"][0]["metric"] == "tempo: r2"
    refused = CliRunner().invoke(cli, ["compare", *files, "--html", str(tmp_path / "page.html")])
    assert refused.exception is not None
    assert "are for scores of classes" in str(refused.exception) + refused.output
