"""Versions of a synthetic work: the same bytes anywhere, the same piece in another key, tempo and band."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from beatmeter.datasets import open_dataset
from beatmeter.datasets.synth.versions import MANNERS, compose, render_version
from beatmeter.datasets.synthetic_works import TONICS, WorkPlan, synthesise_works
from beatmeter.errors import DataError
from beatmeter.features.alignment import align, ready, scores
from beatmeter.features.views import views_of
from beatmeter.settings import METERS, DataConfig

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


def test_a_set_of_works_keeps_its_clips_when_it_grows_and_its_works_in_one_split(tmp_path: Path) -> None:
    plan = WorkPlan(seed=3, seconds=2.0, format="wav")
    synthesise_works(tmp_path / "w", 4, 2, plan)
    first = {p.name: p.read_bytes() for p in (tmp_path / "w" / "audio").iterdir()}
    assert len(first) == 8
    made = synthesise_works(tmp_path / "w", 5, 3, plan)
    assert (made.made, made.kept) == (7, 8)
    assert all((tmp_path / "w" / "audio" / name).read_bytes() == data for name, data in first.items())
    tracks = open_dataset(tmp_path / "w", DataConfig(path=str(tmp_path / "w")), METERS).tracks
    assert len(tracks) == 15
    for work in {t.extra["work"] for t in tracks}:
        own = [t for t in tracks if t.extra["work"] == work]
        assert [t.extra["manner"] for t in own] == ["score", "keyboard", "ensemble"]
        assert {(t.group, t.split) for t in own} == {(work, own[0].split)}
        home = TONICS.index(own[0].extra["key"])
        for t in own:
            assert TONICS.index(t.extra["key"]) == (home + int(t.extra["transpose"])) % 12
    assert {t.split for t in tracks} == {"train", "val", "test"}
    with pytest.raises(DataError, match="of other settings: seed 3, not 4"):
        synthesise_works(tmp_path / "w", 1, 2, WorkPlan(seed=4, seconds=2.0, format="wav"))
