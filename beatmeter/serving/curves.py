"""Curves of a task on frames from audio that comes in blocks, in flat memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from beatmeter.audio.chunking import row_spans, rows
from beatmeter.errors import RunError
from beatmeter.features.backbones.adapters import load_merged
from beatmeter.features.listening import TrackListener
from beatmeter.features.model import FeatureModel
from beatmeter.features.poolings.sequences import pad
from beatmeter.features.tracks import TrackEncoder
from beatmeter.learning.restoring import restore
from beatmeter.runtime.artifacts import named
from beatmeter.schema import Curves, Track
from beatmeter.tasks import FrameOutputs
from beatmeter.tasks.structure.frames import FrameTask
from beatmeter.tasks.structure.head import FrameHead

BARS = ("beat", "downbeat")  # curves that bars are found from
STRETCH = 60.0  # seconds that the head reads at a time
AROUND = 15.0  # seconds before and after them that it sees too
MIDDLE = 60.0  # seconds in the middle of a track of which states are kept


class CurveModel:
    """The best epoch of a run over frames: backbone, adapter and head."""

    def __init__(self, run: Path, device: torch.device) -> None:
        """Raises RunError for a run of a task that gives no curves of beats."""
        saved, self.run = restore(run), run
        if not isinstance(saved.task, FrameTask) or not set(BARS) <= set(saved.task.output.names):
            name = saved.config.task.name
            raise RunError(
                f"{run} is a model of the task {name}, which hears no beats",
                "Name one of the task beats, or of the task structure with beats among its parts.",
            )
        with named(saved.folder.config_file):
            model = FeatureModel(saved.config.features, device)
            found = model.spec
        found.only([p.name for p in saved.spec.poolings]).require_agreement(saved.spec, f"the run {run}")
        self.task, self.standardise, self.head = saved.task, saved.standardiser, saved.head(device)
        with named(saved.folder.best):
            load_merged(model.backbone, saved.config.adapter, saved.adapter)
        self.encoder = TrackEncoder(model.backbone, saved.spec, device).eval()
        self.spec, self.device, self.sample_rate = saved.spec, device, saved.spec.chunk.sample_rate

    def listen(self, samples: int, states: bool = False) -> CurveListener:
        """For a track of so many samples; with `states` what the curves of its middle are made of is kept
        too. Raises AudioError when it is too short."""
        return CurveListener(self, samples, states)


class CurveListener:
    """A track that is pushed block by block; of its features a stretch is held, of its curves all."""

    def __init__(self, model: CurveModel, samples: int, states: bool = False) -> None:
        self._model, self._with_states = model, states
        self._listener = TrackListener({"": model.encoder.encode}, samples, model.device)
        pooling = model.spec.poolings[0]
        self._times = row_spans(rows(self._listener.layout, pooling)[0], model.spec).mean(axis=1)
        rate = model.task.output.rate or 1.0
        self._stretch, self._around = round(STRETCH * rate), round(AROUND * rate)
        self._held: dict[str, torch.Tensor] = {}
        self._first = self._done = 0  # rows: where what is held begins, and up to which curves are made
        self._parts: list[np.ndarray] = []
        longest = round(MIDDLE * rate)
        first = max(0, len(self._times) - longest) // 2
        self.middle = slice(first, min(len(self._times), first + longest))  # rows
        self._states: list[np.ndarray] = []

    def push(self, block: Float[np.ndarray, " sample"]) -> None:
        """The next samples, mono at the model's rate."""
        with torch.inference_mode():
            self._listener.push(block)
            self._advance(last=False)

    @property
    def states(self) -> Float[np.ndarray, "time channel"]:
        """After `finish`, of a FrameHead that listened with `states`: its outputs and its states, side by
        side, for the rows `middle` of the curves."""
        return np.concatenate(self._states)

    def finish(self, track: Track) -> Curves:
        """The curves of all of it. Raises AudioError when there was more or less than was said, and
        RunError for
        values that are not finite."""
        with torch.inference_mode():
            self._listener.end()
            self._advance(last=True)
        values = (
            np.concatenate(self._parts) if self._parts else np.zeros((0, len(self._model.task.output.names)))
        )
        if not np.isfinite(values).all():
            raise RunError(
                f"the model gives values that are not finite for {track.id}", "Is its file damaged?"
            )
        return self._model.task.decode(FrameOutputs((values,), (self._times,)), [track]).only(BARS)

    def _advance(self, last: bool) -> None:
        for name, more in self._listener.take().get("", {}).items():
            self._held[name] = torch.cat([self._held[name], more]) if name in self._held else more
        have = self._first + min((len(x) for x in self._held.values()), default=0)
        while self._done < have and (last or have - self._done >= self._stretch + self._around):
            end = min(self._done + self._stretch, have)
            begin, stop = max(self._first, self._done - self._around), min(have, end + self._around)
            outputs = self._outputs(begin - self._first, stop - self._first)
            inside = slice(self._done - begin, end - begin)
            names = len(self._model.task.output.names)
            self._parts.append(outputs[inside, :names])
            if self._with_states:
                a, b = max(self._done, self.middle.start), min(end, self.middle.stop)
                self._states.append(outputs[a - begin : max(a, b) - begin])
            self._done = end
            keep = max(self._first, self._done - self._around) - self._first
            self._held = {name: x[keep:].clone() for name, x in self._held.items()}
            self._first += keep

    def _outputs(self, begin: int, stop: int) -> np.ndarray:
        features: dict[str, torch.Tensor] = {}
        for name, x in self._held.items():
            part = x[begin:stop]
            features |= pad(name, [part], [torch.zeros(len(part), 2)])
        standardised = self._model.standardise(features)
        if self._with_states:
            assert isinstance(self._model.head, FrameHead)
            found = torch.cat(self._model.head.states(standardised), dim=2)
        else:
            found = self._model.head(standardised)
        outputs: np.ndarray = found[0].float().cpu().numpy()
        return outputs
