"""Bars as a beat tracker knows them: how many beats there are, and how long each is against the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from beatmeter.datasets.groupings import GROUPINGS as NAMED
from beatmeter.datasets.groupings import read_grouping

# share of each meter in music, for clips of which nothing else is known
MUSIC: Mapping[str, float] = {"4": 0.6, "3": 0.22, "7": 0.06, "5": 0.05, "9": 0.04, "11": 0.03}

# the beats of a bar, in pulses, and how often each is met in its meter; the classes are those of the meter
# task, where
# 2/4 counts as 4, 6/8 and 9/8 count as 3. Additive bars have beats of two and three pulses.
GROUPINGS: Mapping[str, tuple[tuple[str, float], ...]] = {
    "3": (("1+1+1", 0.65), ("1+1", 0.35)),
    "4": (("1+1+1+1", 0.8), ("1+1", 0.2)),
    "5": (("1+1+1+1+1", 0.5), ("3+2", 0.25), ("2+3", 0.25)),
    "7": (("1+1+1+1+1+1+1", 0.35), ("2+2+3", 0.3), ("3+2+2", 0.25), ("2+3+2", 0.1)),
    "9": (("2+2+2+3", 0.5), ("3+2+2+2", 0.2), ("2+3+2+2", 0.15), ("2+2+3+2", 0.15)),
    "11": (("2+2+3+2+2", 0.45), ("3+3+3+2", 0.2), ("2+2+2+2+3", 0.2), ("3+2+2+2+2", 0.15)),
}


@dataclass(frozen=True)
class Pattern:
    """One kind of bar: `beats` are the lengths of its beats against their mean, `weight` its share in
    music, `pulses` the lengths in pulses where pulses are asked for."""

    meter: str
    beats: tuple[float, ...]
    weight: float
    pulses: tuple[int, ...] = ()


def patterns(prior: Mapping[str, float] | None = None, least: float = 0.01) -> list[Pattern]:
    """The kinds of bars with their probabilities, those of at least `least`, given the probability of each
    meter."""
    chances = dict(MUSIC if prior is None else prior)
    total = sum(max(0.0, chances.get(meter, 0.0)) for meter in GROUPINGS) or 1.0
    found = []
    for meter, groupings in GROUPINGS.items():
        for text, share in groupings:
            pulses = np.array([int(part) for part in text.split("+")], float)
            weight = max(0.0, chances.get(meter, 0.0)) / total * share
            if weight >= least:
                found.append(Pattern(meter, tuple((pulses / pulses.mean()).tolist()), weight))
    return found or [Pattern("4", (1.0,) * 4, 1.0)]


def patterns_of(meter: str) -> list[Pattern]:
    """The kinds of bars of one additive meter, with pulses: every grouping that is told apart in it, equally
    probable, and, as probable as all of these, a beat on every pulse."""
    additive = [groups for name in NAMED[meter] if set(groups := read_grouping(name)) == {2, 3}]
    found = [_of_pulses(meter, groups, 1 / len(additive)) for groups in additive]
    return [*found, _of_pulses(meter, (1,) * int(meter), 1.0)]


def _of_pulses(meter: str, pulses: tuple[int, ...], weight: float) -> Pattern:
    mean = sum(pulses) / len(pulses)
    return Pattern(meter, tuple(n / mean for n in pulses), weight, pulses)
