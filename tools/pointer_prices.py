"""What the prices of the pointer do to beats and downbeats, on curves that a run of the task beats has
written: one line a setting, and which one the rule takes.

    python tools/pointer_prices.py runs/beats --split val --sources clips=150,songs=60 --set beat=0,.25,.5,1
    python tools/pointer_prices.py runs/beats --split val --set beat=1,1.5 --set pace=0,.5 --tempi

The rule: beat F and downbeat F have the same weight, and so has every source, however many tracks it has.
With `--tempi` tempi are as frequent as in five annotated collections of music. The highest mean wins; of
settings within TIE of it, the first one. A list that ends with its best has to be made longer. Choose on
validation of synthetic music, and on nothing else. Intervals: 95 %, bootstrap over groups.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from statistics import NormalDist

import beatmeter  # noqa: F401 - before torch, whose threads then sleep while they wait

# isort: split
import numpy as np
from section_table import interval_cell

from beatmeter.evaluation.metrics.beats import any_octave, f_measure
from beatmeter.evaluation.records import read_records
from beatmeter.evaluation.runs import RunFolder
from beatmeter.schema import Curves, as_curves
from beatmeter.tasks.structure.decoding import find_bars
from beatmeter.tasks.structure.decoding.pointer import PointerSettings

TIE = 0.002
# Beats a minute of 3,793 annotated tracks, mean 104.6 and standard deviation 34.0 (ISMIR 2004 songs, GTZAN,
# ACM MIRUM, Hainsworth and Ballroom; figures of Schreiber and Mueller, ISMIR 2017), as a log-normal.
TEMPI = (99.5, 0.32)
BINS = 60 * 2.0 ** np.linspace(-0.5, 1.75, 10)  # beats a minute; what is outside counts as the nearest bin
Figures = np.ndarray  # (track, 3): beat F, doubling and halving forgiven, downbeat F


def main() -> None:
    """Decode the chosen tracks with every combination of prices."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--split", default="val", help="of its own data, or what `evaluate --data` wrote")
    parser.add_argument("--sources", help="which count, each with its number of tracks: clips=150,songs=60")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=A,B", help="prices to compare")
    parser.add_argument("--tempi", action="store_true", help="tempi as frequent as in collections of music")
    options = parser.parse_args()
    prices = dict(map(asked_prices, options.set))
    curves = as_curves(read_records(RunFolder(options.run).curves(options.split)))
    tracks = chosen_tracks(curves.sources, options.sources)
    weights = weights_of(curves, tracks, like_music=options.tempi)
    counts = ", ".join(f"{len(its)} {source}" for source, its in tracks.items())
    print(f"{counts} of {options.split}: beat F, doubling and halving forgiven, downbeat F\n")
    print("| prices | " + " | ".join(tracks) + " | mean | minus the first |")
    print("|---|" + "---:|" * (len(tracks) + 2))
    scores: list[float] = []
    first: dict[str, Figures] = {}
    names = []
    for values in itertools.product(*prices.values()):
        setting = dict(zip(prices, values, strict=True))
        found = {source: figures(curves, its, setting) for source, its in tracks.items()}
        first = first or found
        scores.append(float(np.nanmean(weighted(both(joined(found)), weights))))
        names.append(" ".join(f"{name}={value:g}" for name, value in setting.items()) or "as they ship")
        cells = [" / ".join(f"{m:.3f}" for m in np.nanmean(f, axis=0)) for f in found.values()]
        apart = weighted(both(joined(found)) - both(joined(first)), weights)
        groups = [curves.groups[i] for its in tracks.values() for i in its]
        row = (names[-1], *cells, f"{scores[-1]:.4f}", interval_cell(apart, groups))
        print(f"| {' | '.join(row)} |", flush=True)
    winner = next(name for name, score in zip(names, scores, strict=True) if score >= max(scores) - TIE)
    print(f"\nby the rule: {winner}")


def asked_prices(text: str) -> tuple[str, list[float]]:
    """A price and the values to compare."""
    name, _, values = text.partition("=")
    known = [f.name for f in fields(PointerSettings) if isinstance(f.default, float)]
    try:
        found = [float(value) for value in values.split(",")]
    except ValueError:
        raise SystemExit(f"{text}: write it as {name}=0,1,2") from None
    if name not in known:
        raise SystemExit(f"there is no price {name!r}: {', '.join(known)}")
    return name, found


def chosen_tracks(sources: Sequence[str], asked: str | None) -> Mapping[str, np.ndarray]:
    """The tracks of every source that counts, evenly spread over it."""
    there = list(dict.fromkeys(sources))
    wanted = dict.fromkeys(there, "")
    if asked:
        wanted = dict(part.partition("=")[::2] for part in asked.split(","))
    found = {}
    for source, number in wanted.items():
        if number and not number.isdigit():
            raise SystemExit(f"{source}={number}: say how many tracks, for instance {source}=60")
        its = np.flatnonzero(np.array(sources) == source)
        if not len(its):
            raise SystemExit(f"there is no source {source!r}: {', '.join(there)}")
        count = min(int(number or len(its)), len(its))
        found[source] = its[np.unique(np.linspace(0, len(its) - 1, count).round().astype(int))]
    return found


def figures(curves: Curves, tracks: np.ndarray, setting: Mapping[str, float]) -> Figures:
    """How well the pointer finds the beats and bars of some tracks with these prices."""
    settings = replace(PointerSettings(), **setting)
    rows = []
    for i in tracks:
        found = find_bars(curves.values[i], curves.rate, float(curves.starts[i]), settings=settings)
        truth = curves.truth[i]
        beats, downbeats = found.times, found.times[found.places == 1]
        octave = any_octave(truth.beats, beats)
        rows.append([f_measure(truth.beats, beats), octave, f_measure(truth.downbeats, downbeats)])
    return np.array(rows)


def weights_of(curves: Curves, tracks: Mapping[str, np.ndarray], *, like_music: bool) -> np.ndarray:
    """Weights (track,) of the tracks of all sources one after another: those of a source have the same sum as
    those of another, and with `like_music` each tempo the share that it has in TEMPI."""
    weights = np.concatenate([np.full(len(its), 1 / len(its)) for its in tracks.values()])
    if like_music:
        beats = [curves.truth[i].beats for its in tracks.values() for i in its]
        tempi = np.array([60 / np.median(np.diff(b)) if len(b) > 1 else np.nan for b in beats])
        which = np.clip(np.digitize(tempi, BINS) - 1, 0, len(BINS) - 2)
        parts = [NormalDist(np.log(TEMPI[0]), TEMPI[1]).cdf(x) for x in np.log(BINS)]
        there = np.bincount(which, weights, minlength=len(BINS) - 1)
        weights = weights * (np.diff(parts) / np.maximum(there, 1e-12))[which]
    return weights


def weighted(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Values (track,) whose plain mean is the weighted mean of those that are known."""
    known = ~np.isnan(values)
    found: np.ndarray = values * weights * known.sum() / weights[known].sum()
    return found


def joined(found: Mapping[str, Figures]) -> Figures:
    """The figures of all sources one after another."""
    return np.concatenate(list(found.values()))


def both(found: Figures) -> np.ndarray:
    """The mean of beat F and downbeat F of every track."""
    result: np.ndarray = (found[:, 0] + found[:, 2]) / 2
    return result


if __name__ == "__main__":
    main()
