"""Workers of a Dask cluster, or processes that Dask starts on this machine."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack
from types import TracebackType

import dask.config
from distributed import Client, Future, KilledWorker, LocalCluster, as_completed

from beatmeter.errors import EngineError, shown
from beatmeter.features.engines.base import RETRIES, START, Engine, R, T
from beatmeter.runtime.parallel import Crash

LOST = 3  # times that a result may get lost on its way
_CONNECT = 60.0  # seconds to wait for a scheduler that is said to be there
_WORKERS = 60.0  # and for its first worker


class DaskEngine(Engine):
    """`scheduler` is the address of one, for instance tcp://10.0.0.1:8786."""

    name = "dask"

    def __enter__(self) -> DaskEngine:
        dask.config.set({"distributed.scheduler.allowed-failures": RETRIES})
        connect, workers = (_CONNECT, _WORKERS) if self.scheduler else (START, START)
        if not self.scheduler:
            dask.config.set({"distributed.comm.timeouts.connect": START})
        with ExitStack() as started:
            where = self.scheduler or started.enter_context(self._cluster())
            try:
                self._client = Client(where, timeout=connect, set_as_default=False)
            except (TimeoutError, OSError, ValueError) as error:
                raise EngineError(
                    f"no Dask scheduler answers at {self._address}: {error}",
                    "Start one with `dask scheduler` and give its address.",
                ) from None
            started.callback(self._client.close)  # forgets its tasks: those that wait are not begun any more
            try:
                self._client.wait_for_workers(1, timeout=workers)
            except TimeoutError:
                raise EngineError(
                    f"the Dask scheduler at {self._address} has no workers",
                    "Start some with `dask worker ADDRESS`.",
                ) from None
            self._started = started.pop_all()
        return self

    @property
    def _address(self) -> str:
        return shown(self.scheduler or "this machine")

    def _cluster(self) -> LocalCluster:
        return LocalCluster(
            n_workers=self.workers,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL,
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._started.close()

    @property
    def slots(self) -> int:
        return max(1, len(self._client.nthreads()))

    def run(self, function: Callable[[T], R], items: Sequence[T]) -> Iterator[tuple[T, R | Crash]]:
        todo = iter(items)
        running: dict[Future, tuple[T, int]] = {}
        done = as_completed([], loop=self._client.loop)

        def begin(item: T, lost: int) -> None:
            future = self._client.submit(function, item, pure=False)
            running[future] = item, lost
            done.add(future)

        while True:
            while len(running) < 2 * self.slots + 2 and (item := next(todo, None)) is not None:
                begin(item, 0)
            if not running:
                return
            future = next(done)
            item, lost = running.pop(future)
            try:
                result: R | Crash = future.result()
            except KilledWorker:
                result = Crash()
            except CancelledError:  # the worker died with the result in its hands, or the scheduler is gone
                if self._client.status != "running" or lost == LOST:
                    gone = "What was committed is kept: start it and run the same command again."
                    raise EngineError("the Dask scheduler went away", gone) from None
                begin(item, lost + 1)
                continue
            yield item, result
            future.release()


ENGINE = DaskEngine
