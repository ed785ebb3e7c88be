"""Chunks, frames and windows: where they lie, whatever the length of the track."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beatmeter.audio.chunking import Layout, chunk_starts, frame_count, row_count, row_spans, rows
from beatmeter.errors import AudioError, SchemaError
from beatmeter.schema import ChunkSpec, FeatureSpec, PoolingSpec

CHUNK = ChunkSpec()


def overlapping(frames: int) -> ChunkSpec:
    """Chunks that share so many frames with each neighbour."""
    return ChunkSpec(hop=120_000 - 320 * frames, tail_min=320, grid=320)


def spec(window: int = 6, step: int = 15, chunk: ChunkSpec = CHUNK) -> FeatureSpec:
    poolings = (
        PoolingSpec(
            "stats", "stats", "chunk", (1, 2), ("pool", "dim"), (2, 8), {"statistics": ["mean", "max"]}
        ),
        PoolingSpec("lag", "lag", "window", (1, 2), ("channel", "lag"), (3, 16), {"window": window}),
        PoolingSpec("frames", "frames", "frame", (2,), ("dim",), (8,), {"step": step}),
    )
    return FeatureSpec("toy", "1", "0" * 64, 2, 8, 320, 400, True, chunk, poolings)


def test_five_seconds_are_375_frames_at_75_hz() -> None:
    assert frame_count(120_080, 320, 400) == 375
    assert frame_count(120_000, 320, 400) == 374
    assert spec().frame_rate == 75


def test_thirty_seconds_are_six_chunks_without_drift() -> None:
    layout = Layout.of(720_000, spec())
    assert layout.starts == (0, 120_000, 240_000, 360_000, 480_000, 599_920)
    times = layout.frame_times()
    assert np.allclose(np.diff(times[:5].ravel()), 1 / 75)
    assert sum(layout.skips) == 0  # the last chunk starts 80 samples early, a quarter of a frame


@given(st.integers(24_000, 5_000_000))
def test_chunks_cover_the_track(samples: int) -> None:
    starts = chunk_starts(samples, CHUNK)
    length = min(samples, CHUNK.length)
    ends = [s + length for s in starts]
    assert starts[0] == 0
    assert ends[-1] <= samples
    assert samples - ends[-1] <= CHUNK.tail_min
    assert all(b <= e for b, e in zip(starts[1:], ends, strict=False)), "a gap between chunks"
    assert starts == sorted(set(starts))


@given(st.integers(24_000, 5_000_000), st.integers(1, 9))
def test_windows_share_all_chunks_evenly(samples: int, size: int) -> None:
    layout = Layout.of(samples, spec())
    windows = layout.windows(size)
    covered = [c for w in windows for c in range(*w.chunks)]
    assert covered == list(range(len(layout.starts)))
    lengths = [w.chunks[1] - w.chunks[0] for w in windows]
    assert max(lengths) - min(lengths) <= 1
    assert min(lengths) >= min(size, len(layout.starts))


@given(st.integers(24_000, 3_000_000))
def test_joined_frames_follow_each_other_at_the_frame_rate(samples: int) -> None:
    layout = Layout.of(samples, spec())
    times = layout.frame_times()
    joined = np.concatenate([times[c, skip:] for c, skip in enumerate(layout.skips)])
    gaps = np.diff(joined)
    assert (np.abs(gaps - 1 / 75) <= 0.5 / 75 + 1e-9).all(), "joins are off by at most half a frame"


@given(st.integers(24_000, 3_000_000), st.sampled_from([1, 3, 5, 15, 25, 75]))
def test_rows_count_every_frame_once(samples: int, step: int) -> None:
    s = spec(step=step)
    layout = Layout.of(samples, s)
    times, frames = rows(layout, s["frames"])
    assert (np.diff(times[:, 0]) > 0).all()
    assert (times[:, 1] > times[:, 0]).all()
    assert frames.sum() >= len(layout.starts) * layout.frames - sum(layout.skips)
    window_times, window_frames = rows(layout, s["lag"])
    assert len(window_times) == len(window_frames)
    assert window_times[-1, 1] <= samples / 24_000
    chunk_times, chunk_frames = rows(layout, s["stats"])
    assert chunk_frames.tolist() == [layout.frames] * len(layout.starts)
    assert chunk_times[0, 0] == 0


def test_a_tail_too_short_to_be_worth_a_chunk_adds_none() -> None:
    assert len(chunk_starts(120_080 + 12_000, CHUNK)) == 1
    assert len(chunk_starts(120_080 + 12_001, CHUNK)) == 2


def test_short_audio_is_refused_with_its_length() -> None:
    with pytest.raises(AudioError, match=r"0\.50 s of audio; at least 1 s"):
        chunk_starts(12_000, CHUNK)


@given(st.integers(24_000, 3_000_000), st.sampled_from([1, 3, 5, 15, 25]), st.sampled_from([48, 75, 90, 299]))
def test_rows_of_overlapping_chunks_are_one_even_sequence_to_the_end(
    samples: int, step: int, shared: int
) -> None:
    s = spec(step=step, chunk=overlapping(shared))
    layout = Layout.of(samples, s)
    times, frames = rows(layout, s["frames"])
    assert np.array_equal(np.round(times[:, 0] * 24_000).astype(int), np.arange(len(times)) * step * 320), (
        "no row is missing, none comes twice"
    )
    assert (frames[:-1] == step).all()
    assert 0 < frames[-1] <= step
    assert samples - times[-1, 1] * 24_000 <= 3 * 320, "the end is covered"
    assert len(times) == row_count(layout, s["frames"])


@given(st.integers(240_000, 3_000_000), st.sampled_from([1, 3, 15]), st.sampled_from([48, 75, 90]))
def test_frames_near_a_seam_are_those_of_the_chunk_that_has_them_further_inside(
    samples: int, step: int, shared: int
) -> None:
    layout = Layout.of(samples, spec(chunk=overlapping(shared)))
    last = len(layout.kept) - 1
    for i, kept in enumerate(layout.kept):
        first, *_, end = [*kept.edges(step), kept.edges(step)[-1]]
        assert first == 0 if i == 0 else first >= shared // 2 - step
        assert end == layout.frames if i == last else end <= layout.frames - shared // 2 + 1


def test_chunks_that_do_not_overlap_have_the_fingerprint_that_they_had() -> None:
    assert "grid" not in spec().to_json()["chunk"]
    other = spec(chunk=overlapping(75))
    assert FeatureSpec.from_json(other.to_json()) == other
    assert other.fingerprint != spec().fingerprint


@pytest.mark.parametrize(
    "chunk",
    [
        {"grid": -1},
        {"grid": 320, "hop": 100_001},
        {"grid": 320, "hop": 120_320},
        {"grid": 320, "hop": 96_000, "tail_min": 0},
    ],
)
def test_chunks_off_their_grid_are_refused(chunk: dict[str, int]) -> None:
    with pytest.raises(SchemaError, match="do not overlap on a grid"):
        ChunkSpec(**chunk)


def test_a_row_stands_at_the_centre_of_what_its_frames_see() -> None:
    s = spec(step=3)
    layout = Layout.of(720_000, s)
    times, _ = rows(layout, s["frames"])
    centres = row_spans(times, s).mean(axis=1)
    np.testing.assert_allclose(centres[:125], layout.frame_times()[0].reshape(-1, 3).mean(axis=1))
