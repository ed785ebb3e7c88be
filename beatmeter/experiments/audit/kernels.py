"""How alike tracks are, from a feature store: views of the features as rows, layer by layer, and their
kernels.

A view is a set of columns, each standardised over the tracks, so that inner products of tracks are means over
columns. Views lie in mapped files; kernels (track, track) are made of the tracks that need them.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32
from scipy.linalg import eigh

from beatmeter.audio.chunking import Layout
from beatmeter.errors import StoreError
from beatmeter.features.poolings import pooling_class, pooling_of
from beatmeter.runtime.memory import release
from beatmeter.runtime.progress import Tick, untold
from beatmeter.schema import FeatureSpec, PoolingSpec
from beatmeter.store import Snapshot

Kernel = Float32[np.ndarray, "track track"]
Rows = Float32[np.ndarray, "track column"]
TEMPO_FREE = "tempo-free"
_BATCH = 256  # tracks read at a time


def usable(spec: FeatureSpec) -> tuple[PoolingSpec, ...]:
    """The poolings that can be compared track by track. Raises StoreError when there is none."""
    found = tuple(p for p in spec.poolings if pooling_class(p).per_track)
    if not found:
        raise StoreError("these features hold frames only", "Extract with --set features.poolings=stats,lag.")
    return found


@contextmanager
def rows_of(snapshot: Snapshot, keys: Sequence[str], tick: Tick = untold) -> Iterator[dict[str, Rows]]:
    """The views as arrays (track, column) whose inner products are the kernels: one per pooling by its name,
    and one named `tempo-free` where there is lag pooling: see `scale_magnitudes`. They are files that are
    mapped, and gone afterwards, so that memory holds one layer at a time. `tick(1)` after each layer of each
    pooling."""
    poolings = usable(snapshot.spec)
    tempo = [p for p in poolings if pooling_class(p).tempo_axis]
    widths = {p.name: len(p.layers) * math.prod(p.shape) for p in poolings}
    if tempo:  # 2 L numbers have L + 1 magnitudes
        widths[TEMPO_FREE] = sum(len(p.layers) * math.prod(p.shape[:-1]) * (p.shape[-1] + 1) for p in tempo)
    with tempfile.TemporaryDirectory(prefix="beatmeter-") as folder:
        mapped: dict[str, Rows] = {}
        for i, (name, width) in enumerate(widths.items()):
            path = Path(folder) / f"{i}.npy"
            mapped[name] = np.lib.format.open_memmap(path, "w+", np.float32, (len(keys), width))
        filled = dict.fromkeys(widths, 0)

        def add(name: str, values: np.ndarray) -> None:
            block = standardise(values.reshape(len(keys), -1)) / np.float32(math.sqrt(widths[name]))
            mapped[name][:, filled[name] : filled[name] + block.shape[1]] = block
            filled[name] += block.shape[1]
            release(mapped[name])

        for pooling in poolings:
            for layer in pooling.layers:
                values = aggregated(snapshot, keys, pooling, layer)
                add(pooling.name, values)
                if pooling_class(pooling).tempo_axis:
                    add(TEMPO_FREE, scale_magnitudes(values))
                tick(1)
        yield mapped


def kernel_of(rows: Rows) -> Kernel:
    """The inner products of all rows."""
    result: np.ndarray = np.asarray(rows) @ np.asarray(rows).T
    return result


def standardise(values: Float32[np.ndarray, "track column"]) -> Float32[np.ndarray, "track column"]:
    """Every column with mean 0 and variance 1; constant ones become 0."""
    mean, deviation = values.mean(axis=0, dtype=np.float64), values.std(axis=0, dtype=np.float64)
    constant = deviation <= 1e-6 * np.maximum(np.abs(mean), 1e-6)
    scale = np.where(constant, 0.0, 1 / np.where(constant, 1.0, deviation))
    result: np.ndarray = ((values - mean) * scale).astype(np.float32)
    return result


def scale_magnitudes(lags: Float32[np.ndarray, "track ... lag"]) -> Float32[np.ndarray, "track ... bin"]:
    """Square roots of the Fourier magnitudes along the log-lag axis. There another tempo is a shift, which
    the magnitudes do not see: the scale transform of Holzapfel and Stylianou (IEEE TASLP 19, 2011), here over
    lags that are logarithmic already.
    """
    centred = lags - lags.mean(axis=-1, keepdims=True)
    result: np.ndarray = np.sqrt(np.abs(np.fft.rfft(centred, n=2 * lags.shape[-1], axis=-1))).astype(
        np.float32
    )
    return result


def coordinates(kernel: Kernel, most: int = 256) -> np.ndarray:
    """(track, component) principal components of a view from its kernel, largest first, those without
    variance left out."""
    n = len(kernel)
    values, vectors = eigh(
        kernel.astype(np.float64),
        subset_by_index=[max(0, n - most), n - 1],
        overwrite_a=True,
        check_finite=False,
    )
    keep = np.flatnonzero(values > 1e-6 * values[-1])[::-1]
    result: np.ndarray = vectors[:, keep] * np.sqrt(values[keep])
    return result


def aggregated(snapshot: Snapshot, keys: Sequence[str], pooling: PoolingSpec, layer: int) -> np.ndarray:
    """(track, *axes) float32 of one layer, the rows of each track aggregated as training does it."""
    result, made = np.empty((len(keys), *pooling.shape), np.float32), pooling_of(pooling)
    for start in range(0, len(keys), _BATCH):
        batch = keys[start : start + _BATCH]
        values, offsets = snapshot.load(batch, pooling.name, layers=(layer,))
        for i, samples in enumerate(snapshot.lengths(batch).tolist()):
            frames = torch.from_numpy(made.rows(Layout.of(samples, snapshot.spec))[1])
            track = torch.from_numpy(values[offsets[i] : offsets[i + 1]]).float()
            result[start + i] = made.aggregate(track, frames)[0].numpy()
    return result
