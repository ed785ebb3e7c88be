"""Crops in training: one draw in seconds for both regimes, mapped to the rows of every pooling."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from noisefolders import RATE, noise_source, write_noises

from beatmeter.audio import augment
from beatmeter.audio.chunking import Layout, rows
from beatmeter.features.crops import SHORTEST, VIEWS, crop_of, draw_views
from beatmeter.features.poolings import pooling_of
from beatmeter.features.tracks import Excerpt, TrackEncoder
from beatmeter.learning.sources import Frozen, Source, Streamed, in_order
from beatmeter.schema import ChunkSpec, FeatureSpec, PoolingSpec, Track
from beatmeter.settings import RunConfig

CPU = torch.device("cpu")
POOLINGS = (
    PoolingSpec(
        "stats", "stats", "chunk", (1,), ("pool", "dim"), (1, 4), {"statistics": ["mean"], "version": 1}
    ),
    PoolingSpec("lag", "lag", "window", (1,), ("channel", "lag"), (1, 4), {"window": 2}),
    PoolingSpec("lag30", "lag", "window", (1,), ("channel", "lag"), (1, 4), {"window": 6}),
    PoolingSpec("frames", "frames", "frame", (1,), ("dim",), (4,), {"step": 15, "version": 1}),
)
SPEC = FeatureSpec("b", "1", "w", 1, 4, 320, 400, False, ChunkSpec(), POOLINGS)


def key_of(i: int) -> str:
    return f"{i * 0x9E3779B97F4A7C15:064x}"


@pytest.mark.parametrize("pooling", POOLINGS, ids=lambda p: p.name)
def test_a_crop_takes_the_rows_that_lie_in_it_for_every_pooling_and_length(pooling: PoolingSpec) -> None:
    taken = set()
    for i, seconds in enumerate((1.0, 3.3, 5.003, 5.6, 7.0, 9.99, 10.4, 16.0, 23.4, 30.0, 61.0, 65.2, 184.7)):
        layout = Layout.of(round(seconds * RATE), SPEC)
        times = rows(layout, pooling)[0]
        longest = float((times[:, 1] - times[:, 0]).max())
        for view in range(1 + VIEWS):
            start, end = crop_of(key_of(i), view, seconds)
            assert 0 <= start < end <= seconds + 1e-9
            assert end - start >= SHORTEST * seconds - 1e-9
            first, last = pooling_of(pooling).crop(times, (start, end))
            assert 0 <= first < last <= len(times)
            if view == 0 or len(times) == 1:
                assert (first, last) == (0, len(times))
            assert times[first, 0] >= start - longest / 2 - 1e-9, (
                "no row begins more than half of its length before the crop"
            )
            assert times[last - 1, 1] <= end + longest / 2 + 1e-9
            inside = (times[:, 0] >= start) & (times[:, 1] <= end)
            assert set(np.flatnonzero(inside)) <= set(range(first, last)), (
                "every row that lies in the crop is taken"
            )
            taken.add((first, last, len(times)))
    assert any((a, b) != (0, n) for a, b, n in taken), "some crop leaves rows out"


def test_the_view_of_a_track_follows_from_seed_and_position() -> None:
    views = draw_views(4000, 0.5, (3, 1))
    assert np.array_equal(views, draw_views(4000, 0.5, (3, 1)))
    assert not np.array_equal(views, draw_views(4000, 0.5, (3, 2)))
    assert abs((views > 0).mean() - 0.5) < 0.04
    assert set(views.tolist()) == set(range(1 + VIEWS))
    assert not draw_views(10, 0.0, (1,)).any()


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noises of many lengths whose level changes every second, so that every row of a track is another."""
    return write_noises(tmp_path_factory.mktemp("crops"), (1.7, 5.1, 9.3, 16.0, 23.4, 31.2))


def both(
    clips: Path, cache: Path, window: int, **augment: float
) -> tuple[RunConfig, list[Track], Frozen, Streamed]:
    values = {
        "features": {"window": window, "statistics": ("mean", "max", "std")},
        "head": {"poolings": ("stats", "lag")},
    }
    config, tracks, frozen = noise_source(clips, cache, "frozen", values, augment)
    _, _, streamed = noise_source(clips, cache, "streamed", values, augment)
    assert isinstance(frozen, Frozen)
    assert isinstance(streamed, Streamed)
    return config, tracks, frozen, streamed


def features(
    source: Source, tracks: list[Track], seed: tuple[int, ...] | None, size: int
) -> dict[str, np.ndarray]:
    source.encoder.eval()
    with torch.inference_mode():
        batches = [
            source.encoder(b.inputs) for b in source.batches(tracks, in_order(len(tracks), size), seed)
        ]
    return {name: torch.cat([b[name].float() for b in batches]).numpy() for name in batches[0]}


@pytest.mark.parametrize("window", [1, 2, 6])
def test_both_regimes_crop_alike(window: int, clips: Path, tmp_path: Path) -> None:
    _, tracks, frozen, streamed = both(clips, tmp_path / "cache", window)
    whole = features(frozen, tracks, None, 6)
    for epoch in range(3):
        stored, made = features(frozen, tracks, (5, epoch), 6), features(streamed, tracks, (5, epoch), 4)
        for name in ("stats", "lag"):
            assert np.abs(stored[name] - made[name]).max() < 5e-3 * max(1.0, np.abs(whole[name]).max()), (
                name,
                epoch,
            )  # the store keeps float16
            lengths = [frozen._snapshot().lengths([frozen.keys[t.id]])[0] for t in tracks]
            several = np.array(
                [len(rows(Layout.of(int(n), frozen.spec), frozen.spec[name])[0]) > 1 for n in lengths]
            )
            moved = np.abs(stored[name] - whole[name]).reshape(len(tracks), -1).max(axis=1) > 0
            assert not (moved & ~several).any(), "a track of one row stays whole"
            assert moved.any() == several.any(), "of several rows a crop takes fewer"


def test_a_crop_stays_where_it_is_in_the_music_when_the_grid_moves(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, tracks, _, streamed = both(clips, tmp_path / "cache", 2, shift=0.5)
    monkeypatch.setattr(augment, "shift", lambda wave, rng, settings, chunk: wave[6000:])
    batch = next(streamed.batches(tracks, [np.arange(len(tracks))], (5, 0)))
    for track, view, excerpt in zip(tracks, draw_views(len(tracks), 1.0, (5, 0)), batch.inputs, strict=True):
        samples = streamed.waves.samples(streamed.keys[track.id])
        assert samples is not None
        assert len(excerpt.wave) == samples - 6000
        start, end = crop_of(streamed.keys[track.id], int(view), samples / RATE)
        assert excerpt.crop == pytest.approx((start - 0.25, end - 0.25))


def test_the_encoder_pools_what_the_crop_leaves(clips: Path, tmp_path: Path) -> None:
    """Rows outside of the crop have no part in it: other music there changes nothing."""
    _, _, _, streamed = both(clips, tmp_path / "cache", 1)
    assert isinstance(streamed.encoder, TrackEncoder)
    wave = np.random.default_rng(1).standard_normal(RATE * 16).astype(np.float32) * 0.1
    other = wave.copy()
    other[RATE * 10 + 80 :] *= 0.01
    streamed.encoder.eval()
    with torch.inference_mode():
        one, two = (streamed.encoder([Excerpt(w, (0.2, 9.0))]) for w in (wave, other))
        three, four = (streamed.encoder([Excerpt(w)]) for w in (wave, other))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert all(not torch.equal(three[name], four[name]) for name in one)
