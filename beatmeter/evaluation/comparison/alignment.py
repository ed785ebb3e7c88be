"""Several models on the same items: bring their predictions into one order, or say what does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from beatmeter.errors import EvaluationError
from beatmeter.schema import ClassPredictions
from beatmeter.schema.records import Key


@dataclass(frozen=True)
class Aligned:
    """Predictions by name, all of the same items in the same order, and how many items of each were left
    out."""

    members: Mapping[str, ClassPredictions]
    left_out: Mapping[str, int]


def align(members: Mapping[str, ClassPredictions], common: bool = False) -> Aligned:
    """Bring all members into the order of the first, in items and in classes.

    Every member must know the same classes, have the same items and give them the same labels and groups;
    with `common`, items that are not in all of them are left out. Raises EvaluationError that names the first
    thing that differs.
    """
    names = list(members)
    first = members[names[0]]
    keys = {name: p.keys for name, p in members.items()}
    known = {name: set(k) for name, k in keys.items()}
    shared = set.intersection(*known.values())
    for name in names:
        if not common and len(known[name]) != len(shared):
            lacking, whole = next((other, name) for other in names if known[name] - known[other])
            missing = sorted(known[whole] - known[lacking])
            raise EvaluationError(
                f"{lacking} lacks {len(missing)} of the {len(known[whole])} items of {whole}, first "
                f"{missing[0][0]!r}",
                "Compare the items that all have with --common, or predict the same split with all of them.",
            )
    if not shared:
        raise EvaluationError(
            f"{' and '.join(names[:3])} have no item in common",
            "Predict the same split of the same data with all of them.",
        )
    order = [k for k in keys[names[0]] if k in shared]
    aligned = {name: _in_order(name, p, order, names[0], first.classes) for name, p in members.items()}
    for name in names[1:]:
        _require_same_labels(names[0], aligned[names[0]], name, aligned[name])
    return Aligned(aligned, {name: len(known[name]) - len(shared) for name in names})


def _in_order(
    name: str, p: ClassPredictions, order: list[Key], first: str, classes: tuple[str, ...]
) -> ClassPredictions:
    if set(p.classes) != set(classes):
        raise EvaluationError(
            f"{first} answers the classes {', '.join(classes)}, {name} {', '.join(p.classes)}",
            "Predictions can be compared when they know the same classes; add a score column of 0 for a "
            "class that a model does not know.",
        )
    return with_classes(p.align(order), classes)


def with_classes(p: ClassPredictions, classes: tuple[str, ...]) -> ClassPredictions:
    """The same predictions with their classes in another order; `classes` must be the same names."""
    if p.classes == classes:
        return p
    columns = [p.classes.index(c) for c in classes]
    place = np.array([*(classes.index(c) for c in p.classes), -1])  # -1, no label, stays -1
    return replace(
        p,
        classes=classes,
        targets=p.targets[:, columns],
        scores=p.scores[:, columns],
        primary=place[p.primary],
    )


def _require_same_labels(first: str, a: ClassPredictions, second: str, b: ClassPredictions) -> None:
    labels = (a.primary != b.primary) | ((a.targets > 0) != (b.targets > 0)).any(axis=1)
    if labels.any():
        i = int(labels.argmax())
        mine, theirs = (a.classes[p.primary[i]] if p.primary[i] >= 0 else "nothing" for p in (a, b))
        raise EvaluationError(
            f"{first} and {second} label {int(labels.sum())} items differently, first {a.ids[i]!r}: {mine} "
            f"and {theirs} as primary",
            "Use the same label file for both, or --corrections for all.",
        )
    if a.groups != b.groups:
        i = next(i for i, pair in enumerate(zip(a.groups, b.groups, strict=True)) if pair[0] != pair[1])
        raise EvaluationError(
            f"{first} and {second} group {a.ids[i]!r} differently: {a.groups[i]!r} and {b.groups[i]!r}",
            "Tests draw groups: give both the same `group` column.",
        )
