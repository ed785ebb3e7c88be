"""Beats and bars of audio files by an exported model: no torch and no beatmeter, only what is imported below.

    pip install onnxruntime numpy soundfile soxr
    python hear.py song.wav ...

`beatmeter export beats` writes this file beside the graphs as hear.py, and beside it bars.py, which finds
bars in curves. The words are those of docs/export.md.
"""

from __future__ import annotations

import hashlib
import itertools
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

    def curves(self, wave: Array) -> Array:
        """Probabilities of a beat and a downbeat (row, 2) of a whole piece (sample,), mono at the model's
        rate."""
        rate, dim = self.about["row"]["rate"], self.about["states"]["dim"]
        stretch, around = (round(self.about["stretch"][k] * rate) for k in ("seconds", "around"))
        held: Array = np.zeros((0, dim), np.float32)
        first = done = 0  # rows: where what is held begins, and up to which curves are made
        parts: list[Array] = []
        kept = self.kept(len(wave))
        for i, (start, a, b) in enumerate(kept):
            chunk = wave[start : start + self.about["chunk"]["length"]]
            states = self.front.run(["states"], {"audio": chunk[None].astype(np.float32)})[0][0, 0]
            held = np.concatenate([held, self.rows(states[a:b])])
            last, have = i == len(kept) - 1, first + len(held)
            while done < have and (last or have - done >= stretch + around):
                end = min(done + stretch, have)
                begin, stop = max(first, done - around), min(have, end + around)
                made = self.back.run(["curves"], {"rows": held[begin - first : stop - first]})[0]
                parts.append(made[done - begin : end - begin])
                done, keep = end, max(first, end - around)
                held, first = held[keep - first :], keep
        return np.concatenate(parts).astype(float)

    def rows(self, frames: Array) -> Array:
        """Means over every few frames (frame, dim); the last over what is left."""
        at = np.arange(0, len(frames), self.about["row"]["frames"])
        counts = np.diff(np.append(at, len(frames)))
        found: Array = np.add.reduceat(frames, at, axis=0) / counts[:, None].astype(np.float32)
        return found

    def kept(self, samples: int) -> list[tuple[int, int, int]]:
        """Of every chunk the sample where it begins, and the frames of it that are taken: whole rows, of
        which each is taken from the chunk in which it lies further from an edge."""
        chunk, frame, step = self.about["chunk"], self.about["frame"], self.about["row"]["frames"]
        if samples < chunk["shortest"]:
            raise ValueError(f"{samples / self.about['sample_rate']:.2f} s of audio are too short")
        starts = [*range(0, max(1, samples - chunk["length"] + 1), chunk["hop"])]
        if samples - starts[-1] - chunk["length"] > chunk["tail"]:
            last = samples - chunk["length"]
            starts.append(last - last % chunk["grid"])
        frames = (min(samples, chunk["length"]) - frame["span"]) // frame["hop"] + 1
        at = [start // frame["hop"] for start in starts]
        seams = [(before + frames + here) // 2 // step * step for before, here in itertools.pairwise(at)]
        edges = [0, *seams, at[-1] + frames]
        return [(s, edges[i] - at[i], edges[i + 1] - at[i]) for i, s in enumerate(starts)]


def load(path: str, rate: int) -> Array:
    """A file as mono samples at `rate`."""
    samples, own = soundfile.read(path, dtype="float32", always_2d=True)
    mono = samples.mean(axis=1)
    wave: Array = mono if own == rate else soxr.resample(mono, own, rate, quality="HQ")
    return wave


def main(paths: list[str]) -> None:
    """Print one line a file."""
    import bars  # type: ignore[import-not-found]  # beside this file

    model = Model(Path(__file__).resolve().parent)
    for path in paths:
        row = model.about["row"]
        found = bars.find_bars(
            model.curves(load(path, model.about["sample_rate"])), row["rate"], row["first"]
        )
        times, places = [round(t, 3) for t in found.times.tolist()], found.places.tolist()
        print(json.dumps({"file": path, "meter": found.meter or None, "beats": times, "places": places}))


if __name__ == "__main__":
    main(sys.argv[1:])
