"""What frozen training is measured against: a cache of METER2800's size, as a store and as one .npy per
track, and the loop that most people write over the latter (torch's DataLoader, standardisation and layer mix
in the model, AdamW)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from beatmeter.audio.chunking import Layout, rows
from beatmeter.features.service import FeatureService
from beatmeter.learning.sources import Frozen
from beatmeter.schema import ChunkSpec, Features, FeatureSpec, Pooled, PoolingSpec, Track
from beatmeter.settings import RunConfig
from beatmeter.store import Store

CLASSES = ("3", "4", "5", "7")


@dataclass(frozen=True)
class Size:
    tracks: int
    chunks: int
    layers: int
    dim: int

    @property
    def spec(self) -> FeatureSpec:
        layers = tuple(range(1, self.layers + 1))
        stats = PoolingSpec(
            "stats", "stats", "chunk", layers, ("pool", "dim"), (2, self.dim), {"statistics": ["mean", "max"]}
        )
        return FeatureSpec(
            "benchmark/frozen", "", "", self.layers, self.dim, 320, 400, True, ChunkSpec(), (stats,)
        )


METER2800 = Size(2800, 6, 24, 1024)
SMALL = Size(60, 3, 3, 16)


def make(size: Size, folder: Path) -> tuple[Store, list[Track]]:
    """The same features in `folder`/store and `folder`/npy, and the tracks: 70 % train, 15 % val, 15 % test.
    A class is a direction in the middle layer, so that there is something to learn."""
    spec, rng = size.spec, np.random.default_rng(0)
    store = Store.create(folder / "store", spec)
    (folder / "npy").mkdir()
    samples = size.chunks * spec.chunk.hop + spec.frame_span
    times, frames = rows(Layout.of(samples, spec), spec["stats"])
    directions = rng.standard_normal((len(CLASSES), size.dim)).astype(np.float16) / np.float16(4)
    tracks: list[Track] = []
    for start in range(0, size.tracks, 64):
        items = []
        for i in range(start, min(start + 64, size.tracks)):
            label = i % len(CLASSES)
            values = rng.standard_normal((len(times), *spec["stats"].row_shape), np.float32).astype(
                np.float16
            )
            values[:, size.layers // 2, 0] += directions[label]
            key = f"{i:064x}"
            items.append((key, Features(spec, samples, {"stats": Pooled(values, times, frames)})))
            np.save(folder / "npy" / f"{key}.npy", values)
            split = "train" if i % 20 < 14 else "val" if i % 20 < 17 else "test"
            tracks.append(Track(key, folder / key, {CLASSES[label]: 1.0}, split=split))
        store.commit(items)
    return store, tracks


class Filled:
    """Stands for the feature service where every track has its features already."""

    def __init__(self, store: Store) -> None:
        self.store, self.spec = store, store.spec

    def ensure(self, tracks: Sequence[Track], *_: Any) -> tuple[Store, Mapping[str, str], dict[str, str]]:
        return self.store, {t.id: t.id for t in tracks}, {}


def source(store: Store, config: RunConfig) -> Frozen:
    """Our source over a filled store, opened anew."""
    service = cast(FeatureService, Filled(Store.open(store.path)))
    return Frozen(service, config.head.poolings, config.augment, torch.device("cpu"), config.training.memory)


class Files(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """One .npy a track: loaded, cropped at random in training, averaged over chunks when it is asked for."""

    def __init__(self, folder: Path, tracks: Sequence[Track], crop: float) -> None:
        self.folder, self.tracks, self.crop = folder, tracks, crop

    def __len__(self) -> int:
        return len(self.tracks)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.from_numpy(np.load(self.folder / f"{self.tracks[i].id}.npy")).float()
        if self.crop and torch.rand(()) < self.crop:
            n = int(torch.randint((len(x) + 1) // 2, len(x) + 1, ()))
            first = int(torch.randint(0, len(x) - n + 1, ()))
            x = x[first : first + n]
        y = torch.tensor([float(c in self.tracks[i].labels) for c in CLASSES])
        return torch.stack([x[:, :, 0].mean(0), x[:, :, 1].amax(0)], 1), y


class PlainHead(nn.Module):
    def __init__(self, size: Size, config: RunConfig) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size.layers, 2, size.dim))
        self.register_buffer("scale", torch.ones(size.layers, 2, size.dim))
        self.mix = nn.Parameter(torch.zeros(size.layers))
        width = 2 * size.dim
        self.layers = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, config.head.hidden),
            nn.GELU(),
            nn.Dropout(config.head.dropout),
            nn.Linear(config.head.hidden, 4),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = (x - self.mean) * self.scale
        y: torch.Tensor = self.layers(torch.einsum("l,blpd->bpd", self.mix.softmax(0), x).flatten(1))
        return y


def plain_training(
    size: Size, folder: Path, tracks: Sequence[Track], config: RunConfig, epochs: int, workers: int
) -> float:
    """So many epochs with validation after each; the last accuracy on the validation split."""
    torch.manual_seed(config.seed)
    splits = {s: [t for t in tracks if t.split == s] for s in ("train", "val")}
    batch = config.training.batch * config.training.accumulation
    crops = {"train": config.augment.crop, "val": 0.0}
    loaders = {
        s: DataLoader(
            Files(folder / "npy", some, crops[s]),
            batch,
            shuffle=s == "train",
            num_workers=workers,
            persistent_workers=workers > 0,
        )
        for s, some in splits.items()
    }
    model, loss = PlainHead(size, config), nn.BCEWithLogitsLoss()
    optimiser = torch.optim.AdamW(
        model.parameters(), config.training.head_lr, weight_decay=config.training.weight_decay
    )
    right = 0
    for _ in range(epochs):
        model.train()
        for x, y in loaders["train"]:
            optimiser.zero_grad()
            loss(model(x), y).backward()
            nn.utils.clip_grad_norm_(model.parameters(), config.training.clip)
            optimiser.step()
        model.eval()
        with torch.no_grad():
            right = sum(int((model(x).argmax(1) == y.argmax(1)).sum()) for x, y in loaders["val"])
    return right / len(splits["val"])
