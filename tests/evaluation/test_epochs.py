"""What the log of a run says: overfitting, growing correlation, layer weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from beatmeter.evaluation.diagnostics import layer_weights, layers, series, training, trend


def log(n: int, **figures: Any) -> list[dict[str, Any]]:
    """`n` epochs; figures are functions of the epoch, named train_loss, loss, gap and so on."""
    lines = []
    for e in range(1, n + 1):
        train = {"loss": figures["train_loss"](e)} if "train_loss" in figures else {}
        lines.append(
            {"epoch": e, "train": train, "val": {k: f(e) for k, f in figures.items() if k != "train_loss"}}
        )
    return lines


def test_trends() -> None:
    assert trend(np.array([1.0, 2, 3, 4])) == "rises"
    assert trend(np.array([4.0, 3, 2.5, 2.6, 1])) == "falls"
    assert trend(np.array([1.0, 2, 1, 2, 1, 2])) == "stays"
    assert trend(np.array([1.0, 9.0])) == "stays", "two epochs are no trend"


def test_series_leaves_out_epochs_without_the_figure() -> None:
    lines = [
        {"epoch": 1, "val": {"loss": 1.0}},
        {"epoch": 2, "val": {}},
        {"epoch": 3, "val": {"loss": float("nan")}},
        {"epoch": 4, "val": {"loss": 2}},
    ]
    epochs, values = series(lines, "val.loss")
    assert (epochs.tolist(), values.tolist()) == ([1, 4], [1.0, 2.0])


def test_overfitting_is_said() -> None:
    f = training(log(20, train_loss=lambda e: 1 / e, loss=lambda e: 0.5 + 0.01 * (e - 6) ** 2))
    assert f is not None
    assert f.level == "warning"
    assert "lowest in epoch 6" in f.text
    assert "overfitting" in f.text
    steady = training(log(20, train_loss=lambda e: 1 / e, loss=lambda e: 0.5 + 1 / e))
    assert steady is not None
    assert steady.level == "ok"


def test_growing_correlation_is_said() -> None:
    f = training(
        log(
            10,
            loss=lambda e: 1 / e,
            gap=lambda e: 0.05 * e,
            entropy=lambda e: 1 - 0.05 * e,
            worst_correlation=lambda e: 0.05 * e,
        )
    )
    assert f is not None
    assert f.level == "warning"
    for words in (
        "gap rises from 0.05 to 0.50",
        "entropy falls",
        "worst correlation rises",
        "outputs grow together",
    ):
        assert words in f.text
    low = training(log(10, loss=lambda e: 1 / e, worst_correlation=lambda e: 0.02 * e))
    assert low is not None
    assert low.level == "ok"


def test_layers_say_what_is_read() -> None:
    peaked = np.exp(-np.abs(np.arange(12) - 4.0))
    lines = [
        {
            "epoch": e,
            "layer_weights": {
                "stats": (np.ones(12) + e * peaked).tolist(),
                "lag": [1.0] * 12,
                "single": [1.0],
            },
        }
        for e in range(10)
    ]
    table = layer_weights(lines)
    assert set(table) == {"stats", "lag"}, "one layer is no choice"
    f = layers(lines)
    assert f is not None
    assert f.values["stats"]["top"][0] == 5
    assert sum(f.values["stats"]["weights"]) == pytest.approx(1.0)
    assert "lag reads mostly" in f.text
    assert "hardly moved from uniform" in f.text.split(";")[1]
    assert "hardly" not in f.text.split(";")[0]


def test_no_log_says_nothing() -> None:
    assert training([]) is None
    assert layers([{"epoch": 1, "val": {}}]) is None
