"""What an engine is: a map over items in other processes that outlives the death of any of them."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import ClassVar, Self, TypeVar

from beatmeter.errors import ConfigError, EngineError
from beatmeter.runtime.cores import usable_cores
from beatmeter.runtime.parallel import Crash

T = TypeVar("T")
R = TypeVar("R")
ENGINES = ("local", "dask", "ray")
# seconds that processes of our own may take to begin: a busy machine is slow, and nobody else can be meant
START = 600.0
RETRIES = 1  # by the engine itself; what is lost again comes back as a Crash, to be tried in smaller parts


class Engine(ABC):
    """Used in a `with` block, which starts what it needs and ends what it started.

    `workers` processes on this machine, or those of the cluster at `scheduler`.
    """

    name: ClassVar[str]

    def __init__(self, workers: int, scheduler: str | None = None) -> None:
        self.workers, self.scheduler = workers, scheduler

    @abstractmethod
    def __enter__(self) -> Self:
        """Raises EngineError when it cannot start or finds no workers."""

    @abstractmethod
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """On an exception what runs is given up at once."""

    @property
    @abstractmethod
    def slots(self) -> int:
        """How many items are worked on at a time, as of now."""

    @abstractmethod
    def run(self, function: Callable[[T], R], items: Sequence[T]) -> Iterator[tuple[T, R | Crash]]:
        """Every item with its result, as they are done; a Crash when its process died, and died again on
        trying once more.

        A few items are handed out ahead of the workers, so that a million of them take no memory anywhere.
        """


def open_engine(name: str, workers: int = 0, scheduler: str | None = None) -> Engine:
    """The engine `name`, not started. `workers` of 0 takes a quarter of the cores. Raises ConfigError for
    what contradicts itself, EngineError when its library is missing."""
    if name not in ENGINES:
        raise ConfigError(f"unknown engine {name!r}", f"Known: {', '.join(ENGINES)}.")
    if scheduler and name == "local":
        raise ConfigError("--scheduler goes with --engine dask or ray", "Leave it out, or name the engine.")
    if scheduler and workers:
        raise ConfigError(
            "--workers starts processes here, --scheduler uses those of a cluster", "Give one of them."
        )
    if name != "local":
        _require({"dask": "distributed", "ray": "ray"}[name], name)
    chosen = importlib.import_module(f"beatmeter.features.engines.{name}")
    return chosen.ENGINE(workers or max(1, usable_cores() // 4), scheduler)  # type: ignore[no-any-return]


def _require(module: str, name: str) -> None:
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise EngineError(
            f"--engine {name} needs a library that is not installed ({error})",
            f"pip install 'beatmeter[{name}]'",
        ) from None
