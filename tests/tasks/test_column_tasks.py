"""Tasks over columns: what they settle by the train split, their losses, and what they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from beatmeter.errors import BeatmeterError, ConfigError, DataError, RunError
from beatmeter.runtime.config import change
from beatmeter.schema import Track, ValuePredictions
from beatmeter.settings import RunConfig
from beatmeter.tasks import Task, open_task


def task(name: str, column: str | tuple[str, ...], **settings: Any) -> Task:
    return open_task(change(RunConfig(), {"task": {"name": name, "column": column, **settings}}))


def tracks(*labels: str, **columns: tuple[str, ...]) -> list[Track]:
    """A track per label ("a,b" for two), or per cell of the columns, each its own group."""
    if labels:
        return [
            Track(str(i), Path("x"), dict.fromkeys(x.split(","), 1.0), x.split(",")[0])
            for i, x in enumerate(labels)
        ]
    n = len(next(iter(columns.values())))
    return [
        Track(str(i), Path("x"), extra={name: cells[i] for name, cells in columns.items()}) for i in range(n)
    ]


def test_classes_are_those_of_the_train_split_numbers_by_size() -> None:
    assert task("multiclass", "k").settled(tracks("10", "9", "b", "a", "9")).output.names == (
        "9",
        "10",
        "a",
        "b",
    )
    given = task("multiclass", "k", classes=("b", "a")).settled(tracks("a", "b", "c"))
    assert given.output.names == ("b", "a")
    assert "is no class" in str(given.usable(tracks("c")[0]))


@pytest.mark.parametrize("name", ["multiclass", "multilabel", "regression"])
def test_a_settled_task_comes_back_from_its_state(name: str) -> None:
    train = tracks(size=("1", "2", "4")) if name == "regression" else tracks("a", "b", "b")
    settled = task(name, "size").settled(train)
    state = settled.study(train)
    fresh = task(name, "size")
    fresh.check_state(state)
    again = fresh.restored(state)
    outputs = np.random.default_rng(0).normal(size=(3, len(settled.output.names)))
    one, two = settled.decode(outputs, train), again.decode(outputs, train)
    for field in ("values", "targets") if isinstance(one, ValuePredictions) else ("scores", "targets"):
        np.testing.assert_array_equal(getattr(one, field), getattr(two, field))
    with pytest.raises(RunError):
        fresh.check_state({**state, "constant": [0.5]}) if name != "regression" else fresh.check_state(
            {**state, "constant": []}
        )


def test_multiclass_is_pytorchs_weighted_cross_entropy() -> None:
    train = tracks("a", "b", "b", "b")
    t = task("multiclass", "k", smoothing=0.0).settled(train)
    state = t.study(train)
    assert state["weight"] == pytest.approx([2.0, 2 / 3])
    assert state["constant"] == [0.25, 0.75]
    outputs, targets = torch.randn(4, 2), t.targets(train)
    total, count = t.loss(
        outputs, torch.from_numpy(targets.values), torch.from_numpy(targets.mask.copy()), state
    )
    wanted = nn.functional.cross_entropy(
        outputs, torch.tensor([0, 1, 1, 1]), weight=torch.tensor(state["weight"])
    )
    assert float(total / count) == pytest.approx(float(wanted), rel=1e-6)
    scores = t.decode(outputs.numpy() * 1000, train).scores  # type: ignore[attr-defined]
    assert np.isfinite(scores).all()
    assert scores.sum(axis=1) == pytest.approx(1.0)


def test_values_that_nobody_knows_are_masked_and_not_zero() -> None:
    train = tracks(tempo=("100", "140", ""), size=("1", "", "5"))
    t = task("regression", ("tempo", "size"), error="squared").settled(train)
    state = t.study(train)
    assert state == {"constant": [120.0, 3.0], "deviation": [20.0, 2.0]}
    targets = t.targets(train)
    assert targets.mask.tolist() == [[True, True], [True, False], [False, True]]
    outputs = torch.zeros(3, 2)
    arguments = torch.from_numpy(targets.values), torch.from_numpy(targets.mask)
    total, count = t.loss(outputs, *arguments, state)
    assert (float(total), int(count)) == (pytest.approx(4.0), 4)
    wild = torch.tensor([[0.0, 0.0], [0.0, 1e6], [1e6, 0.0]])
    assert float(t.loss(wild, *arguments, state)[0]) == pytest.approx(4.0), "an unknown value draws no error"
    record = t.decode(outputs.numpy(), train)
    assert isinstance(record, ValuePredictions)
    assert record.values[0].tolist() == [120.0, 3.0]
    assert np.isnan(record.targets).tolist() == [[False, False], [False, True], [True, False]]


@pytest.mark.parametrize(
    ("name", "settings", "what"),
    [
        ("multiclass", {"column": ()}, "needs a column"),
        ("multiclass", {"column": ("a", "b")}, "learns one column"),
        ("regression", {"column": ("a", "b"), "units": ("s",)}, "1 units for 2 columns"),
        ("regression", {"column": ("a", "a")}, "twice"),
    ],
)
def test_settings_that_do_not_fit_are_refused(name: str, settings: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        open_task(change(RunConfig(), {"task": {"name": name, **settings}}))


def test_corrections_of_meters_are_refused() -> None:
    with pytest.raises(ConfigError, match="labels of meters"):
        open_task(
            change(
                RunConfig(),
                {"task": {"name": "multiclass", "column": "k"}, "data": {"corrections": ("x.csv",)}},
            )
        )


@pytest.mark.parametrize(
    ("name", "train", "what"),
    [
        ("multiclass", tracks("a", "a", "a"), "only 'a'"),
        ("multiclass", [], "0 groups"),
        ("multilabel", tracks("a,b", "a,b"), "the same for all tracks"),
        ("regression", tracks(k=("7", "7", "7")), "k is 7 for all tracks"),
        ("regression", tracks(k=("7", "", "")), "too few to learn from"),
        ("regression", tracks(k=("7",)), "1 group "),
    ],
)
def test_what_cannot_be_learned_is_refused_with_the_reason(name: str, train: list[Track], what: str) -> None:
    with pytest.raises(DataError, match=what):
        task(name, "k").settled(train)


def test_a_damaged_state_is_refused() -> None:
    t = task("regression", "k")
    for state in (
        {},
        {"constant": [1.0], "deviation": [0.0]},
        {"constant": [1.0, 2.0], "deviation": [1.0, 2.0]},
    ):
        with pytest.raises(BeatmeterError):
            t.check_state(state)
