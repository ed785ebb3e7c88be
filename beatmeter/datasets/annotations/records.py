"""What is known of a track's structure: beats (`Grid`), sections (`Spans`), moments (`Events`), each with
where it is known and by whom.

Times are seconds from the first sample of the audio. Outside the `known` intervals nobody has looked: no
beat there means "unknown", not "no beat". Arrays are numpy; lists of texts are tuples; everything is
checked when it is built (SchemaError).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from jaxtyping import Bool, Float, Int

from beatmeter.schema.checks import require

TIERS = {1: "verified", 2: "cleaned", 3: "generated"}
BANDS = ("bass", "mid", "high", "overall")  # columns of `Spans.energy`
OVERLAP = 0.001  # seconds that one span may reach into the next: rounding of text files


@dataclass(frozen=True)
class Provenance:
    """Where a part of an annotation comes from and how far it can be trusted.

    `source` names the person, program or data set. `tier` is 1 for verified by a human (then `verifier`
    says by whom), 2 for labels of people or programs that only automatic checks have cleaned, 3 for labels
    that a generator or a model made. `confidence` is in [0, 1], None when nobody said. `flags` are doubts
    in words; `validation` holds what was measured, by name.
    """

    source: str = ""
    tier: int = 2
    verifier: str = ""
    confidence: float | None = None
    flags: tuple[str, ...] = ()
    validation: Mapping[str, float | str | bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "flags", tuple(self.flags))
        require(self.tier in TIERS, f"tier {self.tier} is none of 1 (verified), 2 (cleaned), 3 (generated)")
        require(
            self.tier != 1 or bool(self.verifier),
            "tier 1 means verified, and no verifier is named",
            "Name who listened, or use tier 2.",
        )
        require(
            self.confidence is None or 0 <= self.confidence <= 1,
            f"confidence {self.confidence} is outside [0, 1]",
        )

    def flagged(self, *flags: str) -> Self:
        """The same with more flags, none of them twice."""
        return replace(self, flags=tuple(dict.fromkeys((*self.flags, *flags))))


@dataclass(frozen=True)
class _Part:
    """What all parts share: `known` (interval, 2) start and end in seconds, increasing and apart; and their
    provenance."""

    known: Float[np.ndarray, "interval 2"] = field(default_factory=lambda: np.zeros((0, 2)), kw_only=True)
    provenance: Provenance = field(default_factory=Provenance, kw_only=True)

    def _check_known(self) -> None:
        object.__setattr__(self, "known", np.asarray(self.known, float).reshape(-1, 2))
        edges = self.known.ravel()
        require(bool(np.isfinite(edges).all()), "a known interval is not finite")
        require(bool((self.known[:, 1] > self.known[:, 0]).all()), "a known interval ends before it begins")
        require(bool((np.diff(edges) >= 0).all()), "known intervals overlap or are not in order")

    def is_known(self, times: Float[np.ndarray, " time"]) -> Bool[np.ndarray, " time"]:
        """Which of these times lie in a known interval, its ends included."""
        return within(times, self.known)

    def marked(self, **changes: Any) -> Self:
        """The same part with other provenance fields."""
        return replace(self, provenance=replace(self.provenance, **changes))


def within(
    times: Float[np.ndarray, " time"], intervals: Float[np.ndarray, "interval 2"]
) -> Bool[np.ndarray, " time"]:
    """Which times lie in one of the intervals (in order, apart), their ends included."""
    times = np.asarray(times, float)
    if not len(intervals):
        return np.zeros(times.shape, bool)
    at = np.clip(np.searchsorted(intervals[:, 0], times, side="right") - 1, 0, None)
    inside: np.ndarray = (times >= intervals[at, 0]) & (times <= intervals[at, 1])
    return inside


def joined(intervals: Float[np.ndarray, "interval 2"]) -> Float[np.ndarray, "joined 2"]:
    """Intervals in any order as increasing ones that neither overlap nor touch."""
    found: list[list[float]] = []
    for start, end in sorted(np.asarray(intervals, float).reshape(-1, 2).tolist()):
        if found and start <= found[-1][1]:
            found[-1][1] = max(found[-1][1], end)
        else:
            found.append([start, end])
    return np.array(found, float).reshape(-1, 2)


@dataclass(frozen=True)
class Grid(_Part):
    """Beats: `times` (beat,) increasing seconds; `places` (beat,) in the bar, 1 is the downbeat and 0
    unknown.

    `changes` (change, 2) are time in seconds and bpm from there on, where the source states a tempo; empty
    where it lists beats only.
    """

    times: Float[np.ndarray, " beat"]
    places: Int[np.ndarray, " beat"]
    changes: Float[np.ndarray, "change 2"] = field(default_factory=lambda: np.zeros((0, 2)))

    def __post_init__(self) -> None:
        object.__setattr__(self, "times", np.asarray(self.times, float).reshape(-1))
        object.__setattr__(self, "places", np.asarray(self.places, int).reshape(-1))
        object.__setattr__(self, "changes", np.asarray(self.changes, float).reshape(-1, 2))
        require(
            len(self.times) == len(self.places),
            f"{len(self.times)} beats have {len(self.places)} places in the bar",
        )
        require(bool(np.isfinite(self.times).all()), "a beat has no finite time")
        late = np.flatnonzero(np.diff(self.times) <= 0)
        require(not len(late), f"beat {late[0] + 2 if len(late) else 0} is not after the one before it")
        require(bool((self.places >= 0).all()), "a place in the bar is below 0")
        require(
            bool(np.isfinite(self.changes).all() and (self.changes[:, 1] > 0).all()),
            "a tempo is not above 0 bpm",
        )
        require(bool((np.diff(self.changes[:, 0]) > 0).all()), "tempo changes are not in order")
        self._check_known()

    def __len__(self) -> int:
        return len(self.times)

    @property
    def downbeats(self) -> Float[np.ndarray, " bar"]:
        """Times of the beats at place 1, seconds."""
        first: np.ndarray = self.times[self.places == 1]
        return first

    @property
    def tempo(self) -> float:
        """Median beats per minute, nan for fewer than two beats."""
        return 60 / float(np.median(np.diff(self.times))) if len(self) > 1 else float("nan")

    @property
    def bar(self) -> int:
        """Beats in the most frequent whole bar (the shorter of two equally frequent), 0 when no bar is
        whole."""
        lengths = np.diff(np.flatnonzero(self.places == 1))
        return int(np.bincount(lengths).argmax()) if len(lengths) else 0

    def at_groups(self, groups: Sequence[int]) -> Grid:
        """The beats as they are felt, of a grid that lists every pulse: the starts of `groups` of pulses
        (2, 2, 3), with places from 1 on. The grid itself where its bars have another number of pulses."""
        if not groups or self.bar != sum(groups):
            return self
        first = 1 + np.cumsum(groups) - groups
        place = np.searchsorted(first, self.places)
        starts = np.isin(self.places, first)
        return replace(self, times=self.times[starts], places=place[starts] + 1)


@dataclass(frozen=True)
class Spans(_Part):
    """Sections: `starts`, `ends` (span,) seconds, in order, gaps allowed; `labels` name the material (equal
    letters, equal music).

    `functions` say what a section is for ("chorus", "drop"), "" where unknown. `energy` (span, 4) is on a
    scale of 1 to 10 within the track for bass, mid, high and overall, nan where unknown.
    """

    starts: Float[np.ndarray, " span"]
    ends: Float[np.ndarray, " span"]
    labels: tuple[str, ...]
    functions: tuple[str, ...] = ()
    energy: Float[np.ndarray, "span 4"] = field(default_factory=lambda: np.zeros((0, 4)))

    def __post_init__(self) -> None:
        object.__setattr__(self, "starts", np.asarray(self.starts, float).reshape(-1))
        object.__setattr__(self, "ends", np.asarray(self.ends, float).reshape(-1))
        object.__setattr__(self, "labels", tuple(self.labels))
        n = len(self.starts)
        object.__setattr__(self, "functions", tuple(self.functions) or ("",) * n)
        energy = np.asarray(self.energy, float) if np.size(self.energy) else np.full((n, len(BANDS)), np.nan)
        object.__setattr__(self, "energy", energy)
        require(
            len(self.ends) == len(self.labels) == len(self.functions) == n,
            "starts, ends, labels and functions are not equally many",
        )
        require(
            energy.shape == (n, len(BANDS)),
            f"the energy of {n} spans has shape {energy.shape}, not {(n, len(BANDS))}",
        )
        require(bool(np.isfinite([*self.starts, *self.ends]).all()), "a span has no finite time")
        short = np.flatnonzero(self.ends <= self.starts)
        require(not len(short), f"span {short[0] + 1 if len(short) else 0} does not end after it begins")
        early = np.flatnonzero(self.starts[1:] < self.ends[:-1] - OVERLAP)
        require(
            not len(early), f"span {early[0] + 2 if len(early) else 0} begins before the one before it ends"
        )
        require(
            bool(((energy >= 1) & (energy <= 10) | np.isnan(energy)).all()), "an energy is outside 1 to 10"
        )
        self._check_known()

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def boundaries(self) -> Float[np.ndarray, " boundary"]:
        """Times at which a span begins or ends, each once, seconds."""
        edges = np.unique(np.concatenate([self.starts, self.ends]))
        kept: np.ndarray = edges[np.diff(edges, prepend=-np.inf) > OVERLAP]
        return kept


@dataclass(frozen=True)
class Events(_Part):
    """Moments: `times` (event,) in order, seconds; `kinds` ("drop", "cue", "loop"); `names` as the source
    wrote them.

    `places` are the places in the bar, 0 where unknown; `lengths` seconds, 0 for a point.
    """

    times: Float[np.ndarray, " event"]
    kinds: tuple[str, ...]
    names: tuple[str, ...] = ()
    places: Int[np.ndarray, " event"] = field(default_factory=lambda: np.zeros(0, int))
    lengths: Float[np.ndarray, " event"] = field(default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        object.__setattr__(self, "times", np.asarray(self.times, float).reshape(-1))
        n = len(self.times)
        object.__setattr__(self, "kinds", tuple(self.kinds))
        object.__setattr__(self, "names", tuple(self.names) or ("",) * n)
        object.__setattr__(
            self, "places", np.asarray(self.places, int) if np.size(self.places) else np.zeros(n, int)
        )
        object.__setattr__(
            self, "lengths", np.asarray(self.lengths, float) if np.size(self.lengths) else np.zeros(n)
        )
        counts = {len(column) for column in (self.kinds, self.names, self.places, self.lengths)}
        require(counts == {n}, f"{n} events have other numbers of kinds, names, places or lengths")
        require(bool(np.isfinite(self.times).all()), "an event has no finite time")
        require(bool((np.diff(self.times) >= 0).all()), "events are not in order")
        require(all(self.kinds), "an event has no kind")
        require(bool((self.places >= 0).all()), "a place in the bar is below 0")
        require(
            bool((np.isfinite(self.lengths) & (self.lengths >= 0)).all()), "an event has a negative length"
        )
        self._check_known()

    def __len__(self) -> int:
        return len(self.times)

    def of(self, *kinds: str) -> Float[np.ndarray, " some"]:
        """Times of the events of these kinds, seconds."""
        chosen: np.ndarray = self.times[[kind in kinds for kind in self.kinds]]
        return chosen


@dataclass(frozen=True)
class Annotation:
    """What is known of one track. A part that is None was not annotated at all; `duration` is in seconds,
    None when not stated."""

    id: str = ""
    duration: float | None = None
    grid: Grid | None = None
    sections: Spans | None = None
    events: Events | None = None
    meta: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ok = self.duration is None or (np.isfinite(self.duration) and self.duration > 0)
        require(bool(ok), f"a duration of {self.duration} s is not possible")

    @property
    def parts(self) -> dict[str, Grid | Spans | Events]:
        """The parts that are there, by name: grid, sections, events."""
        named = {"grid": self.grid, "sections": self.sections, "events": self.events}
        return {name: part for name, part in named.items() if part is not None}

    def beneath(self, other: Annotation) -> Annotation:
        """This annotation, with what it lacks taken from another."""
        return Annotation(
            self.id or other.id,
            self.duration if self.duration is not None else other.duration,
            self.grid if self.grid is not None else other.grid,
            self.sections if self.sections is not None else other.sections,
            self.events if self.events is not None else other.events,
            {**other.meta, **self.meta},
        )
