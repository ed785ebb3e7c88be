"""What tells that beats are found twice as fast as they are, on curves that a run of the task beats has
written: the weights `slower` of the pointer, and from where on `pairs` of bars of two beats are one bar.

    python tools/beats_data.py data/prices --clips 150 --songs 60 --ballads 40 --eighths 40 \\
    --sixteenths 30 --seed 21
    beatmeter evaluate runs/beats --data data/prices
    python tools/pointer_octave.py runs/beats --split val --split prices-test

Every track is decoded as the path finds it and with beats of about twice the length. A logistic regression
over the cues of `octave_cues` learns which of them has the higher mean of beat F and downbeat F; a track
counts by the difference. Bars of two beats are then judged in the same way, by how much weaker every second
downbeat is. Gains are those of sources that taught nothing, each in turn. Sources have the same weight, and
tempi are as frequent as in annotated music. Choose on validation of synthetic music, and on nothing else.
Intervals: 95 %, bootstrap over groups.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist

import beatmeter  # noqa: F401 - before torch, whose threads then sleep while they wait

# isort: split
import numpy as np
from pointer_prices import BINS, TEMPI, weighted
from scipy.optimize import minimize
from section_table import interval_cell

from beatmeter.evaluation.metrics.beats import f_measure
from beatmeter.evaluation.records import read_records
from beatmeter.evaluation.runs import RunFolder
from beatmeter.schema import Curves, as_curves
from beatmeter.tasks.structure.decoding import Beats, PointerSettings, find_bars
from beatmeter.tasks.structure.decoding.octave import FEW, octave_cues, paired, pairs_cue, twice_as_long
from beatmeter.tasks.structure.decoding.pointer import log_odds

USUAL = PointerSettings()
PATH = replace(USUAL, slower=(), pairs=None)
PENALTY = 1.0  # of squared weights, with cues in standard deviations
HEAVIEST = 5.0  # times the median weight of a track
CUES = ("every second beat", "every second downbeat", "log of a beat's seconds")


@dataclass(frozen=True)
class Choice:
    """Two ways to hear a track: cues (cue,), and by how much F is higher with the slower one."""

    source: str
    group: str
    tempo: float
    cues: tuple[float, ...]
    gain: float


def main() -> None:
    """Print the weights, and what they are worth."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--split", action="append", required=True, help="curves to learn from; several times")
    options = parser.parse_args()
    splits = [as_curves(read_records(RunFolder(options.run).curves(split))) for split in options.split]
    found = [choices(curves, i) for curves in splits for i in range(len(curves.truth))]
    report("slower", [choice for slower, _ in found for choice in slower], CUES)
    report("pairs", [choice for _, pairs in found for choice in pairs], CUES[1:2])


def choices(curves: Curves, i: int) -> tuple[list[Choice], list[Choice]]:
    """Of a track: slower beats or not, and, with the beats that ship, longer bars or not."""
    values, rate, start, truth = curves.values[i], curves.rate, float(curves.starts[i]), curves.truth[i]
    tempo = 60 / float(np.median(np.diff(truth.beats)))

    def choice(cues: tuple[float, ...], gain: float) -> list[Choice]:
        return [Choice(curves.sources[i], curves.groups[i], tempo, cues, gain)] if gain == gain else []

    def f(beats: Beats) -> tuple[float, float]:
        downbeats = f_measure(truth.downbeats, beats.times[beats.places == 1])
        return (f_measure(truth.beats, beats.times) + downbeats) / 2, downbeats

    odds, plain = log_odds(values), find_bars(values, rate, start, settings=PATH)
    settings = twice_as_long(plain, PATH) if len(plain.times) >= FEW else None
    if settings is None:
        return [], []
    cues = octave_cues(plain, odds, rate, start)
    other = find_bars(values, rate, start, settings=settings)
    heard = other if np.dot(USUAL.slower, (1.0, *cues)) > 0 else plain
    weak = pairs_cue(heard, odds, rate, start)
    longer = (
        []
        if weak is None
        else choice((weak,), f(paired(heard, odds, rate, start, (0.0, 10.0)))[1] - f(heard)[1])
    )
    return choice(cues, f(other)[0] - f(plain)[0]), longer


def report(name: str, found: Sequence[Choice], cues: Sequence[str]) -> None:
    """The weights of all tracks, and the gain by weights of the other sources."""
    sources, groups = np.array([c.source for c in found]), [c.group for c in found]
    weights, gains = (
        weights_of(sources, np.array([c.tempo for c in found])),
        np.array([c.gain for c in found]),
    )
    inputs = np.column_stack([np.ones(len(found)), np.array([c.cues for c in found])])
    learned = np.zeros(len(found))
    for source, rest in folds(sources):
        learned[source] = inputs[source] @ fitted(inputs[rest], gains[rest], weights[rest])
    gained = np.where(learned > 0, gains, 0.0)
    final = fitted(inputs, gains, weights)
    print(f"\n{name}, {len(found)} tracks: constant {final[0]:.3f}, ", end="")
    print(", ".join(f"{cue} {weight:.3f}" for cue, weight in zip(cues, final[1:], strict=True)))
    print(
        f"0 from {-final[0] / final[1]:.2f} on" if len(final) == 2 else f"slower: {(learned > 0).mean():.0%}"
    )
    print(f"gain in F {interval_cell(weighted(gained, weights), groups)}, ", end="")
    print(f"tracks alike {interval_cell(gained, groups)}; most that can be had ", end="")
    print(f"{np.average(np.maximum(gains, 0), weights=weights):.3f}")
    for source in dict.fromkeys(sources.tolist()):
        print(f"  {source:12} {(sources == source).sum():4} {gained[sources == source].mean():+.3f}")


def folds(sources: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(tracks of a source, all others) of every source."""
    for source in dict.fromkeys(sources.tolist()):
        yield sources == source, sources != source


def weights_of(sources: np.ndarray, tempi: np.ndarray) -> np.ndarray:
    """Weights (track,), 1 in the mean: every source the same in sum, tempi as frequent as in music."""
    weights = np.array([1 / (sources == source).sum() for source in sources])
    which = np.clip(np.digitize(tempi, BINS) - 1, 0, len(BINS) - 2)
    parts = np.diff([NormalDist(np.log(TEMPI[0]), TEMPI[1]).cdf(x) for x in np.log(BINS)])
    weights *= (parts / np.maximum(np.bincount(which, weights, minlength=len(parts)), 1e-12))[which]
    weights = np.minimum(weights, HEAVIEST * np.median(weights))
    found: np.ndarray = weights / weights.mean()
    return found


def fitted(inputs: np.ndarray, gains: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weights of a logistic regression for a gain above 0, the constant first; tracks count by what there is
    to gain or to lose."""
    mean, spread = inputs[:, 1:].mean(axis=0), inputs[:, 1:].std(axis=0) + 1e-9
    scaled = np.column_stack([inputs[:, :1], (inputs[:, 1:] - mean) / spread])
    signs, counts = np.where(gains > 0, 1.0, -1.0), 8 * weights * np.abs(gains)

    def loss(b: np.ndarray) -> float:
        return float(counts @ np.logaddexp(0, -signs * (scaled @ b)) + PENALTY / 2 * (b[1:] @ b[1:]))

    b = minimize(loss, np.zeros(scaled.shape[1]), method="BFGS").x
    steep = b[1:] / spread
    return np.concatenate([[b[0] - steep @ mean], steep])


if __name__ == "__main__":
    main()
