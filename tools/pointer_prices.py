"""What the prices of the pointer do to beats and downbeats, on curves that a run of the task beats has
written: one line a setting.

    python tools/pointer_prices.py runs/beats --split val --set beat=0,1,2 --set length=1,2,4 --limit 100

Choose on validation of synthetic music, and on nothing else.
"""

from __future__ import annotations

import argparse
import itertools
from dataclasses import fields, replace
from pathlib import Path

import numpy as np

from beatmeter.evaluation.metrics.beats import any_octave, f_measure
from beatmeter.evaluation.records import read_records
from beatmeter.evaluation.runs import RunFolder
from beatmeter.schema import as_curves
from beatmeter.tasks.structure.decoding import find_bars
from beatmeter.tasks.structure.decoding.pointer import PointerSettings


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--split", default="val")
    parser.add_argument("--limit", type=int, help="so many tracks, evenly spread over the split")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=A,B", help="prices to compare")
    options = parser.parse_args()
    known = {f.name for f in fields(PointerSettings)}
    wanted = {}
    for text in options.set:
        name, _, values = text.partition("=")
        if name not in known:
            raise SystemExit(f"there is no price {name!r}: {', '.join(sorted(known))}")
        wanted[name] = [float(v) for v in values.split(",")]
    curves = as_curves(read_records(RunFolder(options.run).curves(options.split)))
    count = min(options.limit or len(curves), len(curves))
    items = np.unique(np.linspace(0, len(curves) - 1, count).round().astype(int))
    print(f"{len(items)} tracks of {options.split}: beat F, doubling and halving forgiven, downbeat F")
    for values in itertools.product(*wanted.values()):
        chosen = dict(zip(wanted, values, strict=True))
        settings = replace(PointerSettings(), **chosen)
        rows = []
        for i in items:
            found = find_bars(curves.values[i], curves.rate, float(curves.starts[i]), settings=settings)
            truth = curves.truth[i]
            rows.append(
                [
                    f_measure(truth.beats, found.times),
                    any_octave(truth.beats, found.times),
                    f_measure(truth.downbeats, found.times[found.places == 1]),
                ]
            )
        means = np.nanmean(np.array(rows), axis=0)
        print(" ".join(f"{name}={value:g}" for name, value in chosen.items()), *(f"{m:.3f}" for m in means))


if __name__ == "__main__":
    main()
