"""What the audit of beats is worth to a reviewer: planted errors, the worst places and as many at random,
decisions by the truth, and beat F of the annotations before and after.

    beatmeter data synth BIG --clips 240 --seconds 20 --seed 31 --mix music
    python tools/beat_loop.py BIG --out loop --top 300 --top 1000

`loop/planted` is the set with errors in train and val, `loop/worst-1000.csv` the filled-in review, for
`beatmeter train --frozen loop/planted --recipe embedded-beats --corrections loop/worst-1000.csv`.
"""

from __future__ import annotations

import csv
import random
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
import numpy as np

from beatmeter.datasets import Dataset, open_dataset
from beatmeter.datasets.annotations import Grid, find_annotations
from beatmeter.evaluation.metrics.beats import f_measure
from beatmeter.experiments.audit.beat_review import to_csv
from beatmeter.experiments.audit.events import out_of_fold, rank_events, without_echoes
from beatmeter.settings import METERS, DataConfig

RIGHT = 0.04  # seconds between a beat and the true one
HEARD = 0.2  # seconds that a reviewer hears a beat to be moved by
REPLICATES = 2000

Grids = Mapping[str, Grid]


def opened(folder: Path, *corrections: Path) -> tuple[Dataset, dict[str, Grid]]:
    """A set and its beats by id."""
    config = DataConfig(corrections=tuple(map(str, corrections)))
    dataset = open_dataset(folder, config, METERS, labelled=False)
    found = find_annotations(dataset.tracks)
    return dataset, {id: a.grid for id, a in found.items() if a.grid is not None}


def plant(source: Path, out: Path, seed: int) -> None:
    """Copy a set; in train and val a tenth of the beats is shifted by 80 to 150 ms, a tenth dropped, and
    3 % are made up."""
    shutil.copytree(source, out)
    rng = np.random.default_rng(seed)
    for track in open_dataset(source, DataConfig(), METERS, labelled=False).tracks:
        if track.split == "test":
            continue
        path = out / track.extra["beats"]
        rows = [(float(t), int(p)) for t, p in (line.split() for line in path.read_text().splitlines())]
        planted = []
        for k, (time, place) in enumerate(rows):
            draw = rng.random()
            if draw < 0.1:
                time += rng.uniform(0.08, 0.15) * rng.choice([-1, 1])
            elif draw < 0.2 and 0 < k < len(rows) - 1:
                continue
            planted.append((time, place))
            if draw > 0.97 and k + 1 < len(rows):
                planted.append((time + (rows[k + 1][0] - time) * rng.uniform(0.35, 0.65), place))
        kept: list[tuple[float, int]] = []
        for time, place in sorted(planted):
            if time > 0 and (not kept or time - kept[-1][0] > 0.06):
                kept.append((time, place))
        path.write_text("".join(f"{time:.4f}\t{place}\n" for time, place in kept))


def decide(rows: Sequence[Mapping[str, str]], truth: Grids, now: Grids, out: Path) -> int:
    """Fill in a review by the truth; how many places are changed."""
    taken = {id: grid.times.tolist() for id, grid in now.items()}
    decided = []
    for row in rows:
        id, true = row["id"], truth[row["id"]].times
        at = float(row["time"] or row["suggested"])
        near = float(true[np.abs(true - at).argmin()])
        others = [t for t in taken[id] if not row["time"] or t != at]
        free = min((abs(near - t) for t in others), default=1.0) > 0.055
        decision = "drop" if row["time"] else "keep"
        if row["time"] and abs(near - at) <= RIGHT:
            decision = "keep"
        elif abs(near - at) <= (HEARD if row["time"] else 0.07) and free:
            decision = f"{near:.3f}"
            taken[id].append(near)
        decided.append({**row, "new time": decision})
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, decided[0].keys())
        writer.writeheader()
        writer.writerows(decided)
    return sum(row["new time"] != "keep" for row in decided)


def interval(values: np.ndarray) -> str:
    """Mean with a 95 % bootstrap over tracks."""
    rng = np.random.default_rng(0)
    means = [values[rng.integers(0, len(values), len(values))].mean() for _ in range(REPLICATES)]
    low, high = np.percentile(means, [2.5, 97.5])
    return f"{values.mean():.3f} [{low:.3f}, {high:.3f}]"


@click.command()
@click.argument("source", type=click.Path(path_type=Path, exists=True))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to make.")
@click.option("--top", "tops", multiple=True, type=int, default=(300,), help="Places that are decided on.")
@click.option("--seed", default=3, show_default=True, help="Of the errors.")
def main(source: Path, out: Path, tops: tuple[int, ...], seed: int) -> None:
    """Print beat F of the annotations before and after a review of the worst places, and of random ones."""
    plant(source, out / "planted", seed)
    (dataset, truth), (_, before) = opened(source), opened(out / "planted")
    ids = [track.id for track in dataset.tracks if track.split != "test"]

    def score(grids: Grids) -> np.ndarray:
        return np.array([f_measure(truth[id].times, grids[id].times, 0.0) for id in ids])

    doubts = without_echoes(rank_events(out_of_fold(dataset.tracks, before), before))
    worst = list(csv.DictReader(to_csv(doubts).splitlines()))
    drawn = random.Random(0).sample(worst, len(worst))
    f = score(before)
    print(f"{len(ids)} tracks, {len(worst)} places; beat F {interval(f)}")
    for name, rows in (("worst", worst), ("random", drawn)):
        for top in tops:
            path = out / f"{name}-{top}.csv"
            changed = decide(rows[:top], truth, before, path)
            after = score(opened(out / "planted", path)[1])
            print(f"{top} {name}: {changed} changed; beat F {interval(after)}, gain {interval(after - f)}")


if __name__ == "__main__":
    main()
