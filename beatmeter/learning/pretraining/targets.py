"""What every frame of a synthesised clip should be heard as: beat, downbeat, place in the bar, pace of beats
and bars."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from beatmeter.datasets.synth import Clip

BEAT_PERIODS = np.geomspace(0.18, 2.4, 32)  # seconds
BAR_PERIODS = np.geomspace(0.6, 6.0, 32)  # seconds
UNKNOWN = -1  # class of frames outside the grid


@dataclass(frozen=True)
class FrameTargets:
    """Targets of one clip at frame times, seconds.

    `beat` and `downbeat` (frame,) are 1 at the frame nearest to the event, 0.5 beside it, else 0; `phase`
    (frame, 2) is the cosine and sine of the place in the bar, 0 where there is no bar; `inside` (frame,) says
    where there is one; `beat_period` and `bar_period` (frame,) are classes of the log-spaced periods above,
    -1 where unknown.
    """

    beat: Float[np.ndarray, " frame"]
    downbeat: Float[np.ndarray, " frame"]
    phase: Float[np.ndarray, "frame 2"]
    inside: Float[np.ndarray, " frame"]
    beat_period: Int[np.ndarray, " frame"]
    bar_period: Int[np.ndarray, " frame"]


def frame_targets(clip: Clip, times: Float[np.ndarray, " frame"]) -> FrameTargets:
    """The targets of `clip` at the frame centres `times`, ascending, evenly spaced."""
    turn = 2 * np.pi * clip.bar_phase(times)
    inside = np.isfinite(turn)
    phase = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    phase[~inside] = 0
    return FrameTargets(
        beat=_events(clip.beats, times),
        downbeat=_events(clip.downbeats, times),
        phase=phase.astype(np.float32),
        inside=inside.astype(np.float32),
        beat_period=_period(clip.beats, times, BEAT_PERIODS),
        bar_period=_period(clip.downbeats, times, BAR_PERIODS),
    )


def _events(events: np.ndarray, times: np.ndarray) -> np.ndarray:
    target = np.zeros(len(times), dtype=np.float32)
    step = times[1] - times[0]
    at = np.round((events - times[0]) / step).astype(int)
    for offset, value in ((-1, 0.5), (1, 0.5), (0, 1.0)):
        here = at + offset
        target[here[(here >= 0) & (here < len(times))]] = value
    return target


def _period(events: np.ndarray, times: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """The class of the interval that each time lies in."""
    if len(events) < 2:
        return np.full(len(times), UNKNOWN)
    intervals = np.diff(events)
    at = np.searchsorted(events, times, side="right") - 1
    known = (at >= 0) & (at < len(intervals))
    log_grid = np.log(grid)
    place = (np.log(intervals[np.clip(at, 0, len(intervals) - 1)]) - log_grid[0]) / (
        log_grid[1] - log_grid[0]
    )
    classes = np.clip(np.round(place), 0, len(grid) - 1).astype(int)
    return np.where(known, classes, UNKNOWN)
