"""JAMS (https://jams.readthedocs.io): namespaces `beat`, `segment_open` and `tag_open`, read and written as
JSON.

What JAMS has no field for (tier, flags, known intervals, names of events) is in the `sandbox` of an
annotation, so that what was written here is read back whole. The library `jams` is not needed; it depends
on pandas.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from beatmeter.datasets.annotations import native
from beatmeter.datasets.annotations.lines import beats_around
from beatmeter.datasets.annotations.records import Annotation, Events, Grid, Provenance, Spans, joined
from beatmeter.errors import DataError, SchemaError, shown
from beatmeter.runtime.artifacts import parse_json, require, to_json

SECTIONS = (
    "segment_open",
    "segment_salami_function",
    "segment_salami_upper",
    "segment_salami_lower",
    "multi_segment",
    "segment_tut",
)
OURS = "beatmeter"  # key of the sandbox
_HINT = (
    "The JAMS schema says what a file must hold: https://jams.readthedocs.io/en/stable/jams_structure.html"
)
Row = tuple[float, float, Any]


def parse(text: str, where: str) -> Annotation:
    """Beats, sections and events of a JAMS file; of several annotations of one kind the first counts.

    Observations with a negative duration occur in published files: they are left out, and a flag says how
    many. Raises DataError (file, annotation, observation) for anything else that the schema forbids.
    """
    value = parse_json(text, where, DataError, _HINT)
    require(value, {"annotations": [dict], "file_metadata": {"duration": float}}, where, DataError, _HINT)
    about = value["file_metadata"]
    if not about["duration"] > 0:
        raise DataError(
            f"{where}: file_metadata.duration is {about['duration']}",
            "Correct it: the length of the audio in seconds.",
        )
    found: dict[str, Grid | Spans | Events] = {}
    for number, one in enumerate(value["annotations"]):
        at = f"{where}: annotations[{number}]"
        require(one, {"namespace": str}, at, DataError, _HINT)
        part = _part_of(one["namespace"])
        if part is None or part in found:
            continue
        rows, flags = _rows(one, at)
        try:
            made = _MAKE[part](rows, at)
        except SchemaError as error:
            raise DataError(f"{at}: {error.what}", error.hint) from None
        found[part] = _with_sandbox(made, one, flags, at)
    title = str((about.get("identifiers") or {}).get("beatmeter", "") or about.get("title") or "")
    parts: dict[str, Any] = found
    return Annotation(title, float(about["duration"]), **parts)


def _part_of(namespace: str) -> str | None:
    if namespace == "beat":
        return "grid"
    return "sections" if namespace in SECTIONS else "events" if namespace == "tag_open" else None


def _rows(one: Mapping[str, Any], at: str) -> tuple[list[Row], tuple[str, ...]]:
    """(time, duration, value) of every observation in order, and flags. Columns of lists are read as well
    as lists of objects."""
    data = one.get("data")
    if isinstance(data, Mapping):
        columns = [data.get(name) for name in ("time", "duration", "value")]
        if not all(isinstance(c, list) and len(c) == len(columns[0] or ()) for c in columns):
            raise DataError(f"{at}: data has no equally long lists time, duration and value", _HINT)
        data = [{"time": t, "duration": d, "value": v} for t, d, v in zip(*columns, strict=True)]
    require(data, [{"time": float, "duration": float}], f"{at}: data", DataError, _HINT)
    assert isinstance(data, list)
    rows = sorted(
        ((float(r["time"]), float(r["duration"]), r.get("value")) for r in data), key=lambda row: row[:2]
    )
    good = [row for row in rows if row[1] >= 0]
    left = len(rows) - len(good)
    return good, (f"{left} with negative duration left out",) if left else ()


def _grid(rows: list[Row], at: str) -> Grid:
    places = []
    for time, _, value in rows:
        place = 0 if value is None else value
        if isinstance(place, bool) or not isinstance(place, int | float) or place < 0:
            found = shown(repr(value))[:40]
            raise DataError(
                f"{at}: the beat at {time:g} s has the value {found}, not a place in the bar", _HINT
            )
        places.append(int(place) if place % 1 == 0 else 0)
    times = np.array([row[0] for row in rows])
    return Grid(times, np.array(places, int), known=beats_around(times))


def _spans(rows: list[Row], at: str) -> Spans:
    kept = [row for row in rows if row[1] > 0]
    starts, lengths = (np.array([row[i] for row in kept], float) for i in (0, 1))
    labels = tuple(_label(row[2]) for row in kept)
    known = np.array([[starts[0], starts[-1] + lengths[-1]]]) if kept else np.zeros((0, 2))
    return Spans(starts, starts + lengths, labels, known=known)


def _label(value: Any) -> str:
    return str(value.get("label", "")) if isinstance(value, Mapping) else "" if value is None else str(value)


def _events(rows: list[Row], at: str) -> Events:
    times, lengths = (np.array([row[i] for row in rows], float) for i in (0, 1))
    kinds = tuple(_label(row[2]) or "tag" for row in rows)
    return Events(times, kinds, lengths=lengths, known=joined(np.stack([times - 0.5, times + 0.5], axis=-1)))


_MAKE: dict[str, Callable[[list[Row], str], Grid | Spans | Events]] = {
    "grid": _grid,
    "sections": _spans,
    "events": _events,
}


def _with_sandbox(
    part: Grid | Spans | Events, one: Mapping[str, Any], flags: tuple[str, ...], at: str
) -> Grid | Spans | Events:
    sandbox = one.get("sandbox")
    ours = sandbox.get(OURS) if isinstance(sandbox, Mapping) else None
    if ours:
        whole = next(iter(native.from_value(ours, f"{at}: sandbox.{OURS}").parts.values()), part)
        same = type(whole) is type(part) and _observations(whole) == _observations(part)
        part = (
            whole if same else replace(part, provenance=whole.provenance.flagged("edited by another program"))
        )
    else:
        about = one.get("annotation_metadata")
        about = about if isinstance(about, Mapping) else {}
        curator = about.get("curator")
        name = curator.get("name") if isinstance(curator, Mapping) else ""
        part = part.marked(source=str(about.get("data_source") or about.get("corpus") or name or "JAMS"))
    return part.marked(flags=part.provenance.flagged(*flags).flags)


def render(annotation: Annotation) -> str:
    """The annotation as a JAMS file. Raises DataError without a duration, which the schema requires."""
    if annotation.duration is None:
        raise DataError(
            "JAMS requires the duration of the audio, and this annotation does not say it",
            "Give the audio file.",
        )
    parts = [_written(name, part, annotation.duration) for name, part in annotation.parts.items()]
    return jams_file(annotation.id, annotation.duration, parts)


def jams_file(title: str, duration: float, annotations: Sequence[Mapping[str, Any]]) -> str:
    """The text of a JAMS file about audio of `duration` seconds, with `annotations` as of
    `jams_annotation`."""
    value = {
        "annotations": list(annotations),
        "file_metadata": {
            "title": title,
            "artist": "",
            "release": "",
            "duration": round(duration, 6),
            "identifiers": {"beatmeter": title},
            "jams_version": "0.3.5",
        },
        "sandbox": {},
    }
    return to_json(value, ensure_ascii=False) + "\n"


def jams_annotation(
    namespace: str,
    duration: float,
    data: Sequence[tuple[float, float, Any, float | None]],
    sandbox: Mapping[str, Any],
    **about: Any,
) -> dict[str, Any]:
    """An annotation of a JAMS file: observations (time, duration, value, confidence) in seconds, and fields
    of its metadata by name."""
    metadata = {
        "curator": {"name": "", "email": ""},
        "annotator": {},
        "version": "",
        "corpus": "",
        "annotation_tools": "",
        "annotation_rules": "",
        "validation": "",
        "data_source": "",
    }
    return {
        "namespace": namespace,
        "time": 0.0,
        "duration": round(duration, 6),
        "annotation_metadata": metadata | about,
        "data": [{"time": t, "duration": d, "value": v, "confidence": c} for t, d, v, c in data],
        "sandbox": dict(sandbox),
    }


def _written(name: str, part: Grid | Spans | Events, duration: float) -> dict[str, Any]:
    about: Provenance = part.provenance
    parts: dict[str, Any] = {name: part}
    alone = Annotation("", **parts)
    return jams_annotation(
        {"grid": "beat", "sections": "segment_open", "events": "tag_open"}[name],
        duration,
        [(*row, about.confidence) for row in _observations(part)],
        {OURS: native.to_value(alone)},
        annotator={"name": about.verifier} if about.verifier else {},
        validation="; ".join(f"{k}: {v}" for k, v in sorted(about.validation.items())),
        data_source=about.source,
    )


def _observations(part: Grid | Spans | Events) -> list[Row]:
    """(time, duration, value) of every mark, to the microsecond."""
    rows: list[Row]
    if isinstance(part, Grid):
        rows = [(t, 0.0, p or None) for t, p in zip(part.times.tolist(), part.places.tolist(), strict=True)]
    elif isinstance(part, Spans):
        rows = [
            (a, b - a, label)
            for a, b, label in zip(part.starts.tolist(), part.ends.tolist(), part.labels, strict=True)
        ]
    else:
        rows = list(zip(part.times.tolist(), part.lengths.tolist(), part.kinds, strict=True))
    return [(round(t, 6), round(d, 6), value) for t, d, value in rows]
