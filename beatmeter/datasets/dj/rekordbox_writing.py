"""Annotations as a Rekordbox XML to import: the grid as tempo changes, sections and events as memory cues."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np

from beatmeter import __version__
from beatmeter.datasets.annotations.records import Annotation, Grid
from beatmeter.datasets.dj.library import Tempo

CLOSEST = 0.003  # seconds that a written grid may be off; more, and the tempo changes
HEARD = 0.03  # the same for beats that a program heard: each is off by some, and their tempo is not
GENERATED = 3  # tier of such beats
_DIGITS = 2  # of Bpm


def tempos_of(grid: Grid) -> list[Tempo]:
    """As few tempo changes as say every beat within CLOSEST seconds (HEARD where a program heard them), and
    every place in the bar."""
    closest = HEARD if grid.provenance.tier == GENERATED else CLOSEST
    times, places = grid.times, np.maximum(grid.places, 1)
    beats = int(places.max()) if len(places) else 4
    found: list[Tempo] = []
    start = 0
    while start < len(times):
        end, bpm, origin = start + 1, 120.0, float(times[start])
        if end < len(times):
            bpm = round(60 / float(times[end] - times[start]), _DIGITS)
        size = 1
        while end < len(times):
            stop = min(len(times), end + size)
            first, tried = _line(times[start:stop], closest)
            fits = _fits(times[start:stop], places[start:stop], first, tried, beats, closest)
            if fits:
                end, bpm, origin, size = stop, tried, first, 2 * size
            elif size > 1:
                size = 1
            else:
                break
        if end < len(times) and end - start > 1 and round(float(times[end] - times[end - 1]) * bpm / 60) != 1:
            end -= 1  # a gap in the grid: a beat of its own, as long as the gap
        found.append(Tempo(origin, bpm, int(places[start]), beats))
        start = end
    return found


def _line(times: np.ndarray, closest: float) -> tuple[float, float]:
    """The first beat and the tempo of beats at one tempo: through the first and the last where they are
    exact, by least squares where each is off by some."""
    if closest <= CLOSEST or len(times) < 3:
        period, first = float(times[-1] - times[0]) / (len(times) - 1), float(times[0])
    else:
        period, first = (float(x) for x in np.polyfit(np.arange(len(times)), times, 1))
    return max(0.0, first), round(60 / period, _DIGITS)


def _fits(
    times: np.ndarray, places: np.ndarray, first: float, bpm: float, beats: int, closest: float
) -> bool:
    steps = np.arange(len(times))
    near = np.abs(first + steps * 60 / bpm - times).max() <= closest
    return bool(near and (places == (places[0] - 1 + steps) % beats + 1).all())


def render_rekordbox(tracks: Sequence[tuple[Path, Annotation]]) -> str:
    """A Rekordbox XML of audio files and what is known of them: for each a grid of tempo changes, and
    memory cues at the starts of sections (named by function or label) and at events (by name or kind)."""
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        '<DJ_PLAYLISTS Version="1.0.0">',
        f'  <PRODUCT Name="beatmeter" Version={quoteattr(__version__)} Company=""/>',
        f'  <COLLECTION Entries="{len(tracks)}">',
    ]
    for number, (path, annotation) in enumerate(tracks, 1):
        lines += _track(number, path, annotation)
    lines += ["  </COLLECTION>", "  <PLAYLISTS>", '    <NODE Type="0" Name="ROOT" Count="1">']
    lines.append(f'      <NODE Name="beatmeter" Type="1" KeyType="0" Entries="{len(tracks)}">')
    lines += [f'        <TRACK Key="{number}"/>' for number in range(1, len(tracks) + 1)]
    return "\n".join([*lines, "      </NODE>", "    </NODE>", "  </PLAYLISTS>", "</DJ_PLAYLISTS>"]) + "\n"


def _track(number: int, path: Path, annotation: Annotation) -> list[str]:
    place = path.absolute().as_posix()
    url = "file://localhost" + quote(place if place.startswith("/") else f"/{place}", safe="/:+()")
    grid = annotation.grid
    tempo = grid.tempo if grid is not None and len(grid) > 1 else 0.0
    about = {
        "TrackID": str(number),
        "Name": annotation.meta.get("title") or path.stem,
        "Artist": annotation.meta.get("artist", ""),
        "TotalTime": str(int(annotation.duration or 0)),
        "AverageBpm": f"{tempo:.2f}",
        "Location": url,
    }
    lines = [
        "    <TRACK " + " ".join(f"{key}={quoteattr(_plain(value))}" for key, value in about.items()) + ">"
    ]
    lines += [
        f'      <TEMPO Inizio="{node.time:.3f}" Bpm="{node.bpm:.{_DIGITS}f}" Metro="{node.beats}/4" '
        f'Battito="{node.place}"/>'
        for node in (tempos_of(grid) if grid is not None else ())
    ]
    for time, name in _cues(annotation):
        lines.append(
            f'      <POSITION_MARK Name={quoteattr(_plain(name))} Type="0" Start="{time:.3f}" Num="-1"/>'
        )
    return [*lines, "    </TRACK>"]


def _cues(annotation: Annotation) -> list[tuple[float, str]]:
    """(seconds, name) of every memory cue; an event at the start of a section gives it its name."""
    cues: dict[float, str] = {}
    if annotation.sections is not None:
        spans = annotation.sections
        for start, label, function in zip(spans.starts.tolist(), spans.labels, spans.functions, strict=True):
            cues[round(start, 3)] = function or label
    if annotation.events is not None:
        events = annotation.events
        for time, kind, name in zip(events.times.tolist(), events.kinds, events.names, strict=True):
            cues[round(time, 3)] = name or kind
    return sorted((time, name) for time, name in cues.items() if time >= 0)


def _plain(text: str) -> str:
    """Text without the control characters that XML cannot hold."""
    return "".join(c for c in text if c >= " " or c in "\t\n")
