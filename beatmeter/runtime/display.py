"""Text on a terminal: how many columns it takes, cutting and filling to a width, and numbers with their
nouns."""

from __future__ import annotations

import unicodedata

_ZERO = {"Mn", "Me", "Cf"}  # marks on the letter before, and invisible signs


def width_of(text: str) -> int:
    """Columns of `text` on a terminal: 2 for wide East Asian letters and emoji, 0 for combining marks
    (Unicode Standard Annex 11)."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.category(c) in _ZERO else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def fill(text: str, width: int, right: bool = False) -> str:
    """`text` with spaces after it, or before it, up to `width` columns."""
    spaces = " " * max(0, width - width_of(text))
    return spaces + text if right else text + spaces


def cut(text: str, width: int) -> str:
    """`text` in at most `width` columns, its middle left out."""
    if width_of(text) <= width:
        return text
    half = (width - 1) // 2
    return f"{_head(text, width - 1 - half)}…{_tail(text, half)}"


def _head(text: str, width: int) -> str:
    """The longest beginning of at most `width` columns, with the marks on its last letter."""
    end = columns = 0
    for end, c in enumerate(text):
        columns += width_of(c)
        if columns > width:
            return text[:end]
    return text


def _tail(text: str, width: int) -> str:
    """The longest end of at most `width` columns; it begins with a letter, not with a mark on one."""
    begin, columns = len(text), 0
    for i in range(len(text) - 1, -1, -1):
        columns += width_of(text[i])
        if columns > width:
            break
        if width_of(text[i]):
            begin = i
    return text[begin:]


def count(n: int, noun: str, plural: str = "") -> str:
    """ "1 track", "2 tracks"; `plural` where s or es is not enough."""
    return f"{n} {noun}" if n == 1 else f"{n} {plural or noun + ('es' if noun.endswith('s') else 's')}"
