"""What a run's log says: did it learn, did it overfit, do outputs grow together, which layers does the head
read?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from beatmeter.evaluation.diagnostics.limits import LIMITS, Limits, percent, plain
from beatmeter.evaluation.metrics.checks import Array
from beatmeter.runtime.display import count
from beatmeter.schema import Finding

TREND = 0.5  # |Kendall's tau| with the epochs from which a figure rises or falls
FEWEST = 4  # epochs below which no trend is spoken of
UNIFORM = 0.99  # normalised entropy of layer weights above which they have hardly moved


def series(history: Sequence[Mapping[str, Any]], path: str) -> tuple[Array, Array]:
    """(point,) epochs and values of one figure of the log, `val.loss` for instance; epochs without it are
    left out."""
    epochs: list[int] = []
    values: list[float] = []
    for line in history:
        value: Any = line
        for key in path.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        if isinstance(value, int | float) and np.isfinite(value):
            epochs.append(int(line.get("epoch", len(epochs) + 1)))
            values.append(float(value))
    return np.array(epochs, dtype=np.int64), np.array(values, dtype=np.float64)


def trend(values: Array) -> str:
    """ "rises", "falls" or "stays", by Kendall's tau with time."""
    if len(values) < FEWEST:
        return "stays"
    signs = [np.sign(values[j] - values[i]) for i, j in combinations(range(len(values)), 2)]
    tau = float(np.mean(signs))
    return "rises" if tau >= TREND else "falls" if tau <= -TREND else "stays"


def training(history: Sequence[Mapping[str, Any]], limits: Limits = LIMITS) -> Finding | None:
    """Loss, entropy, gap and worst correlation over the epochs; None without a log.

    Warns when validation loss has risen for a third of the run while training loss fell, and when the worst
    correlation rises and ends above `limits.correlation`.
    """
    figures = {
        name: series(history, f"val.{name}")
        for name in ("loss", "accuracy", "balanced_accuracy", "entropy", "gap", "worst_correlation")
    }
    figures = {name: pair for name, pair in figures.items() if len(pair[1])}
    if not figures:
        return None
    trends = {name: trend(values) for name, (_, values) in figures.items()}
    parts, warned = [f"{count(len(history), 'epoch')}"], False
    if "loss" in figures:
        epochs, losses = figures["loss"]
        best = int(losses.argmin())
        late = (len(losses) - 1 - best) >= max(2, len(losses) / 3)
        parts.append(
            f"validation loss lowest in epoch {epochs[best]} ({losses[best]:.3f}), {losses[-1]:.3f} at the "
            "end"
        )
        train = series(history, "train.loss")[1]
        if late and len(train) == len(losses) and train[-1] < train[best]:
            parts.append("it rose while training loss fell: overfitting")
            warned = True
    words = {"entropy": "entropy", "gap": "gap", "worst_correlation": "worst correlation"}
    moving = [(name, word) for name, word in words.items() if trends.get(name, "stays") != "stays"]
    moved = [
        f"{word} {trends[name]} from {figures[name][1][0]:.2f} to {figures[name][1][-1]:.2f}"
        for name, word in moving
    ]
    parts += moved or ["no figure moves steadily"] if len(history) >= FEWEST else []
    if (
        trends.get("worst_correlation") == "rises"
        and figures["worst_correlation"][1][-1] > limits.correlation
    ):
        parts.append("outputs grow together: look at leakage")
        warned = True
    values = {name: {"epochs": e, "values": v, "trend": trends[name]} for name, (e, v) in figures.items()}
    return Finding("training", "warning" if warned else "ok", "; ".join(parts) + ".", plain(values))


def layer_weights(history: Sequence[Mapping[str, Any]]) -> dict[str, Array]:
    """Softmax layer weights by pooling, (epoch, layer), of the epochs that log them."""
    found: dict[str, list[list[float]]] = {}
    for line in history:
        for name, weights in (line.get("layer_weights") or {}).items():
            found.setdefault(name, []).append([float(w) for w in weights])
    return {
        name: np.array(rows)
        for name, rows in found.items()
        if len({len(r) for r in rows}) == 1 and len(rows[0]) > 1
    }


def layers(history: Sequence[Mapping[str, Any]]) -> Finding | None:
    """Which layers the head has come to read, per pooling; None without layer weights in the log."""
    table = layer_weights(history)
    if not table:
        return None
    parts, values = [], {}
    for name, rows in table.items():
        last = rows[-1] / rows[-1].sum()
        entropy = float(-(last * np.log(np.where(last > 0, last, 1))).sum() / np.log(len(last)))
        top = np.argsort(-last)[:3]
        values[name] = {"weights": last, "entropy": entropy, "top": top + 1}
        named = ", ".join(f"{k + 1} ({percent(float(last[k]))})" for k in top)
        still = " - hardly moved from uniform" if entropy > UNIFORM else ""
        parts.append(f"{name} reads mostly layers {named} of {len(last)}{still}")
    return Finding("layers", "ok", "; ".join(parts) + ".", plain(values))
