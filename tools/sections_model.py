"""The costs of sections that ship, from nothing but generated songs: `make models` runs it.

    python tools/sections_model.py OUT.safetensors --songs 260 --epochs 24 --jobs 2

Songs are those of the seeds 0, 1, 2 ...; every tenth is for validation, which picks the epoch.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from safetensors.torch import save

from beatmeter.cli.options import TERMINAL
from beatmeter.learning.sections import make_readings, train_costs
from beatmeter.runtime import atomic
from beatmeter.tasks.structure.costs import save_network

EVERY = 10  # of so many songs one is for validation


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--songs", type=int, default=260)
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="folder in which what was read of each song stays")
    options = parser.parse_args()
    with TERMINAL.track("rendering songs", options.songs) as tick:
        songs = make_readings(range(options.songs), options.jobs, tick, options.keep)
    val, train = songs[::EVERY], [song for number, song in enumerate(songs) if number % EVERY]
    network = train_costs(train, val, epochs=options.epochs, say=print)
    atomic.write_bytes(options.out, save(save_network(network)))


if __name__ == "__main__":
    main()
