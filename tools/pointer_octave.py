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
With `--against RUN` two networks are compared on the same tracks, each with its own weights of the other
sources, and on the tracks of `--test`, which teach nothing, with those of all. Intervals: 95 %, bootstrap
over groups.
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
from beatmeter.schema import Curves, MarkList, as_curves
from beatmeter.tasks.structure.decoding import Beats, PointerSettings, find_bars
from beatmeter.tasks.structure.decoding.octave import FEW, octave_cues, paired, pairs_cue, twice_as_long
from beatmeter.tasks.structure.decoding.pointer import log_odds

USUAL = PointerSettings()
PATH = replace(USUAL, slower=(), pairs=None)
PENALTY = 1.0  # of squared weights, with cues in standard deviations
COST = 10.0  # of leaving out none or two in a row of pairs
HEAVIEST = 5.0  # times the median weight of a track
CUES = ("every second beat", "every second downbeat", "log of a beat's seconds")


@dataclass(frozen=True)
class Heard:
    """A track as the path finds it, and with beats of about twice the length; what tells which is right."""

    source: str
    group: str
    truth: MarkList
    odds: np.ndarray
    rate: float
    start: float
    plain: Beats
    other: Beats | None  # None where beats are few, or as long as they may be
    cues: tuple[float, ...] = ()

    @property
    def tempo(self) -> float:
        """Annotated beats a minute."""
        return 60 / float(np.median(np.diff(self.truth.beats)))

    def slower(self, weights: np.ndarray) -> Beats:
        """What these weights choose."""
        chosen = self.other is not None and np.dot(weights, (1.0, *self.cues)) > 0
        return self.other if chosen and self.other is not None else self.plain

    def weak(self, found: Beats) -> float | None:
        """How much weaker every second downbeat of bars of two beats is."""
        return pairs_cue(found, self.odds, self.rate, self.start) if self.other is not None else None

    def paired(self, found: Beats, threshold: float) -> Beats:
        """Bars of four beats where every second downbeat is weaker than the threshold says."""
        return paired(found, self.odds, self.rate, self.start, (threshold, COST))

    def f(self, found: Beats) -> np.ndarray:
        """Beat F and downbeat F."""
        downbeats = f_measure(self.truth.downbeats, found.times[found.places == 1])
        return np.array([f_measure(self.truth.beats, found.times), downbeats])


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
    parser.add_argument("--against", type=Path, metavar="RUN", help="another network on the same tracks")
    parser.add_argument("--test", action="append", default=[], help="curves that teach nothing")
    options = parser.parse_args()
    heard = hear(options.run, options.split)
    weights, _ = learned(heard)
    report("slower", slower_choices(heard), CUES)
    report("pairs", pairs_choices(heard, weights), CUES[1:2])
    if options.against:
        before = hear(options.against, options.split)
        compare("sources held out", heard, held_out(heard), held_out(before), weighed=True)
        if options.test:
            tests = hear(options.run, options.test), hear(options.against, options.test)
            after, old = (
                outcomes(test, *learned(taught)) for test, taught in zip(tests, (heard, before), strict=True)
            )
            compare(", ".join(options.test), tests[0], after, old)


def hear(run: Path, splits: Sequence[str]) -> list[Heard]:
    """Decode every track of some curves of a run both ways."""
    found = [as_curves(read_records(RunFolder(run).curves(split))) for split in splits]
    return [heard_of(curves, i) for curves in found for i in range(len(curves.truth))]


def heard_of(curves: Curves, i: int) -> Heard:
    """A track decoded both ways."""
    values, rate, start = curves.values[i], curves.rate, float(curves.starts[i])
    odds, plain = log_odds(values), find_bars(values, rate, start, settings=PATH)
    known = Heard(curves.sources[i], curves.groups[i], curves.truth[i], odds, rate, start, plain, None)
    settings = twice_as_long(plain, PATH) if len(plain.times) >= FEW else None
    if settings is None:
        return known
    other = find_bars(values, rate, start, settings=settings)
    return replace(known, other=other, cues=octave_cues(plain, odds, rate, start))


def slower_choices(heard: Sequence[Heard]) -> list[Choice]:
    """Slower beats or not."""
    there = [h for h in heard if h.other is not None]
    gains = [float((h.f(h.other) - h.f(h.plain)).mean()) for h in there if h.other is not None]
    return _choices(there, [h.cues for h in there], gains)


