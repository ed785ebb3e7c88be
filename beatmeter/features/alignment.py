"""Local alignment of pitch classes over time: how long, and how well, two recordings play the same.

With cosines c(i, j) between frames of two recordings and s = c - 0.8, the score of the best local
alignment is the largest H of Smith and Waterman (1981) in the form of Serra, Serra and Andrzejak (2009,
Q-max):

    H(i, j) = max(0, H(i-1, j-1) + s, H(i-1, j) + g, H(i, j-1) + g),    g = 2 s where s < 0, s / 2 else:

where one recording stands still, what fits counts half and what does not fit counts twice (`Rule`). The
score of a pair is that of its best of twelve keys. Scores grow with the length that two recordings share:
at most 0.2 for each frame. Compiled by numba at the first call; arrays come in as `chroma` pooling
gives them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from beatmeter.errors import SchemaError

KEYS = 12

Chroma = Float[np.ndarray, "frame 12"]


@dataclass(frozen=True)
class Rule:
    """What alignment counts: `threshold` is the cosine at which two frames neither fit nor differ; where one
    recording stands still, what fits counts `fits` times and what does not fit `misses` times."""

    threshold: float = 0.8
    fits: float = 0.5
    misses: float = 2.0

    @property
    def numbers(self) -> Float[np.ndarray, 3]:
        """(3,) float32, as the compiled kernels take them."""
        return np.array([self.threshold, self.fits, self.misses], np.float32)


RULE = Rule()  # chosen on synthetic works: tools/similarity_choices.py


@dataclass(frozen=True)
class Alignment:
    """The best local alignment of a and b: `key` is by how many semitones b lies above a (0-11); `here` and
    `there` are the aligned frames of a and b, half-open; empty where nothing fits."""

    score: float
    key: int
    here: tuple[int, int]
    there: tuple[int, int]


def ready(chroma: Chroma, average: int = 1) -> Chroma:
    """Frames as alignment reads them: means over `average` neighbours, of length 1, float32. A frame where
    nothing sounds stays 0. Raises SchemaError for other shapes and for numbers that are not finite."""
    x = np.asarray(chroma, dtype=np.float32)
    if x.ndim != 2 or x.shape[1] != KEYS or not np.isfinite(x).all():
        raise SchemaError(f"alignment needs finite pitch classes (frame, {KEYS}), got {x.shape}")
    whole = len(x) // average * average
    if average > 1 and whole:
        x = x[:whole].reshape(-1, average, KEYS).mean(axis=1)
    length = np.sqrt(np.square(x).sum(axis=1, keepdims=True))
    result: np.ndarray = np.where(length > 1e-3, x / np.maximum(length, 1e-3), 0).astype(np.float32)
    return result


def scores(query: Chroma, others: Sequence[Chroma], rule: Rule = RULE) -> Float[np.ndarray, " other"]:
    """The score of the best alignment with each of `others`, best of twelve keys. All are `ready`."""
    if not others:
        return np.zeros(0, np.float32)
    starts = np.cumsum([0, *map(len, others)])
    joined = np.concatenate(list(others))
    found: np.ndarray = _kernels()[0](np.ascontiguousarray(query), joined, starts, rule.numbers)
    return found


def align(a: Chroma, b: Chroma) -> Alignment:
    """Where two recordings, `ready`, fit best."""
    score, key, i0, i1, j0, j1 = _kernels()[1](np.ascontiguousarray(a), np.ascontiguousarray(b), RULE.numbers)
    return Alignment(float(score), int(key), (int(i0), int(i1)), (int(j0), int(j1)))


@cache
def _kernels() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The compiled `_scores` and `_align`: kept on disk where there is a place for them."""
    import numba

    def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            return numba.njit(cache=True, nogil=True, fastmath=True)(function)  # type: ignore[no-any-return]
        except RuntimeError:  # no folder for the cache can be written
            return numba.njit(nogil=True, fastmath=True)(function)  # type: ignore[no-any-return]

    return compiled(_scores), compiled(_align)


