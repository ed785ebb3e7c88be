"""Meter of audio files by an exported model: no torch and no beatmeter, only what is imported below.

    pip install onnxruntime numpy soundfile soxr
    python hear.py song.wav ...

`beatmeter export` writes this file beside the graphs, and compares what it hears with the model in torch
before anything is kept. It is meant to be read and rewritten in other languages; the words are those of
docs/export.md.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import soundfile
import soxr

Array = np.ndarray


class Model:
    """The graphs of a folder and what `model.json` says of them."""

    def __init__(self, folder: Path, threads: int = 1) -> None:
        self.about: dict[str, Any] = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors alone
        graphs = {name: (folder / graph["file"]).read_bytes() for name, graph in self.about["graphs"].items()}
        for name, graph in self.about["graphs"].items():
            if hashlib.sha256(graphs[name]).hexdigest() != graph["sha256"]:
                raise SystemExit(f"error: {folder / graph['file']} is not the file that model.json tells of")
        self.front, self.back = (
            onnxruntime.InferenceSession(graphs[name], options, providers=["CPUExecutionProvider"])
            for name in ("front", "back")
        )

    def states(self, chunk: Array) -> Array:
        """(layer, frame, dim) of one chunk (sample,)."""
        found: Array = self.front.run(["states"], {"audio": chunk[None].astype(np.float32)})[0][0]
        return found

    def answer(
        self, states: Array, first: int = 0, rows: Array | None = None, frames: float = 0
    ) -> dict[str, Array]:
        """What `back` says of a window (layer, frame, dim) that begins `first` frames after the beginning
        of a chunk; `rows` and `frames` are those of the windows before."""
        given = {
            "states": states,
            "first": np.array([first % self.about["frame"]["per_chunk"]], np.int64),
            "rows": np.zeros(self.about["rows"], np.float32) if rows is None else rows,
            "frames": np.array([frames], np.float32),
        }
        names = [output.name for output in self.back.get_outputs()]
        return dict(zip(names, self.back.run(names, given), strict=True))

    def hear(self, wave: Array) -> dict[str, Any]:
        """The answer for a whole piece (sample,), mono at the model's rate."""
        chunk, frame, n = self.about["chunk"], self.about["frame"], len(wave)
        if n < chunk["shortest"]:
            raise ValueError(f"{n / self.about['sample_rate']:.2f} s of audio are too short")
        starts, skip = [*range(0, max(1, n - chunk["length"] + 1), chunk["hop"])], 0
        if n - starts[-1] - chunk["length"] > chunk["tail"]:
            skip = round(
                (starts[-1] + frame["per_chunk"] * frame["hop"] - (n - chunk["length"])) / frame["hop"]
            )
            starts.append(n - chunk["length"])
        windows = max(1, len(starts) // self.about["window"]["chunks"])
        found: dict[str, Array] = {}
        for i in range(windows):
            a, b = i * len(starts) // windows, (i + 1) * len(starts) // windows
            parts = [self.states(wave[s : s + chunk["length"]]) for s in starts[a:b]]
            if b == len(starts) and len(parts) > 1:
                parts[-1] = parts[-1][:, max(0, skip) :]
            found = self.answer(
                np.concatenate(parts, axis=1),
                0,
                found.get("rows_out"),
                float(found.get("frames_out", [0])[0]),
            )
        return self.judge(found, n / self.about["sample_rate"])

    def judge(self, found: dict[str, Array], seconds: float) -> dict[str, Any]:
        """What the outputs of `back` mean for so many seconds of audio."""
        classes, limits, scores = self.about["classes"], self.about["thresholds"], found["calibrated"]
        first, other = np.argsort(-scores, kind="stable")[:2]
        heard = bool(found["heard"][0] >= limits["presence"])
        certain = (
            limits["sure"] is not None
            and seconds >= limits["shortest_sure"]
            and scores[first] >= limits["sure"]
        )
        second = heard and limits["second"] is not None and scores[other] > limits["second"][classes[other]]
        return {
            "meter": classes[first] if heard else None,
            "heard": float(found["heard"][0]),
            "sure": bool(heard and certain),
            "second": classes[other] if second else None,
            "scores": dict(zip(classes, scores.tolist(), strict=True)),
            "raw": dict(zip(classes, found["scores"].tolist(), strict=True)),
        }


def load(path: str, rate: int) -> Array:
    """A file as mono samples at `rate`."""
    samples, own = soundfile.read(path, dtype="float32", always_2d=True)
    mono = samples.mean(axis=1)
    wave: Array = mono if own == rate else soxr.resample(mono, own, rate, quality="HQ")
    return wave


def main(paths: list[str]) -> None:
    """Print one line a file."""
    model = Model(Path(__file__).resolve().parent)
    for path in paths:
        answer = model.hear(load(path, model.about["sample_rate"]))
        print(json.dumps({"file": path, **answer}))


if __name__ == "__main__":
    main(sys.argv[1:])
