"""The annotation file of beatmeter: JSON or YAML with a version, read through a schema whose errors name
field and line.

    {"format": "beatmeter annotation", "version": 1, "id": "song", "duration": 180.0,
     "grid": {"tier": 1, "verifier": "Ana", "source": "by ear", "known": [[0.0, 180.0]],
              "beats": [[0.5, 1], [1.0, 2]], "changes": [[0.5, 120.0]]},
     "sections": {"spans": [{"start": 0.5, "end": 16.5, "label": "A", "function": "verse"}]},
     "events": {"events": [{"time": 16.5, "kind": "drop"}]}}

`docs/annotations.md` lists the fields. JSON is written with one mark a line and times to the microsecond:
the same annotation is the same bytes everywhere, and version control shows which mark changed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, NoReturn

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from beatmeter.datasets.annotations.lines import beats_around
from beatmeter.datasets.annotations.records import BANDS, Annotation, Events, Grid, Provenance, Spans, joined
from beatmeter.errors import DataError, SchemaError, shown
from beatmeter.runtime.artifacts import not_finite

FORMAT, VERSION = "beatmeter annotation", 1
DEEPEST = 32  # brackets within brackets; a file of ours has five
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # with libyaml where it is there
Seconds = Annotated[float, Field(ge=-60, le=10**6)]  # a grid of a DJ program may begin before the audio
Level = Annotated[float, Field(ge=1, le=10)]
Place = Annotated[int, Field(ge=0)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class _Part(_Model):
    source: str = ""
    tier: Literal[1, 2, 3] = 2
    verifier: str = ""
    confidence: Annotated[float, Field(ge=0, le=1)] | None = None
    flags: list[str] = []
    validation: dict[str, bool | float | str] = {}
    known: list[tuple[Seconds, Seconds]] | None = None

    @model_validator(mode="after")
    def _name_the_verifier(self) -> _Part:
        if self.tier == 1 and not self.verifier:
            raise ValueError("tier 1 means verified: name the verifier, or use tier 2")
        return self

    def provenance(self) -> Provenance:
        return Provenance(
            self.source, self.tier, self.verifier, self.confidence, tuple(self.flags), self.validation
        )


class _Grid(_Part):
    beats: list[tuple[Seconds, Place]]
    changes: list[tuple[Seconds, Annotated[float, Field(gt=0, le=10_000)]]] = []


class _Energy(_Model):
    bass: Level | None = None
    mid: Level | None = None
    high: Level | None = None
    overall: Level | None = None


class _Span(_Model):
    start: Seconds
    end: Seconds
    label: str = ""
    function: str = ""
    energy: _Energy = _Energy()

    @model_validator(mode="after")
    def _end_later(self) -> _Span:
        if self.end <= self.start:
            raise ValueError(f"the section ends at {self.end:g} s and begins at {self.start:g} s")
        return self


class _Sections(_Part):
    spans: list[_Span]


class _Event(_Model):
    time: Seconds
    kind: Annotated[str, Field(min_length=1)]
    name: str = ""
    place: Place = 0
    length: Annotated[float, Field(ge=0)] = 0.0


class _Events(_Part):
    events: list[_Event]


class _File(_Model):
    format: Literal["beatmeter annotation"]
    version: int
    id: str = ""
    duration: Annotated[float, Field(gt=0)] | None = None
    meta: dict[str, str] = {}
    grid: _Grid | None = None
    sections: _Sections | None = None
    events: _Events | None = None


def parse_json(text: str, where: str) -> Annotation:
    """An annotation from JSON. Raises DataError with field and line."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        line = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise DataError(f"{where}{line}: not valid JSON: {error}") from None
    return from_value(value, where, text)


