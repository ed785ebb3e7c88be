"""Music for meter: ordinary clips, the same kind but 5 s long, clips that are hard to hear, and clips of two
layers, each a set of its own with its splits, and ordinary clips that only test; all under one manifest.

    python tools/meter_data.py data/meter --jobs 2
    python tools/meter_data.py data/more-meter --seed 100 --unheard 0 --train --jobs 2  # only to learn from
    beatmeter train --frozen data/meter/manifest.csv --recipe spectral-long --out runs/long

The column `slice` says what a clip is: `ordinary`, `short`, or as the mix has it; `tools/slices.py` reads it.
Safe to stop and to run again: what is complete is kept.
"""

from __future__ import annotations

import argparse
import csv
import io
from dataclasses import dataclass
from pathlib import Path

from beatmeter.cli.options import TERMINAL
from beatmeter.datasets.groupings import grouping_of, kind_of, read_grouping
from beatmeter.datasets.synthetic import SLICED, SynthPlan, bar_seconds, synthesise
from beatmeter.runtime import atomic


@dataclass(frozen=True)
class Set:
    """A folder under the manifest's; `split` takes the place of its clips' own splits, `slice` is said of
    clips of a mix without slices."""

    name: str
    mix: str
    seed: int
    clips: int
    seconds: float = 30.0
    slice: str = ""
    split: str | None = None


SETS = (
    Set("ordinary", "even", 31, 1200, slice="ordinary"),
    Set("hard", "hard", 11, 2700),
    Set("layers", "layers", 33, 500),
    Set("short", "even", 37, 1200, seconds=5.0, slice="short"),
    Set("unheard", "even", 35, 300, slice="ordinary", split="test"),
)


def main() -> None:
    """Make the sets, and the manifest of all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    for each in SETS:
        parser.add_argument(f"--{each.name}", type=int, default=each.clips, metavar="CLIPS")
    parser.add_argument("--seconds", type=float, default=30.0, help="of a clip at most")
    parser.add_argument("--seed", type=int, default=0, help="added to the seeds of all sets")
    parser.add_argument("--train", action="store_true", help="every clip is for training")
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    counts = {each: getattr(options, each.name) for each in SETS}
    with TERMINAL.track("synthesising", sum(counts.values())) as tick:
        for each, count in counts.items():
            plan = SynthPlan(options.seed + each.seed, min(each.seconds, options.seconds), mix=each.mix)
            if count:
                synthesise(options.out / each.name, count, plan, options.jobs, tick)
    made = [each for each, count in counts.items() if count]
    atomic.write_text(options.out / "manifest.csv", joined(options.out, made, options.train))


def joined(root: Path, sets: list[Set], train: bool = False) -> str:
    """One table of the rows of all sets, with files as they lie under `root`; all of the split train where
    `train` says so."""
    text = io.StringIO()
    writer = csv.DictWriter(text, SLICED, lineterminator="\n")
    writer.writeheader()
    for each in sets:
        with (root / each.name / "manifest.csv").open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                row |= {name: f"{each.name}/{row[name]}" for name in ("file", "beats")}
                row["split"] = "train" if train else each.split or row["split"]
                writer.writerow(row if "slice" in row else {**row, **sliced(row, each.slice)})
    return text.getvalue()


def sliced(row: dict[str, str], called: str) -> dict[str, str]:
    """The columns that a set without slices lacks."""
    groups = read_grouping(row["grouping"])
    name = grouping_of(row["class"].partition(",")[0].partition(":")[0], groups)
    return {
        "slice": called,
        "source": f"synthetic {called}",
        "bar": f"{bar_seconds(groups, float(row['tempo'])):.3f}",
        "rubato": "0",
        "subdivision": "" if name is None else kind_of(name),
    }


if __name__ == "__main__":
    main()
