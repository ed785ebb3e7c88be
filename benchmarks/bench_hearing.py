"""What a timeline costs next to hearing every window anew, in processor seconds, which other programs do not
change much.

Once as a test, small: `pytest benchmarks/bench_hearing.py`. Timed, over 90 s of music: `make bench
PART=hearing`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
from harness import Bench

from beatmeter.audio.decode import load
from beatmeter.datasets.synthetic import SynthPlan, synthesise
from beatmeter.evaluation.timeline import windows
from beatmeter.serving.models import SHIPPED
from beatmeter.serving.predictor import Predictor
from beatmeter.serving.scoring import hear

SECONDS = 90.0
ROUNDS = 3


def test_timeline(bench: Bench, tmp_path: Path) -> None:
    seconds = SECONDS if bench.timed else 20.0
    synthesise(tmp_path, 6, SynthPlan(seconds=max(15.0, seconds / 6)))
    wave = np.concatenate([load(path) for path in sorted((tmp_path / "audio").iterdir())])[
        : round(seconds * 24_000)
    ]
    song = tmp_path / "song.wav"
    soundfile.write(song, wave, 24_000)
    for model in ("ensemble-long", "spectral-lag") if bench.timed else ("spectral-lag",):
        predictor = Predictor.load(SHIPPED / model)

        def anew(predictor: Predictor = predictor) -> list[object]:
            wave = load(song)
            cuts = [wave[round(24_000 * a) : round(24_000 * b)] for a, b in windows(seconds)]
            return [
                predictor.scorer.join(
                    {name: hear(run, cut) for name, run in predictor.scorer.members.items()}
                )
                for cut in cuts
            ]

        def slid(predictor: Predictor = predictor) -> list[object]:
            return list(predictor.hear(song)[1])

        ways: dict[str, Callable[[], list[object]]] = {"every window anew": anew, "beatmeter": slid}
        assert len({len(way()) for way in ways.values()}) == 1
        spent: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(ROUNDS if bench.timed else 1):
            for name, way in ways.items():
                began = time.process_time()
                way()
                spent[name].append(time.process_time() - began)
        bench.judge(
            f"timeline of {seconds:g} s by {model}, processor seconds",
            spent,
            "every window anew",
            "beatmeter",
            seconds,
            "s of audio",
            {"every window anew": 4.0},
            note=(
                "Windows of 10 s every 2.5 s; anew, each member of an ensemble hears each window by itself. "
                "Loading the model is left out."
            ),
        )
