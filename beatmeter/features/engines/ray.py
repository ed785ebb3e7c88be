"""Workers of a Ray cluster, or processes that Ray starts on this machine."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # tell nobody
os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "600")  # a busy machine starts processes slowly
os.environ.setdefault("RAY_worker_register_timeout_seconds", "600")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # leave the list of GPUs as it is

import ray
from ray.exceptions import NodeDiedError, OutOfMemoryError, RaySystemError, RayTaskError, WorkerCrashedError

from beatmeter.errors import EngineError, shown
from beatmeter.features.engines.base import RETRIES, Engine, R, T
from beatmeter.runtime.parallel import Crash

_OBJECTS = 100_000_000  # bytes of shared memory for objects: ours are short lists
_CONNECT = 60.0  # seconds
_DIED = (WorkerCrashedError, NodeDiedError, OutOfMemoryError)


class RayEngine(Engine):
    """`scheduler` is an address that Ray knows: auto, HOST:6379 or ray://HOST:10001. A task takes one GPU
    where the cluster has any, else one core."""

    name = "ray"

    def __enter__(self) -> RayEngine:
        if self.scheduler:
            _require_answer(self.scheduler)
        own: dict[str, Any] = {
            "num_cpus": self.workers,
            "include_dashboard": False,
            "object_store_memory": _OBJECTS,
        }
        try:
            ray.init(
                address=self.scheduler or "local",
                log_to_driver=False,
                logging_level=logging.CRITICAL,
                **({} if self.scheduler else own),
            )
        except Exception as error:  # a bare one when the node is not up in time
            if not self.scheduler:
                raise EngineError(
                    f"Ray does not start here: {shown(error)}",
                    "Try again when the machine is less busy, or use --engine local.",
                ) from None
            hint = "Start one with `ray start --head` and give its address."
            raise EngineError(
                f"no Ray cluster answers at {shown(self.scheduler)}: {shown(error)}", hint
            ) from None
        self._resource = "GPU" if ray.cluster_resources().get("GPU") else "CPU"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ray.shutdown()  # of a cluster, only this program's part

    @property
    def slots(self) -> int:
        return max(1, int(ray.cluster_resources().get(self._resource, 0)))

    def run(self, function: Callable[[T], R], items: Sequence[T]) -> Iterator[tuple[T, R | Crash]]:
        task = ray.remote(num_cpus=1, num_gpus=int(self._resource == "GPU"), max_retries=RETRIES)(_call)
        todo = iter(items)
        running: dict[Any, T] = {}
        while True:
            while len(running) < 2 * self.slots + 2 and (item := next(todo, None)) is not None:
                running[task.remote(function, item)] = item
            if not running:
                return
            (ready,), _ = ray.wait(list(running), num_returns=1)
            item = running.pop(ready)
            try:
                yield item, ray.get(ready)
            except _DIED:
                yield item, Crash()
            except RayTaskError:
                raise
            except RaySystemError as error:
                raise EngineError(
                    f"the Ray cluster went away: {shown(error)}",
                    "What was committed is kept: run the same command again.",
                ) from None


def _require_answer(address: str) -> None:
    """Ray itself tries for many minutes. Raises EngineError."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT).close()
    except (OSError, OverflowError) as error:
        raise EngineError(
            f"no Ray cluster answers at {shown(address)}: {error}",
            "Start one with `ray start --head` and give its address.",
        ) from None


def _call(function: Callable[[T], R], item: T) -> R:
    return function(item)


ENGINE = RayEngine
