"""Local alignment: it finds the shared part in any key and tempo, and equals the recursion."""

from __future__ import annotations

import numpy as np
import pytest

from beatmeter.errors import SchemaError
from beatmeter.features.alignment import RULE, align, ready, scores

RNG = np.random.default_rng(0)


def music(frames: int, seed: int) -> np.ndarray:
    """Random pitch classes that stand still for a few frames at a time."""
    rng = np.random.default_rng(seed)
    rows = rng.random((frames // 3 + 1, 12)) ** 20
    return ready(np.repeat(rows, 3, axis=0)[:frames])


def recursion(a: np.ndarray, b: np.ndarray) -> float:
    """H of the module's docstring, term by term."""
    best = 0.0
    for key in range(12):
        s = a @ np.roll(b, -key, axis=1).T - RULE.threshold
        h = np.zeros((len(a) + 1, len(b) + 1))
        for i in range(len(a)):
            for j in range(len(b)):
                g = 2 * s[i, j] if s[i, j] < 0 else s[i, j] / 2
                h[i + 1, j + 1] = max(0, h[i, j] + s[i, j], h[i, j + 1] + g, h[i + 1, j] + g)
        best = max(best, h.max())
    return best


def test_equals_the_recursion_and_both_ways_agree() -> None:
    pieces = [music(n, seed) for seed, n in enumerate((30, 17, 24))]
    found = scores(pieces[0], pieces[1:])
    assert found.tolist() == pytest.approx([recursion(pieces[0], p) for p in pieces[1:]], rel=1e-4)
    assert align(pieces[0], pieces[1]).score == pytest.approx(found[0], rel=1e-4)
    assert scores(pieces[1], pieces[:1])[0] == pytest.approx(found[0], rel=1e-4)


def test_the_shared_part_is_found_in_another_key_at_another_tempo() -> None:
    shared = music(60, 1)
    slower = shared[np.arange(78) * 60 // 78]
    here = np.concatenate([music(20, 2), shared, music(20, 3)])
    there = np.concatenate([music(33, 4), np.roll(slower, 5, axis=1), music(10, 5)])
    found = align(here, there)
    assert found.key == 5
    assert found.here == pytest.approx((20, 80), abs=6)
    assert found.there == pytest.approx((33, 111), abs=6)
    assert found.score > 3 * scores(here, [music(110, 6)])[0]


def test_a_recording_fits_itself_from_end_to_end() -> None:
    piece = music(40, 7)
    found = align(piece, piece)
    assert (found.key, found.here, found.there) == (0, (0, 40), (0, 40))
    assert found.score == pytest.approx(40 * (1 - RULE.threshold), rel=1e-4)


def test_silence_fits_nothing() -> None:
    silence = ready(np.zeros((20, 12)))
    assert scores(silence, [music(20, 8)]).tolist() == [0]
    found = align(silence, music(20, 8))
    assert (found.score, found.here, found.there) == (0, (0, 0), (0, 0))
    assert scores(music(9, 1), []).shape == (0,)


def test_frames_are_averaged_and_of_length_one() -> None:
    x = RNG.random((9, 12))
    found = ready(x, 2)
    assert found.shape == (4, 12)
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    mean = x[:2].mean(axis=0)
    assert np.allclose(found[0], mean / np.linalg.norm(mean), atol=1e-5)


@pytest.mark.parametrize("bad", [np.zeros((3, 11)), np.full((3, 12), np.nan), np.zeros(12)])
def test_other_arrays_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(SchemaError, match="pitch classes"):
        ready(bad)
