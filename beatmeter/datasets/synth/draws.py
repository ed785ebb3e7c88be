"""Random streams and weighted draws."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def stream(seed: int, name: str) -> np.random.Generator:
    """The generator of one concern of one clip: its draws do not move when another concern draws more."""
    return np.random.Generator(np.random.PCG64([seed, zlib.crc32(name.encode())]))


def pick(rng: np.random.Generator, table: Sequence[tuple[T, float]]) -> T:
    """Draw from (value, weight) rows."""
    point = rng.random() * sum(weight for _, weight in table)
    for value, weight in table:
        point -= weight
        if point < 0:
            return value
    return table[-1][0]


def one_of(rng: np.random.Generator, values: Sequence[T]) -> T:
    """Draw evenly."""
    return values[int(rng.random() * len(values))]
