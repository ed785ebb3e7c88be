"""Whether the curves of a run change where chunks meet: the mean of a curve in the first row after a seam
and in the last one before it, against rows inside of chunks, and how many marks have a peak near seams and
inside.

    python tools/seams.py runs/beats --split val

A model that hears no seams has shares of 1 and recalls alike. Intervals: 95 %, bootstrap over groups.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import beatmeter  # noqa: F401 - before torch, whose threads then sleep while they wait

# isort: split
import numpy as np
from section_table import interval_cell

from beatmeter.audio.chunking import Layout
from beatmeter.evaluation.metrics.intervals import bootstrap, interval
from beatmeter.evaluation.records import read_records
from beatmeter.evaluation.runs import RunFolder
from beatmeter.learning.restoring import restore
from beatmeter.schema import Curves, FeatureSpec, as_curves
from beatmeter.tasks.structure.decoding import peaks

NEAR = 0.2  # seconds before a seam, and after it, in which marks are near it
EDGE = 1.0  # seconds at the ends of a track that count nowhere
WITHIN = 0.07  # seconds between a mark and its peak
THRESHOLD = 0.3


def main() -> None:
    """Print a line for each curve of a run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--split", default="val")
    options = parser.parse_args()
    spec = restore(options.run).spec
    curves = as_curves(read_records(RunFolder(options.run).curves(options.split)))
    print(f"{len(curves)} tracks of {options.split}\n")
    heads = ("first row after a seam / inside", "last row before / inside", "recall near seams", "inside")
    print(f"| curve | {' | '.join(heads)} |\n|---|" + "---:|" * len(heads))
    for k, name in enumerate(curves.names):
        levels, recalls = zip(*(of_track(curves, i, k, spec) for i in range(len(curves))), strict=True)
        shares = [ratio_cell(np.array(levels), place, curves.groups) for place in (0, 1)]
        found = [interval_cell(column, curves.groups) for column in np.array(recalls).T]
        print(f"| {name} | {' | '.join([*shares, *found])} |")


def seams_of(seconds: float, spec: FeatureSpec) -> np.ndarray:
    """Seconds at which the joined track takes its frames from the next chunk, the end of the last chunk left
    out, which lies elsewhere."""
    layout = Layout.of(round(seconds * spec.chunk.sample_rate), spec)
    frames = [kept.last + start // layout.hop for kept, start in zip(layout.kept, layout.starts, strict=True)]
    found: np.ndarray = (np.array(frames[:-2]) * layout.hop + spec.frame_span / 2) / layout.sample_rate
    return found


def of_track(
    curves: Curves, item: int, name: int, spec: FeatureSpec
) -> tuple[tuple[float, ...], tuple[float, float]]:
    """Sums and counts of the curve (first row, last row, inside), and recall of marks near seams and
    inside; nan where there are none."""
    curve, times = curves.values[item][:, name], curves.seconds(item)
    end = float(times[-1])
    seams = seams_of(end + 0.5 / curves.rate, spec)
    seams = seams[(seams > EDGE) & (seams < end - EDGE)]
    after = np.searchsorted(times, seams)
    apart = np.abs(times[:, None] - seams[None]).min(axis=1, initial=np.inf)
    inside = (apart > NEAR) & (times > EDGE) & (times < end - EDGE)
    sums = [(curve[rows].sum(), float(len(rows))) for rows in (after, after - 1, np.flatnonzero(inside))]
    truth = curves.truth[item].beats if curves.names[name] == "beat" else curves.truth[item].downbeats
    truth = truth[(truth > EDGE) & (truth < end - EDGE)]
    found = curves.starts[item] + peaks(curve, THRESHOLD) / curves.rate
    hit = np.abs(truth[:, None] - found[None]).min(axis=1, initial=np.inf) <= WITHIN
    near = np.abs(truth[:, None] - seams[None]).min(axis=1, initial=np.inf) <= NEAR
    recalls = tuple(float(hit[of].mean()) if of.any() else np.nan for of in (near, ~near))
    return tuple(value for pair in sums for value in pair), (recalls[0], recalls[1])


def ratio_cell(levels: np.ndarray, place: int, groups: Sequence[str]) -> str:
    """The mean of a curve at a place (0 first row, 1 last row) over its mean inside, with its interval."""

    def share(weights: np.ndarray | None) -> np.ndarray:
        w = np.ones(len(levels)) if weights is None else weights
        sums = w @ levels
        at, inside = (sums[..., 2 * k] / np.maximum(sums[..., 2 * k + 1], 1e-9) for k in (place, 2))
        result: np.ndarray = at / np.maximum(inside, 1e-9)
        return result

    value, draws = bootstrap(share, groups, 1000, 0)
    low, high = interval(draws)
    return f"{float(value):.3f} [{float(low):.3f}, {float(high):.3f}]"


if __name__ == "__main__":
    main()
