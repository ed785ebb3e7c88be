"""Versions of a synthetic work: the same bytes anywhere, the same piece in another key, tempo and band."""

from __future__ import annotations

import numpy as np

from beatmeter.datasets.synth.versions import MANNERS, compose, render_version
from beatmeter.features.alignment import align, ready, scores
from beatmeter.features.views import views_of

SECONDS = 12.0


def test_a_version_is_the_same_bytes_again_and_another_version_is_not() -> None:
    one, again, other = (render_version(5, v, seconds=4.0) for v in (2, 2, 3))
    assert np.array_equal(one.clip.audio, again.clip.audio)
    assert (one.transpose, one.tempo_ratio, one.start) == (again.transpose, again.tempo_ratio, again.start)
    assert not np.array_equal(one.clip.audio, other.clip.audio)


def test_version_0_is_as_written_and_the_others_take_the_manners_in_turn() -> None:
    found = [render_version(3, v, seconds=2.0) for v in range(5)]
    assert [v.manner for v in found] == [*MANNERS, "keyboard"]
    assert (found[0].transpose, found[0].tempo_ratio, found[0].start) == (0, 1.0, 0.0)
    assert all(0.72 <= v.tempo_ratio <= 1.35 and -5 <= v.transpose <= 6 for v in found)


def test_a_piece_has_a_melody_and_does_not_move() -> None:
    a, b = compose(11, 10.0), compose(11, 10.0)
    assert len(a.parts[a.melody][1])
    assert all(np.array_equal(x, y) for (_, x), (_, y) in zip(a.parts, b.parts, strict=True))


def test_versions_align_with_their_work_and_say_the_key() -> None:
    """Of three works, each keyboard version fits its own work best, by the transposition that was drawn."""
    seeds = (21, 22, 23)
    scored = [ready(views_of(render_version(s, 0, seconds=SECONDS).clip.audio).chroma) for s in seeds]
    versions = [render_version(s, 1, seconds=SECONDS) for s in seeds]
    heard = [ready(views_of(v.clip.audio).chroma) for v in versions]
    table = np.stack([scores(h, scored) for h in heard])
    assert table.argmax(axis=1).tolist() == [0, 1, 2]
    keys = [align(s, h).key for s, h in zip(scored, heard, strict=True)]
    assert sum(key == v.transpose % 12 for key, v in zip(keys, versions, strict=True)) >= 2
