"""Chunks, frames and windows: where they lie, whatever the length of the track."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beatmeter.audio.chunking import Layout, chunk_starts, frame_count, rows
from beatmeter.errors import AudioError
from beatmeter.schema import ChunkSpec, FeatureSpec, PoolingSpec

CHUNK = ChunkSpec()


def spec(window: int = 6, step: int = 15) -> FeatureSpec:
    poolings = (
        PoolingSpec(
            "stats", "stats", "chunk", (1, 2), ("pool", "dim"), (2, 8), {"statistics": ["mean", "max"]}
        ),
        PoolingSpec("lag", "lag", "window", (1, 2), ("channel", "lag"), (3, 16), {"window": window}),
        PoolingSpec("frames", "frames", "frame", (2,), ("dim",), (8,), {"step": step}),
    )
    return FeatureSpec("toy", "1", "0" * 64, 2, 8, 320, 400, True, CHUNK, poolings)


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
