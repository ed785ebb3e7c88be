"""Records of values: their metrics against SciPy and scikit-learn, null systems, files, and the
assessment."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import r2_score

from beatmeter.errors import DataError, EvaluationError, SchemaError
from beatmeter.evaluation.metrics.families import estimate_of, metrics_of
from beatmeter.evaluation.metrics.values import mean_absolute_error, r2, spearman
from beatmeter.evaluation.predictions import read_predictions, sidecar
from beatmeter.evaluation.records import read_records, write_records
from beatmeter.evaluation.report import assess, assessment_text
from beatmeter.schema import ClassPredictions, ValuePredictions

RNG = np.random.default_rng(0)


def record(n: int = 60, noise: float = 0.5, **changes: object) -> ValuePredictions:
    """Tempo, and a size of which a third is not known; two items a group."""
    targets = np.column_stack([RNG.normal(120, 30, n), RNG.integers(1, 6, n).astype(float)])
    targets[::3, 1] = np.nan
    values = np.nan_to_num(targets, nan=3.0) + noise * RNG.normal(size=(n, 2)) * [30, 1.5]
    return ValuePredictions(
        ids=tuple(map(str, range(n))),
        groups=tuple(str(i // 2) for i in range(n)),
        sources=("",) * n,
        split="test",
        times=np.full((n, 2), np.nan),
        names=("tempo", "size"),
        units=("bpm", ""),
        values=values,
        targets=targets,
        **changes,  # type: ignore[arg-type]
    )


def test_metrics_are_those_of_the_libraries_over_the_known_targets() -> None:
    p = record()
    for k in range(2):
        known = ~np.isnan(p.targets[:, k])
        t, v = p.targets[known, k], p.values[known, k]
        assert mean_absolute_error(p.values, p.targets)[k] == pytest.approx(np.abs(t - v).mean())
        assert r2(p.values, p.targets)[k] == pytest.approx(r2_score(t, v))
        assert spearman(p.values, p.targets)[k] == pytest.approx(spearmanr(t, v).statistic)


def test_an_item_of_weight_two_counts_as_two_items() -> None:
    p = record(30)
    counts = RNG.integers(0, 3, len(p))
    twice = p.take(np.repeat(np.arange(len(p)), counts))
    for metric in (mean_absolute_error, r2, spearman):
        weighted = metric(p.values, p.targets, np.stack([counts, np.ones(len(p))]).astype(float))
        np.testing.assert_allclose(
            weighted, [metric(twice.values, twice.targets), metric(p.values, p.targets)], rtol=1e-9
        )


def test_what_is_not_defined_is_nan() -> None:
    p = record()
    flat = replace(p, targets=np.full_like(p.targets, 3.0))
    assert np.isnan(r2(flat.values, flat.targets)).all()
    assert np.isnan(spearman(flat.values, flat.targets)).all()
    nothing = replace(p, targets=np.full_like(p.targets, np.nan))
    assert np.isnan(mean_absolute_error(nothing.values, nothing.targets)).all()
    with pytest.raises(EvaluationError, match="has a label"):
        assess(nothing)


def test_intervals_draw_whole_groups() -> None:
    p = record()
    doubled = p.take(np.repeat(np.arange(len(p)), 3))  # the same groups, three times as many items in each
    metric = metrics_of(p)[0]
    one, three = estimate_of(metric, p, 500), estimate_of(metric, doubled, 500)
    assert (one.low, one.high) == (pytest.approx(three.low), pytest.approx(three.high))


def test_good_values_beat_the_null_systems_and_noise_does_not() -> None:
    state = {"loss": {"constant": [120.0, 3.0]}}
    good = assess(record(noise=0.1, meta=state))
    assert good.verdict == "better than chance"
    error = good.rows[0]
    assert error.nulls["constant"] == pytest.approx(np.abs(good.predictions.targets[:, 0] - 120).mean())  # type: ignore[attr-defined]
    assert error.estimate.high < min(error.nulls.values())
    p = record(meta=state)
    blind = assess(replace(p, values=RNG.permutation(p.values)))
    assert blind.verdict != "better than chance"
    text = assessment_text(good)
    assert "tempo: mean absolute error (bpm)" in text
    assert "constant" in text
    assert max(map(len, text.splitlines())) <= 100


def test_a_file_gives_back_what_was_written(tmp_path: Path) -> None:
    p = record(meta={"run": "x"})
    write_records(tmp_path / "test.csv", p)
    q = read_records(tmp_path / "test.csv")
    assert isinstance(q, ValuePredictions)
    assert (q.ids, q.groups, q.names, q.units, q.split, q.meta) == (
        p.ids,
        p.groups,
        p.names,
        p.units,
        p.split,
        p.meta,
    )
    assert np.array_equal(q.values, p.values)
    assert np.array_equal(q.targets, p.targets, equal_nan=True)
    sidecar(tmp_path / "test.csv").unlink()
    bare = read_records(tmp_path / "test.csv")
    assert isinstance(bare, ValuePredictions), "the columns say it too"
    assert bare.units == ("", "")


def test_a_softmax_stays_one(tmp_path: Path) -> None:
    p = ClassPredictions(
        ids=("a", "b"),
        groups=("a", "b"),
        sources=("", ""),
        split="test",
        times=np.full((2, 2), np.nan),
        classes=("x", "y"),
        targets=np.eye(2),
        scores=np.array([[0.75, 0.25], [0.5, 0.5]]),
        primary=np.array([0, 1]),
        exclusive=True,
    )
    write_records(tmp_path / "test.csv", p)
    again = read_records(tmp_path / "test.csv")
    assert isinstance(again, ClassPredictions)
    assert again.exclusive


def test_values_are_refused_where_classes_are_needed(tmp_path: Path) -> None:
    write_records(tmp_path / "test.csv", record())
    with pytest.raises(DataError, match="holds values"):
        read_predictions(tmp_path / "test.csv")
    other = tmp_path / "other.csv"
    other.write_text("id,target_size,value_size\na,1,x\n")
    with pytest.raises(DataError, match=r"other.csv:2: value_size = 'x' is not a number"):
        read_records(other)
    other.write_text("id,value_size\na,1\n")
    with pytest.raises(DataError, match="no column 'target_size'"):
        read_records(other)


def test_records_are_checked_when_built() -> None:
    p = record(4)
    with pytest.raises(SchemaError, match="not finite"):
        replace(p, values=np.full((4, 2), np.nan))
    with pytest.raises(SchemaError, match="units"):
        replace(p, units=("bpm",))
    assert p.align(p.take([2, 0]).keys).ids == ("2", "0")
