"""How the pulses of a bar are grouped: the name of a grouping, and what kind of meter it makes.

A grouping is written by its twos and threes: "2+2+3". 4 counts as 2+2, 5 as 3+2 and 6 as 3+3 there, and a bar
that is twice the same is written once (10/8 in 3+2+3+2 is "3+2"). A bar of twos alone, or of one group, is
simple, one of threes alone compound, and one of both additive. Classes fold as METER2800 has them: 6/8 (3+3)
and 9/8 in threes (3+3+3) are 3, 12/8 (3+3+3+3) is 4, and 9/8 as 2+2+2+3 is 9.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

Kind = Literal["simple", "compound", "additive"]

# What is told apart, by class. The order is that of a head's outputs.
GROUPINGS: dict[str, tuple[str, ...]] = {
    "3": ("3", "3+3", "3+3+3"),
    "4": ("4", "3+3+3+3", "3+3+2"),
    "5": ("3+2", "2+3", "3+3+2+2", "3+3+3+3+3"),
    "7": ("2+2+3", "3+2+2", "2+3+2"),
    "9": ("2+2+2+3", "3+2+2+2", "2+3+2+2", "2+2+3+2"),
    "11": (
        "2+2+3+2+2",
        "3+3+3+2",
        "2+2+2+2+3",
        "3+2+3+3",
        "3+2+2+2+2",
        "2+3+3+3",
    ),
}
ADDITIVE = ("5", "7", "9", "11")  # meters whose bars are of twos and threes
_PARTS = {4: (2, 2), 5: (3, 2), 6: (3, 3)}


def grouping_of(meter: str, groups: Sequence[int]) -> str | None:
    """The name in `GROUPINGS` of a bar of this class with these pulses per group; None where they name none,
    as one group of seven does."""
    known = GROUPINGS.get(meter, ())
    if not groups:
        return None
    if meter == "3" and tuple(groups) == (3,):
        return "3"
    parts = parts_of(groups)
    if meter == "4" and not any(part % 2 for part in parts):
        return "4"
    half = len(parts) // 2
    doubled = len(parts) % 2 == 0 and parts[:half] == parts[half:] and meter in ("5", "7", "9", "11")
    name = "+".join(map(str, parts[:half] if doubled else parts))
    return name if name in known else None


def parts_of(groups: Sequence[int]) -> tuple[int, ...]:
    """The twos and threes of groups: (4, 3, 4) is (2, 2, 3, 2, 2)."""
    return tuple(part for group in groups for part in _PARTS.get(group, (group,)))


def kind_of(grouping: str) -> Kind:
    """Simple, compound or additive."""
    parts = grouping.split("+")
    if len(parts) == 1:
        return "simple"
    return "compound" if set(parts) == {"3"} else "simple" if set(parts) == {"2"} else "additive"


def read_grouping(text: str) -> tuple[int, ...]:
    """`2+2+3` as numbers; empty where it is none."""
    parts = text.replace(" ", "").split("+")
    return tuple(map(int, parts)) if all(part.isascii() and part.isdigit() for part in parts) else ()
