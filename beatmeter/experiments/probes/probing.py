"""One probing of a feature store, top to bottom: layers and controls, folds and seeds, scores, the best
layers, the tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float, Float32
from threadpoolctl import threadpool_limits

from beatmeter.errors import DataError
from beatmeter.evaluation.metrics import Estimate, group_index
from beatmeter.evaluation.metrics.intervals import REPLICATES, bootstrap, interval
from beatmeter.evaluation.metrics.significance import Difference, holm, paired_bootstrap, sign_flip
from beatmeter.experiments.probes.best import best_set
from beatmeter.experiments.probes.closed import (
    FOLDS,
    columns_of,
    group_folds,
    lda_out_of_fold,
    linear_cka,
    ridge_out_of_fold,
)
from beatmeter.runtime.parallel import Crash, WorkerError, ordered
from beatmeter.runtime.progress import SILENT, Reporter

FUSED = "mean of layers"
LEAST = 30  # items of a target


@dataclass(frozen=True)
class Subject:
    """What is probed: one row an item. `values` (item, name) are nan where nobody knows; `classes` are names
    by column, "" where nobody knows; `units` of the values."""

    ids: tuple[str, ...]
    groups: tuple[str, ...]
    names: tuple[str, ...]
    units: tuple[str, ...]
    values: Float[np.ndarray, "item name"]
    classes: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Cell:
    """One target under one set of features: R2 (of values) or accuracy (of classes) out of fold, mean over
    seeds, with its interval over groups, the same with shuffled labels, and the error of every item (item,),
    nan where the target is unknown."""

    target: str
    features: str
    score: Estimate
    shuffled: float
    seeds: tuple[float, ...]
    errors: Float[np.ndarray, " item"]
    predicted: Float[np.ndarray, " item"] | None = None


@dataclass(frozen=True)
class Row:
    """One target: its cells by feature set, the best layer and all that cannot be told from it, what naming
    the mean or the most frequent class gets, and of the fused layers against every control the difference
    with its p (Holm over targets)."""

    target: str
    unit: str
    kind: str  # "R2" or "accuracy"
    items: int
    cells: Mapping[str, Cell]
    best: str
    beside: tuple[str, ...]
    chance: float
    against: Mapping[str, Difference]

    @property
    def null(self) -> bool:
        """Whether the target is a null column, of which nothing should be known."""
        return self.target.startswith("null_")


@dataclass(frozen=True)
class Probe:
    """All rows, in the order of the targets; `layers` and `controls` are feature sets; `cka` (layer,
    layer)."""

    subject: Subject
    layers: tuple[str, ...]
    controls: tuple[str, ...]
    rows: tuple[Row, ...]
    cka: Float[np.ndarray, "layer layer"]
    seeds: int
    folds: int
    refused: Mapping[str, str]


def probe(
    subject: Subject,
    layers: Mapping[str, Float32[np.ndarray, "item column"]],
    controls: Mapping[str, Float32[np.ndarray, "item column"]],
    seeds: int = 5,
    progress: Reporter = SILENT,
    jobs: int = 1,
) -> Probe:
    """Probe every target with every layer, their mean and the controls, in `jobs` processes of one thread
    each: no number depends on `jobs`. `seeds` redraw the folds and the shuffled labels.

    A target that is constant, or known of too few items or groups, is refused with its reason. Raises
    DataError when none is left."""
    layers = {name: np.asarray(x, np.float32) for name, x in layers.items()}
    sets = dict(layers)
    if len(layers) > 1 and len({x.shape for x in layers.values()}) == 1:
        sets[FUSED] = fused(layers)
    sets |= controls
    refused: dict[str, str] = {}
    patterns = _patterns(subject, refused)
    classes = {
        name: known
        for name in subject.classes
        if (known := _class_targets(subject, name, refused)) is not None
    }
    if not patterns and not classes:
        what = "; ".join(f"{name}: {why}" for name, why in refused.items()) or "there are no targets"
        raise DataError(f"nothing can be probed: {what}", "Name other columns in --targets.")
    cells: dict[str, dict[str, Cell]] = {}
    wanted = [*patterns, *((known, column) for column, known in classes.items())]
    fits = ((name, sets[name][known], known, what) for name in sets for known, what in wanted)
    with (
        progress.track("probing", len(sets) * len(wanted), "fits") as tick,
        # Matrices of this size are done in one thread sooner than in threads that wait for each other.
        threadpool_limits(limits=1),
    ):
        for done in ordered(partial(_fitted, subject, seeds), fits, min(jobs, len(sets) * len(wanted))):
            if isinstance(done, Crash):
                raise WorkerError(
                    "a process that fits probes was killed", "Lower --jobs: memory may be short."
                )
            for cell in done:
                cells.setdefault(cell.target, {})[cell.features] = cell
            tick(1)
    order = [*(n for n in subject.names if n in cells), *classes]
    units = dict(zip(subject.names, subject.units, strict=True))
    rows = [_row(subject, t, units.get(t), cells[t], tuple(layers), tuple(controls)) for t in order]
    cka = linear_cka([columns_of(x) for x in layers.values()])
    return Probe(subject, tuple(layers), tuple(controls), tuple(_corrected(rows)), cka, seeds, FOLDS, refused)


def fused(layers: Mapping[str, np.ndarray]) -> np.ndarray:
    """The mean of layers whose columns have mean 0 and variance 1, so that layers of any norm weigh
    alike."""
    result: np.ndarray = np.mean([_scaled(x) for x in layers.values()], axis=0)
    return result


def _scaled(x: np.ndarray) -> np.ndarray:
    deviation = x.std(axis=0)
    result: np.ndarray = (x - x.mean(axis=0)) / np.where(deviation > 1e-6, deviation, 1.0)
    return result


def _patterns(subject: Subject, refused: dict[str, str]) -> list[tuple[np.ndarray, np.ndarray]]:
    """The values by which items they are known of: (positions of items, positions of names), so that one fit
    serves all of them."""
    found: dict[bytes, list[int]] = {}
    for k, name in enumerate(subject.names):
        known = ~np.isnan(subject.values[:, k])
        values = subject.values[known, k]
        groups = len({g for g, counts in zip(subject.groups, known, strict=True) if counts})
        if known.sum() < LEAST or groups < 2 * FOLDS:
            refused[name] = (
                f"known of {int(known.sum())} items of {groups} groups, too few for {FOLDS} folds in folds"
            )
        elif np.ptp(values) <= 1e-9 * max(abs(float(values[0])), 1e-9):
            refused[name] = f"it is {values[0]:g} for all items: a constant"
        else:
            found.setdefault(known.tobytes(), []).append(k)
    return [(np.flatnonzero(np.frombuffer(key, bool)), np.array(at)) for key, at in found.items()]


def _class_targets(subject: Subject, column: str, refused: dict[str, str]) -> np.ndarray | None:
    """The items whose class has at least as many groups as folds."""
    names = list(subject.classes[column])
    groups: dict[str, set[str]] = {}
    for name, group in zip(names, subject.groups, strict=True):
        groups.setdefault(name, set()).add(group)
    kept = {name for name, of in groups.items() if name and len(of) >= 2}
    known = np.array([i for i, name in enumerate(names) if name in kept], dtype=int)
    if len(kept) < 2 or len(known) < LEAST:
        refused[column] = (
            f"{len(kept)} classes have items of 2 groups or more, {len(known)} items in all: too few"
        )
        return None
    return known


def _fitted(
    subject: Subject, seeds: int, fit: tuple[str, np.ndarray, np.ndarray, np.ndarray | str]
) -> list[Cell]:
    """One set of features for one column of classes, or for all values that are known of the same items."""
    name, features, known, what = fit
    x = columns_of(features)
    if isinstance(what, str):
        return [_class_cell(subject, what, name, x, known, seeds)]
    return _value_cells(subject, name, x, known, what, seeds)


def _value_cells(
    subject: Subject, name: str, x: np.ndarray, known: np.ndarray, at: np.ndarray, seeds: int
) -> list[Cell]:
    raw = subject.values[np.ix_(known, at)]
    centre, scale = raw.mean(axis=0), raw.std(axis=0)
    y = (raw - centre) / scale
    groups = [subject.groups[i] for i in known.tolist()]
    number = group_index(groups)
    errors, predicted, shuffled, scores = np.zeros(y.shape), np.zeros(y.shape), [], []
    for seed in range(seeds):
        fold = group_folds(number, seed)
        mixed = y[np.random.default_rng([seed, 1]).permutation(len(y))]
        found, _ = ridge_out_of_fold(x, np.concatenate([y, mixed], axis=1), fold)
        own, null = found[:, : y.shape[1]], found[:, y.shape[1] :]
        errors += np.square(own - y) / seeds
        predicted += own / seeds
        scores.append(1 - np.square(own - y).mean(axis=0))  # y has variance 1
        shuffled.append(1 - np.square(null - mixed).mean(axis=0))
    cells = []
    estimates = _r2(errors, y, groups)
    for j, k in enumerate(at.tolist()):
        full, values = np.full((2, len(subject.ids)), np.nan)
        full[known], values[known] = errors[:, j], predicted[:, j] * scale[j] + centre[j]
        each = tuple(float(s[j]) for s in scores)
        by_chance = float(np.mean([s[j] for s in shuffled]))
        cells.append(Cell(subject.names[k], name, estimates[j], by_chance, each, full, values))
    return cells


def _r2(
    errors: Float[np.ndarray, "item target"], y: Float[np.ndarray, "item target"], groups: Sequence[str]
) -> list[Estimate]:
    """1 - squared error over squared distance from the mean, with its interval over groups, of every target
    on the same draws of groups."""

    def value(weights: np.ndarray | None) -> np.ndarray:
        w = np.ones((1, len(y))) if weights is None else weights
        n = w.sum(axis=-1, keepdims=True)
        spread = w @ np.square(y) / n - np.square(w @ y / n)
        result: np.ndarray = 1 - (w @ errors / n) / np.maximum(spread, 1e-12)
        return result if weights is not None else result[0]

    found, draws = bootstrap(value, groups, REPLICATES)
    return [
        Estimate(float(v), float(low), float(high), len(y), "bootstrap over groups")
        for v, low, high in zip(found, *np.stack(interval(draws)), strict=True)
    ]


def _class_cell(
    subject: Subject, column: str, name: str, x: np.ndarray, known: np.ndarray, seeds: int
) -> Cell:
    labels = [subject.classes[column][i] for i in known.tolist()]
    names = sorted(set(labels))
    number = np.array([names.index(label) for label in labels])
    groups = [subject.groups[i] for i in known.tolist()]
    member = group_index(groups)
    wrong = np.zeros(len(known))
    scores: list[float] = []
    shuffled: list[float] = []
    for seed in range(seeds):
        fold = group_folds(member, seed)
        for mixed in (False, True):
            target = number[np.random.default_rng([seed, 1]).permutation(len(number))] if mixed else number
            answer = lda_out_of_fold(x, np.eye(len(names))[target], fold).argmax(axis=1)
            (shuffled if mixed else scores).append(float((answer == target).mean()))
            wrong += 0 if mixed else (answer != target) / seeds
    value, draws = bootstrap(
        lambda w: 1 - (wrong.mean() if w is None else w @ wrong / w.sum(axis=-1)), groups, REPLICATES
    )
    low, high = interval(draws)
    full = np.full(len(subject.ids), np.nan)
    full[known] = wrong
    estimate = Estimate(float(value), float(low), float(high), len(known), "bootstrap over groups")
    return Cell(column, name, estimate, float(np.mean(shuffled)), tuple(scores), full)


def _row(
    subject: Subject,
    target: str,
    unit: str | None,
    cells: Mapping[str, Cell],
    layers: Sequence[str],
    controls: Sequence[str],
) -> Row:
    known = ~np.isnan(cells[layers[0]].errors)
    groups = [g for g, counts in zip(subject.groups, known, strict=True) if counts]
    errors = np.stack([cells[name].errors[known] for name in layers], axis=1)
    best, beside = best_set(errors, groups)
    chance = 0.0
    if unit is None:
        labels = [c for c, counts in zip(subject.classes[target], known, strict=True) if counts]
        chance = max(labels.count(name) for name in set(labels)) / len(labels)
    ours = cells.get(FUSED, cells[layers[0]]).errors[known]
    against = {}
    for name in controls:
        theirs = cells[name].errors[known]
        interval_of = paired_bootstrap(_mean_of(-theirs), _mean_of(-ours), groups, REPLICATES)
        against[name] = replace(interval_of, p=sign_flip(theirs - ours, groups))
    kind = "accuracy" if unit is None else "R2"
    return Row(
        target,
        unit or "",
        kind,
        int(known.sum()),
        cells,
        layers[best],
        tuple(layers[k] for k in beside),
        chance,
        against,
    )


def _mean_of(values: np.ndarray) -> Callable[[np.ndarray | None], Any]:
    return lambda w: values.mean() if w is None else w @ values / w.sum(axis=-1)


def _corrected(rows: Sequence[Row]) -> list[Row]:
    """The rows with their p-values by Holm over all targets and controls that are no null columns."""
    asked = [(i, name) for i, row in enumerate(rows) if not row.null for name in row.against]
    adjusted = holm([rows[i].against[name].p for i, name in asked])
    found = [dict(row.against) for row in rows]
    for (i, name), p in zip(asked, adjusted, strict=True):
        found[i][name] = replace(found[i][name], p=p)
    return [replace(row, against=against) for row, against in zip(rows, found, strict=True)]
