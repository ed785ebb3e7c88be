"""Four short pieces to try a model on, the same every time: a waltz, bars of seven, a change from 4 to 7, and
rain."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float32

from beatmeter.datasets.synth.meterless import render_meterless
from beatmeter.datasets.synth.options import SynthOptions
from beatmeter.datasets.synth.rendering import render
from beatmeter.datasets.synth.slices import render_slice

RATE = 24_000
SECONDS = 30.0
CHANGE = (
    (0.0, SECONDS, "4"),
    (SECONDS, 2 * SECONDS, "7"),
)  # start, end and meter of what "change" is made of
_STEADY = SynthOptions(rubato=0.0, silence=0.0)
_SEED = 1
WALTZ = 22  # the first seed that draws one among the dances in 3


def changing_piece() -> Float32[np.ndarray, " sample"]:
    """A minute of music at RATE whose meter changes in the middle, as CHANGE says."""
    parts = [_piece(int(meter), end - start) for start, end, meter in CHANGE]
    joined: np.ndarray = np.concatenate(parts)
    return joined


def example_pieces() -> Mapping[str, Float32[np.ndarray, " sample"]]:
    """All four at RATE, by name."""
    rain = render_meterless(_SEED, "rain", seconds=SECONDS).astype(np.float32)
    return {
        "waltz": render_slice(WALTZ, "dance", meter=3, seconds=SECONDS).audio,
        "seven": _piece(7, SECONDS),
        "change": changing_piece(),
        "rain": rain,
    }


def _piece(meter: int, seconds: float) -> np.ndarray:
    return render(_SEED, meter=meter, kind="single", seconds=seconds, options=_STEADY).audio.astype(
        np.float32
    )
