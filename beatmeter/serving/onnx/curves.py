"""Models of beats as graphs: `Front`, audio to the frames that the head reads, and `Back`, frames to the
probabilities of a beat and a downbeat."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict
from importlib import import_module, resources
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from beatmeter.audio.chunking import Layout, row_spans, rows
from beatmeter.errors import RunError
from beatmeter.features.pooling import Encoder
from beatmeter.features.poolings import Pooling
from beatmeter.features.poolings.mel import Mel
from beatmeter.features.poolings.sequences import MASK
from beatmeter.features.portable import portable
from beatmeter.schema import FeatureSpec, PoolingSpec, Track
from beatmeter.serving.curves import AROUND, BARS, STRETCH, CurveModel
from beatmeter.serving.onnx.classes import frames_of, lengths, write_front
from beatmeter.serving.onnx.graphs import explicit
from beatmeter.serving.onnx.parity import Parity, cases
from beatmeter.serving.onnx.writing import BACK, PROGRAM, write_graph
from beatmeter.tasks.structure.decoding import Beats, PointerSettings, find_bars

BARS_FILE = "bars.py"
# What BARS_FILE is made of, in this order.
DECODING = ("patterns.py", "peaks.py", "pointer.py", "octave.py", "bars.py")
NEAR = 1e-3  # seconds between a beat here and there


class Front(nn.Module):
    """Chunks of audio (chunk, sample) to what the head reads of every frame, (chunk, 1, frame, dim): the
    states of each pooling's layers, or bands of the audio itself, side by side."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, audio: Float[Tensor, "chunk sample"]) -> Float[Tensor, "chunk 1 frame dim"]:
        with portable():
            states = self.encoder.states(audio)
            parts = []
            for pooling in self.encoder.poolings:
                layers = cast(Pooling, pooling).spec.layers
                parts += [pooling.levels(audio)] if isinstance(pooling, Mel) else [states[n] for n in layers]
            return torch.cat(parts, dim=2)[:, None]


class Back(nn.Module):
    """Rows of a track, the means of every few frames, (row, dim), to curves (row, name): probabilities."""

    def __init__(self, model: CurveModel) -> None:
        super().__init__()
        self.head = explicit(model.head)
        self.standardise = model.standardise
        self.specs: tuple[PoolingSpec, ...] = model.spec.poolings
        self.named = [model.task.output.names.index(name) for name in BARS]

    def forward(self, rows: Float[Tensor, "row dim"]) -> Float[Tensor, "row name"]:
        with portable(), torch.no_grad():
            features: dict[str, Tensor] = {}
            for spec, part in zip(self.specs, torch.split(rows, widths_of(self.specs), dim=1), strict=True):
                features[spec.name] = part.reshape(1, part.shape[0], len(spec.layers), *spec.shape)
                features[spec.name + MASK] = torch.ones_like(part[None, :, 0], dtype=torch.bool)
            outputs = self.head(self.standardise(features))[0]
            return torch.stack([outputs[:, at] for at in self.named], dim=1).sigmoid()


def widths_of(specs: Sequence[PoolingSpec]) -> list[int]:
    """How many numbers of a frame each pooling reads."""
    return [len(p.layers) * math.prod(p.shape) for p in specs]


def step_of(spec: FeatureSpec) -> int:
    """Frames of a row, which all poolings of a head over frames share."""
    return int(spec.poolings[0].parameters["step"])


class CurveGraphs:
    """A model of beats as graphs. Raises RunError for models that graphs cannot hold."""

    def __init__(self, folder: Path) -> None:
        self.name, self.model = folder.name, CurveModel(folder, torch.device("cpu"))
        self.spec = self.model.spec
        if not self.spec.chunk.grid:
            raise RunError(
                "chunks of this model do not overlap, and the program beside the graphs joins those that do",
                "Train with features.overlap = 1.",
            )
        self.front, self.back = Front(self.model.encoder.encode).eval(), Back(self.model).eval()

    @property
    def programs(self) -> dict[str, bytes]:
        """What hears with the graphs, and what finds bars in curves, by file name."""
        program = Path(__file__).with_name("hear_beats.py").read_bytes()
        return {PROGRAM: program, BARS_FILE: bars_program().encode()}

    def write(self, folder: Path) -> None:
        """Both graphs."""
        states = write_front(self.front, self.spec, folder)
        fewest = frames_of(self.spec, self.spec.chunk.minimum) // step_of(self.spec)
        many = torch.export.Dim("row", min=fewest)
        write_graph(self.back, (states[0, 0],), folder / BACK, ["rows"], ["curves"], {"rows": {0: many}})

    def about(self) -> dict[str, Any]:
        """model.json but for graphs and parity."""
        spec = self.spec
        made = lengths(spec)
        made["chunk"]["grid"] = spec.chunk.grid
        dim = sum(widths_of(spec.poolings))
        layout = Layout.of(2 * spec.chunk.length, spec)
        first = float(row_spans(rows(layout, spec.poolings[0])[0][:1], spec).mean())
        return {
            "kind": "curves",
            "model": self.name,
            "names": list(BARS),
            **made,
            "states": {"layers": 1, "dim": dim},
            "row": {"frames": step_of(spec), "rate": self.model.task.output.rate, "first": first},
            "stretch": {"seconds": STRETCH, "around": AROUND},
            "pointer": asdict(PointerSettings()),
            "backbones": {self.name: asdict(self.model.encoder.encode.backbone.identity)},
        }

    def compare(self, folder: Path) -> Parity:
        """The curves of the graphs in `folder` against those of torch; the bars that are found in both are
        the answers."""
        program = import_module("beatmeter.serving.onnx.hear_beats")
        return compare(self.model, program.Model(folder))


def compare(model: CurveModel, graphs: Any) -> Parity:
    """Hear all cases with both."""
    differences, changed = {}, []
    for name, wave, rate in cases(model.sample_rate):
        if wave.ndim > 1 or rate != model.sample_rate:
            continue  # how audio is read and resampled is the same for every model
        listener = model.listen(len(wave))
        listener.push(wave)
        told = listener.finish(Track(name, Path(name)))
        said = graphs.curves(wave)
        differences[name] = float(np.abs(told.values[0] - said).max())
        start = float(told.starts[0])
        if not same_beats(find_bars(told.values[0], told.rate, start), find_bars(said, told.rate, start)):
            changed.append(name)
    return Parity(differences, tuple(changed))


def same_beats(a: Beats, b: Beats) -> bool:
    """Whether two systems say the same beats, of the same places in the bar."""
    return (
        len(a.times) == len(b.times)
        and np.array_equal(a.places, b.places)
        and bool((np.abs(a.times - b.times) <= NEAR).all())
    )


def bars_program(parts: Sequence[str] = DECODING) -> str:
    """The decoding of curves as one file that needs numpy alone."""
    folder = resources.files("beatmeter.tasks.structure.decoding")
    texts = [folder.joinpath(part).read_text(encoding="utf-8") for part in parts]
    own = r"(?m)^(from __future__ .*|from (beatmeter|jaxtyping)[^\n(]*(\([^)]*\))?)\n"
    return "from __future__ import annotations\n\n" + "\n\n".join(re.sub(own, "", text) for text in texts)