def _scores(
    query: Chroma, joined: Chroma, starts: Int[np.ndarray, " edge"], rule: Float[np.ndarray, 3]
) -> Float[np.ndarray, " other"]:
    """Row by row of H, in two passes: what does not depend on the row's own earlier values, a vector at a
    time, then the steps along the row, four keys side by side, because each waits for the one before."""
    threshold, fits, misses = rule[0], rule[1], rule[2]
    n, found = len(query), np.zeros(len(starts) - 1, np.float32)
    for other in range(len(starts) - 1):
        m = starts[other + 1] - starts[other]
        turned = joined[starts[other] : starts[other + 1]].T.copy()
        row, h = np.empty(m, np.float32), np.zeros((12, m + 1), np.float32)
        entered, along = np.empty((12, m), np.float32), np.empty((12, m), np.float32)
        best = np.float32(0)
        for i in range(n):
            for key in range(12):
                row[:] = -threshold
                for c in range(0, 12, 4):
                    w0, w1, w2, w3 = query[i, c], query[i, c + 1], query[i, c + 2], query[i, c + 3]
                    line0, line1 = turned[(c + key) % 12], turned[(c + key + 1) % 12]
                    line2, line3 = turned[(c + key + 2) % 12], turned[(c + key + 3) % 12]
                    for j in range(m):
                        row[j] = (((row[j] + w0 * line0[j]) + w1 * line1[j]) + w2 * line2[j]) + w3 * line3[j]
                before, into, step = h[key], entered[key], along[key]
                for j in range(m):
                    s = row[j]
                    g = s * misses if s < 0 else s * fits
                    into[j] = max(max(before[j] + s, before[j + 1] + g), np.float32(0))
                    step[j] = g
            for key in range(0, 12, 4):
                h0 = h1 = h2 = h3 = np.float32(0)
                for j in range(m):
                    h0 = max(entered[key, j], h0 + along[key, j])
                    h1 = max(entered[key + 1, j], h1 + along[key + 1, j])
                    h2 = max(entered[key + 2, j], h2 + along[key + 2, j])
                    h3 = max(entered[key + 3, j], h3 + along[key + 3, j])
                    h[key, j + 1] = h0
                    h[key + 1, j + 1] = h1
                    h[key + 2, j + 1] = h2
                    h[key + 3, j + 1] = h3
                    best = max(best, max(max(h0, h1), max(h2, h3)))
        found[other] = best
    return found


def _align(a: Chroma, b: Chroma, rule: Float[np.ndarray, 3]) -> tuple[np.float32, int, int, int, int, int]:
    threshold, fits, misses = rule[0], rule[1], rule[2]
    n, m = len(a), len(b)
    best, best_key, i0, i1, j0, j1 = np.float32(0), 0, 0, 0, 0, 0
    for key in range(12):
        h = np.zeros((n + 1, m + 1), np.float32)
        begins = np.zeros((n + 1, m + 1, 2), np.int64)
        for i in range(n):
            for j in range(m):
                s = -threshold
                for c in range(12):
                    s += a[i, c] * b[j, (c + key) % 12]
                g = s * misses if s < 0 else s * fits
                diagonal, up, left = h[i, j] + s, h[i, j + 1] + g, h[i + 1, j] + g
                value = max(diagonal, up, left)
                if value <= 0:
                    continue
                h[i + 1, j + 1] = value
                if value == diagonal:
                    if h[i, j] > 0:
                        begins[i + 1, j + 1] = begins[i, j]
                    else:
                        begins[i + 1, j + 1, 0], begins[i + 1, j + 1, 1] = i, j
                elif value == up:
                    begins[i + 1, j + 1] = begins[i, j + 1]
                else:
                    begins[i + 1, j + 1] = begins[i + 1, j]
                if value > best:
                    best, best_key = value, key
                    i0, j0 = begins[i + 1, j + 1]
                    i1, j1 = i + 1, j + 1
    return best, best_key, i0, i1, j0, j1
