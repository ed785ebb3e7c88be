"""Four short files to try beatmeter on, the same every time: a waltz, bars of seven, a change from 4 to 7,
and rain.

python tools/examples.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from beatmeter.audio.encode import encode
from beatmeter.datasets.synth import SynthOptions, render
from beatmeter.datasets.synth.meterless import render_meterless
from beatmeter.runtime.atomic import write_bytes

RATE = 24_000
SECONDS = 30.0
STEADY = SynthOptions(rubato=0.0, silence=0.0)
SEED = 1


def pieces() -> dict[str, np.ndarray]:
    """Name -> (sample,) float32 at RATE."""
    waltz, seven, four = (
        render(SEED, meter=meter, kind="single", seconds=SECONDS, options=STEADY).audio for meter in (3, 7, 4)
    )
    return {
        "waltz": waltz,
        "seven": seven,
        "change": np.concatenate([four, seven]),
        "rain": render_meterless(SEED, "rain", seconds=SECONDS),
    }


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, wave in pieces().items():
        write_bytes(folder / f"{name}.flac", encode(wave.astype(np.float32), RATE, "FLAC", "PCM_16"))
