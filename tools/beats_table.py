"""How well `beatmeter structure` hears beats, bars and, with its own bars, sections and drops in a data set,
beside librosa, a metronome that knows the tempo, and sections of eight of its bars, each with a drop: one
line a system, as Markdown.

    python tools/beats_table.py MUSIC/
    python tools/beats_table.py MUSIC/ --sections lab2 --jobs 2
    python tools/beats_table.py MUSIC/ --beats pulses
    python tools/beats_table.py SONGS/ --split test --model runs/beats

The first five seconds count nowhere for beats. Where the manifest names a `grouping` and the annotation
lists every pulse of the bar, a beat is the start of a group, as 6/8 is counted and as generated music has it;
`--beats parts` counts a group of four as two beats (five as 3+2, six as 3+3), `--beats pulses` every pulse.
A drop is found within one beat; a track without drops counts where some are heard, as 0. Intervals: 95 %,
bootstrap over groups (songs, tunes).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import beatmeter  # noqa: F401 - before torch, whose threads then sleep while they wait

# isort: split
import numpy as np
from librosa.beat import beat_track
from section_table import interval_cell

from beatmeter.audio.decode import load
from beatmeter.datasets import open_dataset
from beatmeter.datasets.annotations import Annotation, Folders, Spans, find_annotation
from beatmeter.datasets.groupings import parts_of, read_grouping
from beatmeter.errors import BeatmeterError
from beatmeter.evaluation.metrics.beats import any_octave, f_measure
from beatmeter.evaluation.metrics.events import moment_f
from beatmeter.evaluation.metrics.sections import intervals_of, section_scores
from beatmeter.runtime.parallel import Crash, ordered
from beatmeter.schema import Track
from beatmeter.serving.structure import StructureDetector
from beatmeter.settings import DataConfig

COLUMNS = ("beat F", "octave forgiven", "downbeat F", "HR.5", "HR3", "drop F")
EIGHT = 8  # bars of a section that nobody heard
Scores = Mapping[str, Mapping[str, float]]


def as_felt(known: Annotation, grouping: str, beats: str) -> Annotation:
    """The annotation with beats at the starts of the groups that its manifest names."""
    groups = () if beats == "pulses" else read_grouping(grouping)
    if beats == "parts":
        groups = parts_of(groups)
    return replace(known, grid=None if known.grid is None else known.grid.at_groups(groups))


@cache
def detector(model: Path | None) -> StructureDetector:
    return StructureDetector.load(model)


def judge(item: tuple[Track, Annotation], model: Path | None = None) -> Scores:
    """Every metric of one track, by system; nan where the annotation or the system says nothing."""
    track, known = item
    assert known.grid is not None
    beats, bars = known.grid.times, known.grid.downbeats
    (_, heard), *_ = detector(model).hear_files([track.path])
    if isinstance(heard, BeatmeterError):
        raise SystemExit(f"{track.path}: {heard}")
    ours = {**_of_beats(beats, heard.beats.times), "downbeat F": f_measure(bars, heard.downbeats)}
    eight: dict[str, float] = {}
    inside = heard.downbeats[EIGHT::EIGHT]
    if known.sections is not None:
        spans = np.stack([heard.sections.starts, heard.sections.ends], axis=1)
        ours |= _of_sections(known.sections, spans, heard.sections.names)
        eight = _of_sections(known.sections, intervals_of(np.array([0.0, *inside, heard.seconds])), None)
    if known.events is not None:
        drops = [t for t, kind in zip(known.events.times, known.events.kinds, strict=True) if kind == "drop"]
        beat = 60 / known.grid.tempo
        ours["drop F"] = moment_f(np.array(drops), heard.events.of("drop").starts, beat)
        eight["drop F"] = moment_f(np.array(drops), inside, beat)
    audio = load(track.path)
    _, tracked = beat_track(y=audio, sr=24_000, units="time")
    period = float(np.median(np.diff(beats)))
    return {
        "beatmeter": ours,
        "librosa": _of_beats(beats, tracked),
        "metronome": _of_beats(beats, np.arange(0.0, beats[-1] + period, period)),
        "every 8 of its bars": eight,
    }


def _of_sections(truth: Spans, spans: np.ndarray, names: Sequence[str] | None) -> dict[str, float]:
    found = section_scores(intervals_of(truth.boundaries), truth.labels, spans, names)
    return {"HR.5": found["hr5"], "HR3": found["hr3"]}


def _of_beats(truth: np.ndarray, found: np.ndarray) -> dict[str, float]:
    return {"beat F": f_measure(truth, found), "octave forgiven": any_octave(truth, found)}


def main() -> None:
    """Hear every track that has beats, and print the table and the difference to librosa."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--sections", default="lab", help="folder of the sections' .lab files")
    parser.add_argument("--beats", choices=("groups", "parts", "pulses"), default="groups")
    parser.add_argument("--model", type=Path, help="a run of the task beats; the one that ships otherwise")
    parser.add_argument("--split", help="tracks of this split only")
    parser.add_argument("--limit", type=int, help="the first tracks only")
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    folders = Folders(sections=options.sections)
    data = open_dataset(options.dataset, DataConfig(path=str(options.dataset)), (), labelled=False)
    tracks = [track for track in data.tracks if options.split in (None, track.split)]
    pairs = [(track, find_annotation(track, folders)) for track in tracks]
    items = [
        (track, as_felt(known, track.extra.get("grouping", ""), options.beats))
        for track, known in pairs
        if known is not None and known.grid is not None
    ]
    items = items[: options.limit]
    if not items:
        raise SystemExit(f"no track of {options.dataset} has annotated beats")
    scores: list[Scores] = []
    for outcome in ordered(partial(judge, model=options.model), items, options.jobs):
        if isinstance(outcome, Crash):
            raise SystemExit("a process died")
        scores.append(outcome)
    print(f"{len(items)} tracks of {options.dataset.name} with beats\n")
    show(scores, [track.group for track, _ in items])


def show(scores: Sequence[Scores], groups: Sequence[str]) -> None:
    """A line for every system, and how far its beats are from librosa's."""
    print("| system | " + " | ".join(COLUMNS) + " |\n|---|" + "---:|" * len(COLUMNS))
    columns = {
        system: {name: np.array([s[system].get(name, np.nan) for s in scores]) for name in COLUMNS}
        for system in scores[0]
    }
    for system, values in columns.items():
        cells = [interval_cell(values[name], groups) for name in COLUMNS]
        if any(cells):
            print(f"| {system} | {' | '.join(cells)} |")
    apart = columns["beatmeter"]["beat F"] - columns["librosa"]["beat F"]
    print(f"\nbeat F, beatmeter minus librosa: {interval_cell(apart, groups)}")


if __name__ == "__main__":
    main()
