"""The first minute: a model that ships hears a piece that changes meter; then heads and a backbone learn to
hear music through a wall, on music that is synthesised here, offline."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from scipy import signal

from beatmeter.audio.encode import decode, encode
from beatmeter.datasets import open_dataset
from beatmeter.datasets.synth.examples import CHANGE, RATE, changing_piece
from beatmeter.datasets.synthetic import SynthPlan, synthesise
from beatmeter.errors import BeatmeterError
from beatmeter.evaluation import figures
from beatmeter.evaluation.comparison.compare import Pair, compare
from beatmeter.evaluation.metrics import Estimate, correct, share
from beatmeter.evaluation.report import Evaluation
from beatmeter.evaluation.timeline import Timeline, timeline
from beatmeter.learning.training import run
from beatmeter.runtime import atomic
from beatmeter.runtime.config import change
from beatmeter.runtime.progress import SILENT, Reporter
from beatmeter.schema import ClassPredictions
from beatmeter.serving.models import find_model
from beatmeter.serving.predictor import Predictor
from beatmeter.settings import DataConfig, RunConfig

CLIPS = 180
SECONDS = 15.0
SEED = 77  # of music that no model that ships has learned from
WALL = 250.0  # Hz: what a wall lets through
START = "embedded-lag"  # the model that ships whose head learns on
Report = Callable[[str], None]


@dataclass(frozen=True)
class Heard:
    """What a model heard in the piece that changes: the audio, a picture, and the timeline."""

    audio: Path
    picture: Path
    line: Timeline

    def drawing(self, columns: int) -> list[str]:
        """What the piece is made of and what was heard, a digit for each stretch of time, in lines of
        `columns` columns."""
        end = CHANGE[-1][1]
        centres = (np.arange(columns) + 0.5) * end / columns
        made = "".join(next(m for a, b, m in CHANGE if a <= t < b) for t in centres)
        segments = self.line.segments
        heard = "".join(
            next((s.meter or "-" for s in segments if s.start <= t < s.end), " ") for t in centres
        )
        marks = [f"{int(t) // 60}:{int(t) % 60:02d}" for t in np.arange(0, end, end / 4)]
        clock = "".join(mark.ljust(columns // 4) for mark in marks)
        return [f"time   {clock}", f"made   {made}", f"heard  {heard}"]


@dataclass(frozen=True)
class Row:
    """One system on the test clips: how many answers are right, the seconds that it took to learn, and its
    run folder; the model that ships has neither."""

    name: str
    accuracy: Estimate
    seconds: float = 0.0
    folder: Path | None = None


@dataclass(frozen=True)
class Learned:
    """The rows; the last against the one before it on the same clips, in accuracy and then in log loss; how
    many clips were learned from, and how many classes there are."""

    rows: tuple[Row, ...]
    gain: Pair
    train: int
    classes: int


def listen(out: Path, device: torch.device) -> Heard:
    """Synthesise the piece, hear it with the default model, draw the timeline; all in the folder `out`."""
    wave = changing_piece()
    audio, picture = out / "change.flac", out / "change.svg"
    atomic.write_bytes(audio, encode(wave, RATE, "FLAC", "PCM_16"))
    predictor = Predictor.load(device=device)
    times, answers = predictor.hear(audio)
    scores = np.stack([a.scores for a in answers])
    heard = np.array([np.nan if a.heard is None else a.heard for a in answers])
    line = timeline(
        times, scores, predictor.classes, predictor.thresholds, heard=None if np.isnan(heard).any() else heard
    )
    atomic.write_text(picture, figures.to_svg(figures.timeline(line), "timeline"))
    return Heard(audio, picture, line)


def through_the_wall(wave: Float[np.ndarray, " sample"], rate: int) -> Float[np.ndarray, " sample"]:
    """What of music gets through a wall: what is below WALL, 24 dB an octave above it, at the level that a
    recorder would set."""
    sections = signal.butter(4, WALL, "low", fs=rate, output="sos")
    dull = signal.sosfilt(sections, wave)
    found: np.ndarray = (0.9 * dull / max(1e-9, float(np.abs(dull).max(initial=0)))).astype(np.float32)
    return found


def make_music(out: Path, clips: int, seconds: float, jobs: int, progress: Reporter) -> Path:
    """A data set of `clips` pieces heard through a wall; what is there is kept."""
    clear, dull = out / "music", out / "through-the-wall"
    with progress.track("synthesising music", clips) as tick:
        plan = SynthPlan(seed=SEED, seconds=seconds, val=0.2, test=0.3)
        manifest = synthesise(clear, clips, plan, jobs, tick).manifest
    for audio in sorted((clear / "audio").iterdir()):
        place = dull / "audio" / audio.name
        if not place.exists():
            wave = through_the_wall(decode(audio.read_bytes()), plan.sample_rate)
            atomic.write_bytes(place, encode(wave, plan.sample_rate, "FLAC", "PCM_16"))
    text = manifest.read_text(encoding="utf-8").replace("beats/", "../music/beats/")
    atomic.write_text(dull / "manifest.csv", text)
    return dull


def learn(
    out: Path,
    data: Path,
    configs: Mapping[str, RunConfig],
    device: torch.device,
    report: Report = print,
    progress: Reporter = SILENT,
) -> Learned:
    """Train by each of `configs` in turn, the first from the head of the model that ships and every other
    from the one before it, and judge all of them, and that model as it is, on the test clips."""

    def brief(line: str) -> None:
        """Epochs are in the run's epochs.jsonl, and too much to read here."""
        if line.startswith("warning"):
            report(f"   {line}")

    start, rows, found = find_model(START), list[Row](), dict[str, ClassPredictions]()
    for name, config in configs.items():
        config = change(config, {"training": {"start": str(start)}})
        began = time.monotonic()
        outcome = run(config, unused(out / "runs", name.lower()), device, report=brief, progress=progress)
        seconds, start, test = time.monotonic() - began, outcome.folder.path, outcome.evaluations["test"]
        assert isinstance(test, Evaluation)
        found[name] = test.predictions
        report(f"   {name}: learned in {seconds:.0f} s, see {start}")
        rows.append(Row(name, test.measures.overall["accuracy"], seconds, start))
    first, last = list(found)[-2:]
    gain = compare({name: [found[name]] for name in (first, last)}, ["accuracy", "log_loss"]).pairs[0]
    before = Row("as it ships", as_it_ships(data, found[last], device))
    train = outcome.folder.about()["split"]["tracks"]["train"]
    return Learned((before, *rows), gain, train, len(found[last].classes))


def as_it_ships(data: Path, test: ClassPredictions, device: torch.device) -> Estimate:
    """How many of the clips of `test` the model that ships answers right."""
    dataset = open_dataset(data, DataConfig(), test.classes)
    path = {track.id: track.path for track in dataset.tracks}
    answers = Predictor.load(START, device).predict_files([path[id] for id in test.ids])
    scores = []
    for _, answer in answers:
        if isinstance(answer, BeatmeterError):
            raise answer
        scores.append(answer.scores)
    return share(correct(np.stack(scores), test.primary), test.groups)


def unused(folder: Path, name: str) -> Path:
    """`folder`/`name`, numbered when it is taken: nothing is overwritten."""
    path, n = folder / name, 1
    while path.exists():
        n += 1
        path = folder / f"{name}-{n}"
    return path
