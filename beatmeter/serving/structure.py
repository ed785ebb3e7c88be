"""The structure of a track: tempo, meter, beats and bars, sections and their energy, events."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from beatmeter.audio.ahead import decode_or_count
from beatmeter.audio.barwise import frame_features
from beatmeter.audio.energy import Energy, EnergyMeter
from beatmeter.datasets.annotations import Annotation, Events, Grid, Provenance, Spans
from beatmeter.errors import AudioError, BeatmeterError
from beatmeter.runtime.paths import StrPath, as_paths
from beatmeter.runtime.progress import untold
from beatmeter.schema import Curves, MarkList, Track
from beatmeter.serving.answer import Answer
from beatmeter.serving.curves import CurveModel
from beatmeter.serving.grouping import with_grouping
from beatmeter.serving.judge import may_be_grouped
from beatmeter.serving.predictor import Predictor, Seconds
from beatmeter.serving.scoring import WholeTrack
from beatmeter.serving.tempo import BEATS, blocks_of, prior_of, tempo_of
from beatmeter.tasks.structure.decoding import Beats, find_bars
from beatmeter.tasks.structure.sections import find_drops, find_sections, hear_bars

BANDS = ("bass", "mid", "high", "overall")
FALL = 3.0  # of ten: a fall of bass from section to section that is a break


@dataclass(frozen=True)
class Structure:
    """What was found in one track. Times in seconds; `sections` and `events` are marks; `energy` (section,
    4) is on a scale of 1 to 10 within the track for bass, mid, high and overall. `meter` is the answer of
    the meter model."""

    path: Path
    seconds: float
    beats: Beats
    meter: Answer
    sections: MarkList
    energy: Float[np.ndarray, "section 4"]
    events: MarkList
    curves: Curves
    levels: Energy = field(repr=False)

    @property
    def downbeats(self) -> Float[np.ndarray, " bar"]:
        """Where bars begin."""
        found: np.ndarray = self.beats.times[self.beats.places == 1]
        return found

    @property
    def tempo(self) -> float | None:
        """Beats a minute, as `tempo_of` has it."""
        return tempo_of(self.beats)

    @property
    def steadiness(self) -> float | None:
        """1 for a machine: 1 - the middle half of the lengths of bars over their median, at least 0; None
        with fewer
        than four bars."""
        if len(self.downbeats) < 5:
            return None
        low, middle, high = np.percentile(np.diff(self.downbeats), [25, 50, 75])
        return float(max(0.0, 1 - (high - low) / middle))

    @property
    def bars(self) -> list[int]:
        """How many bars begin in each section."""
        pairs = zip(self.sections.starts, self.sections.ends, strict=True)
        return [int(((self.downbeats >= a - 0.05) & (self.downbeats < b - 0.05)).sum()) for a, b in pairs]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; times in seconds."""
        s = self.sections
        rows = zip(
            s.starts.tolist(),
            s.ends.tolist(),
            s.names,
            self.bars,
            self.energy.tolist(),
            s.scores.tolist(),
            strict=True,
        )
        return {
            "file": str(self.path),
            "seconds": round(self.seconds, 3),
            "tempo": None if self.tempo is None else round(self.tempo, 2),
            "steadiness": None if self.steadiness is None else round(self.steadiness, 3),
            "meter": self.meter.meter,
            "grouping": self.meter.grouping,
            "beats_per_bar": int(np.bincount(self._bar_sizes).argmax()) if len(self._bar_sizes) else None,
            "beats": _times(self.beats.times),
            "places": self.beats.places.tolist(),
            "downbeats": _times(self.downbeats),
            "sections": [
                {
                    "start": round(a, 3),
                    "end": round(b, 3),
                    "label": label,
                    "bars": bars,
                    "energy": {n: _number(x) for n, x in zip(BANDS, energy, strict=True)},
                    "sure": _number(sure),
                }
                for a, b, label, bars, energy, sure in rows
            ],
            "events": [
                {"time": round(t, 3), "kind": kind}
                for t, kind in zip(self.events.starts.tolist(), self.events.kinds, strict=True)
            ],
        }

    @property
    def _bar_sizes(self) -> np.ndarray:
        return np.diff(np.flatnonzero(self.beats.places == 1))

    def annotation(self) -> Annotation:
        """The same as an annotation, to be written in any of its formats."""
        known, by = np.array([[0.0, self.seconds]]), Provenance("beatmeter", tier=3)
        grid = Grid(self.beats.times, self.beats.places, known=known, provenance=by)
        spans = Spans(
            self.sections.starts,
            self.sections.ends,
            self.sections.names,
            energy=self.energy,
            known=known,
            provenance=by,
        )
        events = Events(self.events.starts, self.events.kinds, known=known, provenance=by)
        return Annotation(self.path.stem, self.seconds, grid, spans, events)


