"""A DJ library and the audio that it is about, as a data set of links whose annotations hold grid, cues (and
phrases), with what was checked."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from beatmeter.datasets.annotations.linked import claim, write_linked
from beatmeter.datasets.annotations.records import Annotation, Events, Grid, Provenance
from beatmeter.datasets.dj.alignment import LARGEST, SMALLEST, Offset, envelope_of, estimate_offset
from beatmeter.datasets.dj.anlz import Analysis
from beatmeter.datasets.dj.library import (
    Doubts,
    Library,
    LibraryTrack,
    expand,
    kind_of,
    known_around,
    merge_twins,
)
from beatmeter.datasets.files import find_audio
from beatmeter.errors import AudioError, DataError, shown
from beatmeter.runtime.parallel import Crash, ordered
from beatmeter.runtime.progress import SILENT, Reporter

ON_BEAT = 0.03  # seconds between a cue and the beat that it stands on
LONGER = 2.0  # seconds that audio and library may differ: beyond, it is another version of the track
_DELAYED = (".mp3", ".m4a", ".mp4", ".aac")  # programs decode them with different delays


@dataclass(frozen=True)
class Built:
    """What became of a library: annotations by id, the audio of each, and (track, reason) of everything
    left out."""

    annotations: Mapping[str, Annotation]
    audio: Mapping[str, Path]
    left_out: tuple[tuple[str, str], ...]

    def statistics(self) -> dict[str, float]:
        """Counts and medians of what was built, by name; plain numbers."""
        grids = [a.grid for a in self.annotations.values() if a.grid is not None]
        events = [a.events for a in self.annotations.values() if a.events is not None]
        offsets = [float(v) for g in grids if isinstance(v := g.provenance.validation.get("offset"), float)]
        return {
            "tracks": len(self.annotations),
            "left out": len(self.left_out),
            "with a grid": len(grids),
            "beats": sum(map(len, grids)),
            "tempo changes": sum(max(0, len(g.changes) - 1) for g in grids),
            "cues": sum(map(len, events)),
            "cues with names": sum(bool(n) for e in events for n in e.names),
            "tracks with phrases": sum(a.sections is not None for a in self.annotations.values()),
            "offset, median ms": round(1000 * float(np.median(offsets)), 1) if offsets else 0.0,
            "offset, largest ms": round(1000 * max(map(abs, offsets)), 1) if offsets else 0.0,
            "grids moved": sum(bool(g.provenance.validation.get("moved")) for g in grids),
            "flagged": sum(
                any(p.provenance.flags for p in a.parts.values()) for a in self.annotations.values()
            ),
        }


def build_dataset(
    library: Library,
    audio: Path,
    out: Path,
    analyses: Mapping[str, Analysis] | None = None,
    jobs: int = 1,
    progress: Reporter = SILENT,
) -> Built:
    """Match the tracks of a library to the audio under a folder, check them against it, and write the data
    set.

    A track is left out, with its reason, when its file is not there or is another version (LONGER), when
    its audio cannot be used, and when its grid is more than 60 ms off the onsets. Raises DataError when
    nothing is left, and when `out` holds something else.
    """
    claim(out, library.source)
    files = _Files(audio)
    pairs: list[tuple[LibraryTrack, Path]] = []
    left_out = list(library.left_out)
    for track in library.tracks:
        try:
            pairs.append((track, files.find(track.location)))
        except DataError as error:
            left_out.append((_name(track), error.what))
    annotations: dict[str, Annotation] = {}
    paths: dict[str, Path] = {}
    with progress.track("listening", len(pairs), "tracks") as tick:
        outcomes = ordered(
            partial(_annotate, library.source, analyses or {}), pairs, min(jobs, max(1, len(pairs)))
        )
        for (track, path), outcome in zip(pairs, outcomes, strict=True):
            tick(1)
            if isinstance(outcome, Crash):
                outcome = "the decoder crashed"
            if isinstance(outcome, str):
                left_out.append((_name(track), outcome))
                continue
            id = _id(track, paths)
            annotations[id], paths[id] = replace(outcome, id=id), path
    if not annotations:
        told = "; ".join(f"{name}: {reason}" for name, reason in left_out[:2])
        raise DataError(
            f"no track of the library can be used with {shown(audio)} ({told})",
            "Is it the folder of this music?",
        )
    write_linked(out, library.source, annotations, paths)
    return Built(annotations, paths, tuple(left_out))


def annotate(
    track: LibraryTrack,
    seconds: float,
    source: str,
    offset: Offset | None = None,
    analysis: Analysis | None = None,
) -> Annotation:
    """What a library says of a track of `seconds` of audio, moved by the offset, with its doubts as flags."""
    doubts = Doubts(list(track.flags))
    grid = expand(track.tempos, seconds, source, backwards=not track.whole_seconds) if track.tempos else None
    validation: dict[str, float | str | bool] = {}
    if analysis is not None and analysis.grid is not None:
        if grid is not None:
            n = min(len(grid), len(analysis.grid))
            difference = float(np.abs(grid.times[:n] - analysis.grid.times[:n]).max()) if n else 0.0
            validation["xml against analysis"] = difference
            if difference > 0.005:
                doubts.add(f"export and analysis differ by {1000 * difference:.0f} ms")
        grid = analysis.grid
    if grid is not None and not len(grid):
        grid = None
    shift = 0.0
    if offset is not None and grid is not None:
        if offset.clear:
            validation["offset"] = offset.seconds
            shift = offset.seconds if abs(offset.seconds) >= SMALLEST else 0.0
            validation["moved"] = bool(shift)
        else:
            doubts.add("no clear onsets at the beats: the offset is unknown")
            if PurePosixPath(track.location).suffix.lower() in _DELAYED:
                doubts.add("a format with a delay of its own")
    if grid is not None:
        grid = _moved(grid, shift, seconds)
        if not 40 <= grid.tempo <= 250:
            doubts.add(f"a tempo of {grid.tempo:.0f} bpm")
    events = _events(track, source, grid, shift, seconds, doubts)
    about = Provenance(source, flags=tuple(doubts.flags), validation=validation)
    sections = analysis.phrases if analysis is not None else None
    if sections is not None and shift:
        sections = replace(
            sections, starts=sections.starts + shift, ends=sections.ends + shift, known=sections.known + shift
        )
    meta = {
        name: text
        for name, text in (("title", track.title), ("artist", track.artist), ("location", track.location))
        if text
    }
    return Annotation(
        track.id, seconds, None if grid is None else replace(grid, provenance=about), sections, events, meta
    )


def _moved(grid: Grid, shift: float, seconds: float) -> Grid:
    """The grid by `shift` later, without beats outside the audio."""
    times = grid.times + shift
    inside = (times >= 0) & (times <= seconds)
    known = np.clip(grid.known + shift, 0.0, seconds)
    changes = grid.changes + np.array([shift, 0.0])
    return Grid(times[inside], grid.places[inside], changes, known=known[known[:, 1] > known[:, 0]])


def _events(
    track: LibraryTrack, source: str, grid: Grid | None, shift: float, seconds: float, doubts: Doubts
) -> Events | None:
    cues = [replace(cue, time=cue.time + shift) for cue in merge_twins(track.cues)]
    inside = [cue for cue in cues if 0 <= cue.time <= seconds]
    if len(inside) < len(cues):
        doubts.add(f"{len(cues) - len(inside)} of {len(cues)} cues are outside the audio")
    if not inside:
        return None
    times = np.array([cue.time for cue in inside])
    places = np.zeros(len(times), int)
    if grid is not None and len(grid):
        nearest = np.abs(grid.times[:, None] - times).argmin(axis=0)
        on = np.abs(grid.times[nearest] - times) <= ON_BEAT
        places[on] = grid.places[nearest[on]]
        if not on.all():
            doubts.add(f"{int((~on).sum())} of {len(on)} cues are off the grid")
    return Events(
        times,
        tuple(kind_of(cue) for cue in inside),
        tuple(cue.name for cue in inside),
        places,
        np.array([cue.length for cue in inside]),
        known=known_around(times, seconds),
        provenance=Provenance(source),
    )


def _annotate(
    source: str, analyses: Mapping[str, Analysis], pair: tuple[LibraryTrack, Path]
) -> Annotation | str:
    """The annotation of a track with its file, or why it cannot be used."""
    track, path = pair
    try:
        envelope, seconds = envelope_of(path)
    except AudioError as error:
        return error.what
    if track.seconds is not None:
        late = seconds - track.seconds - (0.5 if track.whole_seconds else 0.0)
        if abs(late) > LONGER:
            return f"the file has {seconds:.0f} s, the library says {track.seconds:.0f} s: another version"
    analysis = analyses.get(PurePosixPath(track.location.replace("\\", "/")).name.lower())
    grid = analysis.grid if analysis is not None else None
    if grid is None and track.tempos:
        grid = expand(track.tempos, seconds, source, backwards=not track.whole_seconds)
    offset = estimate_offset(envelope, grid.times) if grid is not None else None
    if offset is not None and offset.clear and abs(offset.seconds) > LARGEST:
        return f"its grid is {1000 * offset.seconds:+.0f} ms off the onsets of the file"
    return annotate(track, seconds, source, offset, analysis)


class _Files:
    """Audio files by name: of several of one name, the one whose folders agree most with a location."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.by_name: dict[str, list[Path]] = {}
        for path in find_audio(folder):
            self.by_name.setdefault(path.name.casefold(), []).append(path)

    def find(self, location: str) -> Path:
        """Raises DataError for a file that is not there, and for several that fit equally well."""
        parts = [part.casefold() for part in location.replace("\\", "/").split("/") if part]
        candidates = self.by_name.get(parts[-1] if parts else "", [])
        if not candidates:
            raise DataError(
                f"no file called {shown(parts[-1] if parts else location)!r} lies under {shown(self.folder)}"
            )
        depths = [_agreement(parts, [p.casefold() for p in path.parts]) for path in candidates]
        best = [path for path, depth in zip(candidates, depths, strict=True) if depth == max(depths)]
        if len(best) > 1:
            raise DataError(
                f"{len(best)} files fit: {', '.join(shown(p.relative_to(self.folder)) for p in best[:3])}"
            )
        return best[0]


def _agreement(one: Sequence[str], other: Sequence[str]) -> int:
    count = 0
    for a, b in zip(reversed(one), reversed(other), strict=False):
        if a != b:
            break
        count += 1
    return count


def _name(track: LibraryTrack) -> str:
    return track.title or track.location


def _id(track: LibraryTrack, taken: Mapping[str, Path]) -> str:
    """A name that can be a file's: the program's id, or the stem of the location; never one that is taken."""
    plain = track.id if "/" not in track.id else PurePosixPath(track.location).stem
    name = re.sub(r"[^\w .()+-]", "_", plain).strip(" .") or "track"
    return next(id for n in range(len(taken) + 1) if (id := name if not n else f"{name}-{n}") not in taken)
