"""How well `beatmeter structure` hears beats, bars and, with its own bars, sections in a data set, beside
librosa and a metronome that knows the tempo: one line a system, as Markdown.

    python tools/beats_table.py MUSIC/
    python tools/beats_table.py SONGS/ --sections lab2 --jobs 2

The first five seconds count nowhere for beats. Intervals: 95 %, bootstrap over groups (songs, tunes).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import beatmeter  # noqa: F401 - before torch, whose threads then sleep while they wait

# isort: split
import numpy as np
from librosa.beat import beat_track
from section_table import interval_cell

from beatmeter.audio.decode import load
from beatmeter.datasets import open_dataset
from beatmeter.datasets.annotations import Annotation, Folders, find_annotation
from beatmeter.errors import BeatmeterError
from beatmeter.evaluation.metrics.beats import any_octave, f_measure
from beatmeter.evaluation.metrics.sections import intervals_of, section_scores
from beatmeter.runtime.parallel import Crash, ordered
from beatmeter.schema import Track
from beatmeter.serving.structure import StructureDetector
from beatmeter.settings import DataConfig

COLUMNS = ("beat F", "octave forgiven", "downbeat F", "HR.5", "HR3")
Scores = Mapping[str, Mapping[str, float]]


@cache
def detector() -> StructureDetector:
    return StructureDetector.load()


def judge(item: tuple[Track, Annotation]) -> Scores:
    """Every metric of one track, by system; nan where the annotation or the system says nothing."""
    track, known = item
    assert known.grid is not None
    beats, bars = known.grid.times, known.grid.downbeats
    (_, heard), *_ = detector().hear_files([track.path])
    if isinstance(heard, BeatmeterError):
        raise SystemExit(f"{track.path}: {heard}")
    ours = {**_of_beats(beats, heard.beats.times), "downbeat F": f_measure(bars, heard.downbeats)}
    if known.sections is not None:
        spans = np.stack([heard.sections.starts, heard.sections.ends], axis=1)
        truth = intervals_of(known.sections.boundaries)
        found = section_scores(truth, known.sections.labels, spans, heard.sections.names)
        ours |= {"HR.5": found["hr5"], "HR3": found["hr3"]}
    audio = load(track.path)
    _, tracked = beat_track(y=audio, sr=24_000, units="time")
    period = float(np.median(np.diff(beats)))
    return {
        "beatmeter": ours,
        "librosa": _of_beats(beats, tracked),
        "metronome": _of_beats(beats, np.arange(0.0, beats[-1] + period, period)),
    }


def _of_beats(truth: np.ndarray, found: np.ndarray) -> dict[str, float]:
    return {"beat F": f_measure(truth, found), "octave forgiven": any_octave(truth, found)}


def main() -> None:
    """Hear every track that has beats, and print the table and the difference to librosa."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--sections", default="lab", help="folder of the sections' .lab files")
    parser.add_argument("--limit", type=int, help="the first tracks only")
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    folders = Folders(sections=options.sections)
    data = open_dataset(options.dataset, DataConfig(path=str(options.dataset)), (), labelled=False)
    pairs = [(track, find_annotation(track, folders)) for track in data.tracks]
    items = [(t, known) for t, known in pairs if known is not None and known.grid is not None]
    items = items[: options.limit]
    if not items:
        raise SystemExit(f"no track of {options.dataset} has annotated beats")
    scores: list[Scores] = []
    for outcome in ordered(judge, items, options.jobs):
        if isinstance(outcome, Crash):
            raise SystemExit("a process died")
        scores.append(outcome)
    groups = [track.group for track, _ in items]
    print(f"{len(items)} tracks of {options.dataset.name} with beats\n")
    print("| system | " + " | ".join(COLUMNS) + " |\n|---|" + "---:|" * len(COLUMNS))
    columns = {
        system: {name: np.array([s[system].get(name, np.nan) for s in scores]) for name in COLUMNS}
        for system in scores[0]
    }
    for system, values in columns.items():
        print(f"| {system} | " + " | ".join(interval_cell(values[name], groups) for name in COLUMNS) + " |")
    apart = columns["beatmeter"]["beat F"] - columns["librosa"]["beat F"]
    print(f"\nbeat F, beatmeter minus librosa: {interval_cell(apart, groups)}")


if __name__ == "__main__":
    main()