def pairs_choices(heard: Sequence[Heard], weights: np.ndarray) -> list[Choice]:
    """With the beats that these weights choose: longer bars or not."""
    there = [(h, h.slower(weights)) for h in heard]
    weak = [h.weak(beats) for h, beats in there]
    known = [(h, beats, w) for (h, beats), w in zip(there, weak, strict=True) if w is not None]
    gains = [float((h.f(h.paired(beats, 0.0)) - h.f(beats))[1]) for h, beats, _ in known]
    return _choices([h for h, _, _ in known], [(w,) for _, _, w in known], gains)


def _choices(
    heard: Sequence[Heard], cues: Sequence[tuple[float, ...]], gains: Sequence[float]
) -> list[Choice]:
    rows = zip(heard, cues, gains, strict=True)
    return [Choice(h.source, h.group, h.tempo, its, gain) for h, its, gain in rows if gain == gain]


def learned(heard: Sequence[Heard]) -> tuple[np.ndarray, float]:
    """Weights for slower beats, and from where on every second downbeat is weak."""
    slower = _learned(slower_choices(heard))
    pairs = pairs_choices(heard, slower)
    constant, steep = _learned(pairs) if pairs else (0.0, 0.0)
    return slower, -constant / steep if steep > 0 else np.inf


def _learned(choices: Sequence[Choice]) -> np.ndarray:
    sources, inputs, gains, tempi = _columns(choices)
    return fitted(inputs, gains, weights_of(sources, tempi))


def held_out(heard: Sequence[Heard]) -> np.ndarray:
    """Beat F and downbeat F (track, 2) of every source by what the other sources teach."""
    found = np.zeros((len(heard), 2))
    for source, rest in folds(np.array([h.source for h in heard])):
        taught = learned([h for h, teaches in zip(heard, rest, strict=True) if teaches])
        found[source] = outcomes([h for h, its in zip(heard, source, strict=True) if its], *taught)
    return found


def outcomes(heard: Sequence[Heard], weights: np.ndarray, threshold: float) -> np.ndarray:
    """Beat F and downbeat F (track, 2) with these weights and this threshold."""
    return np.array([h.f(h.paired(h.slower(weights), threshold)) for h in heard])


def compare(
    what: str, heard: Sequence[Heard], after: np.ndarray, before: np.ndarray, *, weighed: bool = False
) -> None:
    """Both networks on the same tracks, all of them and source by source."""
    sources, groups = np.array([h.source for h in heard]), np.array([h.group for h in heard])
    weights = weights_of(sources, np.array([h.tempo for h in heard])) if weighed else np.ones(len(heard))
    print(f"\n{what}: beat F, downbeat F, their mean; this network, the other one, the difference")
    for name in ("all", *dict.fromkeys(sources.tolist())):
        its = (sources == name) | (name == "all")
        tracks = weights[its] if name == "all" else np.ones(its.sum())
        cells = []
        for new, old in zip(_with_mean(after[its]), _with_mean(before[its]), strict=True):
            apart = interval_cell(weighted(new - old, tracks), groups[its].tolist())
            means = [float(np.nanmean(weighted(f, tracks))) for f in (new, old)]
            cells.append(f"{means[0]:.3f} {means[1]:.3f} {apart}")
        print(f"  {name:12} {its.sum():4} | {' | '.join(cells)}")


def _with_mean(f: np.ndarray) -> list[np.ndarray]:
    return [f[:, 0], f[:, 1], f.mean(axis=1)]


def _columns(choices: Sequence[Choice]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Sources, inputs with a constant before the cues, gains and tempi."""
    inputs = np.column_stack([np.ones(len(choices)), np.array([c.cues for c in choices])])
    sources, gains = np.array([c.source for c in choices]), np.array([c.gain for c in choices])
    return sources, inputs, gains, np.array([c.tempo for c in choices])


def report(name: str, found: Sequence[Choice], cues: Sequence[str]) -> None:
    """The weights of all tracks, and the gain by weights of the other sources."""
    sources, inputs, gains, tempi = _columns(found)
    groups, weights = [c.group for c in found], weights_of(sources, tempi)
    scores = np.zeros(len(found))
    for source, rest in folds(sources):
        scores[source] = inputs[source] @ fitted(inputs[rest], gains[rest], weights[rest])
    gained = np.where(scores > 0, gains, 0.0)
    final = fitted(inputs, gains, weights)
    print(f"\n{name}, {len(found)} tracks: constant {final[0]:.3f}, ", end="")
    print(", ".join(f"{cue} {weight:.3f}" for cue, weight in zip(cues, final[1:], strict=True)))
    print(
        f"0 from {-final[0] / final[1]:.2f} on" if len(final) == 2 else f"slower: {(scores > 0).mean():.0%}"
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
