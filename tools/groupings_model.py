"""The networks that name groupings of additive meters, from generated clips: writes what ships.

    python tools/meter_data.py data/meter
    python tools/groupings_model.py data/meter beatmeter/models/groupings/model.safetensors \\
        --keep build/groupings

They learn from the training split, heard by the beats model that ships. On validation `predict`'s default
says the meter, and the threshold is where 85 % of the groupings that are named are right: in clips of 10 s
and more, where a wrong meter makes the grouping wrong too. What was heard of each clip stays in --keep.
"""

from __future__ import annotations

import argparse
import hashlib
import pickle
from pathlib import Path

import beatmeter  # noqa: F401 - before torch, whose threads then sleep while they wait

# isort: split
import numpy as np
import torch
from safetensors.torch import save

from beatmeter.audio.decode import load
from beatmeter.cli.options import TERMINAL
from beatmeter.datasets import open_dataset
from beatmeter.datasets.annotations import find_annotation
from beatmeter.datasets.groupings import GROUPINGS, grouping_of, read_grouping
from beatmeter.learning.groupings import Example, example_of, threshold_of, train_network
from beatmeter.runtime import atomic
from beatmeter.schema import Curves, Track
from beatmeter.serving.curves import CurveModel
from beatmeter.serving.judge import may_be_grouped
from beatmeter.serving.predictor import Predictor
from beatmeter.serving.tempo import BEATS
from beatmeter.settings import DataConfig
from beatmeter.tasks.structure.folding import Reading, find_pulses, readings
from beatmeter.tasks.structure.grouping import ADDITIVE, frames_of, group, save_networks

LONG = 10.0  # seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--keep", type=Path, required=True, help="folder of what was heard")
    parser.add_argument("--networks", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    tracks = open_dataset(options.dataset, DataConfig(), tuple(GROUPINGS)).tracks
    single = [t for t in tracks if len(t.labels) == 1]
    train = [t for t in single if t.split == "train" and named(t) in _names(t.primary)]
    ear = Ear(options.keep)
    with TERMINAL.track("hearing", len(train)) as tick:
        examples = []
        for t in train:
            if (example := ear.example(t)) is not None:
                examples.append(example)
            tick()
    networks = [train_network(examples, seed) for seed in range(options.networks)]
    predictor, sure, right = Predictor.load(), [], []
    known = [t for t in single if t.split == "val" and float(t.extra["seconds"]) >= LONG]
    with TERMINAL.track("validation", len(known)) as tick:
        for t in known:
            wave = load(t.path)
            answer = predictor.predict(wave, predictor.scorer.sample_rate)
            if may_be_grouped(answer):
                assert answer.meter is not None
                chances = group(networks, ear.readings(t, answer.meter)[0], answer.meter)
                best = max(chances, key=lambda name: chances[name], default=None)
                sure.append(max(chances.values(), default=0.0) * float(answer.scores.max()))
                right.append(float(answer.meter == t.primary and best == named(t)))
            tick()
    threshold = threshold_of(np.array(sure), np.array(right))
    above = np.array(right)[np.array(sure) >= threshold]
    print(f"{len(examples)} clips learned from; {sum(right):.0f} of {len(right)} of validation right")
    print(f"named from {threshold:.3f} on: {len(above)}, of which {above.sum():.0f} right")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    fits = {"beats": hashlib.sha256((BEATS / "best.safetensors").read_bytes()).hexdigest()}
    atomic.write_bytes(options.out, save(save_networks(networks, threshold), fits))


def named(track: Track) -> str | None:
    """The grouping of a track, by the column of that name."""
    return grouping_of(track.primary or "", read_grouping(track.extra["grouping"]))


def _names(meter: str | None) -> list[str]:
    return ["+".join(map(str, groups)) for groups in ADDITIVE.get(meter or "", ())]


class Ear:
    """The beats model, and what it made of the clips that were heard before."""

    def __init__(self, keep: Path) -> None:
        self._keep, self._model = keep, CurveModel(BEATS, torch.device("cpu"))
        keep.mkdir(parents=True, exist_ok=True)

    def example(self, track: Track) -> Example | None:
        """A track to learn from."""
        file = self._keep / f"{track.id}.pickle"
        if not file.exists():
            atomic.write_bytes(file, pickle.dumps(self._example(track)))
        found: Example | None = pickle.loads(file.read_bytes())
        return found

    def _example(self, track: Track) -> Example | None:
        meter, known = track.primary or "", find_annotation(track)
        if known is None or known.grid is None:
            return None
        found, frames, curves = self.readings(track, meter)
        downbeats = known.grid.times[known.grid.places == 1]
        grouping = _names(meter).index(named(track) or "")
        start = float(curves.starts[0])
        return example_of(meter, grouping, found, downbeats, frames, curves.rate, start)

    def readings(self, track: Track, meter: str) -> tuple[list[Reading], np.ndarray, Curves]:
        """Readings of a track in this meter, its frames and its curves."""
        wave = load(track.path)
        listener = self._model.listen(len(wave), states=True)
        listener.push(wave)
        curves, frames = listener.finish(track), frames_of(listener.states)
        start = float(curves.starts[0])
        grid = find_pulses(curves.values[0], curves.rate, start, meter)
        found = [] if grid is None else readings(frames, curves.rate, start, grid, int(meter))
        return found, frames, curves


if __name__ == "__main__":
    main()
