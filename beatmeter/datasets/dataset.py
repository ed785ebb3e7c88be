"""What every reader of a dataset gives: the tracks that can be used, and every row that cannot, with its
reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from beatmeter.errors import DataError, shown
from beatmeter.schema import Track

ROW = "row"  # key of Track.extra: file and line that the track comes from
LABEL_PROBLEM = "label problem"  # key of Track.extra: why its label could not be used
JOINED = "joined"  # key of Track.extra: name of the extra dataset that it comes from; such tracks train only


@dataclass(frozen=True)
class Exclusion:
    """A row, or a file, that is left out.

    `kind` is the reason in a word for counting, `reason` says it in full; `row` is `table:line` where there
    is a table.
    """

    id: str
    path: str
    row: str
    kind: str
    reason: str
    split: str | None = None
    source: str = ""

    @classmethod
    def of(cls, track: Track, kind: str, reason: str) -> Exclusion:
        """The exclusion of a track that was accepted before."""
        return cls(
            track.id, shown(track.path), track.extra.get(ROW, ""), kind, reason, track.split, track.source
        )


@dataclass(frozen=True)
class Dataset:
    """Tracks with distinct ids in the order of their table, what was left out, and where it comes from.

    `sha256` is the hash of the content of the tables (of names and labels where there is no table).
    `corrections` says what each file of corrected labels or beats changed, as plain JSON.
    """

    tracks: tuple[Track, ...]
    excluded: tuple[Exclusion, ...]
    name: str
    kind: str
    sha256: str
    corrections: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self) -> None:
        twice = [name for name, n in Counter(t.id for t in self.tracks).items() if n > 1]
        if twice:
            raise DataError(
                f"dataset {self.name} has {len(twice)} ids more than once, for instance {twice[0]!r}",
                "Give every row an id of its own.",
            )

    def without(self, exclusions: Sequence[Exclusion]) -> Dataset:
        """The dataset after these exclusions: their tracks go, they join the list."""
        gone = {e.id for e in exclusions}
        return replace(
            self,
            tracks=tuple(t for t in self.tracks if t.id not in gone),
            excluded=(*self.excluded, *exclusions),
        )

    def labelled(self) -> Dataset:
        """Only the tracks that have a label."""
        problems = [t for t in self.tracks if not t.labels]
        return self.without(
            [
                Exclusion.of(t, "label", t.extra[LABEL_PROBLEM])
                if LABEL_PROBLEM in t.extra
                else Exclusion.of(t, "unlabelled", "it has no label")
                for t in problems
            ]
        )

    def of_split(self, split: str) -> tuple[Track, ...]:
        """The tracks of one split."""
        return tuple(t for t in self.tracks if t.split == split)


def merge_rows(tracks: Iterable[Track]) -> tuple[list[Track], list[Exclusion]]:
    """Tracks with distinct ids out of rows that may name one clip several times.

    The same row again: the first stays. In two splits: the row of the more precious split stays (test, then
    val). With different labels in one split: nobody knows which is right, so none stays.
    """
    rows: dict[str, list[Track]] = {}
    for track in tracks:
        rows.setdefault(track.id, []).append(track)
    kept, excluded = [], []
    for same in rows.values():
        if len(same) > 1:
            best = min(precedence(t) for t in same)
            first = next(t for t in same if precedence(t) == best)
            rivals = [t for t in same if precedence(t) == best]
            if any(t.labels != first.labels for t in rivals):
                places = ", ".join(t.extra[ROW] for t in same)
                excluded += [
                    Exclusion.of(t, "conflict", f"listed {len(same)} times with different labels: {places}")
                    for t in same
                ]
                continue
            for other in same:
                if other is not first:
                    leak = precedence(other) > best
                    what = (
                        f"the same clip is in {first.split} ({first.extra[ROW]})"
                        if leak
                        else f"listed already in {first.extra[ROW]}"
                    )
                    excluded.append(Exclusion.of(other, "leak" if leak else "duplicate", what))
            kept.append(first)
        else:
            kept.append(same[0])
    return kept, excluded


def precedence(track: Track) -> int:
    """Who stays when two tracks may not both: test before val before the rest; extra data come last."""
    if JOINED in track.extra:
        return 3
    return {"test": 0, "val": 1}.get(track.split or "", 2)
