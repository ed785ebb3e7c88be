"""How fast LoRA is trained, in clips a second, next to a plain peft loop on the same network and the same
files; as it is, and with what lies below the first adapted layer kept on disk.

Once as a test, small: `pytest benchmarks/bench_lora.py`. Timed, on the shape of MERT-95M: `make bench
PART=lora`.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import plain_extraction
import pytest
import torch
from harness import Bench
from plain_lora import PlainLora

from beatmeter.learning.loop import train_epoch
from beatmeter.learning.model import Model
from beatmeter.learning.optimiser import optimiser_for
from beatmeter.learning.sources import Streamed, open_source
from beatmeter.runtime.config import change
from beatmeter.runtime.device import choose_device
from beatmeter.schema import Track
from beatmeter.settings import RunConfig
from beatmeter.tasks import TASKS

SECONDS = 30.0
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*slated for removal:DeprecationWarning"),  # what librosa.load imports
    pytest.mark.filterwarnings(
        "ignore:.*is_gradient_checkpointing:FutureWarning"
    ),  # what peft asks of transformers
]


class Ours:
    """The product's own training step, as `train --lora` makes it."""

    def __init__(self, config: RunConfig, tracks: list[Track]) -> None:
        self.config, self.tracks = config, tracks
        source = open_source(config, choose_device(), lambda text: None)
        assert isinstance(source, Streamed)
        self.source = source
        assert source.prepare(tracks, lambda text: None) == {}
        task = TASKS["meter"](config)
        self.model = Model(task, task.study(tracks), source, task.head(source.spec).to(choose_device()))
        self.optimiser = optimiser_for(self.model, config)
        self.targets = task.truth(tracks, self.model.device)
        self.epoch = 0

    def step(self) -> float:
        """One step of the optimiser over all tracks; the mean loss."""
        self.epoch += 1
        return train_epoch(
            self.model,
            self.optimiser,
            self.tracks,
            self.targets,
            self.config,
            self.epoch,
            self.config.training.batch,
        )[0]

    def features(self, path: Path) -> np.ndarray:
        """(layer, 2, dim) of one file."""
        track = Track(str(path), path)
        assert self.source.prepare([track], lambda text: None) == {}
        self.source.encoder.eval()
        with torch.inference_mode():
            batch = next(self.source.batches([track], [np.arange(1)]))
            found: np.ndarray = self.source.encoder(batch.inputs)["stats"][0].float().cpu().numpy()
        return found

    def profile(self) -> str:
        """Where a step goes: seconds until the waves are there, forward, backward and the rest, one after the
        other."""
        index = np.arange(len(self.tracks))
        self.source.encoder.train()
        times = [time.perf_counter()]
        batch = next(self.source.batches(self.tracks, [index], (0, 1)))
        times.append(time.perf_counter())
        total, count = self.model.task.loss(
            self.model.head(self.source.features(batch)), *self.targets, self.model.state
        )
        loss = total / count
        times.append(time.perf_counter())
        loss.backward()
        times.append(time.perf_counter())
        self.optimiser.step()
        times.append(time.perf_counter())
        parts = zip(("waves", "forward", "backward", "optimiser"), np.diff(times), strict=True)
        again = (
            "layers computed twice (checkpointing)"
            if self.source.backbone.checkpointing
            else "activations kept"
        )
        return ", ".join(f"{name} {s:.2f} s" for name, s in parts) + f"; {again}"


def test_lora(bench: Bench, tmp_path: Path) -> None:
    size, n = ("95M", 4) if bench.timed else ("post-LN", 2)
    network = plain_extraction.make_model(size, tmp_path / "weights")
    paths = plain_extraction.make_clips(tmp_path / "clips", n, SECONDS if bench.timed else 6.0)
    (short,) = plain_extraction.make_clips(
        tmp_path / "short", 1, 11.0
    )  # librosa makes some lengths one sample longer, not this one
    classes = ("3", "4")
    tracks = [Track(str(i), path, {classes[i % 2]: 1.0}, split="train") for i, path in enumerate(paths)]
    values = {
        "regime": "streamed",
        "features": {
            "backbone": str(tmp_path / "weights"),
            "cache": str(tmp_path / "cache"),
            "dtype": "auto" if bench.timed else "float32",
        },
        "task": {"classes": classes},
        "head": {"standardise": False},
        "augment": {"crop": 0.0, "shift": 0.0},  # every clip whole in both
        "training": {"batch": n, "accumulation": 1, "epochs": 100},
    }
    config = change(RunConfig(), values)
    ours, plain = Ours(config, tracks), PlainLora(network.to(choose_device()), config, len(classes))
    plain.eval()
    with torch.inference_mode():
        expected = plain.features(short).cpu().numpy()
    unmoved = {"noise": 0.0, "gain": 0.0}
    kept = Ours(change(config, {"augment": unmoved, "adapter": {"keep": "yes"}}), tracks)
    assert kept.source.kept is not None
    for way in (ours, kept):
        relative = np.linalg.norm(way.features(short) - expected) / np.linalg.norm(expected)
        assert relative < (0.02 if bench.timed else 0.001), relative
    losses: dict[str, float] = {}

    def plainly() -> None:
        losses["plain"] = plain.step(paths, ours.targets[0])

    def beatmeter() -> None:
        losses["ours"] = ours.step()

    def above() -> None:
        losses["kept"] = kept.step()

    beatmeter()  # measures whether activations fit, which happens once a run
    above()
    bench.compare(
        f"LoRA on MERT-{size}: one step over {n} clips of {SECONDS:g} s",
        {"plain peft loop": plainly, "beatmeter": beatmeter},
        base="plain peft loop",
        ours="beatmeter",
        rounds=3,
        amount=n,
        unit="clips",
        targets={"plain peft loop": 2.0},
        note=f"One step, part by part: {ours.profile()}. The base is in {ours.source.spec.compute_dtype}, "
        "the adapter in float32. Both drop a tenth of states and of attention, as the network asks."
        if bench.timed
        else "",
    )
    bench.compare(
        f"LoRA on MERT-{size}, front end kept on disk: one step over {n} clips of {SECONDS:g} s",
        {"plain peft loop": plainly, "beatmeter": above},
        base="plain peft loop",
        ours="beatmeter",
        rounds=3,
        amount=n,
        unit="clips",
        targets={"plain peft loop": 3.3},
        note="Adapters in every layer. What the first layer takes was computed once, before (adapter.keep = "
        f"yes, no noise and no gain), and is read in every step. One step, part by part: {kept.profile()}. "
        "Both drop a tenth of states and of attention in the layers."
        if bench.timed
        else "",
    )
    assert all(np.isfinite(loss) and loss > 0 for loss in losses.values())
