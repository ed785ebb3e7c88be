"""What every frame of a synthesised clip should be heard as: beat, downbeat, place in the bar and in the
beat, pace of beats and bars, bars of a second meter, change of chord; and what the clip is: which meters it
is in, how its bars are grouped."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Float, Int

from beatmeter.datasets.groupings import GROUPINGS, grouping_of
from beatmeter.datasets.synth import Clip
from beatmeter.datasets.synth.clip import METERS, phase_between

BEAT_PERIODS = np.geomspace(0.18, 2.4, 32)  # seconds
BAR_PERIODS = np.geomspace(0.6, 6.0, 32)  # seconds
UNKNOWN = -1  # class of frames outside the grid, and of clips whose grouping has no name
# One meter alone, or two at once.
COMPANIES = tuple((m,) for m in METERS) + tuple(combinations(METERS, 2))
BAR_GROUPINGS = tuple((int(meter), name) for meter, names in GROUPINGS.items() for name in names)


@dataclass(frozen=True)
class FrameTargets:
    """Targets of one clip at frame times, seconds.

    `beat` and `downbeat` (frame,) are 1 at the frame nearest to the event, 0.5 beside it, else 0; `phase`
    (frame, 2) is the cosine and sine of the place in the bar, 0 where there is no bar; `inside` (frame,) says
    where there is one; `beat_period` and `bar_period` (frame,) are classes of the log-spaced periods above,
    -1 where unknown. `chord` (frame,) is as `beat`, of changes of chord. `beat_phase` (frame, 2) is the place
    between two beats, `second` (frame,) and `second_phase` (frame, 2) are downbeats and place in the bar of a
    second meter, `beat_inside` and `second_inside` (frame,) where there are such.
    """

    beat: Float[np.ndarray, " frame"]
    downbeat: Float[np.ndarray, " frame"]
    phase: Float[np.ndarray, "frame 2"]
    inside: Float[np.ndarray, " frame"]
    beat_period: Int[np.ndarray, " frame"]
    bar_period: Int[np.ndarray, " frame"]
    chord: Float[np.ndarray, " frame"]
    beat_phase: Float[np.ndarray, "frame 2"]
    beat_inside: Float[np.ndarray, " frame"]
    second: Float[np.ndarray, " frame"]
    second_phase: Float[np.ndarray, "frame 2"]
    second_inside: Float[np.ndarray, " frame"]


def frame_targets(clip: Clip, times: Float[np.ndarray, " frame"]) -> FrameTargets:
    """The targets of `clip` at the frame centres `times`, ascending, evenly spaced."""
    (phase, inside), (beat_phase, beat_inside), (second_phase, second_inside) = (
        _phase(events, times) for events in (clip.downbeats, clip.beats, clip.second_downbeats)
    )
    return FrameTargets(
        beat=_events(clip.beats, times),
        downbeat=_events(clip.downbeats, times),
        phase=phase,
        inside=inside,
        beat_period=_period(clip.beats, times, BEAT_PERIODS),
        bar_period=_period(clip.downbeats, times, BAR_PERIODS),
        chord=_events(clip.chords, times),
        beat_phase=beat_phase,
        beat_inside=beat_inside,
        second=_events(clip.second_downbeats, times),
        second_phase=second_phase,
        second_inside=second_inside,
    )


def company_of(clip: Clip) -> int:
    """Which of COMPANIES a clip is in."""
    return COMPANIES.index(tuple(sorted(clip.meters)))


def bar_grouping_of(clip: Clip) -> int:
    """Which of BAR_GROUPINGS the bars of the heaviest meter have; UNKNOWN where theirs has no name."""
    name = grouping_of(str(clip.primary), clip.grouping)
    return UNKNOWN if name is None else BAR_GROUPINGS.index((clip.primary, name))


def _events(events: np.ndarray, times: np.ndarray) -> np.ndarray:
    target = np.zeros(len(times), dtype=np.float32)
    step = times[1] - times[0]
    at = np.round((events - times[0]) / step).astype(int)
    for offset, value in ((-1, 0.5), (1, 0.5), (0, 1.0)):
        here = at + offset
        target[here[(here >= 0) & (here < len(times))]] = value
    return target


def _phase(events: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and sine of the place of each time between two events, and where it lies between two."""
    turn = 2 * np.pi * phase_between(events, times)
    inside = np.isfinite(turn)
    phase = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    phase[~inside] = 0
    return phase.astype(np.float32), inside.astype(np.float32)


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
