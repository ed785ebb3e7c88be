"""Batches through the backbone, on as many threads as pay, in halves when memory runs out.

On a CPU each thread computes a batch of its own with one core: kernels then never wait for each other, which
costs a quarter of the time on a quiet machine and most of it on a busy one. On a GPU two threads keep it fed:
while one waits for its results and takes them apart, the other queues its kernels. They share a stream, so
copies wait for kernels; pooled rows are small beside what was computed for them.
"""

from __future__ import annotations

import threading
import time

import numpy as np
import torch

from beatmeter.errors import BackboneError
from beatmeter.features.extraction.feeding import Batch, Unit
from beatmeter.features.pooling import Encoder, window_chunks
from beatmeter.features.poolings import Arrangement, pooling_of

Rows = dict[str, np.ndarray]  # (row, layer, *axes) by pooling, in the store's dtype
LANES = 8  # threads at most on a CPU; more cores than that share a thread's work
CHUNKS = {"cpu": 6, "cuda": 96}  # of a batch: what stays in a core's cache; what fills a GPU


class Inference:
    """Calls an encoder from several threads. `busy` counts their seconds."""

    def __init__(self, encoder: Encoder, device: torch.device, batch_chunks: int = 0) -> None:
        self.encoder, self.device = encoder.eval(), device
        self.window = window_chunks(encoder.spec)
        self.limit = max(batch_chunks or CHUNKS.get(device.type, 24), self.window)
        cores = torch.get_num_threads()
        self.lanes = min(cores, LANES) if device.type == "cpu" else 2
        self._share = max(1, cores // self.lanes) if device.type == "cpu" else cores
        self._dtype = getattr(torch, encoder.spec.store_dtype)
        self._lock = threading.Lock()
        self.busy = 0.0

    def __call__(self, batch: Batch) -> list[tuple[Unit, Rows]]:
        """The rows of every unit. Raises BackboneError when not even one unit fits into memory."""
        if torch.get_num_threads() != self._share:
            torch.set_num_threads(self._share)  # of this thread
        began = time.monotonic()
        try:
            return self._infer(batch)
        finally:
            with self._lock:
                self.busy += time.monotonic() - began

    def _infer(self, batch: Batch) -> list[tuple[Unit, Rows]]:
        try:
            return self._encode(batch)
        except (RuntimeError, MemoryError) as error:
            if not _out_of_memory(error):
                raise
            if len(batch.units) == 1:
                more = "a machine with more memory" if self.device.type == "cpu" else "--device cpu"
                raise BackboneError(
                    f"{batch.chunks} chunks of {batch.units[0].source.track.path} do not fit into the memory "
                    f"of {self.device}",
                    f"Set features.window lower, features.dtype=bfloat16, or use {more}.",
                ) from error
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        with self._lock:
            self.limit = max(self.window, min(self.limit, (batch.chunks + 1) // 2))  # for the batches to come
        return [done for half in batch.halves() for done in self._infer(half)]

    def _encode(self, batch: Batch) -> list[tuple[Unit, Rows]]:
        waves = torch.from_numpy(np.concatenate([u.chunks for u in batch.units]))
        if self.device.type == "cuda":
            waves = waves.pin_memory().to(self.device, non_blocking=True)
        with torch.inference_mode():
            pooled = self.encoder(waves, Arrangement.join([u.arrangement for u in batch.units]))
            found = {name: values.to(self._dtype).cpu().numpy() for name, values in pooled.items()}
        at = dict.fromkeys(found, 0)
        result = []
        for unit in batch.units:
            rows = {}
            for name, values in found.items():
                n = self._rows_of(unit, name)
                rows[name] = values[at[name] : at[name] + n]
                at[name] += n
            result.append((unit, rows))
        return result

    def _rows_of(self, unit: Unit, name: str) -> int:
        return pooling_of(self.encoder.spec[name]).count(unit.arrangement, unit.source.layout.frames)


def _out_of_memory(error: BaseException) -> bool:
    """PyTorch has a class for accelerators; on a CPU it is a RuntimeError of the allocator."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
