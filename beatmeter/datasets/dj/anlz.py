"""Rekordbox's analysis files (ANLZ0000.DAT and .EXT): every beat by its time, and phrases. Needs
pyrekordbox (extra `dj`)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from beatmeter.datasets.annotations.lines import beats_around
from beatmeter.datasets.annotations.records import Grid, Provenance, Spans
from beatmeter.errors import DataError, shown

_SOURCE = "rekordbox analysis"
_VERSES = {1: "intro", **dict.fromkeys(range(2, 8), "verse"), 8: "bridge", 9: "chorus", 10: "outro"}
PHRASES = {  # function by mood (1 high, 2 mid, 3 low) and kind
    1: {1: "intro", 2: "up", 3: "down", 5: "chorus", 6: "outro"},
    2: _VERSES,
    3: _VERSES,
}


@dataclass(frozen=True)
class Analysis:
    """What the analysis files of a track say: its path as the program has it, its beats, and its phrases."""

    location: str
    grid: Grid | None
    phrases: Spans | None


def read_analyses(folder: Path) -> tuple[dict[str, Analysis], list[tuple[str, str]]]:
    """All analyses under a folder by the name of their audio file (lower case), and what could not be read.
    Two tracks of one name are left out. Raises DataError without pyrekordbox and when there is no
    analysis."""
    try:
        from pyrekordbox.anlz import AnlzFile
    except ImportError:
        raise DataError("reading ANLZ files needs pyrekordbox", "pip install 'beatmeter[dj]'") from None
    found: dict[str, Analysis] = {}
    left_out: list[tuple[str, str]] = []
    for path in sorted(folder.rglob("*.DAT")):
        try:
            analysis = _read(path, AnlzFile)
        except Exception as error:  # whatever a damaged file makes of the parser
            left_out.append((shown(path), f"not a whole analysis file: {type(error).__name__}"))
            continue
        name = PurePosixPath(analysis.location).name.lower()
        if name in found and not _same(found[name], analysis):
            left_out.append((shown(path), f"another analysis is of a file {shown(name)!r} too"))
        else:
            found[name] = analysis
    if not found:
        raise DataError(
            f"there are no ANLZ files under {shown(folder)}",
            "Name the folder USBANLZ of an export or of the program.",
        )
    return found, left_out


def _same(one: Analysis, other: Analysis) -> bool:
    a, b = (x.grid.times if x.grid is not None else np.zeros(0) for x in (one, other))
    return a.shape == b.shape and bool((a == b).all())


def _read(path: Path, parser: Any) -> Analysis:
    tags = _tags(path, parser)
    location = str(tags["PPTH"].get("PPTH"))
    places, tempos, times = tags["PQTZ"].get("PQTZ") if "PQTZ" in tags else ((), (), ())
    if not len(times):
        return Analysis(location, None, None)
    more = path.with_suffix(".EXT")
    tags |= _tags(more, parser) if more.is_file() else {}
    beats = np.asarray(times, float)
    first = np.flatnonzero(np.diff(np.asarray(tempos, float), prepend=0.0))
    changes = np.stack([beats[first], np.asarray(tempos, float)[first]], axis=1)
    grid = Grid(
        beats, np.asarray(places, int), changes, known=beats_around(beats), provenance=Provenance(_SOURCE)
    )
    return Analysis(location, grid, _phrases(tags["PSSI"].get("PSSI"), beats) if "PSSI" in tags else None)


def _tags(path: Path, parser: Any) -> dict[str, Any]:
    """The file as its parser gives it, under each kind of tag that it holds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file = parser.parse_file(path)
    return dict.fromkeys(file.tag_types, file)


def _phrases(content: Any, beats: np.ndarray) -> Spans | None:
    """Sections by the numbers of the beats that phrases begin with, the last one up to `end_beat`."""
    names: Mapping[int, str] = PHRASES.get(int(content.mood), {})
    rows = [(int(e.beat), names.get(int(e.kind), "")) for e in content.entries if 1 <= e.beat <= len(beats)]
    end = int(content.end_beat)
    if not rows or not rows[-1][0] < end:
        return None
    starts = np.array([beat for beat, _ in rows])
    if (np.diff(starts) <= 0).any():
        return None
    edges = beats[np.minimum(np.append(starts, end), len(beats)) - 1]
    functions = tuple(name for _, name in rows)
    return Spans(
        edges[:-1],
        edges[1:],
        functions,
        functions,
        known=edges[[0, -1]][None],
        provenance=Provenance(f"{_SOURCE}: phrases"),
    )
