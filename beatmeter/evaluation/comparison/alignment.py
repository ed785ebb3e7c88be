"""Several models on the same items: bring their predictions into one order, or say what does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Generic, TypeVar, cast

import numpy as np

from beatmeter.errors import EvaluationError
from beatmeter.schema import ClassPredictions, Items, Marks, ValuePredictions
from beatmeter.schema.records import Key

R = TypeVar("R", bound=Items)


@dataclass(frozen=True)
class Aligned(Generic[R]):
    """Predictions by name, all of the same items in the same order, and how many items of each were left
    out."""

    members: Mapping[str, R]
    left_out: Mapping[str, int]


def align(members: Mapping[str, R], common: bool = False) -> Aligned[R]:
    """Bring all members, records of one kind, into the order of the first, in items and in classes.

    Every member must know the same classes or names, have the same items and give them the same labels and
    groups;
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
    aligned = {name: _in_order(name, p, order, names[0], first) for name, p in members.items()}
    for name in names[1:]:
        _require_same_labels(names[0], aligned[names[0]], name, aligned[name])
    return Aligned(aligned, {name: len(known[name]) - len(shared) for name in names})


def _in_order(name: str, p: R, order: list[Key], of: str, first: Items) -> R:
    if type(p) is not type(first):
        raise EvaluationError(
            f"{of} holds {type(first).__name__} and {name} {type(p).__name__}",
            "Compare systems that answer the same question.",
        )
    if isinstance(p, ClassPredictions) and isinstance(first, ClassPredictions):
        if set(p.classes) != set(first.classes):
            raise EvaluationError(
                f"{of} answers the classes {', '.join(first.classes)}, {name} {', '.join(p.classes)}",
                "Predictions can be compared when they know the same classes; add a score column of 0 for a "
                "class that a model does not know.",
            )
        return cast(R, with_classes(p.align(order), first.classes))
    mine, theirs = (getattr(record, "names", ()) for record in (first, p))
    if mine != theirs:
        raise EvaluationError(
            f"{of} answers {', '.join(mine)}, {name} {', '.join(theirs)}",
            "Compare systems that answer the same question.",
        )
    return p.align(order)


def with_classes(p: ClassPredictions, classes: tuple[str, ...]) -> ClassPredictions:
    """The same predictions with their classes in another order; `classes` must be the same names."""
    if p.classes == classes:
        return p
    columns = [p.classes.index(c) for c in classes]
    position = np.array([*(classes.index(c) for c in p.classes), -1])  # -1, no label, stays -1
    return replace(
        p,
        classes=classes,
        targets=p.targets[:, columns],
        scores=p.scores[:, columns],
        primary=position[p.primary],
    )


def _require_same_labels(first: str, a: Items, second: str, b: Items) -> None:
    if isinstance(a, ClassPredictions) and isinstance(b, ClassPredictions):
        labels = (a.primary != b.primary) | ((a.targets > 0) != (b.targets > 0)).any(axis=1)
    else:
        labels = np.array([not same for same in _same_targets(a, b)], dtype=bool)
    if labels.any():
        i = int(labels.argmax())
        what = f"{first} and {second} label {int(labels.sum())} items differently, first {a.ids[i]!r}"
        if isinstance(a, ClassPredictions) and isinstance(b, ClassPredictions):
            mine, theirs = (a.classes[p.primary[i]] if p.primary[i] >= 0 else "nothing" for p in (a, b))
            what += f": {mine} and {theirs} as primary"
        raise EvaluationError(what, "Use the same label file for both, or --corrections for all.")
    if a.groups != b.groups:
        i = next(i for i, pair in enumerate(zip(a.groups, b.groups, strict=True)) if pair[0] != pair[1])
        raise EvaluationError(
            f"{first} and {second} group {a.ids[i]!r} differently: {a.groups[i]!r} and {b.groups[i]!r}",
            "Tests draw groups: give both the same `group` column.",
        )


def _same_targets(a: Items, b: Items) -> list[bool]:
    """Per item, whether both records were given the same truth."""
    if isinstance(a, ValuePredictions) and isinstance(b, ValuePredictions):
        same = np.isclose(a.targets, b.targets, rtol=1e-6, equal_nan=True)
        return same.all(axis=1).tolist()  # type: ignore[no-any-return]
    if isinstance(a, Marks) and isinstance(b, Marks):
        return [
            one.kinds == two.kinds
            and one.names == two.names
            and bool(np.allclose(one.starts, two.starts) and np.allclose(one.ends, two.ends))
            for one, two in zip(a.truth, b.truth, strict=True)
        ]
    return [True] * len(a)
