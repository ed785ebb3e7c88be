"""From what a table says of the meter to classes with weights.

    3            one class                     3,4          two, both with weight 1
    three        the same in a word            3:0.7,4:1    two with weights in (0, 1]
    6/8          by its numerator              3:4          a polyrhythm: both with weight 1

A meter that is no class itself folds into one by the convention of METER2800, where it can: see FOLD. The
primary class is the heaviest; of equals, the one named first.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from beatmeter.errors import DataError

FOLD = {"2": "4", "8": "4", "12": "4", "16": "4", "6": "3", "10": "5", "14": "7"}
_WORDS = (
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
)
_NUMBER = {word: str(n) for n, word in enumerate(_WORDS, 1)}
_POLYRHYTHM = re.compile(r"\s*\d+\s*(:\s*\d+\s*)+")


class Labels(NamedTuple):
    """Weight in (0, 1] of every class that applies, and the primary one."""

    weights: dict[str, float]
    primary: str


def parse_labels(cell: str, classes: Sequence[str]) -> Labels:
    """Read one cell. Raises DataError whose text says why it cannot be used."""
    text = cell.strip()
    if not text:
        raise DataError("it has no label")
    if text in classes:
        return Labels({text: 1.0}, text)
    if "+" in text:
        raise DataError(
            f"label {text!r} is ambiguous: a grouping of one bar or two meters",
            "Write 7 for the one, 3,4 for the other.",
        )
    if _POLYRHYTHM.fullmatch(text) and not {"0", "1"} & {
        *(parts := [_plain(part) for part in text.split(":")])
    }:
        items = [(part, 1.0) for part in parts]
    else:
        items = [_weighted(item) for item in text.split(",")]
    weights: dict[str, float] = {}
    for name, weight in items:
        known = to_class(name, classes)
        weights[known] = max(weight, weights.get(known, 0.0))
    return Labels(weights, max(weights, key=lambda name: weights[name]))


def format_labels(weights: Mapping[str, float], primary: str) -> str:
    """The cell that `parse_labels` reads as these labels, if `primary` is the heaviest: it comes first."""
    names = sorted(weights, key=lambda name: name != primary)
    return ",".join(name if weights[name] == 1 else f"{name}:{weights[name]:.12g}" for name in names)


def to_class(name: str, classes: Sequence[str]) -> str:
    """The class that a meter counts as. Raises DataError when there is none."""
    plain = _plain(name)
    for candidate in (name.strip(), plain, FOLD.get(plain, plain)):
        if candidate in classes:
            return candidate
    raise DataError(f"meter {name.strip()!r} is not one of the classes {', '.join(classes)}")


def _weighted(item: str) -> tuple[str, float]:
    name, colon, text = item.rpartition(":")
    if not colon:
        return item, 1.0
    try:
        weight = float(text)
    except ValueError:
        raise DataError(f"weight {text.strip()!r} of meter {name.strip()!r} is not a number") from None
    if not (math.isfinite(weight) and 0 < weight <= 1):
        raise DataError(f"weight {text.strip()} of meter {name.strip()!r} is outside (0, 1]")
    return name, weight


def _plain(name: str) -> str:
    """A meter as a plain number: words, 3.0, 03 and time signatures by their numerator."""
    text = name.strip().lower()
    numerator, slash, denominator = text.partition("/")
    if slash and numerator.isdecimal() and denominator.isdecimal():
        text = numerator
    text = _NUMBER.get(text, text)
    return str(int(text.partition(".")[0])) if re.fullmatch(r"\d{1,9}(\.0+)?", text) else text
