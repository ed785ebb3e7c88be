"""How well sections and drops are found in a data set, beside systems that learned nothing: one line a
system, as Markdown.

    python tools/section_table.py SONGS/ --limit 100
    python tools/section_table.py MUSIC/ --sections lab2

Bars are those of the annotations. A drop is found within one beat; null systems have one at every boundary,
and another has one where the bass of our sections rises by three points of ten. A track without drops counts
where some are heard, as 0. Intervals: 95 %, bootstrap over groups (songs).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from beatmeter.audio.barwise import frame_features
from beatmeter.audio.decode import load
from beatmeter.audio.energy import measure_energy
from beatmeter.datasets import open_dataset
from beatmeter.datasets.annotations import Annotation, Folders, find_annotation
from beatmeter.evaluation.metrics.events import moment_f
from beatmeter.evaluation.metrics.intervals import bootstrap, interval
from beatmeter.evaluation.metrics.sections import SECTION_METRICS, intervals_of, section_scores
from beatmeter.runtime.parallel import Crash, ordered
from beatmeter.schema import Track
from beatmeter.settings import DataConfig
from beatmeter.tasks.structure.baselines import null_systems
from beatmeter.tasks.structure.sections import find_drops, find_sections, hear_bars
from beatmeter.tasks.structure.similarity import bar_features

BASS, RISE = "our sections where the bass rises", 3.0  # of ten
Scores = dict[str, dict[str, float]]


def judge(item: tuple[Track, Annotation]) -> Scores:
    """Every metric of one track, by system."""
    track, known = item
    assert known.grid is not None
    assert known.sections is not None
    frames = frame_features([load(track.path)])
    truth = intervals_of(known.sections.boundaries)
    starts = known.grid.downbeats
    edges = np.append(starts[starts < truth[-1, 1] - 0.5], truth[-1, 1])  # silence after the end is no bar
    bars = bar_features(frames, edges)
    rng = np.random.default_rng(0)
    found = null_systems(bars, len(truth), rng)
    scores = {
        name: section_scores(truth, known.sections.labels, intervals_of(times), None)
        for name, times in found.items()
    }
    heard_bars = hear_bars(frames, known.grid.downbeats)
    marks = find_sections(heard_bars)
    scores["beatmeter"] = section_scores(
        truth, known.sections.labels, np.stack([marks.starts, marks.ends], axis=1), marks.names
    )
    if known.events is not None:
        pairs = zip(known.events.times, known.events.kinds, strict=True)
        drops, beat = np.array([time for time, kind in pairs if kind == "drop"]), 60 / known.grid.tempo
        levels = measure_energy(track.path).of_spans(marks.starts, marks.ends)
        heard = {name: times[1:-1] for name, times in found.items()}
        heard["beatmeter"] = find_drops(heard_bars).starts
        heard[BASS] = marks.starts[1:][np.diff(levels[:, 0]) >= RISE]
        for name, times in heard.items():
            scores.setdefault(name, {})["drop F"] = moment_f(drops, times, beat)
    return scores


def annotated(path: Path, folders: Folders, split: str | None) -> Iterator[tuple[Track, Annotation]]:
    """Tracks of which bars and sections are known."""
    for track in open_dataset(path, DataConfig(path=str(path)), (), labelled=False).tracks:
        known = find_annotation(track, folders) if split in (None, track.split) else None
        if known is not None and known.grid is not None and known.sections is not None:
            yield track, known


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--sections", default="lab", help="folder of the sections' .lab files")
    parser.add_argument("--split", help="tracks of this split only")
    parser.add_argument("--limit", type=int, help="the first tracks only")
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    items = list(annotated(options.dataset, Folders(sections=options.sections), options.split))[
        : options.limit
    ]
    scores: list[Scores] = []
    for outcome in ordered(judge, items, options.jobs):
        if isinstance(outcome, Crash):
            raise SystemExit("a process died")
        scores.append(outcome)
    groups = [track.group for track, _ in items]
    print(f"{len(items)} songs of {options.dataset.name}, true bars\n")
    columns = (*SECTION_METRICS, "drop F")
    print("| system | " + " | ".join(columns) + " |\n|" + "---|" * (1 + len(columns)))
    for system in scores[0]:
        cells = []
        for metric in columns:
            values = np.array([s[system].get(metric, np.nan) for s in scores])
            cells.append(interval_cell(values, groups))
        print(f"| {system} | " + " | ".join(cells) + " |")


def interval_cell(values: np.ndarray, groups: Sequence[str]) -> str:
    """The mean over tracks with its interval; empty where no track has a value."""
    known = ~np.isnan(values)
    if not known.any():
        return ""

    def mean(weights: np.ndarray | None) -> np.ndarray:
        w = np.ones(len(values)) if weights is None else weights
        result: np.ndarray = (w * known) @ np.nan_to_num(values) / np.maximum((w * known).sum(axis=-1), 1e-9)
        return result

    value, draws = bootstrap(mean, groups, 1000, 0)
    low, high = interval(draws)
    return f"{float(value):.3f} [{float(low):.3f}, {float(high):.3f}]"


if __name__ == "__main__":
    main()
