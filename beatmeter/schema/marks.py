"""Structure in records: curves over time (`Curves`) and what was decoded from them (`Marks`), each with what
is right.

A mark is a moment or a span with a kind and a name: kind `beat` (its name is the place in the bar, "1" is the
downbeat), `section` (its name is the label), or an event such as `drop`. A mark of the kind `known` in a
`truth` says that the marks of the kind in its name are known from its start to its end; outside nobody has
looked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import numpy as np
from jaxtyping import Float

from beatmeter.errors import SchemaError
from beatmeter.schema.checks import require
from beatmeter.schema.records import Items

KNOWN = "known"
DOWNBEAT = "1"  # name of a beat


@dataclass(frozen=True, eq=False)
class MarkList:
    """The marks of one item, in the order of their starts: `kinds`, `names` (mark,) texts, `starts`, `ends`
    (mark,) seconds, equal for a moment, `scores` (mark,) in [0, 1], nan where nobody says how sure a mark
    is."""

    kinds: tuple[str, ...] = ()
    starts: Float[np.ndarray, " mark"] = field(default_factory=lambda: np.zeros(0))
    ends: Float[np.ndarray, " mark"] = field(default_factory=lambda: np.zeros(0))
    names: tuple[str, ...] = ()
    scores: Float[np.ndarray, " mark"] = field(default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        n = len(self.kinds)
        for name in ("kinds", "names"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("starts", "ends", "scores"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), float).reshape(-1))
        sizes = (len(self.names), len(self.starts), len(self.ends), len(self.scores))
        require(
            set(sizes) == {n},
            f"{n} kinds of marks have {sizes[0]} names, {sizes[1]} starts, {sizes[2]} ends and {sizes[3]} "
            "scores",
        )
        require(all(self.kinds), "a mark has no kind")
        require(
            bool(np.isfinite(self.starts).all() and np.isfinite(self.ends).all()), "a mark has no finite time"
        )
        late = np.flatnonzero(self.ends < self.starts)
        require(
            not len(late), f"the mark at {self.starts[late[0]] if len(late) else 0:g} s ends before it begins"
        )
        require(not bool(((self.scores < 0) | (self.scores > 1)).any()), "a mark has a score outside [0, 1]")
        if n > 1 and (np.diff(self.starts) < 0).any():
            order = np.argsort(self.starts, kind="stable")
            for name in ("kinds", "names"):
                object.__setattr__(self, name, tuple(getattr(self, name)[i] for i in order))
            for name in ("starts", "ends", "scores"):
                object.__setattr__(self, name, getattr(self, name)[order])

    def __len__(self) -> int:
        return len(self.kinds)

    def __add__(self, other: MarkList) -> MarkList:
        """The marks of both."""
        numbers = (
            np.concatenate([getattr(self, name), getattr(other, name)])
            for name in ("starts", "ends", "scores")
        )
        starts, ends, scores = numbers
        return MarkList(self.kinds + other.kinds, starts, ends, self.names + other.names, scores)

    @classmethod
    def moments(
        cls,
        kind: str,
        times: Sequence[float] | np.ndarray,
        names: Sequence[str] = (),
        scores: np.ndarray | None = None,
    ) -> MarkList:
        """Marks of one kind without length, at `times` (mark,) seconds."""
        times = np.asarray(times, float).reshape(-1)
        return cls.spans(kind, times, times, names, scores)

    @classmethod
    def spans(
        cls,
        kind: str,
        starts: Sequence[float] | np.ndarray,
        ends: Sequence[float] | np.ndarray,
        names: Sequence[str] = (),
        scores: np.ndarray | None = None,
    ) -> MarkList:
        """Marks of one kind from `starts` to `ends` (mark,) seconds."""
        starts = np.asarray(starts, float).reshape(-1)
        n = len(starts)
        return cls(
            (kind,) * n,
            starts,
            np.asarray(ends, float),
            tuple(names) or ("",) * n,
            np.full(n, np.nan) if scores is None else scores,
        )

    def of(self, kind: str, name: str | None = None) -> MarkList:
        """The marks of one kind, with one name where one is given."""
        at = [
            i
            for i, (k, n) in enumerate(zip(self.kinds, self.names, strict=True))
            if k == kind and name in (None, n)
        ]
        return MarkList(
            tuple(self.kinds[i] for i in at),
            self.starts[at],
            self.ends[at],
            tuple(self.names[i] for i in at),
            self.scores[at],
        )

    @property
    def beats(self) -> Float[np.ndarray, " beat"]:
        """Times of the beats, seconds."""
        return self.of("beat").starts

    @property
    def downbeats(self) -> Float[np.ndarray, " bar"]:
        """Times of the first beats of bars, seconds."""
        return self.of("beat", DOWNBEAT).starts

    def known(self, kind: str) -> Float[np.ndarray, "interval 2"]:
        """The intervals (start, end) in seconds in which the marks of a kind are known."""
        spans = self.of(KNOWN, kind)
        return np.stack([spans.starts, spans.ends], axis=1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Marks(Items):
    """`marks` (item,) are what a system says of each item, `truth` (item,) what is right, as far as it is
    `known`."""

    per_item: ClassVar[tuple[str, ...]] = (*Items.per_item, "marks", "truth")

    marks: tuple[MarkList, ...]
    truth: tuple[MarkList, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "marks", tuple(self.marks))
        object.__setattr__(self, "truth", tuple(self.truth))
        super().__post_init__()
        n = len(self)
        require(
            len(self.marks) == n and len(self.truth) == n,
            f"{n} items have {len(self.marks)} lists of marks and {len(self.truth)} truths",
        )

    def saying(self, marks: Sequence[MarkList]) -> Self:
        """The same items and truth with what another system says."""
        return replace(self, marks=tuple(marks))


@dataclass(frozen=True, kw_only=True, eq=False)
class Curves(Items):
    """Probabilities over time: `values` (item,) arrays (time, name), row k at `starts` (item,) + k / `rate`
    seconds; `truth` (item,) are the marks that are right."""

    per_item: ClassVar[tuple[str, ...]] = (*Items.per_item, "starts", "values", "truth")

    names: tuple[str, ...]
    rate: float
    starts: Float[np.ndarray, " item"]
    values: tuple[Float[np.ndarray, "time name"], ...]
    truth: tuple[MarkList, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.names))
        object.__setattr__(self, "values", tuple(self.values))
        object.__setattr__(self, "truth", tuple(self.truth))
        super().__post_init__()
        n, c = len(self), len(self.names)
        require(len(set(self.names)) == c and c > 0, f"names must be distinct: {self.names}")
        require(bool(np.isfinite(self.rate)) and self.rate > 0, f"a rate of {self.rate} Hz is not possible")
        require(
            self.starts.shape == (n,) and bool(np.isfinite(self.starts).all()),
            f"starts {self.starts.shape} do not match {n} items",
        )
        require(
            len(self.values) == n and len(self.truth) == n,
            f"{n} items have {len(self.values)} curves and {len(self.truth)} truths",
        )
        for id, curve in zip(self.ids, self.values, strict=True):
            require(
                curve.ndim == 2 and curve.shape[1] == c,
                f"the curves of {id!r} have shape {curve.shape}, not (time, {c})",
            )
            good = np.isfinite(curve).all() and (curve >= 0).all() and (curve <= 1).all()
            require(bool(good), f"the curves of {id!r} leave [0, 1]")

    def seconds(self, item: int) -> Float[np.ndarray, " time"]:
        """When the rows of one item are, seconds."""
        found: np.ndarray = self.starts[item] + np.arange(len(self.values[item])) / self.rate
        return found

    def only(self, names: Sequence[str]) -> Curves:
        """The same items with these curves alone."""
        at = [self.names.index(name) for name in names]
        return replace(self, names=tuple(names), values=tuple(value[:, at] for value in self.values))

    def decoded(self, marks: Sequence[MarkList]) -> Marks:
        """The same items with what was decoded from their curves."""
        shared = {
            name: getattr(self, name) for name in ("ids", "groups", "sources", "split", "times", "meta")
        }
        return Marks(marks=tuple(marks), truth=self.truth, **shared)


def as_curves(record: Items) -> Curves:
    """The record, which must be of curves. Raises SchemaError for one of another kind."""
    if not isinstance(record, Curves):
        raise SchemaError(f"{type(record).__name__} hold no curves")
    return record


def as_marks(record: Items) -> Marks:
    """The record, which must be of marks. Raises SchemaError for one of another kind."""
    if not isinstance(record, Marks):
        raise SchemaError(f"{type(record).__name__} hold no marks")
    return record
