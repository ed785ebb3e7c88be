"""The formats of annotations: what each holds, how a file of it is recognised, read and written.

A format is one line in FORMATS; `tests/datasets/test_annotation_formats.py` holds every one of them to the
same contract: what is written is read back, the same annotation gives the same bytes, and a malformed line
is refused with its number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from beatmeter.datasets.annotations import beats, jams, native, sections
from beatmeter.datasets.annotations.records import Annotation
from beatmeter.errors import BeatmeterError, DataError, SchemaError, nearest, shown
from beatmeter.runtime import atomic
from beatmeter.runtime.artifacts import read_text
from beatmeter.runtime.paths import StrPath, as_path


@dataclass(frozen=True)
class Format:
    """A format: its parts that it can `hold` (grid, sections, events), the suffixes of its files, and
    functions from and to text.

    `fits` tells formats of one suffix apart by their text.
    """

    name: str
    about: str
    suffixes: tuple[str, ...]
    holds: tuple[str, ...]
    parse: Callable[[str, str], Annotation]
    render: Callable[[Annotation], str]
    fits: Callable[[str], bool] | None = None


_ALL = ("grid", "sections", "events")
_TEXT = (".txt",)
_KNOWN = (
    Format("json", "beatmeter's own, whole", (".json",), _ALL, native.parse_json, native.render_json),
    Format("yaml", "the same as YAML", (".yaml", ".yml"), _ALL, native.parse_yaml, native.render_yaml),
    Format("beats", "time, place in the bar", (".beats",), ("grid",), beats.parse, beats.render),
    Format("lab", "start, end, label", (".lab",), ("sections",), sections.parse_lab, sections.render_lab),
    Format("jams", "JAMS", (".jams",), _ALL, jams.parse, jams.render),
    Format(
        "harmonix",
        "Harmonix segments",
        _TEXT,
        ("sections",),
        sections.parse_harmonix,
        sections.render_harmonix,
        sections.fits_harmonix,
    ),
    Format(
        "salami",
        "SALAMI, parsed",
        _TEXT,
        ("sections",),
        sections.parse_salami,
        sections.render_salami,
        sections.fits_salami,
    ),
    Format(
        "audacity",
        "Audacity",
        _TEXT,
        ("sections", "events"),
        sections.parse_audacity,
        sections.render_audacity,
        sections.fits_audacity,
    ),
)
FORMATS = {format.name: format for format in _KNOWN}
SUFFIXES = tuple(dict.fromkeys(suffix for f in FORMATS.values() for suffix in f.suffixes))


def find_format(name: str) -> Format:
    """The format of a name. Raises DataError with the nearest name."""
    if name not in FORMATS:
        raise DataError(f"there is no annotation format {name!r}", nearest(name, FORMATS))
    return FORMATS[name]


def read_annotation(path: StrPath, format: str = "") -> Annotation:
    """The annotation in a file; its format is found out by its suffix and, where that is not enough, its
    text.

    The id is the file's name without suffix where the file says none. Raises DataError that names file and,
    where there is one, line.
    """
    path = as_path(path)
    text = read_text(path, DataError, "Check the path.")
    chosen = find_format(format) if format else _of(path, text)
    try:
        found = chosen.parse(text, shown(path))
    except SchemaError as error:
        raise DataError(f"{shown(path)}: {error.what}", error.hint) from None
    return found if found.id else replace(found, id=shown(path.stem))


def _of(path: Path, text: str) -> Format:
    fitting = [f for f in FORMATS.values() if path.suffix.lower() in f.suffixes]
    if not fitting:
        raise DataError(f"{shown(path)} is no annotation", f"Suffixes that are read: {', '.join(SUFFIXES)}.")
    chosen = next((f for f in fitting if f.fits is None or f.fits(text)), None)
    if chosen is None:
        known = ", ".join(f"{f.name} ({f.about})" for f in fitting)
        raise DataError(
            f"{shown(path)} could be of several formats and is like none of them",
            f"Name the one it is: {known}.",
        )
    return chosen


def write_annotation(path: StrPath, annotation: Annotation, format: str = "") -> None:
    """Write an annotation whole, in the format of the suffix unless one is named. Raises DataError for what
    the format cannot hold at all, OSError where nothing can be written."""
    path = as_path(path)
    fitting = [f for f in FORMATS.values() if path.suffix.lower() in f.suffixes]
    if not format and len(fitting) != 1:
        known = ", ".join(f.name for f in fitting) if fitting else ", ".join(FORMATS)
        raise DataError(f"{shown(path)} does not say the format to write", f"Name one of: {known}.")
    chosen = find_format(format) if format else fitting[0]
    try:
        text = chosen.render(annotation)
    except BeatmeterError as error:
        raise DataError(f"{shown(path)}: {error.what}", error.hint) from None
    atomic.write_text(path, text)
