"""Sections as text: `.lab`, Harmonix segments, SALAMI's parsed files, and the labels of Audacity."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from beatmeter.datasets.annotations.lines import Line, read_lines, seconds, sections_of
from beatmeter.datasets.annotations.records import Annotation, Events, Provenance, Spans
from beatmeter.errors import DataError


def parse_lab(text: str, where: str) -> Annotation:
    """`start end label` a line. Raises DataError (file:line)."""
    lines = read_lines(text, where, 2, 3)
    return sections_of(
        ((line, line.seconds(0), line.seconds(1), "".join(line.cells[2:])) for line in lines), "lab file"
    )


def render_lab(annotation: Annotation) -> str:
    """Sections as `start end label` lines. Raises DataError when there are none."""
    spans = _spans(annotation)
    rows = zip(spans.starts.tolist(), spans.ends.tolist(), spans.labels, strict=True)
    return "".join(f"{seconds(start)}\t{seconds(end)}\t{_one_line(label)}\n" for start, end, label in rows)


def parse_harmonix(text: str, where: str) -> Annotation:
    """`start label` a line, the last one `end`. Raises DataError (file:line)."""
    return _by_starts(read_lines(text, where, 2, 2), ("end",), "Harmonix segments")


def fits_harmonix(text: str) -> bool:
    """Whether the last line is called `end`."""
    return _last_label(text) == "end"


def render_harmonix(annotation: Annotation) -> str:
    """Sections by their starts. Raises DataError for sections with gaps, which this format cannot say."""
    return _render_starts(_spans(annotation), "end", "")


def parse_salami(text: str, where: str) -> Annotation:
    """`time TAB label` a line, from `Silence` to `End`; the silence at both ends is no section. Raises
    DataError (file:line)."""
    return _by_starts(read_lines(text, where, 2, 2), ("End",), "SALAMI", ("silence", "no_function", ""))


def fits_salami(text: str) -> bool:
    """Whether the last line is called `End`."""
    return _last_label(text) == "End"


def render_salami(annotation: Annotation) -> str:
    """Sections by their starts, with Silence before the first and End at the end. Raises DataError for
    sections with gaps."""
    return _render_starts(_spans(annotation), "End", "Silence")


def parse_audacity(text: str, where: str) -> Annotation:
    """Labels of Audacity: regions become sections, points become events of the kind "label"; lines of
    frequencies are passed over.

    Raises DataError (file:line).
    """
    lines = [line for line in read_lines(text, where, 2, 3) if not line.cells[0].startswith("\\")]
    marks = [(line, line.seconds(0), line.seconds(1), "".join(line.cells[2:])) for line in lines]
    regions = [mark for mark in marks if mark[1] != mark[2]]
    points = sorted((start, label) for _, start, end, label in marks if start == end)
    times = np.array([time for time, _ in points])
    kinds, names = ("label",) * len(points), tuple(label for _, label in points)
    events = Events(times, kinds, names, provenance=Provenance("Audacity")) if points else None
    sections = sections_of(regions, "Audacity").sections if regions else None
    return Annotation(sections=sections, events=events)


def fits_audacity(text: str) -> bool:
    """Whether every line begins with two times."""
    try:
        return bool(parse_audacity(text, ""))
    except DataError:
        return False


def render_audacity(annotation: Annotation) -> str:
    """Sections and events as labels, in order. Raises DataError when there is neither."""
    rows: list[tuple[float, float, str]] = []
    if annotation.sections is not None:
        spans = annotation.sections
        rows += zip(spans.starts.tolist(), spans.ends.tolist(), spans.labels, strict=True)
    if annotation.events is not None:
        events = annotation.events
        rows += [
            (t, t, name or kind)
            for t, kind, name in zip(events.times.tolist(), events.kinds, events.names, strict=True)
        ]
    if not rows:
        raise DataError(
            "this annotation has neither sections nor events to write", "Choose the format beats."
        )
    return "".join(
        f"{seconds(start)}\t{seconds(end)}\t{_one_line(label)}\n" for start, end, label in sorted(rows)
    )


def _by_starts(
    lines: Sequence[Line], last: tuple[str, ...], source: str, outside: tuple[str, ...] = ()
) -> Annotation:
    if lines[-1].cells[1] not in last:
        raise lines[-1].refuse(
            f"the last line is called {lines[-1].cells[1]!r}, not {last[0]!r}", "The file may have been cut."
        )
    first, end = 0, len(lines) - 1
    while first < end and lines[first].cells[1].lower() in outside:
        first += 1
    while end > first and lines[end - 1].cells[1].lower() in outside:
        end -= 1

    def rows() -> Iterator[tuple[Line, float, float, str]]:
        for line, following in zip(lines[first:end], lines[first + 1 :], strict=False):
            start, stop = line.seconds(0), following.seconds(0)
            if stop < start:
                raise following.refuse(f"{stop:g} s is before the line before it, {start:g} s")
            yield line, start, stop, line.cells[1]

    return sections_of(rows(), source)


def _render_starts(spans: Spans, last: str, before: str) -> str:
    gaps = np.flatnonzero(np.abs(spans.starts[1:] - spans.ends[:-1]) > 1e-6)
    if len(gaps):
        raise DataError(
            f"there is a gap after section {gaps[0] + 1}, and this format has no ends",
            "Choose the format lab.",
        )
    lines = [f"{seconds(0.0)}\t{before}\n"] if before and spans.starts[0] > 0 else []
    lines += [
        f"{seconds(start)}\t{_one_line(label)}\n"
        for start, label in zip(spans.starts.tolist(), spans.labels, strict=True)
    ]
    return "".join([*lines, f"{seconds(float(spans.ends[-1]))}\t{last}\n"])


def _spans(annotation: Annotation) -> Spans:
    if annotation.sections is None or not len(annotation.sections):
        raise DataError("this annotation has no sections to write", "Choose a format of beats or events.")
    return annotation.sections


def _one_line(label: str) -> str:
    return " ".join(label.split())


def _last_label(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].split(None, 1)[-1].strip() if lines else ""
