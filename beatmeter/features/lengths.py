"""Lengths at which transforms of sequences are fast."""

from __future__ import annotations

import itertools
import math
from functools import cache


@cache
def fast_length(n: int) -> int:
    """Smallest even 2^a 3^b 5^c, b at most 4 and c at most 3, that is at least `n`. Not SciPy's
    `next_fast_len`: for some numbers of chunks it is smaller, which moves the last bits of stored features,
    and that takes a new LAG_VERSION."""
    best = 1 << max(1, (n - 1).bit_length())
    for five in (1, 5, 25, 125):
        for three in (1, 3, 9, 27, 81):
            twos = max(1, math.ceil(math.log2(max(1.0, n / (five * three)))))
            best = min(best, five * three << twos) if five * three << twos >= n else best
    return best


@cache
def even_faster_length(n: int) -> int:
    """Smallest 64 * 2^a 3^b 5^c 7^d that is at least `n`, where last bits may move."""
    for blocks in itertools.count(-(-n // 64)):
        rest = blocks
        for factor in (2, 3, 5, 7):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return 64 * blocks
    raise AssertionError
