"""Rekordbox XML, as rekordbox 5 to 7 export it: tracks, beat grids, cues and loops.

TEMPO (Inizio s, Bpm, Metro, Battito) is a change of tempo, not a beat. Metro is a default of the program
and says nothing about the meter.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote
from xml.etree.ElementTree import Element

from beatmeter.datasets.dj.library import Cue, Doubts, Library, LibraryTrack, Tempo
from beatmeter.datasets.dj.numbers import number, whole
from beatmeter.datasets.dj.xml import elements
from beatmeter.errors import shown

_HOST = "file://localhost"
_LOOP = "4"


def read_rekordbox(path: Path) -> Library:
    """The collection of an export. A track that cannot be used is left out with its reason; what is odd in
    one is a flag. Raises DataError for a file that is no Rekordbox XML or is not whole."""
    source = "rekordbox"
    tracks: dict[str, LibraryTrack] = {}
    left_out: list[tuple[str, str]] = []
    found = elements(path, "DJ_PLAYLISTS", "COLLECTION", "TRACK", "rekordbox")
    next(found)
    for element in found:
        id = shown(element.get("TrackID") or "")
        name = shown(element.get("Name") or "")
        if not id or not element.get("Location"):
            left_out.append((id or name or "?", "it has no TrackID or no Location"))
        elif id in tracks:
            left_out.append((id, f"the TrackID stands for {tracks[id].title!r} already"))
        else:
            tracks[id] = _track(id, name, element)
    return Library(source, tuple(tracks.values()), tuple(left_out))


def location_of(url: str) -> str:
    """The path that a Location names: `file://localhost/C:/a%20b.mp3` is C:/a b.mp3, and `+` stays `+`.
    Paths that begin with a slash keep it."""
    path = unquote(url.removeprefix(_HOST) if url.startswith(_HOST) else url.removeprefix("file://"))
    drive = len(path) > 2 and path[0] == "/" and path[2] == ":"
    return path[1:] if drive else path


def _track(id: str, name: str, element: Element) -> LibraryTrack:
    doubts = Doubts()
    seconds = number(element.get("TotalTime"))
    tempos = _tempos(element, doubts)
    average = number(element.get("AverageBpm"))
    if tempos and average and len({t.bpm for t in tempos}) == 1 and abs(tempos[0].bpm / average - 1) > 0.02:
        doubts.add(f"AverageBpm {average:g} is not the grid's {tempos[0].bpm:g}")
    return LibraryTrack(
        id,
        location_of(element.get("Location") or ""),
        seconds if seconds and seconds > 0 else None,
        name,
        shown(element.get("Artist") or ""),
        tempos,
        _cues(element, doubts),
        tuple(doubts.flags),
    )


def _tempos(element: Element, doubts: Doubts) -> tuple[Tempo, ...]:
    found = []
    for node in element.iter("TEMPO"):
        start, bpm = number(node.get("Inizio")), number(node.get("Bpm"))
        if start is None or bpm is None or not 1 < bpm < 1000:
            doubts.add("a TEMPO without a time or a tempo was left out")
            continue
        beats = whole((node.get("Metro") or "").partition("/")[0]) or 4
        place = whole(node.get("Battito")) or 1
        if not 1 <= place <= beats:
            doubts.add(f"Battito {place} is not in a bar of {beats}")
            place = (place - 1) % beats + 1
        found.append(Tempo(start, bpm, place, beats))
    if any(a.time >= b.time for a, b in pairwise(found)):
        doubts.add("tempo changes were not in order")
    return tuple(found)


def _cues(element: Element, doubts: Doubts) -> tuple[Cue, ...]:
    found = []
    for mark in element.iter("POSITION_MARK"):
        start, end = number(mark.get("Start")), number(mark.get("End"))
        if start is None:
            doubts.add("a cue without a time was left out")
            continue
        loop = mark.get("Type") == _LOOP
        length = end - start if loop and end is not None else 0.0
        if length < 0:
            doubts.add("a loop that ends before it begins is taken as a cue")
        kind = "loop" if loop else "memory" if whole(mark.get("Num")) in (-1, None) else "hot"
        found.append(Cue(start, kind, shown(mark.get("Name") or "").strip(), max(0.0, length)))
    return tuple(found)
