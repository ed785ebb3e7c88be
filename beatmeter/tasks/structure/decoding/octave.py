"""Whether beats were found twice as fast as they are: every second beat, and every second downbeat, is weak
then. What the pointer adds up over a path cannot tell a beat from half a beat that is a little weaker."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float, Int

from beatmeter.tasks.structure.decoding.pointer import Beats, PointerSettings

FEW = 12  # beats of a track that is not decoded again
STEADY = 1.3  # beats that are decoded again are so much shorter and longer than twice those before
BEATS, DOWNBEATS = 16, 8  # of a window in which every second one is compared with the others
MOSTLY = 0.8  # share of the bars that have two beats where two of them may be one bar


def slower(
    found: Beats, odds: Float[np.ndarray, "time 2"], rate: float, start: float, settings: PointerSettings
) -> PointerSettings | None:
    """Settings for beats of about twice the length, where more speaks for them than against."""
    if not settings.slower or len(found.times) < FEW:
        return None
    cues = (1.0, *octave_cues(found, odds, rate, start))
    speaks = sum(weight * cue for weight, cue in zip(settings.slower, cues, strict=True))
    return twice_as_long(found, settings) if speaks > 0 else None


def octave_cues(
    found: Beats, odds: Float[np.ndarray, "time 2"], rate: float, start: float
) -> tuple[float, float, float]:
    """How much weaker every second beat and every second downbeat is in the log-odds of both curves, and the
    log of a beat's seconds."""
    beats = _strengths(odds[:, 0], (found.times - start) * rate)
    downbeats = _strengths(odds[:, 1], (found.times[found.places == 1] - start) * rate)
    length = float(np.log(np.median(np.diff(found.times))))
    return _every_other(beats, BEATS), _every_other(downbeats, DOWNBEATS), length


def twice_as_long(found: Beats, settings: PointerSettings) -> PointerSettings | None:
    """Settings that look for beats about twice as long as these; None where none may be so long."""
    length = 2 * float(np.median(np.diff(found.times)))
    low, high = max(length / STEADY, settings.beats[0]), min(length * STEADY, settings.beats[1])
    if high <= low:
        return None
    share = float(np.log(high / low) / np.log(settings.beats[1] / settings.beats[0]))
    return replace(settings, beats=(low, high), lengths=max(8, round(share * settings.lengths)))


def pairs_cue(found: Beats, odds: Float[np.ndarray, "time 2"], rate: float, start: float) -> float | None:
    """How much weaker every second downbeat is; None unless most bars are of 4/4 and have two beats."""
    first = np.flatnonzero(found.places == 1)
    if found.meter != "4" or len(first) < DOWNBEATS // 2 or (np.diff(first) == 2).mean() < MOSTLY:
        return None
    return _every_other(_strengths(odds[:, 1], (found.times[first] - start) * rate), DOWNBEATS)


def paired(
    found: Beats, odds: Float[np.ndarray, "time 2"], rate: float, start: float, pairs: tuple[float, float]
) -> Beats:
    """Bars of four beats where those that were found have two and every second downbeat is weak."""
    weak = pairs_cue(found, odds, rate, start)
    if weak is None or weak <= pairs[0]:
        return found
    first = np.flatnonzero(found.places == 1)
    kept = first[_strong_ones(_strengths(odds[:, 1], (found.times[first] - start) * rate), pairs[1])]
    beat = np.arange(len(found.times))
    since = beat - kept[np.maximum(np.searchsorted(kept, beat, side="right") - 1, 0)]
    return replace(found, places=np.where(since < 0, since % 4, since) + 1)


def _strong_ones(strong: Float[np.ndarray, " bar"], cost: float) -> Int[np.ndarray, " kept"]:
    """Every second of some downbeats, the strongest in sum; each time that none or two are left out between
    neighbours costs something."""
    best, before = strong.astype(float), np.full(len(strong), -1)
    for at in range(1, len(strong)):
        steps = [step for step in (2, 1, 3) if step <= at]
        reached = [best[at - step] - cost * (step != 2) for step in steps]
        if at > 2 or max(reached) > 0:
            best[at] += max(reached)
            before[at] = at - steps[int(np.argmax(reached))]
    path = [len(strong) - 2 + int(np.argmax(best[-2:]))]
    while before[path[-1]] >= 0:
        path.append(int(before[path[-1]]))
    return np.array(path[::-1])


def _strengths(
    curve: Float[np.ndarray, " time"], rows: Float[np.ndarray, " beat"]
) -> Float[np.ndarray, " beat"]:
    """The highest of the three rows nearest to each beat: a narrow peak between two rows is no weaker than
    one on a row, as every second one is where a bar lasts 37.5 of them."""
    near = np.clip(np.rint(rows).astype(int), 0, len(curve) - 1)
    found: np.ndarray = np.pad(curve, 1, mode="edge")[near[:, None] + np.arange(3)].max(axis=1)
    return found


def _every_other(strong: Float[np.ndarray, " beat"], size: int) -> float:
    """How far the mean of every second beat is from that of the others, in windows of `size` that overlap by
    half, mean over the windows; windows of less than half the size count for nothing."""
    windows = [strong[at : at + size] for at in range(0, max(1, len(strong) - size + 1), size // 2)]
    apart = [abs(w[::2].mean() - w[1::2].mean()) for w in windows if 2 * len(w) >= size]
    return float(np.mean(apart)) if apart else 0.0
