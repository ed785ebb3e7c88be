"""How fast a store is read and written next to other ways: all of them in turn, so that what disturbs one
disturbs the others."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType

import numpy as np

from beatmeter.errors import StoreError
from beatmeter.store.folder import flush
from beatmeter.store.mapped import REMEDY
from beatmeter.store.ways import CAN_DROP, Sample, Way

BATCH = 32  # tracks

Call = Callable[[], object]
_stopped = threading.Event()


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Within it Ctrl-C ends `in_turn` for sure. Python prints and forgets a KeyboardInterrupt that is raised
    in a destructor or in the callback of a weak reference, and libraries that close files run many of
    these."""

    def stop(number: int, frame: FrameType | None) -> None:
        _stopped.set()
        signal.default_int_handler(number, frame)

    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield  # Ctrl-C goes elsewhere, or is ignored
        return
    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _stopped.clear()


def in_turn(
    calls: Mapping[str, Call],
    rounds: int,
    before: Callable[[str], object] | None = None,
    at_least: float = 0.0,
) -> dict[str, list[float]]:
    """Seconds of each call, `rounds` times, all of them in every round, in changing order. `before(name)` is
    not timed.

    Quick ways are repeated within a round until `at_least` seconds are over, and the fastest counts: what an
    interruption of a few milliseconds does to them says nothing.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds):
        for name, call in list(calls.items())[:: -1 if number % 2 else 1]:
            best, spent = math.inf, 0.0
            while spent == 0 or spent < at_least:
                if _stopped.is_set():
                    raise KeyboardInterrupt
                if before is not None:
                    before(name)
                began = time.perf_counter()
                call()
                took = max(time.perf_counter() - began, 1e-9)
                best, spent = min(best, took), spent + took
            seconds[name].append(best)
    return seconds


def paired(seconds: Mapping[str, Sequence[float]], name: str, base: str) -> list[float]:
    """Speed of a call relative to a baseline in every round, more is faster."""
    return [b / s for b, s in zip(seconds[base], seconds[name], strict=True)]


@dataclass(frozen=True)
class Timing:
    """Seconds of several ways of reading (or writing) the same `bytes` by one `pattern`, round by round;
    `base` is the way that the others are compared with."""

    pattern: str
    base: str
    bytes: int
    seconds: Mapping[str, Sequence[float]]

    def ratio(self, name: str, base: str | None = None) -> float:
        """Speed relative to a baseline: the median over rounds of the paired ratios."""
        return statistics.median(paired(self.seconds, name, base or self.base))


def warm(
    ways: Mapping[str, Way], base: str, rounds: int, batches: int, at_least: float = 0.05
) -> Iterator[Timing]:
    """Reads of what lies in memory. Raises StoreError when a way gives other numbers than the others do."""
    for pattern, size, read in _patterns(ways, batches, np.random.default_rng(1)):
        expected: np.ndarray | None = None
        for name in ways:  # the same numbers, and warm from here on
            values = read(name)
            expected = values if expected is None else expected
            if not np.array_equal(values.view(np.uint8), expected.view(np.uint8)):
                raise StoreError(f"{pattern}: {name} gives other numbers than {next(iter(ways))}", REMEDY)
        calls = {name: partial(read, name) for name in ways}
        yield Timing(f"{pattern}, warm", base, size, in_turn(calls, rounds, at_least=at_least))


def cold(ways: Mapping[str, Way], base: str, rounds: int) -> Iterator[Timing]:
    """Reads from the disk: files are put out of memory before each. Nothing where the system cannot do
    that."""
    if not CAN_DROP:
        return
    for pattern, size, read in _patterns(ways, 1, np.random.default_rng(2)):
        calls = {name: partial(read, name) for name in ways}
        yield Timing(
            f"{pattern}, cold", base, size, in_turn(calls, rounds, before=lambda name: ways[name].drop())
        )


def _patterns(
    ways: Mapping[str, Way], batches: int, rng: np.random.Generator
) -> Iterator[tuple[str, int, Callable[[str], np.ndarray]]]:
    """Each pattern's name, the bytes it reads, and how to read by it in the way of a name."""
    sample = next(iter(ways.values())).sample
    row, layers = sample.values[0].nbytes, sample.values.shape[1]
    n = min(BATCH, len(sample))
    chosen = [rng.choice(len(sample), n, replace=False).tolist() for _ in range(batches)]
    yield "scan of everything", sample.values.nbytes, lambda name: ways[name].scan()
    size = row * sum(sample.rows_of(batch) for batch in chosen)
    yield (
        f"random batches of {n} tracks",
        size,
        lambda name: [ways[name].batch(batch) for batch in chosen][-1],
    )
    yield (
        "one layer of everything",
        sample.values.nbytes // layers,
        lambda name: ways[name].layer(layers // 3),
    )


def writing(kinds: Mapping[str, type[Way]], base: str, sample: Sample, folder: Path, rounds: int) -> Timing:
    """Writing all of the sample until it is on disk for good. `folder` is empty again afterwards."""

    def write(name: str) -> None:
        kinds[name](folder / "written", sample)
        for path in (folder / "written").rglob("*"):  # what the store did by itself costs nothing again
            handle = os.open(path, os.O_RDONLY)
            flush(handle)
            os.close(handle)

    def clear(_: str) -> None:
        shutil.rmtree(folder / "written", ignore_errors=True)

    seconds = in_turn({name: partial(write, name) for name in kinds}, rounds, clear)
    clear("")
    return Timing("writing, durably", base, sample.values.nbytes, seconds)
