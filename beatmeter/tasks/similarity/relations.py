"""Which tracks belong together: by a label, or as a file of pairs or triplets says; and steps of the
optimiser that each hold something to learn."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from beatmeter.datasets.tables import read_table
from beatmeter.errors import DataError, shown

PAIR, TRIPLET = ("a", "b"), ("anchor", "positive", "negative")
Step = Int[np.ndarray, " track"]


@dataclass(frozen=True)
class ByLabel:
    """Tracks of one label belong together, all others do not. `labels` (track,) are numbers."""

    labels: Tensor

    @classmethod
    def of_names(cls, names: Sequence[str]) -> ByLabel:
        """From the label of every track; an empty one belongs to nothing."""
        numbers = {name: k for k, name in enumerate(dict.fromkeys(names))}
        return cls(torch.tensor([numbers[n] if n else -1 - k for k, n in enumerate(names)]))

    def of(self, at: Int[Tensor, " track"], features: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Relations (track, track) of the tracks at these positions, and which are known."""
        own = self.labels[at.cpu()]
        return _with_mask(torch.where(own[:, None] == own[None], 1.0, -1.0).fill_diagonal_(0.0))


@dataclass(frozen=True)
class ByFile:
    """Relations that were given: `known` by (anchor, other) position, 1 or -1. With `rest` tracks of other
    groups, of which nothing is said, do not belong together; `groups` (track,) are numbers."""

    known: Mapping[tuple[int, int], float]
    groups: Tensor
    rest: bool

    def of(self, at: Int[Tensor, " track"], features: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """As `ByLabel.of`."""
        own = self.groups[at.cpu()]
        relation = torch.where((own[:, None] != own[None]) & self.rest, -1.0, 0.0)
        places: dict[int, list[int]] = defaultdict(list)
        for place, position in enumerate(at.tolist()):
            places[position].append(place)
        for (anchor, other), value in self.known.items():
            for i in places.get(anchor, ()):
                for j in places.get(other, ()):
                    relation[i, j] = value
        return _with_mask(relation)


def _with_mask(relation: Tensor) -> tuple[Tensor, Tensor]:
    return relation, relation != 0


@dataclass(frozen=True)
class Given:
    """Rows of ids, of a file of pairs or of triplets."""

    path: Path
    rows: tuple[tuple[str, ...], ...]
    triplets: bool

    @classmethod
    def read(cls, path: Path) -> Given:
        """A CSV with the columns a, b (tracks that belong together) or anchor, positive, negative. Raises
        DataError with file and line."""
        table = read_table(path)
        columns = next((c for c in (TRIPLET, PAIR) if set(c) <= set(table.columns)), None)
        if columns is None:
            raise DataError(
                f"{shown(path)} holds neither pairs nor triplets of tracks",
                f"It needs the columns a, b or anchor, positive, negative; it has: "
                f"{', '.join(table.columns)}.",
            )
        rows = []
        for row in table.rows:
            ids = tuple(row.cells[name].strip() for name in columns) if not row.problem else ()
            if not all(ids) or not ids:
                raise DataError(f"{row.where}: {row.problem or 'every cell needs the id of a track'}")
            if len(set(ids)) < len(ids):
                raise DataError(f"{row.where}: {ids[0]!r} is paired with itself", "Take the row away.")
            rows.append(ids)
        return cls(path, tuple(rows), columns == TRIPLET)

    def inside(self, ids: Sequence[str]) -> list[tuple[int, ...]]:
        """The rows all of whose tracks are among `ids`, as positions."""
        at = {name: i for i, name in enumerate(ids)}
        return [tuple(at[name] for name in row) for row in self.rows if all(name in at for name in row)]

    def relations(self, ids: Sequence[str], groups: Sequence[str]) -> ByFile:
        """What the rows say of the tracks `ids`. Raises DataError where they say opposite things of a
        pair."""
        known: dict[tuple[int, int], float] = {}
        for row in self.inside(ids):
            told = (
                {(row[0], row[1]): 1.0, (row[0], row[2]): -1.0}
                if self.triplets
                else {(row[0], row[1]): 1.0, (row[1], row[0]): 1.0}
            )
            for (a, b), value in told.items():
                if known.setdefault((a, b), value) != value:
                    raise DataError(
                        f"{shown(self.path)}: {ids[b]!r} is a positive and a negative of {ids[a]!r}",
                        "Keep one of the rows.",
                    )
        numbers = {name: k for k, name in enumerate(dict.fromkeys(groups))}
        return ByFile(known, torch.tensor([numbers[g] for g in groups]), not self.triplets)


def steps_by_label(labels: Sequence[str], rng: np.random.Generator, size: int, per_label: int) -> list[Step]:
    """Every track once, in steps of about `size`: of a label `per_label` at a time, one more where one would
    be left alone. Every step has two tracks of one label, and another label. Raises DataError where no such
    step can be made."""
    members: dict[str, list[int]] = defaultdict(list)
    for i, label in enumerate(labels):
        members[label].append(i)
    packs: list[np.ndarray] = []
    for own in members.values():
        order = rng.permutation(own)
        cuts = list(range(per_label, len(order) - 1, per_label))
        packs += np.split(order, cuts)
    steps = _filled([packs[i] for i in rng.permutation(len(packs))], size)

    def holds(step: np.ndarray) -> bool:
        there = [labels[i] for i in step]
        return 1 < len(set(there)) < len(there)

    found: list[np.ndarray] = []
    for step in steps:
        if found and not (holds(step) and holds(found[-1])):
            found[-1] = np.concatenate([found[-1], step])
        else:
            found.append(step)
    if not found or not holds(found[-1]):
        if len(found) < 2:
            raise DataError(
                f"{len(labels)} tracks of {len(members)} labels: no two belong together, or all do",
                "Similarity is learned from labels of two tracks or more, and from two labels or more.",
            )
        found[-2:] = [np.concatenate(found[-2:])]
    return found


def steps_by_rows(rows: Sequence[tuple[int, ...]], rng: np.random.Generator, size: int) -> list[Step]:
    """Steps of about `size` tracks in which every row (pair, triplet) lies as a whole, each row once."""
    steps: list[np.ndarray] = []
    held: dict[int, None] = {}
    for k in rng.permutation(len(rows)).tolist():
        more = dict.fromkeys(rows[k])
        if held and len(held | more) > size:
            steps.append(np.array(list(held)))
            held = {}
        held |= more
    return [*steps, np.array(list(held))]


def _filled(packs: Sequence[np.ndarray], size: int) -> list[np.ndarray]:
    steps: list[list[np.ndarray]] = [[]]
    for pack in packs:
        if steps[-1] and sum(map(len, steps[-1])) + len(pack) > size:
            steps.append([])
        steps[-1].append(pack)
    return [np.concatenate(step) for step in steps if step]
