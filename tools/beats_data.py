"""Music for beats: clips with meters as frequent as in music, clips that are hard to hear, and excerpts of
songs, of ballads, of songs in eighths and in sixteenths, and of slow and fast ones without drums: sets with
splits of their own, one manifest.

    python tools/beats_data.py data/beats --clips 1200 --songs 800 --hard 600 --ballads 300 --jobs 2
    python tools/beats_data.py data/more-beats --slow 180 --fast 160 --excerpt 40 --seed 61 --train
    python tools/beats_data.py data/prices --clips 150 --songs 60 --seed 21

Safe to stop and to run again: what is complete is kept.
"""

from __future__ import annotations

import argparse
import csv
import io
from dataclasses import replace
from pathlib import Path

from beatmeter.cli.options import TERMINAL
from beatmeter.datasets.synthetic import Made, SynthPlan, synthesise
from beatmeter.datasets.synthetic_songs import SongPlan, synthesise_songs
from beatmeter.runtime import atomic

FORMS = {  # sets of songs of one form
    "ballads": "ballad",
    "eighths": "eighths",
    "sixteenths": "sixteenths",
    "slow": "slow",
    "fast": "fast",
}
COLUMNS = ("id", "file", "class", "group", "split", "source", "style", "tempo", "beats")


def main() -> None:
    """Make the sets, and the manifest of all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    for name in ("clips", "songs", "hard", *FORMS):
        parser.add_argument(f"--{name}", type=int, default=0)
    parser.add_argument("--excerpt", type=float, default=45.0, help="seconds of a song")
    parser.add_argument(
        "--seed", type=int, default=5, help="of the clips; the sets after it have the next ones"
    )
    parser.add_argument("--train", action="store_true", help="all of it teaches: no validation, no test")
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    out, seed, jobs = options.out, options.seed, options.jobs
    music, hard = SynthPlan(seed, mix="music"), SynthPlan(seed + 2, mix="hard")
    songs = SongPlan(excerpt=options.excerpt)
    if options.train:
        music, hard = replace(music, val=0.0, test=0.0), replace(hard, val=0.0, test=0.0)
        songs = replace(songs, val=0.0, test=0.0)
    made: list[Made] = []
    of_form = {name: getattr(options, name) for name in FORMS}
    every = options.clips + options.songs + options.hard + sum(of_form.values())
    with TERMINAL.track("synthesising", every) as tick:
        if options.clips:
            made.append(synthesise(out / "clips", options.clips, music, jobs, tick))
        if options.songs:
            plan = replace(songs, seed=seed + 1)
            made.append(synthesise_songs(out / "songs", options.songs, plan, jobs, tick))
        if options.hard:
            made.append(synthesise(out / "hard", options.hard, hard, jobs, tick))
        for number, (name, count) in enumerate(of_form.items()):
            if count:
                plan = replace(songs, seed=seed + 3 + number, form=FORMS[name])
                made.append(synthesise_songs(out / name, count, plan, jobs, tick))
    atomic.write_text(out / "manifest.csv", joined(out, [each.manifest for each in made]))


def joined(root: Path, manifests: list[Path]) -> str:
    """One table of all rows, with files as they lie under `root`."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for manifest in manifests:
        folder = manifest.parent.relative_to(root)
        with manifest.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                places = {name: (folder / row[name]).as_posix() for name in ("file", "beats")}
                writer.writerow({**row, **places, "source": folder.name})
    return text.getvalue()


if __name__ == "__main__":
    main()
