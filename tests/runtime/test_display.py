"""Text on a terminal: what wide letters and combining marks take, and cutting that never tears a letter from
its marks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beatmeter.errors import shown
from beatmeter.evaluation.report.text import table
from beatmeter.runtime.display import count, cut, fill, width_of


@pytest.mark.parametrize(
    ("text", "width"),
    [
        ("", 0),
        ("abc", 3),
        ("日本", 4),
        ("e\u0301", 1),
        ("é", 1),
        ("ｱ", 1),
        ("한국", 4),
        ("a\u200bb", 2),
        ("🎵", 2),
        ("…", 1),
    ],
)
def test_columns(text: str, width: int) -> None:
    assert width_of(text) == width
    assert width_of(fill(text, 10)) == width_of(fill(text, 10, right=True)) == 10
    assert fill(text, 10, right=True).endswith(text)


@given(st.text(st.sampled_from("ab日本e\u0301\u0308🎵 "), max_size=30), st.integers(3, 20))
def test_what_is_cut_fits_and_keeps_both_ends(text: str, width: int) -> None:
    short = cut(text, width)
    assert width_of(short) <= width
    if short != text:
        head, _, tail = short.partition("…")
        assert text.startswith(head)
        assert text.endswith(tail)
        assert not tail or width_of(tail[0]), "a mark keeps its letter"
        assert width_of(text) > width


def test_tables_line_up_in_columns() -> None:
    lines = table(["name", "n"], [["日本語", "1"], ["e\u0301tude", "22"]])
    assert {width_of(line) for line in lines} == {width_of(lines[0])}


def test_nouns() -> None:
    assert [count(n, "track") for n in (0, 1, 2)] == ["0 tracks", "1 track", "2 tracks"]
    assert count(2, "copy", "copies") == "2 copies"
    assert count(1, "copy", "copies") == "1 copy"


def test_spaces_of_other_scripts_stay_what_they_are() -> None:
    assert shown("あ\u3000い") == "あ\u3000い"
    assert shown("a\tb\nc\udcff\u2028") == "a\\tb\\nc\\udcff\\u2028"
