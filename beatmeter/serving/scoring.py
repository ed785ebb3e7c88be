"""What trained runs hear in audio: scores per class and the evidence for a meter, of one run or several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import torch
from jaxtyping import Float

from beatmeter.errors import RunError
from beatmeter.evaluation.calibration import Calibration
from beatmeter.evaluation.comparison.ensemble import Ensemble
from beatmeter.evaluation.records import read_records
from beatmeter.evaluation.runs import RunFolder
from beatmeter.features.backbones.adapters import load_merged
from beatmeter.features.backbones.sharing import share_front_ends
from beatmeter.features.listening import TrackListener, listening_together
from beatmeter.features.model import FeatureModel
from beatmeter.features.pooling import Encoder
from beatmeter.features.poolings.sequences import row_centres
from beatmeter.features.tracks import TrackEncoder
from beatmeter.learning.restoring import restore
from beatmeter.runtime.artifacts import named
from beatmeter.schema import Items, Marks, Track, ValuePredictions, as_classes
from beatmeter.serving.answer import Scored
from beatmeter.serving.evidence import evidence_of
from beatmeter.serving.models import EnsembleFolder
from beatmeter.tasks import FrameOutputs, Task
from beatmeter.tasks.heads import Head
from beatmeter.tasks.meter import MeterTask


class Scorer(Protocol):
    """Anything that gives audio a score per class: one run, or several joined."""

    classes: tuple[str, ...]
    sample_rate: int
    about: str

    @property
    def members(self) -> Mapping[str, RunScorer]:
        """The runs that hear, by name."""
        ...

    def hear(self, wave: Float[np.ndarray, " sample"]) -> Scored:
        """Probability per class of mono audio at `sample_rate`, before calibration, and the evidence for a
        meter."""
        ...

    def join(self, members: Mapping[str, Scored]) -> Scored:
        """What the members say of the same audio as one."""
        ...


class RunScorer:
    """The best epoch of one run: backbone, adapter and head."""

    def __init__(self, run: Path, device: torch.device) -> None:
        saved = restore(run)
        config, spec, task = saved.config, saved.spec, saved.task
        if "beat" in task.output.names and _on_frames(task):
            what = f"{run} is a model of the task {config.task.name}, which hears beats"
            raise RunError(what, f"Use `beatmeter structure song.mp3 --model {run}`.")
        with named(saved.folder.config_file):
            model = FeatureModel(config.features, device)
            found = model.spec
        found.only([p.name for p in spec.poolings]).require_agreement(spec, f"the run {run}")
        self.head = saved.head(device)
        with named(saved.folder.best):
            load_merged(model.backbone, config.adapter, saved.adapter)
        self.adapted = bool(saved.adapter)
        self.task, self.standardise = task, saved.standardiser
        self._lags = [p.name for p in spec.poolings if p.axes == ("channel", "lag")]
        self.encoder = TrackEncoder(model.backbone, spec, device).eval()
        own = saved.folder.curves("val")  # thresholds of moments come from there
        self._validation = read_records(own) if _on_frames(task) and own.exists() else None
        self.classes, self.sample_rate, self.about = (
            self.task.output.names,
            spec.chunk.sample_rate,
            model.describe(),
        )

    @property
    def members(self) -> Mapping[str, RunScorer]:
        return {"": self}

    def join(self, members: Mapping[str, Scored]) -> Scored:
        return members[""]

    def hear(self, wave: Float[np.ndarray, " sample"]) -> Scored:
        return hear(self, wave)

    def score(self, features: Mapping[str, torch.Tensor]) -> Scored:
        """What the head makes of the features of one track, (1, layer, *axes) by pooling."""
        return self.score_each(features)[0]

    def score_each(self, features: Mapping[str, torch.Tensor]) -> list[Scored]:
        """The same for several tracks or windows, (item, layer, *axes) by pooling."""
        with torch.inference_mode():
            standardised = self.standardise(features)
            if self.task.output.kind == "embedding":
                vectors = self.head(standardised).double().cpu().numpy()
                return [Scored(v, np.zeros(0)) for v in vectors]
            if self.task.output.resolution == "frame":
                return self._score_frames(standardised)
            hidden = cast(Head, self.head).hidden(standardised)
            outputs = cast(Head, self.head).output(hidden).double().cpu().numpy()
            evidence = evidence_of(features, self._lags, hidden).double().cpu().numpy()
        record = self.task.decode(outputs, unnamed(len(outputs)))
        numbers = record.values if isinstance(record, ValuePredictions) else as_classes(record).scores
        meter = self.task if isinstance(self.task, MeterTask) else None
        grouped = meter.grouped(outputs) if meter else [{}] * len(outputs)
        two = meter.doubled(outputs) if meter else [None] * len(outputs)
        return [Scored(*own) for own in zip(numbers, evidence, grouped, two, strict=True)]

    def _score_frames(self, features: Mapping[str, torch.Tensor]) -> list[Scored]:
        values, found = self.head(features).double().cpu().numpy(), list[Scored]()
        for row, times in zip(values, row_centres(features, self.task.clock), strict=True):
            decoded = self.task.decode(FrameOutputs((row[: len(times)],), (times,)), unnamed(1))
            record = self.task.answers(decoded, self._validation)
            found.append(Scored(summary(record, self.classes), np.zeros(0), record=record))
        return found


def _on_frames(task: Task) -> bool:
    if task.output.resolution != "frame":
        return False
    from beatmeter.tasks.structure.frames import FrameTask  # with all that annotations need

    return isinstance(task, FrameTask)


def unnamed(n: int) -> list[Track]:
    """Stand-ins for so many tracks of which nothing is known but how they sound."""
    return [Track(str(i), Path(str(i))) for i in range(n)]


def summary(record: Items, names: Sequence[str]) -> Float[np.ndarray, " name"]:
    """(name,) what a record of one piece of audio says in one number each: the mean of the values, of marks
    how many there are that are called so."""
    if isinstance(record, ValuePredictions) and len(record):
        found: np.ndarray = record.values.mean(axis=0)
        return found
    if isinstance(record, Marks):
        marks = [pair for own in record.marks for pair in zip(own.kinds, own.names, strict=True)]
        return np.array([sum(name in pair for pair in marks) for name in names], float)
    return np.full(len(names), np.nan)


class EnsembleScorer:
    """Runs joined by `beatmeter ensemble`; each is calibrated first if it was when the weights were
    fitted."""

    def __init__(self, folder: EnsembleFolder, device: torch.device) -> None:
        self.ensemble, runs = folder.ensemble(), folder.runs()
        used = self.ensemble.used
        self._members = {name: RunScorer(runs[name], device) for name in used}
        share_encoders(list(self._members.values()))
        self.calibrations = (
            {name: Calibration.load(RunFolder(runs[name]).calibration) for name in used}
            if folder.calibrated
            else {}
        )
        for name, calibration in self.calibrations.items():
            with named(RunFolder(runs[name]).calibration):
                calibration.require_classes(self._members[name].classes)
        first = next(iter(self.members.values()))
        self.classes, self.sample_rate = first.classes, first.sample_rate
        self.about = f"an ensemble of {', '.join(used)}"
        if first.classes != self.ensemble.classes:
            raise RunError(
                f"{folder.path / 'ensemble.json'} is of the classes {', '.join(self.ensemble.classes)}, its "
                f"members of {', '.join(first.classes)}",
                "Run `beatmeter ensemble` again.",
            )
        if len({(m.classes, m.sample_rate) for m in self.members.values()}) > 1:
            raise RunError(
                f"the members of {folder.path} differ in their classes or sample rates",
                "Join runs of the same task.",
            )

    @property
    def members(self) -> Mapping[str, RunScorer]:
        return self._members

    def hear(self, wave: Float[np.ndarray, " sample"]) -> Scored:
        return hear(self, wave)

    def join(self, members: Mapping[str, Scored]) -> Scored:
        """What the members say of the same audio as one; their evidence is laid end to end."""
        found = {name: s.scores[None] for name, s in members.items()}
        found = {
            name: self.calibrations[name](value) if name in self.calibrations else value
            for name, value in found.items()
        }
        silent = np.zeros((1, len(self.classes)))  # weight 0
        joined: np.ndarray = self.ensemble.scores(
            [found.get(name, silent) for name in self.ensemble.members]
        )[0]
        evidence = np.concatenate([members[name].evidence for name in self.members])
        groupings = mean_groupings([members[name].groupings for name in self.members])
        knowing = witness_of_pairs(self.ensemble, [n for n, s in members.items() if s.two is not None])
        return Scored(joined, evidence, groupings, members[knowing].two if knowing else None)


def share_encoders(runs: Sequence[RunScorer]) -> None:
    """Let runs that read the same features hold one encoder, which then encodes once for all of them, and let
    backbones that begin alike compute that part once. A run that adapted its backbone has features of its
    own."""
    known: dict[tuple[str, torch.device], TrackEncoder] = {}
    for run in runs:
        if not run.adapted:
            run.encoder = known.setdefault((run.encoder.spec.fingerprint, run.encoder.device), run.encoder)
    share_front_ends({id(run.encoder): run.encoder.encode.backbone for run in runs}.values())


def witness_of_pairs(ensemble: Ensemble, knowing: Sequence[str]) -> str | None:
    """The member that an ensemble believes about two meters at once: of those that learned it, the one of
    most weight."""
    return max(knowing, key=lambda name: (ensemble.weights.get(name, 0.0), name), default=None)


def mean_groupings(parts: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """The mean of probabilities of groupings by class, over the members that know any."""
    knowing = [part for part in parts if part]
    return {
        meter: {name: sum(part[meter][name] for part in knowing) / len(knowing) for name in groupings}
        for meter, groupings in (knowing[0] if knowing else {}).items()
    }


class WholeTrack:
    """A track of `samples` samples that is heard as its blocks come, in flat memory."""

    def __init__(self, scorer: Scorer, samples: int) -> None:
        self._scorer = scorer
        self._listeners = [
            TrackListener(group, samples, device) for group, device in listening_groups(scorer)
        ]

    def push(self, block: Float[np.ndarray, " sample"]) -> None:
        """The next samples, mono at the scorer's rate."""
        with torch.inference_mode():
            for listener in self._listeners:
                listener.push(block)

    def finish(self) -> Scored:
        """What is made of all of it. Raises AudioError when there was more or less of it than was said."""
        with torch.inference_mode():
            features = {
                name: found for listener in self._listeners for name, found in listener.finish().items()
            }
            return self._scorer.join(
                {name: member.score(features[name]) for name, member in self._scorer.members.items()}
            )


def listening_groups(scorer: Scorer) -> list[tuple[dict[str, Encoder], torch.device]]:
    """The encoders of the members in groups that listen together, by name, and the device of each group."""
    groups = listening_together({name: run.encoder.encode for name, run in scorer.members.items()})
    return [(group, scorer.members[next(iter(group))].encoder.device) for group in groups]


def hear(scorer: Scorer, wave: Float[np.ndarray, " sample"]) -> Scored:
    """What a scorer makes of a whole wave, mono at its rate."""
    track = WholeTrack(scorer, len(wave))
    track.push(wave)
    return track.finish()
