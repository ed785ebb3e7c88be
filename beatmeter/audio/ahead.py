"""Decode files in worker processes, a bounded number ahead of whoever reads them, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.process_executor import TerminatedWorkerError

from beatmeter.audio.decode import load
from beatmeter.errors import AudioError


def _decode(path: Path, sample_rate: int) -> np.ndarray | tuple[str, str]:
    try:
        return load(path, sample_rate)
    except AudioError as error:
        return error.what, error.hint


def decode_ahead(paths: Sequence[Path], sample_rate: int, jobs: int, depth: int = 0) -> Iterator[np.ndarray | AudioError]:
    """The wave (samples,) of every path, in order, or the AudioError that says why not.

    `jobs` processes work at most `depth` files ahead (default: 2 per job and 2 more), so memory stays bounded however
    slow the reader is. `jobs` = 0 decodes in this process. A file that kills its worker gives an error, not a crash.
    """
    if jobs == 0:
        for path in paths:
            yield _unpack(_decode(path, sample_rate))
        return
    depth = depth or 2 * jobs + 2
    pool = get_reusable_executor(max_workers=jobs, timeout=60)
    waiting: deque = deque()
    todo = iter(paths)
    try:
        for _ in paths:
            while len(waiting) < depth and (path := next(todo, None)) is not None:
                waiting.append((path, pool.submit(_decode, path, sample_rate)))
            path, future = waiting.popleft()
            try:
                yield _unpack(future.result())
            except TerminatedWorkerError:
                pool, waiting = _after_crash(waiting, sample_rate, jobs)
                yield _alone(path, sample_rate)
    finally:
        for _, future in waiting:
            future.cancel()


def _after_crash(waiting: deque, sample_rate: int, jobs: int) -> tuple:
    """A fresh pool, with everything that was waiting submitted again."""
    pool = get_reusable_executor(max_workers=jobs, timeout=60)
    return pool, deque((path, pool.submit(_decode, path, sample_rate)) for path, _ in waiting)


def _alone(path: Path, sample_rate: int) -> np.ndarray | AudioError:
    """One more try with nobody else in the pool: the crash may have been a neighbour's."""
    pool = get_reusable_executor(max_workers=1, timeout=60)
    try:
        return _unpack(pool.submit(_decode, path, sample_rate).result())
    except TerminatedWorkerError:
        return AudioError(f"{path}: the decoder crashed on this file", "Convert it with another program, or leave it out.")


def _unpack(result: np.ndarray | tuple[str, str]) -> np.ndarray | AudioError:
    return AudioError(*result) if isinstance(result, tuple) else result