def parse_yaml(text: str, where: str) -> Annotation:
    """An annotation from YAML without anchors. Raises DataError with field and line."""
    if _depth(text) > DEEPEST:
        raise DataError(f"{where}: not valid YAML: brackets within brackets, {_depth(text)} deep")
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=_LOADER)):
            raise DataError(f"{where}: YAML with anchors and aliases is not read", "Write the values out.")
        value = yaml.load(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise DataError(f"{where}{line}: not valid YAML: {error.problem}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise DataError(f"{where}: not valid YAML: {str(error).splitlines()[0]}") from None
    return from_value(value, where, text)


def _depth(text: str) -> int:
    """How deep brackets are nested. The time that YAML takes grows with its square."""
    steps = np.array([1 if c in "[{" else -1 for c in text if c in "[{}]"], int)
    return int(np.cumsum(steps).max(initial=0))


def fits(text: str) -> bool:
    """Whether this looks like an annotation file of ours, of any version."""
    return FORMAT in text[:4096]


def from_value(value: Any, where: str, text: str = "") -> Annotation:
    """An annotation from plain JSON values, of which `text` is the file. Raises DataError with field and
    line."""
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise DataError(f"{where} is no annotation file", f'It must hold "format": "{FORMAT}".')
    version = value.get("version")
    if isinstance(version, int) and version > VERSION:
        raise DataError(
            f"{where} has version {version}, this beatmeter reads up to {VERSION}",
            "Install a newer beatmeter.",
        )
    try:
        file = _File.model_validate(value)
    except ValidationError as error:
        _refuse(error, text, where)
    _require_order(file, text, where)
    try:
        part = "grid"
        grid = None if file.grid is None else _grid(file.grid)
        part = "sections"
        sections = None if file.sections is None else _spans(file.sections)
        part = "events"
        events = None if file.events is None else _event_list(file.events)
    except SchemaError as error:
        raise DataError(f"{where}{_line(text, (part,))}: {part}: {error.what}", error.hint) from None
    return Annotation(file.id, file.duration, grid, sections, events, file.meta)


def _require_order(file: _File, text: str, where: str) -> None:
    """Marks stand in the order of time: here, because here the line is known."""
    starts = {
        ("grid", "beats"): [time for time, _ in file.grid.beats] if file.grid else [],
        ("sections", "spans"): [span.start for span in file.sections.spans] if file.sections else [],
        ("events", "events"): [event.time for event in file.events.events] if file.events else [],
    }
    for (part, name), times in starts.items():
        late = np.flatnonzero(np.diff(times) < 0)
        if len(late):
            i = int(late[0]) + 1
            what = f"{part}.{name}[{i}] at {times[i]:g} s comes after {times[i - 1]:g} s"
            raise DataError(f"{where}{_line(text, (part, name, i))}: {what}", "Sort the marks by time.")


def _refuse(error: ValidationError, text: str, where: str) -> NoReturn:
    first = error.errors()[0]
    path = tuple(first["loc"])
    field = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path).lstrip(".")
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    reason = first["msg"].removeprefix("Value error, ")
    given = first.get("input")
    shows = f", got {shown(repr(given))[:40]}" if isinstance(given, str | int | float) else ""
    raise DataError(
        f"{where}{_line(text, path)}: {shown(field)}: {reason[:1].lower()}{reason[1:]}{shows}{more}"
    )


def _line(text: str, path: Sequence[int | str]) -> str:
    """`:line` of the value at a path, as near as the text has it. JSON is read as the YAML that it is."""
    try:
        node = yaml.compose(text.replace("\t", " "), Loader=_LOADER)
    except yaml.YAMLError:
        return ""
    for step in path:
        if isinstance(node, yaml.MappingNode):
            inner = next((v for k, v in node.value if k.value == str(step)), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int):
            inner = node.value[step] if step < len(node.value) else None
        else:
            inner = None
        if inner is None:
            break
        node = inner
    return f":{node.start_mark.line + 1}" if node is not None else ""


def _known(part: _Part, otherwise: np.ndarray) -> np.ndarray:
    return otherwise if part.known is None else np.array(part.known, float).reshape(-1, 2)


def _grid(part: _Grid) -> Grid:
    times = np.array([time for time, _ in part.beats], float)
    places = np.array([place for _, place in part.beats], int)
    changes = np.array(part.changes, float).reshape(-1, 2)
    return Grid(times, places, changes, known=_known(part, beats_around(times)), provenance=part.provenance())


def _spans(part: _Sections) -> Spans:
    starts, ends = (np.array([getattr(s, name) for s in part.spans], float) for name in ("start", "end"))
    energy = np.array([[_nan(getattr(s.energy, band)) for band in BANDS] for s in part.spans], float).reshape(
        -1, len(BANDS)
    )
    labels, functions = tuple(s.label for s in part.spans), tuple(s.function for s in part.spans)
    around = np.array([[starts[0], ends[-1]]]) if len(starts) else np.zeros((0, 2))
    return Spans(
        starts, ends, labels, functions, energy, known=_known(part, around), provenance=part.provenance()
    )


def _event_list(part: _Events) -> Events:
    rows = part.events
    times = np.array([e.time for e in rows], float)
    around = joined(np.stack([times - 0.5, times + 0.5], axis=-1))
    return Events(
        times,
        tuple(e.kind for e in rows),
        tuple(e.name for e in rows),
        np.array([e.place for e in rows], int),
        np.array([e.length for e in rows], float),
        known=_known(part, around),
        provenance=part.provenance(),
    )


def _nan(value: float | None) -> float:
    return float("nan") if value is None else value


def to_value(annotation: Annotation) -> dict[str, Any]:
    """The annotation as plain JSON values; times to the microsecond, fields that say nothing left out."""
    value: dict[str, Any] = {"format": FORMAT, "version": VERSION, "id": annotation.id}
    if annotation.duration is not None:
        value["duration"] = _round(annotation.duration)
    if annotation.meta:
        value["meta"] = dict(sorted(annotation.meta.items()))
    if annotation.grid is not None:
        grid = annotation.grid
        value["grid"] = {
            **_about(grid),
            "beats": [[_round(t), int(p)] for t, p in zip(grid.times, grid.places, strict=True)],
        }
        if len(grid.changes):
            value["grid"]["changes"] = [[_round(t), _round(bpm)] for t, bpm in grid.changes]
    if annotation.sections is not None:
        value["sections"] = {**_about(annotation.sections), "spans": _span_values(annotation.sections)}
    if annotation.events is not None:
        value["events"] = {**_about(annotation.events), "events": _event_values(annotation.events)}
    if bad := not_finite(value):
        raise DataError(f"the annotation {shown(annotation.id)} is not finite: {bad}")
    return value


def _about(part: Grid | Spans | Events) -> dict[str, Any]:
    about = part.provenance
    value: dict[str, Any] = {"source": about.source, "tier": about.tier}
    if about.verifier:
        value["verifier"] = about.verifier
    if about.confidence is not None:
        value["confidence"] = _round(about.confidence)
    if about.flags:
        value["flags"] = list(about.flags)
    if about.validation:
        value["validation"] = {
            k: _round(v) if isinstance(v, float) else v for k, v in sorted(about.validation.items())
        }
    value["known"] = [[_round(start), _round(end)] for start, end in part.known]
    return value


def _span_values(spans: Spans) -> list[dict[str, Any]]:
    rows = []
    energies = spans.energy
    for start, end, label, function, energy in zip(
        spans.starts, spans.ends, spans.labels, spans.functions, energies, strict=True
    ):
        row: dict[str, Any] = {"start": _round(start), "end": _round(end), "label": label}
        if function:
            row["function"] = function
        if levels := {
            band: _round(level) for band, level in zip(BANDS, energy, strict=True) if not np.isnan(level)
        }:
            row["energy"] = levels
        rows.append(row)
    return rows


def _event_values(events: Events) -> list[dict[str, Any]]:
    rows = []
    fields = zip(events.times, events.kinds, events.names, events.places, events.lengths, strict=True)
    for time, kind, name, place, length in fields:
        row: dict[str, Any] = {"time": _round(time), "kind": kind}
        row |= {
            key: value
            for key, value in (("name", name), ("place", int(place)), ("length", _round(length)))
            if value
        }
        rows.append(row)
    return rows


def _round(value: float) -> float:
    return round(float(value), 6) + 0.0


def render_json(annotation: Annotation) -> str:
    """The annotation as JSON, one mark a line."""
    lines = []
    for key, value in to_value(annotation).items():
        lines.append(
            f" {_compact(key)}: {_block(value) if key in ('grid', 'sections', 'events') else _compact(value)}"
        )
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _block(part: Mapping[str, Any]) -> str:
    rows = []
    for key, value in part.items():
        if key in ("beats", "spans", "events") and value:
            rows.append(
                f"  {_compact(key)}: [\n" + ",\n".join(f"   {_compact(item)}" for item in value) + "\n  ]"
            )
        else:
            rows.append(f"  {_compact(key)}: {_compact(value)}")
    return "{\n" + ",\n".join(rows) + "\n }"


_compact: Callable[[Any], str] = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def render_yaml(annotation: Annotation) -> str:
    """The annotation as YAML, one mark a line."""
    text: str = yaml.safe_dump(
        to_value(annotation), sort_keys=False, allow_unicode=True, default_flow_style=None, width=10**6
    )
    return text
