"""Where the time of an extraction goes: one file through every stage, one after the other, on as many threads
as torch has."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import nn

from beatmeter.audio.chunking import Layout, rows
from beatmeter.audio.decode import load, open_audio
from beatmeter.audio.levels import Levels
from beatmeter.features.backbones.hubert import Hubert
from beatmeter.features.pooling import Encoder, window_chunks
from beatmeter.features.poolings import Arrangement
from beatmeter.schema import Features, Pooled
from beatmeter.store import Store


class Clock:
    """Seconds by stage: `mark(name)` gives to that stage what passed since the last mark."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._last = time.perf_counter()

    def mark(self, stage: str) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.seconds[stage] += now - self._last
        self._last = now

    def text(self) -> str:
        """In shares, largest first."""
        total = sum(self.seconds.values())
        parts = sorted(self.seconds.items(), key=lambda item: -item[1])
        return ", ".join(f"{name} {s / total:.1%}" for name, s in parts)


def stages(encoder: Encoder, store: Store, path: Path, device: torch.device) -> Clock:
    """Decode, resample, normalise, front end, projection and positions, layers, pooling, write: of one
    file."""
    backbone, clock = cast(Hubert, encoder.backbone), Clock()
    with open_audio(path) as reader:
        levels = Levels(path, reader.sample_rate)
        for block in reader.blocks():
            levels.mix(block)
    clock.mark("decode")
    wave = load(path, encoder.spec.chunk.sample_rate)
    clock.mark("resample")
    clock.seconds["resample"] = max(
        0.0, clock.seconds["resample"] - clock.seconds["decode"]
    )  # `load` decodes too
    layout = Layout.of(len(wave), encoder.spec)
    chunks = torch.from_numpy(np.stack([wave[s : s + layout.length] for s in layout.starts])).to(device)
    hooks = [
        backbone.feature_extractor.register_forward_pre_hook(_marking(clock, "normalise")),
        backbone.feature_extractor.register_forward_hook(_marking(clock, "front end")),
        backbone.encoder.dropout.register_forward_hook(_marking(clock, "projection and positions")),
        *(layer.register_forward_hook(_marking(clock, "layers")) for layer in backbone.encoder.layers),
        *(
            layer.register_forward_pre_hook(_marking(clock, "pooling"))
            for layer in backbone.encoder.layers[1:]
        ),
    ]
    clock.mark("normalise")
    with torch.inference_mode():
        pooled = encoder(chunks, Arrangement.of(layout, window_chunks(encoder.spec)))
    clock.mark("pooling")
    for hook in hooks:
        hook.remove()
    kept = {}
    for p in encoder.spec.poolings:
        kept[p.name] = Pooled(
            pooled[p.name].to(getattr(torch, encoder.spec.store_dtype)).cpu().numpy(), *rows(layout, p)
        )
    store.commit([("f" * 64, Features(encoder.spec, layout.samples, kept))])
    clock.mark("write")
    return clock


def _marking(clock: Clock, stage: str) -> Callable[..., None]:
    def hook(module: nn.Module, *_: object) -> None:
        clock.mark(stage)

    return hook
