"""What a worker does, whatever engine called it: fill the store with some tracks and say how it went."""

from __future__ import annotations

import os
import platform
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from beatmeter.errors import BeatmeterError, FingerprintError
from beatmeter.features.service import FeatureService, Filling
from beatmeter.runtime.allocator import keep_freed_memory
from beatmeter.runtime.device import choose_device
from beatmeter.schema import FeatureSpec, Track
from beatmeter.settings import FeatureConfig
from beatmeter.store import Store

_ONE_AT_A_TIME = (
    threading.Lock()
)  # some engines run several tasks in one process; each of ours uses all that the process has


@dataclass(frozen=True)
class Order:
    """What is the same for all tasks. `features` has a cache that every worker can reach and a dtype that is
    settled, `where` is the store, `spec` what must come out; `threads` per worker, 0 for what the process was
    started with."""

    features: FeatureConfig
    where: str
    spec: FeatureSpec
    device: str = "auto"
    threads: int = 0
    jobs: int = 1
    retry_failed: bool = False


@dataclass(frozen=True)
class Report:
    """How a task went: counts, reasons of failure by track id, seconds. `trouble` is an error that other
    tasks would meet too."""

    worker: str  # host and process
    done: int = 0
    present: int = 0
    failed: Mapping[str, str] = field(default_factory=dict)
    audio_seconds: float = 0.0
    seconds: float = 0.0
    trouble: tuple[str, str] | None = None


def work(order: Order, tracks: tuple[Track, ...]) -> Report:
    """Extract what the store lacks of `tracks` and commit it. Running it twice, or at two places at once,
    does no harm: the first commit of a key wins."""
    me = f"{platform.node()}:{os.getpid()}"
    with _ONE_AT_A_TIME:
        keep_freed_memory()
        if order.threads:
            torch.set_num_threads(order.threads)
        try:
            service, store = _open(order, me)
            filled = service.fill(store, tracks, Filling(lambda text: None, retry_failed=order.retry_failed))
        except BeatmeterError as error:  # as text: exceptions with several arguments do not travel
            return Report(me, trouble=(error.what, error.hint))
    return Report(me, filled.done, filled.present, filled.failed, filled.audio_seconds, filled.seconds)


def _open(order: Order, me: str) -> tuple[FeatureService, Store]:
    """The backbone stays loaded from task to task of one order."""
    global _opened
    if _opened is None or _opened[0] != order:
        _opened = None
        service = FeatureService(order.features, choose_device(order.device), order.jobs)
        if differences := service.spec.differences(order.spec):
            raise FingerprintError(
                f"worker {me} would make other features (there != wanted): {'; '.join(differences[:6])}",
                "Use the same version of beatmeter and the same weights on all machines.",
            )
        _opened = (order, service, Store.open(order.where))
    return _opened[1:]


_opened: tuple[Order, FeatureService, Store] | None = None