def _times(values: np.ndarray) -> list[float]:
    return [round(x, 3) for x in values.tolist()]


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 2)


def find_breaks(sections: MarkList, energy: Float[np.ndarray, "section 4"]) -> MarkList:
    """Sections whose bass is FALL below that of the section before."""
    fallen = np.flatnonzero(np.diff(energy[:, 0]) <= -FALL) + 1
    return MarkList.moments("break", sections.starts[fallen])


class StructureDetector:
    """The beats model and the meter model, ready for audio files."""

    def __init__(self, beats: CurveModel, meter: Predictor) -> None:
        self._beats, self._meter = beats, meter
        self._groups = beats.run == BEATS  # groupings follow from the states of that model alone

    @classmethod
    def load(cls, beats: StrPath | None = None, device: torch.device | None = None) -> StructureDetector:
        """The models that ship, or a run of the task beats. Raises RunError."""
        device = device or torch.device("cpu")
        predictor = Predictor.load(None, device)
        return cls(CurveModel(BEATS if beats is None else Path(beats), device), predictor)

    def hear_files(
        self, paths: StrPath | Iterable[StrPath], jobs: int = 0, progress: Seconds = untold
    ) -> Iterator[tuple[Path, Structure | BeatmeterError]]:
        """The structure of each file in order, or the reason why there is none; memory hardly grows with
        the length
        of a file. `progress(seconds)`: so much more audio has been heard."""
        paths, rate = as_paths(paths), self._beats.sample_rate
        for path, audio in zip(paths, decode_or_count(paths, rate, jobs), strict=True):
            try:
                blocks, samples = blocks_of(path, audio, rate)
                yield path, self._hear(path, blocks, samples, progress)
            except AudioError as error:
                yield path, error

    def _hear(
        self, path: Path, blocks: Iterable[Float[np.ndarray, " sample"]], samples: int, progress: Seconds
    ) -> Structure:
        rate = self._beats.sample_rate
        beats, meter, energy = (
            self._beats.listen(samples, states=self._groups),
            WholeTrack(self._meter.scorer, samples),
            EnergyMeter(rate),
        )

        def heard() -> Iterator[np.ndarray]:
            for block in blocks:
                for listener in (beats, meter, energy):
                    listener.push(block)
                yield block
                progress(len(block) / rate)

        frames = frame_features(heard())
        seconds = samples / rate
        answer = self._meter.judge(self._meter.classes, meter.finish(), seconds)
        curves, levels = beats.finish(Track(path.name, path)), energy.finish()
        if self._groups and may_be_grouped(answer):
            answer = with_grouping(answer, curves, beats)
        found = find_bars(curves.values[0], curves.rate, float(curves.starts[0]), prior_of(answer))
        bars = hear_bars(frames, found.times[found.places == 1])
        sections = find_sections(bars)
        of_sections = levels.of_spans(sections.starts, sections.ends)
        events = find_drops(bars) + find_breaks(sections, of_sections)
        return Structure(path, seconds, found, answer, sections, of_sections, events, curves, levels)
