"""The contract of every annotation format: round trip, the same bytes, malformed lines refused with their
number; and what each one reads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from beatmeter.datasets.annotations import (
    FORMATS,
    Annotation,
    Events,
    Grid,
    Provenance,
    Spans,
    read_annotation,
    write_annotation,
)
from beatmeter.datasets.annotations.registry import Format
from beatmeter.errors import DataError

BEATS = 0.1 + 0.5 * np.arange(40)
WHOLE = Annotation(
    "song",
    21.25,
    Grid(
        BEATS,
        np.arange(40) % 4 + 1,
        np.array([[0.1, 120.0], [10.1, 119.5]]),
        known=np.array([[0.0, 20.5]]),
        provenance=Provenance(
            "by ear",
            1,
            "Ana",
            0.9,
            ("late start",),
            {"offset": 0.012, "twins": 3.0, "checked": True, "by": "ß"},
        ),
    ),
    Spans(
        np.array([0.1, 8.1, 16.1]),
        np.array([8.1, 16.1, 20.1]),
        ("A", "B'", "A"),
        ("intro", "drop", ""),
        np.array([[1.0, 2.5, 3.0, 2.0], [9.0, np.nan, 8.0, 10.0], [np.nan] * 4]),
        known=np.array([[0.1, 20.1]]),
    ),
    Events(
        np.array([8.1, 8.1, 16.1]),
        ("drop", "cue", "loop"),
        ("Drop!", "", "vox \u266a"),
        np.array([1, 1, 0]),
        np.array([0.0, 0.0, 2.0]),
        known=np.array([[0.1, 20.1]]),
    ),
    {"title": "Ein Lied"},
)
BAD = {  # a format's good lines, one of them broken, and the number of that line
    "beats": [
        ("0.5\t1\n1.0\t2\nx\t3\n", 3),
        ("0.5\t1\n0.4\t2\n", 2),
        ("0.5\t1\n0.5\t2\n", 2),
        ("0.5 1.5\n", 1),
        ("0.5 0\n", 1),
        ("nan 1\n", 1),
    ],
    "lab": [("0\t4\tA\n4\t3\tB\n", 2), ("0\t4\tA\n3\t5\tB\n", 2), ("0\n", 1), ("# c\n\n0\tinf\tA\n", 3)],
    "harmonix": [("0 intro\n9 verse\n", 2), ("0 intro\n9 verse\n8 end\n", 3), ("zero intro\n9 end\n", 1)],
    "salami": [("0\tSilence\n1\tA\n", 2), ("0\tSilence\n1\tA\n0.5\tB\n9\tEnd\n", 3)],
    "audacity": [("0\t4\tA\n4\tB\tB\n", 2), ("4\t3\tA\n", 1)],
    "json": [
        ('{"format": "beatmeter annotation",\n"version": 1,\n"grid": {"beats": [[1, 1],\n[2, -1]]}}', 4),
        ('{"format": "beatmeter annotation",\n}', 2),
    ],
    "yaml": [
        ("format: beatmeter annotation\nversion: 1\nsections:\n  spans:\n  - {start: 4, end: 3}\n", 5),
        ("format: [\n", 2),
    ],
    "jams": [('{\n"annotations": [}', 2)],
}


def only(annotation: Annotation, format: Format) -> Annotation:
    """What a format can hold of an annotation: the parts it has a place for."""
    return Annotation(
        annotation.id,
        annotation.duration,
        **{name: part for name, part in annotation.parts.items() if name in format.holds},
    )


@pytest.fixture(params=FORMATS.values(), ids=FORMATS)
def format(request: pytest.FixtureRequest) -> Format:
    return request.param


def test_what_is_written_is_read_back(format: Format, tmp_path: Path) -> None:
    path = tmp_path / f"song{format.suffixes[0]}"
    write_annotation(path, only(WHOLE, format), format.name)
    back = read_annotation(path)
    assert back.id == "song"
    assert set(back.parts) == set(format.holds)
    if back.grid is not None:
        np.testing.assert_allclose(back.grid.times, BEATS, atol=1e-6)
        assert back.grid.places.tolist() == WHOLE.grid.places.tolist()
    if back.sections is not None:
        np.testing.assert_allclose(back.sections.starts, WHOLE.sections.starts, atol=1e-6)
        np.testing.assert_allclose(back.sections.ends, WHOLE.sections.ends, atol=1e-6)
        assert back.sections.labels == WHOLE.sections.labels
    if back.events is not None:
        np.testing.assert_allclose(back.events.times, WHOLE.events.times, atol=1e-6)
        assert sorted(n or k for n, k in zip(back.events.names, back.events.kinds, strict=True)) == [
            "Drop!",
            "cue",
            "vox \u266a",
        ]


def test_the_same_annotation_gives_the_same_bytes(format: Format, tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    write_annotation(first, only(WHOLE, format), format.name)
    write_annotation(second, only(read_annotation(first, format.name), format), format.name)
    assert (
        format.render(only(WHOLE, format)).encode()
        == first.read_bytes()
        == second.read_bytes().replace(b'"a"', b'"song"')
    )


@pytest.mark.parametrize(
    ("name", "text", "line"), [(name, text, line) for name, cases in BAD.items() for text, line in cases]
)
def test_a_malformed_line_is_refused_with_its_number(name: str, text: str, line: int, tmp_path: Path) -> None:
    path = tmp_path / f"bad{FORMATS[name].suffixes[0]}"
    path.write_text(text)
    with pytest.raises(DataError, match=rf"(bad\.\w+:{line}:|line {line}\))"):
        read_annotation(path, name)


def test_every_format_has_bad_lines(format: Format) -> None:
    assert BAD[format.name]


def test_no_empty_binary_or_hostile_file_is_an_annotation(format: Format, tmp_path: Path) -> None:
    for content in (b"", b"\n \n", b"\xff\xfe\x00", b"{" * 5000, b"a: &a [*a]\n", b"[" * 100_000):
        path = tmp_path / f"bad{format.suffixes[0]}"
        path.write_bytes(content)
        with pytest.raises(DataError, match="bad"):
            read_annotation(path, format.name)


def test_a_format_without_the_part_says_so(format: Format, tmp_path: Path) -> None:
    if format.name in ("json", "yaml", "jams"):
        pytest.skip("holds everything")
    with pytest.raises(DataError, match="this annotation has n"):
        write_annotation(tmp_path / "x", Annotation("x", 1.0), format.name)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("name", ["json", "yaml", "jams"])
def test_whole_formats_keep_every_field(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"song{FORMATS[name].suffixes[0]}"
    write_annotation(path, WHOLE)
    back = read_annotation(path)
    assert back.duration == WHOLE.duration
    for part, then in WHOLE.parts.items():
        now = back.parts[part]
        assert now.provenance == then.provenance
        np.testing.assert_array_equal(now.known, then.known)
    np.testing.assert_array_equal(back.sections.energy, WHOLE.sections.energy)
    np.testing.assert_array_equal(back.grid.changes, WHOLE.grid.changes)
    assert (back.sections.functions, back.events.names) == (WHOLE.sections.functions, WHOLE.events.names)
    assert (back.events.places.tolist(), back.events.lengths.tolist()) == ([1, 1, 0], [0.0, 0.0, 2.0])


def test_errors_of_the_schema_name_field_and_line(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    head = "format: beatmeter annotation\nversion: 1\n"
    for text, said in (
        (
            "sections:\n  tier: 1\n  spans: []\n",
            r"a.yaml:4: sections: tier 1 means verified: name the verifier",
        ),
        (
            "grid:\n  beats:\n  - [1.0, 1]\n  - [0.5, 2]\n",
            r"a.yaml:6: grid.beats\[1\] at 0.5 s comes after 1 s",
        ),
        ("grid:\n  beats:\n  - [1.0, 1]\n  - [1.0, 2]\n", r"a.yaml:4: grid: beat 2 is not after"),
        ("grid:\n  beats:\n  - [one, 1]\n", r"a.yaml:5: grid.beats\[0\]\[0\]: .*got 'one'"),
        (
            "events:\n  events:\n  - {time: 1.0, kid: drop}\n",
            r"a.yaml:5: events.events\[0\].*kind: field required.*\(and 1 more\)",
        ),
        ("grid:\n  beats: []\n  known: [[3, 1]]\n", r"grid: a known interval ends before"),
        (
            "sections:\n  confidence: 1.2\n  spans: []\n",
            r"a.yaml:4: sections.confidence: .*less than or equal to 1, got 1.2",
        ),
    ):
        path.write_text(head + text)
        with pytest.raises(DataError, match=said):
            read_annotation(path)
    path.write_text("format: beatmeter annotation\nversion: 2\n")
    with pytest.raises(DataError, match="version 2, this beatmeter reads up to 1"):
        read_annotation(path)


def test_harmonix_beats_carry_the_number_of_the_bar(tmp_path: Path) -> None:
    path = tmp_path / "a.beats"
    path.write_text("0.5\t3\t1\n1.0\t4\t1\n1.5\t1\t2\n2.0\t2\t2\n")
    grid = read_annotation(path).grid
    assert grid.places.tolist() == [3, 4, 1, 2]
    assert grid.known.tolist() == [[0.0, 2.5]]
    path.write_text("0.5\t3\t2\n1.0\t4\t1\n")
    with pytest.raises(DataError, match=r"a.beats:2: bar 1 comes after bar 2"):
        read_annotation(path)


def test_text_files_are_told_apart_by_what_they_say(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("0.0 intro\n8.5 verse one\n20 end\n")
    spans = read_annotation(path).sections
    assert (spans.labels, spans.provenance.source) == (("intro", "verse one"), "Harmonix segments")
    path.write_text("0.000\tSilence\n1.5\tA\n1.5\tB\n9.0\tSilence\n10.0\tEnd\n")
    spans = read_annotation(path).sections
    assert (spans.labels, spans.boundaries.tolist(), spans.provenance.flags) == (
        ("B",),
        [1.5, 9.0],
        ("1 without length left out",),
    )
    path.write_text("1.0\t1.0\tdrop\n\\\t20.0\t90.0\n2.0\t4.0\tverse\n")
    both = read_annotation(path)
    assert (both.events.names, both.sections.labels) == (("drop",), ("verse",))
    path.write_text("hello world\n")
    with pytest.raises(DataError, match="is like none of them"):
        read_annotation(path)


def test_jams_of_others(tmp_path: Path) -> None:
    """Negative durations of single marks occur in published files; without a duration of the audio a file
    breaks the schema."""
    path = tmp_path / "a.jams"
    rows = [
        {"time": t, "duration": d, "value": v, "confidence": None}
        for t, d, v in ((0.0, 4.0, "A"), (4.0, -1.0, "B"), (5.0, 3.0, "C"))
    ]
    columns = {"time": [0.5, 1.0], "duration": [0.0, 0.0], "value": [1, 2.0], "confidence": [None, None]}
    one = {
        "namespace": "segment_open",
        "annotation_metadata": {"curator": {"name": "Bo", "email": ""}},
        "sandbox": {},
        "data": rows,
    }
    value = {
        "annotations": [one, {**one, "data": rows[:1]}, {"namespace": "beat", "data": columns}],
        "file_metadata": {"duration": 9.5},
    }
    path.write_text(json.dumps(value))
    found = read_annotation(path)
    assert (found.sections.labels, found.sections.provenance.source) == (("A", "C"), "Bo")
    assert found.sections.provenance.flags == ("1 with negative duration left out",)
    assert (found.grid.places.tolist(), found.duration) == ([1, 2], 9.5)
    for duration, said in (
        (-1.0, "duration is -1"),
        (None, "duration must be a number"),
        (..., "duration is missing"),
    ):
        value["file_metadata"] = {} if duration is ... else {"duration": duration}
        path.write_text(json.dumps(value))
        with pytest.raises(DataError, match=said):
            read_annotation(path)
    with pytest.raises(DataError, match="JAMS requires the duration"):
        write_annotation(path, Annotation("a"))


def test_jams_that_another_program_edited_keeps_its_marks(tmp_path: Path) -> None:
    path = tmp_path / "a.jams"
    write_annotation(path, WHOLE)
    value = json.loads(path.read_text())
    value["annotations"][1]["data"][0]["value"] = "Z"
    path.write_text(json.dumps(value))
    back = read_annotation(path)
    assert back.sections.labels == ("Z", "B'", "A")
    assert "edited by another program" in back.sections.provenance.flags
    assert back.grid.provenance == WHOLE.grid.provenance
