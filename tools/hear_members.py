"""Lets runs hear the validation and test clips of a set that they need not have been trained on.

    python tools/hear_members.py data/meter runs/models/ensemble runs/models/spectral-long
    beatmeter ensemble runs/models/spectral-lag runs/models/spectral-long --calibrated \
        --validation meter-val --split meter-test --out runs/both

All hear the same audio in one go, which is cheaper than `beatmeter evaluate` for one after the other, and
the splits stay apart; a set without splits is for testing. Each run gets predictions/SET-val.csv and
predictions/SET-test.csv, and of a set in which some clips are shorter than 10 s, SET-long-val.csv and
SET-long-test.csv of the others: of shorter audio no answer is called sure. So does an ensemble that is named,
from what its members say. What was heard is kept in runs/heard.jsonl, by run and track, so a stopped run goes
on.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import beatmeter  # noqa: F401 - before torch, whose threads then sleep while they wait

# isort: split
import numpy as np
import torch

from beatmeter.audio.decode import load
from beatmeter.datasets import open_dataset
from beatmeter.evaluation.calibration import Calibration
from beatmeter.evaluation.predictions import open_predictions, write_predictions
from beatmeter.evaluation.runs import RunFolder
from beatmeter.runtime.artifacts import read_json_lines
from beatmeter.schema import ClassPredictions
from beatmeter.serving.answer import Scored
from beatmeter.serving.judge import SHORTEST
from beatmeter.serving.models import EnsembleFolder
from beatmeter.serving.scoring import RunScorer, hear, share_encoders
from beatmeter.settings import DataConfig

HEARD = Path("runs") / "heard.jsonl"
SPLITS = ("val", "test")


class Together:
    """Runs that hear the same audio in one go; their scores lie end to end."""

    about = "runs side by side"

    def __init__(self, runs: Mapping[str, Path]) -> None:
        self._runs = {name: RunScorer(run, torch.device("cpu")) for name, run in runs.items()}
        share_encoders(list(self._runs.values()))
        first = next(iter(self._runs.values()))
        self.classes, self.sample_rate = first.classes, first.sample_rate
        if {(run.classes, run.sample_rate) for run in self._runs.values()} != {
            (first.classes, first.sample_rate)
        }:
            sys.exit("these runs differ in their classes or sample rates")

    @property
    def members(self) -> Mapping[str, RunScorer]:
        """The runs by name."""
        return self._runs

    def join(self, members: Mapping[str, Scored]) -> Scored:
        """Their scores, one run after the other."""
        return Scored(np.concatenate([members[name].scores for name in self._runs]), np.zeros(0))

    def hear(self, wave: np.ndarray) -> Scored:
        """The scores of all for mono audio at `sample_rate`."""
        return hear(self, wave)


def main() -> None:
    """Hear what was not heard yet, then write the predictions."""
    place, *paths = map(Path, sys.argv[1:])
    if not paths:
        sys.exit("name the data set and the runs: tools/hear_members.py DATA RUN ...")
    ensembles = [folder for path in paths if (folder := EnsembleFolder(path)).exists()]
    runs = {path.name: path for path in paths if not EnsembleFolder(path).exists()}
    runs |= {run.name: run for folder in ensembles for run in folder.runs().values()}
    together = Together(runs)
    found = open_dataset(place, DataConfig(), together.classes)
    tracks = [replace(t, split=t.split or "test") for t in found.tracks]
    tracks = [t for t in tracks if t.split in SPLITS]
    HEARD.parent.mkdir(parents=True, exist_ok=True)
    rows = read_json_lines(HEARD).values if HEARD.exists() else []
    scores = {(row["run"], row["id"]): row["scores"] for row in rows}
    with HEARD.open("a", encoding="utf-8") as file:
        for track in tracks:
            if all((name, track.id) in scores for name in runs):
                continue
            with torch.inference_mode():
                values = np.split(together.hear(load(track.path)).scores, len(runs))
            for name, own in zip(runs, values, strict=True):
                scores[name, track.id] = own.tolist()
                file.write(json.dumps({"run": name, "id": track.id, "scores": own.tolist()}) + "\n")
            file.flush()
    for split in SPLITS:
        own_tracks = [t for t in tracks if t.split == split]
        long = [t for t in own_tracks if float(t.extra.get("seconds") or "inf") >= SHORTEST]
        for name, chosen in ((f"{found.name}-{split}", own_tracks), (f"{found.name}-long-{split}", long)):
            if not chosen or (chosen is long and len(long) == len(own_tracks)):
                continue
            for run, folder in runs.items():
                of_run = np.array([scores[run, t.id] for t in chosen])
                predictions = ClassPredictions.of_tracks(chosen, together.classes, of_run, split)
                path = folder / "predictions" / f"{name}.csv"
                write_predictions(path, predictions)
                print(f"{path}: {len(chosen)} tracks")
            for ensemble in ensembles:
                write_predictions(ensemble.path / "predictions" / f"{name}.csv", joined(ensemble, name))


def joined(folder: EnsembleFolder, split: str) -> ClassPredictions:
    """What an ensemble makes of its members' predictions."""
    members = {}
    for name, run in folder.runs().items():
        own = open_predictions(run, split)
        members[name] = Calibration.load(RunFolder(run).calibration).apply(own) if folder.calibrated else own
    return folder.ensemble().combine(members, folder.path.name)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
