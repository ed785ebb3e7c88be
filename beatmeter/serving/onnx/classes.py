"""Models of meter, and of columns of classes, as graphs: one run, or the runs of an ensemble."""

from __future__ import annotations

from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from beatmeter.errors import RunError
from beatmeter.evaluation.diagnostics import plain
from beatmeter.evaluation.timeline import DURATION, WINDOW
from beatmeter.features.pooling import window_chunks
from beatmeter.schema import FeatureSpec
from beatmeter.serving.judge import SHORTEST
from beatmeter.serving.onnx.graphs import Back, Front, members_of
from beatmeter.serving.onnx.parity import Parity, compare
from beatmeter.serving.onnx.writing import BACK, FRONT, PROGRAM, write_graph
from beatmeter.serving.predictor import Predictor
from beatmeter.serving.streaming import HOP, MINIMUM

PRESENT = 0.5  # probability of a meter below which none is heard, see `Answer.meter`


class ClassGraphs:
    """A predictor as graphs. Raises RunError for models that graphs cannot hold."""

    def __init__(self, folder: Path) -> None:
        self.name = folder.name
        self.predictor = Predictor.load(folder, torch.device("cpu"))
        members = members_of(self.predictor)
        self.spec = members[0].spec
        self.front, self.back = Front(members).eval(), Back(members, self.predictor).eval()

    @property
    def programs(self) -> dict[str, bytes]:
        """What hears with the graphs, by file name."""
        return {PROGRAM: Path(__file__).with_name(PROGRAM).read_bytes()}

    def write(self, folder: Path) -> None:
        """Both graphs."""
        states = write_front(self.front, self.spec, folder)
        frames = torch.export.Dim("frame", min=frames_of(self.spec, self.spec.chunk.minimum))
        empty = torch.zeros(1, dtype=torch.int64), torch.zeros(sum(self.back.sizes)), torch.zeros(1)
        write_graph(
            self.back,
            (states[0], *empty),
            folder / BACK,
            ["states", "first", "rows", "frames"],
            ["scores", "calibrated", "heard", "rows_out", "frames_out"],
            {"states": {1: frames}, "first": None, "rows": None, "frames": None},
        )

    def about(self) -> dict[str, Any]:
        """model.json but for graphs and parity."""
        predictor, calibration = self.predictor, self.predictor.judge.calibration
        second = predictor.thresholds
        layers, dim = self.back.states
        told = calibration is not None and calibration.sure is not None and calibration.presence is not None
        return {
            "kind": "classes",
            "model": self.name,
            "classes": list(predictor.classes),
            **lengths(self.spec),
            "window": {"chunks": window_chunks(self.spec)},
            "states": {"layers": layers, "dim": dim},
            "rows": sum(self.back.sizes),
            "thresholds": {
                "presence": PRESENT,
                "sure": calibration.sure.threshold if told and calibration and calibration.sure else None,
                "shortest_sure": SHORTEST,
                "second": None
                if second is None
                else dict(zip(predictor.classes, second.tolist(), strict=True)),
            },
            "calibration": None
            if calibration is None
            else {
                "maps": {
                    c: {"kind": m.kind, **plain(m.parameters)}
                    for c, m in zip(calibration.classes, calibration.maps, strict=True)
                },
                "presence": None
                if calibration.presence is None
                else {
                    "weights": list(calibration.presence.weights),
                    "intercept": calibration.presence.intercept,
                },
            },
            "stream": {"window": WINDOW, "hop": HOP, "minimum": MINIMUM, "duration": DURATION},
            "backbones": {
                name or self.name: asdict(run.encoder.encode.backbone.identity)
                for name, run in predictor.scorer.members.items()
            },
        }

    def compare(self, folder: Path) -> Parity:
        """What the graphs in `folder` hear against what torch hears."""
        program = import_module("beatmeter.serving.onnx.hear")  # loads onnxruntime, which only the extra has
        return compare(self.predictor, program.Model(folder))


def write_front(front: torch.nn.Module, spec: FeatureSpec, folder: Path) -> torch.Tensor:
    """Write the graph of audio to states; the states of two chunks of silence. Raises RunError where the
    backbone's arithmetic has no form for graphs."""
    chunk = spec.chunk
    audio = torch.zeros(2, chunk.length)
    try:
        with torch.inference_mode():
            states: torch.Tensor = front(audio)  # all tables of the front are made now
    except ValueError as error:
        raise RunError(
            f"this backbone has no graphs: {error}", "Export a model of another backbone."
        ) from None
    batch, samples = torch.export.Dim("chunk", min=1), torch.export.Dim("sample", min=chunk.minimum)
    axes = {"audio": {0: batch, 1: samples}}
    write_graph(front, (audio,), folder / FRONT, ["audio"], ["states"], axes)
    return states


def lengths(spec: FeatureSpec) -> dict[str, Any]:
    """Where chunks and frames of these features lie, as model.json tells it."""
    chunk = spec.chunk
    return {
        "sample_rate": chunk.sample_rate,
        "chunk": {
            "length": chunk.length,
            "hop": chunk.hop,
            "context": chunk.length - chunk.hop,
            "tail": chunk.tail_min,
            "shortest": chunk.minimum,
        },
        "frame": {
            "hop": spec.frame_hop,
            "span": spec.frame_span,
            "rate": spec.frame_rate,
            "per_chunk": frames_of(spec, chunk.length),
        },
    }


def frames_of(spec: FeatureSpec, samples: int) -> int:
    """Frames of so many samples."""
    return (samples - spec.frame_span) // spec.frame_hop + 1
