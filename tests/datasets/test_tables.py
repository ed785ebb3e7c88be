"""Tables: the same cells whatever program wrote them, and file:line for what cannot be read."""

from __future__ import annotations

import contextlib
import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beatmeter.datasets.tables import read_columns, read_table
from beatmeter.errors import DataError

cells = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), max_size=12)
plain = st.text(
    st.characters(whitelist_categories=("L", "N", "P"), blacklist_characters='",\t;', max_codepoint=0x3000),
    min_size=1,
    max_size=8,
)


def table(folder: Path, text: str | bytes, name: str = "a.csv"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_table(path)


@given(
    st.lists(st.tuples(cells, cells, cells), max_size=6),
    st.sampled_from(["\t", ",", ";"]),
    st.sampled_from(["\n", "\r\n"]),
)
def test_quoted_cells_survive(
    tmp_path_factory, rows: list[tuple[str, ...]], delimiter: str, ends: str
) -> None:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator=ends, quoting=csv.QUOTE_ALL)
    writer.writerows([("filename", "Label", " meter "), *rows])
    found = table(tmp_path_factory.mktemp("t"), text.getvalue(), "a.csv" if delimiter != "\t" else "a.tab")
    assert found.columns == ("filename", "label", "meter")
    expected = [row for row in rows if any(cell.strip() for cell in row)]
    assert [(r.cells["filename"], r.cells["label"], r.cells["meter"]) for r in found.rows] == expected
    assert not any(r.problem for r in found.rows)


@given(st.lists(st.lists(plain, min_size=1, max_size=5), max_size=8))
def test_every_row_comes_back(tmp_path_factory, rows: list[list[str]]) -> None:
    text = "\n".join(["a,b,c", *(",".join(row) for row in rows), ""])
    found = table(tmp_path_factory.mktemp("t"), text)
    assert len(found.rows) == len(rows)
    for n, (row, cells) in enumerate(zip(found.rows, rows, strict=True)):
        assert row.where == f"a.csv:{n + 2}"
        assert bool(row.problem) == (len(cells) != 3)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(tmp_path_factory, data: bytes) -> None:
    folder = tmp_path_factory.mktemp("t")
    (folder / "a.csv").write_bytes(data)
    with contextlib.suppress(DataError):
        rows = read_table(folder / "a.csv").rows
        assert all(row.where.startswith("a.csv:") for row in rows)
    read_columns(folder / "a.csv")


def test_lines_are_counted_through_line_breaks_in_cells(tmp_path: Path) -> None:
    found = table(tmp_path, 'file,class\n"one\ntwo.wav",3\n\nthree.wav,4\nfour.wav\n')
    assert [(r.where, r.cells["file"]) for r in found.rows] == [
        ("a.csv:2", "one\ntwo.wav"),
        ("a.csv:5", "three.wav"),
        ("a.csv:6", "four.wav"),
    ]
    assert found.rows[2].problem == "1 cells, the header has 2"


def test_encodings(tmp_path: Path) -> None:
    text = "file,class\ncafé.wav,3\n"
    for data in (text.encode(), text.encode("utf-8-sig"), text.encode("utf-16")):
        assert table(tmp_path, data).rows[0].cells["file"] == "café.wav"
    assert table(tmp_path, text.encode("latin-1")).rows[0].cells["file"].encode(
        "utf-8", "surrogateescape"
    ) == "café.wav".encode("latin-1")


def test_spaces_stay_in_cells(tmp_path: Path) -> None:
    row = table(tmp_path, "file,class, x\n a b .wav , 3,\n").rows[0]
    assert row.cells["file"] == " a b .wav "
    assert row.text("class") == "3"
    assert row.text("x", "file") == "a b .wav"
    assert row.others({"class"}) == {"file": " a b .wav "}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("a,b,a\n1,2,3\n", "names a column twice: a"),
        ('a,b\n1,2\n"open,3\n', "a.csv:3"),
        ('a,b\n"x"y,2\n', "a.csv:2"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(DataError) as error:
        table(tmp_path, text)
    assert words in str(error.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no file .*absent\.csv"):
        read_table(tmp_path / "absent.csv")
    assert read_columns(tmp_path / "absent.csv") == ()
