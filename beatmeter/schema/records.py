"""The second waist: what models say of items (tracks, or windows of tracks), one record per kind of answer.
Numpy only.

Every record is a list of items with what was said of each. `Items` holds what all share; what else belongs to
an item is named in `per_item`, as an array with the item axis first or as a tuple, so that taking and
aligning need no code of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np
from jaxtyping import Float, Int

from beatmeter.errors import SchemaError
from beatmeter.schema.checks import require
from beatmeter.schema.track import Track, label_table

Key = tuple[str, float, float]


@dataclass(frozen=True, kw_only=True)
class Items:
    """`n` items: `groups` say what belongs together (song, tune, artist), `sources` where a clip came from,
    `times` (item, 2) are start and end in seconds, nan for whole tracks."""

    per_item: ClassVar[tuple[str, ...]] = ("ids", "groups", "sources", "times")

    ids: tuple[str, ...]
    groups: tuple[str, ...]
    sources: tuple[str, ...]
    split: str
    times: Float[np.ndarray, "item 2"]
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("ids", "groups", "sources"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        n = len(self.ids)
        require(
            len(self.groups) == n and len(self.sources) == n,
            f"{n} ids, {len(self.groups)} groups, {len(self.sources)} sources",
        )
        require(self.times.shape == (n, 2), f"times {self.times.shape} do not match {n} items")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def keys(self) -> list[Key]:
        """Name of every item: id, start and end in seconds, -1 for a whole track."""
        times = np.where(np.isnan(self.times), -1.0, self.times).tolist()
        return [(id, start, end) for id, (start, end) in zip(self.ids, times, strict=True)]

    def take(self, index: Sequence[int] | Int[np.ndarray, " some"] | np.ndarray) -> Self:
        """The items at `index` (positions or a boolean mask), in that order."""
        at = np.flatnonzero(index) if np.asarray(index).dtype == bool else np.asarray(index, dtype=int)
        values: dict[str, Any] = {name: getattr(self, name) for name in self.per_item}
        taken: dict[str, Any] = {
            name: tuple(v[i] for i in at) if isinstance(v, tuple) else v[at] for name, v in values.items()
        }
        return replace(self, **taken)

    def align(self, keys: Sequence[Key]) -> Self:
        """The items of these `keys`, in that order. Raises KeyError for one that is not here."""
        at = {key: i for i, key in enumerate(self.keys)}
        return self.take([at[key] for key in keys])


def items_of(
    tracks: Sequence[Track],
    split: str,
    groups: Sequence[str] | None = None,
    meta: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The fields of `Items` for whole tracks; `groups` stand in for those of the tracks."""
    return {
        "ids": tuple(t.id for t in tracks),
        "groups": tuple(t.group for t in tracks) if groups is None else tuple(groups),
        "sources": tuple(t.source for t in tracks),
        "split": split,
        "times": np.full((len(tracks), 2), np.nan),
        "meta": meta or {},
    }


@dataclass(frozen=True, kw_only=True)
class ClassPredictions(Items):
    """Scores for `c` classes.

    `targets` (item, class) hold label weights, 0 for absent; `scores` (item, class) are probabilities: one
    sigmoid per class, or with `exclusive` a softmax over the classes, of which one is right. `primary`
    (item,) is the index of the primary class, -1 when unlabelled.
    """

    per_item: ClassVar[tuple[str, ...]] = (*Items.per_item, "targets", "scores", "primary")

    classes: tuple[str, ...]
    targets: Float[np.ndarray, "item klass"]
    scores: Float[np.ndarray, "item klass"]
    primary: Int[np.ndarray, " item"]
    exclusive: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(self.classes))
        super().__post_init__()
        n, c = len(self), len(self.classes)
        require(len(set(self.classes)) == c and c > 0, f"classes must be distinct: {self.classes}")
        require(self.targets.shape == (n, c), f"targets have shape {self.targets.shape}, not {(n, c)}")
        require(self.scores.shape == (n, c), f"scores have shape {self.scores.shape}, not {(n, c)}")
        require(self.primary.shape == (n,), f"primary {self.primary.shape} does not match {n} items")
        if n:
            bad = (
                ~np.isfinite(self.scores).all(axis=1)
                | (self.scores < 0).any(axis=1)
                | (self.scores > 1).any(axis=1)
            )
            require(
                not bad.any(),
                f"{int(bad.sum())} items have scores outside [0, 1], first {self.ids[int(bad.argmax())]!r}",
            )
            require(bool(((self.targets >= 0) & (self.targets <= 1)).all()), "targets are outside [0, 1]")
            require(
                bool((self.primary >= -1).all() and (self.primary < c).all()),
                "primary is not an index of a class",
            )
            labelled = self.primary >= 0
            agrees = self.targets[labelled, self.primary[labelled]] > 0
            require(bool(agrees.all()), "the primary class of an item has no target weight")

    @classmethod
    def of_tracks(
        cls,
        tracks: Sequence[Track],
        classes: Sequence[str],
        scores: Float[np.ndarray, "item klass"],
        split: str,
        groups: Sequence[str] | None = None,
        meta: Mapping[str, Any] | None = None,
        exclusive: bool = False,
    ) -> ClassPredictions:
        """Scores of whole tracks, with their labels. `groups` stand in for those of the tracks. Raises as
        `label_table`."""
        targets, primary = label_table(tracks, classes)
        items = items_of(tracks, split, groups, meta)
        return cls(
            classes=tuple(classes),
            targets=targets,
            scores=scores,
            primary=primary,
            exclusive=exclusive,
            **items,
        )


def as_classes(record: Items) -> ClassPredictions:
    """The record, which must be of classes. Raises SchemaError for one of another kind."""
    if not isinstance(record, ClassPredictions):
        raise SchemaError(f"{type(record).__name__} hold no scores of classes")
    return record


def as_values(record: Items) -> ValuePredictions:
    """The record, which must be of values. Raises SchemaError for one of another kind."""
    if not isinstance(record, ValuePredictions):
        raise SchemaError(f"{type(record).__name__} hold no values")
    return record


@dataclass(frozen=True, kw_only=True)
class ValuePredictions(Items):
    """Numbers: `values` (item, name) are what a model says, `targets` (item, name) what is right, nan where
    nobody knows; each name has a unit, "" for none."""

    per_item: ClassVar[tuple[str, ...]] = (*Items.per_item, "values", "targets")

    names: tuple[str, ...]
    units: tuple[str, ...]
    values: Float[np.ndarray, "item name"]
    targets: Float[np.ndarray, "item name"]

    def __post_init__(self) -> None:
        for name in ("names", "units"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        super().__post_init__()
        n, c = len(self), len(self.names)
        require(len(set(self.names)) == c and c > 0, f"names must be distinct: {self.names}")
        require(len(self.units) == c, f"{c} names have {len(self.units)} units")
        require(self.values.shape == (n, c), f"values have shape {self.values.shape}, not {(n, c)}")
        require(self.targets.shape == (n, c), f"targets have shape {self.targets.shape}, not {(n, c)}")
        bad = ~np.isfinite(self.values).all(axis=1)
        require(
            not bad.any(),
            f"{int(bad.sum())} items have values that are not finite, first "
            f"{self.ids[int(bad.argmax())] if n else ''!r}",
        )
        require(not np.isinf(self.targets).any(), "targets are infinite")
