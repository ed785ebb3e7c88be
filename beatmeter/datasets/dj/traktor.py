"""Traktor collections (NML): one tempo and a grid marker, in version 4 several markers with a tempo each;
cues and loops."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element

from beatmeter.datasets.dj.library import Cue, Doubts, Library, LibraryTrack, Tempo
from beatmeter.datasets.dj.numbers import number
from beatmeter.datasets.dj.xml import elements
from beatmeter.errors import shown

_GRID, _LOOP = "4", "5"
_NO_NAME = "n.n."


def read_traktor(path: Path) -> Library:
    """The collection of an NML file. The id of a track is its path. Raises DataError for a file that is no
    collection or is not whole."""
    tracks: dict[str, LibraryTrack] = {}
    left_out: list[tuple[str, str]] = []
    found = elements(path, "NML", "COLLECTION", "ENTRY", "Traktor")
    root = next(found)
    source = f"Traktor NML {shown(root.get('VERSION') or '')}".strip()
    for element in found:
        location = _location(element.find("LOCATION"))
        if not location:
            left_out.append((shown(element.get("TITLE") or "?"), "it has no LOCATION"))
        elif location in tracks:
            left_out.append((location, "the collection holds it twice"))
        else:
            tracks[location] = _track(location, element)
    return Library(source, tuple(tracks.values()), tuple(left_out))


def _location(element: Element | None) -> str:
    """VOLUME + DIR + FILE; in DIR every folder begins with `/:`."""
    if element is None or not element.get("FILE"):
        return ""
    volume = element.get("VOLUME") or ""
    folder = (element.get("DIR") or "").replace("/:", "/")
    return (volume if len(volume) == 2 and volume[1] == ":" else "") + folder + (element.get("FILE") or "")


def _track(location: str, element: Element) -> LibraryTrack:
    doubts = Doubts()
    info, tempo = element.find("INFO"), element.find("TEMPO")
    seconds = number(info.get("PLAYTIME_FLOAT")) if info is not None else None
    cut = seconds is None
    if seconds is None and info is not None:
        seconds = number(info.get("PLAYTIME"))
    bpm = number(tempo.get("BPM")) if tempo is not None else None
    cues, tempos = [], []
    for mark in element.iter("CUE_V2"):
        start = number(mark.get("START"))
        if start is None:
            doubts.add("a cue without a time was left out")
            continue
        if mark.get("TYPE") == _GRID:
            inner = mark.find("GRID")
            own = number(inner.get("BPM")) if inner is not None else bpm
            if own is None or not 1 < own < 1000:
                doubts.add("a grid marker without a tempo was left out")
            else:
                tempos.append(Tempo(start / 1000, own))
            continue
        name = mark.get("NAME") or ""
        length = max(0.0, number(mark.get("LEN")) or 0.0) / 1000
        kind = (
            "loop"
            if mark.get("TYPE") == _LOOP
            else "hot"
            if number(mark.get("HOTCUE")) not in (-1, None)
            else "memory"
        )
        cues.append(Cue(start / 1000, kind, "" if name == _NO_NAME else shown(name).strip(), length))
    if tempos:
        doubts.add("downbeats assumed at the grid markers")
    return LibraryTrack(
        location,
        location,
        seconds if seconds and seconds > 0 else None,
        shown(element.get("TITLE") or ""),
        shown(element.get("ARTIST") or ""),
        tuple(tempos),
        tuple(cues),
        tuple(doubts.flags),
        whole_seconds=cut,
    )
