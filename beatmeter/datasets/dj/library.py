"""What every DJ program knows of a track: where the file is, a beat grid as tempo changes, and cues."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from beatmeter.datasets.annotations.records import Grid, Provenance, joined

TWIN = 0.001  # seconds between a hot cue and the memory cue that was set with it
AROUND_CUE = 8.0  # seconds on either side of a cue that its author has surely heard
KINDS = {  # words in names of cues, as kinds of events
    "drop": "drop",
    "break": "break",
    "breakdown": "break",
    "build": "build-up",
    "buildup": "build-up",
    "build-up": "build-up",
    "riser": "build-up",
}


@dataclass(frozen=True)
class Tempo:
    """From `time` (s) on there is a beat every 60 / `bpm` seconds; the first one has this `place` in a bar
    of `beats`."""

    time: float
    bpm: float
    place: int = 1
    beats: int = 4


@dataclass(frozen=True)
class Cue:
    """A mark at `time` (s), `length` seconds long if it is a loop; `kind` is hot, memory, loop or grid."""

    time: float
    kind: str
    name: str = ""
    length: float = 0.0


@dataclass(frozen=True)
class LibraryTrack:
    """A track of a library. `location` is the path as the program has it, with slashes; `seconds` the
    length that it says, cut to whole seconds in some programs (`whole_seconds`); `flags` are doubts of the
    reader."""

    id: str
    location: str
    seconds: float | None = None
    title: str = ""
    artist: str = ""
    tempos: tuple[Tempo, ...] = ()
    cues: tuple[Cue, ...] = ()
    flags: tuple[str, ...] = ()
    whole_seconds: bool = True


@dataclass(frozen=True)
class Library:
    """All tracks of an export, and what could not be used: (id or place, reason)."""

    source: str
    tracks: tuple[LibraryTrack, ...]
    left_out: tuple[tuple[str, str], ...] = ()


def expand(tempos: Sequence[Tempo], end: float, source: str, backwards: bool = False) -> Grid:
    """The beats of tempo changes up to `end` (s). A tempo ends half a beat before the next one, so that a
    beat that the next one states is not there twice. With `backwards` the first tempo also reaches back to
    the beginning of the audio, as it does in programs that set one anchor anywhere in the track."""
    ordered = sorted(tempos, key=lambda tempo: tempo.time)
    times, places = [], []
    for i, tempo in enumerate(ordered):
        period = 60 / tempo.bpm
        stop = ordered[i + 1].time - period / 2 if i + 1 < len(ordered) else end
        count = max(0, int(np.ceil((stop - tempo.time) / period - 1e-9)))
        steps = np.arange(count)
        if backwards and i == 0:
            steps = np.arange(-max(0, int(np.floor(tempo.time / period + 1e-9))), count)
        times.append(tempo.time + steps * period)
        places.append((tempo.place - 1 + steps) % tempo.beats + 1)
    beats, at = (np.concatenate([np.zeros(0), *parts]) for parts in (times, places))
    kept = np.diff(beats, prepend=-np.inf) > 0.01  # of changes within one beat of each other the first stays
    changes: dict[float, float] = {}
    for tempo in ordered:
        if not changes or tempo.bpm != list(changes.values())[-1]:
            changes[tempo.time] = tempo.bpm
    known = (
        np.array([[max(0.0, beats[0] - 60 / ordered[0].bpm), max(end, beats[-1])]])
        if len(beats)
        else np.zeros((0, 2))
    )
    return Grid(
        beats[kept],
        at[kept].astype(int),
        np.array(list(changes.items())).reshape(-1, 2),
        known=known[known[:, 1] > known[:, 0]],
        provenance=Provenance(source),
    )


def merge_twins(cues: Sequence[Cue]) -> list[Cue]:
    """Cues of one place as one, in the order of time: the loop before the hot cue before the memory cue,
    with the first name that is not empty."""
    rank = {"loop": 0, "hot": 1, "memory": 2}
    merged: list[Cue] = []
    for cue in sorted((c for c in cues if c.kind in rank), key=lambda c: (c.time, rank[c.kind])):
        if merged and cue.time - merged[-1].time <= TWIN:
            one = min(merged[-1], cue, key=lambda c: rank[c.kind])
            name = merged[-1].name or cue.name
            merged[-1] = Cue(merged[-1].time, one.kind, name, max(merged[-1].length, cue.length))
        else:
            merged.append(cue)
    return merged


def kind_of(cue: Cue) -> str:
    """The kind of event that a cue is: by the words of its name, else `loop` or `cue`."""
    for word in cue.name.lower().replace("-", " ").replace("_", " ").split():
        if word.strip("0123456789.:!()") in KINDS:
            return KINDS[word.strip("0123456789.:!()")]
    return "loop" if cue.kind == "loop" else "cue"


def known_around(times: Float[np.ndarray, " cue"], end: float) -> Float[np.ndarray, "interval 2"]:
    """Where a list of cues says something: cue lists are incomplete, so only around the cues."""
    return joined(
        np.stack([np.maximum(times - AROUND_CUE, 0), np.minimum(times + AROUND_CUE, max(end, 0.0))], axis=-1)
    )


@dataclass
class Doubts:
    """Flags that a reader collects for one track, in order, none twice."""

    flags: list[str] = field(default_factory=list)

    def add(self, flag: str) -> None:
        if flag not in self.flags:
            self.flags.append(flag)
