"""The costs of sections and drops that ship, from nothing but generated songs: `make models` runs it.

    python tools/sections_model.py OUT.safetensors --songs 6000 --dance 740 --ballads 740 --jobs 2

Songs are those of the seeds 0, 1, 2 ... but for HELD_BACK, which judge; dance tracks and ballads have seeds
of their own. Songs whose seed is a multiple of EVERY are for validation, which picks the epoch.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

from safetensors.torch import save

from beatmeter.cli.options import TERMINAL
from beatmeter.learning.sections import SongSeed, make_readings, train_costs
from beatmeter.runtime import atomic
from beatmeter.tasks.structure.costs import save_network

EVERY = 5  # of so many songs one is for validation
HELD_BACK = range(448, 560)  # seeds that nothing is learned from and nothing chosen on
DANCE, BALLADS = 20_000, 30_000  # first seeds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--songs", type=int, default=6000, help="songs of all forms")
    parser.add_argument("--dance", type=int, default=740, help="dance tracks beside them")
    parser.add_argument("--ballads", type=int, default=740, help="ballads beside them")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="folder in which what was read of each song stays")
    options = parser.parse_args()
    seeds = song_seeds(options.songs, options.dance, options.ballads)
    with TERMINAL.track("rendering songs", len(seeds)) as tick:
        songs = make_readings(seeds, options.jobs, tick, options.keep)
    val = [song for of, song in zip(seeds, songs, strict=True) if of.seed % EVERY == 0]
    train = [song for of, song in zip(seeds, songs, strict=True) if of.seed % EVERY]
    network = train_costs(train, val, say=print)
    atomic.write_bytes(options.out, save(save_network(network)))


def song_seeds(songs: int, dance: int, ballads: int) -> list[SongSeed]:
    """So many songs of all forms, dance tracks and ballads."""
    seeds = itertools.islice((seed for seed in itertools.count() if seed not in HELD_BACK), songs)
    return [
        *(SongSeed(seed) for seed in seeds),
        *(SongSeed(DANCE + k, "dance") for k in range(dance)),
        *(SongSeed(BALLADS + k, "ballad") for k in range(ballads)),
    ]


if __name__ == "__main__":
    main()
