"""Four short files to try beatmeter on, the same every time: a waltz, bars of seven, a change from 4 to 7,
and rain.

python tools/examples.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

from beatmeter.audio.encode import encode
from beatmeter.datasets.synth.examples import RATE, example_pieces
from beatmeter.runtime.atomic import write_bytes

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, wave in example_pieces().items():
        write_bytes(folder / f"{name}.flac", encode(wave, RATE, "FLAC", "PCM_16"))
