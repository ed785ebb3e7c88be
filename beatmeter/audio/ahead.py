"""Waves of many files, decoded in processes a few ahead of whoever reads them."""

from __future__ import annotations

import math
import threading
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from beatmeter.audio.decode import load, probe, stream
from beatmeter.errors import AudioError, shown
from beatmeter.runtime.parallel import Crash, ordered

LONG = 600.0  # seconds; a longer file is not held in memory but streamed by whoever asked for it


@dataclass(frozen=True)
class LongAudio:
    """A file too long to hold: read through once, it has this many samples. `stream` gives them again."""

    samples: int


def require_short(path: Path, seconds: float, longest: float) -> None:
    """Raise AudioError when a track of so many seconds, counted whole, is too long to be held."""
    if round(seconds) > longest:
        raise AudioError(
            f"{shown(path)} lasts {seconds:.0f} s, and tracks of at most {longest:g} s are held whole "
            "(training.longest)",
            "Cut it into parts, raise training.longest if memory allows, or use --frozen: stored features "
            "take any length.",
            "long",
        )


def _decode(
    sample_rate: int, long: float, longest: float, stop: threading.Event | None, path: Path
) -> np.ndarray | int | tuple[str, str, str] | None:
    """The wave, the number of samples of a long file, or the parts of an AudioError (errors do not pickle
    well); None of a long file when `stop` was set."""
    try:
        seconds = probe(path).seconds
        require_short(path, seconds, longest)
        return _count(sample_rate, stop, path) if seconds > long else load(path, sample_rate)
    except AudioError as error:
        return error.what, error.hint, error.kind


def _count(sample_rate: int, stop: threading.Event | None, path: Path) -> int | None:
    samples = 0
    for block in stream(path, sample_rate):
        if stop is not None and stop.is_set():
            return None
        samples += len(block)
    return samples


def decode_ahead(
    paths: Sequence[Path], sample_rate: int, jobs: int, longest: float = math.inf
) -> Iterator[np.ndarray | AudioError]:
    """The wave (sample,) of every path, in order, or the AudioError that says why not; more than `longest`
    seconds are one.

    `jobs` processes work a few files ahead of the reader (1 or less: this process decodes), so memory stays
    bounded. A file that kills its process gives an error, not a crash.
    """
    for result in decode_or_count(paths, sample_rate, jobs, math.inf, longest=longest):
        if not isinstance(result, LongAudio):
            yield result


def decode_or_count(
    paths: Sequence[Path],
    sample_rate: int,
    jobs: int,
    long: float = LONG,
    *,
    longest: float = math.inf,
    stop: threading.Event | None = None,
) -> Generator[np.ndarray | LongAudio | AudioError, None, None]:
    """`decode_ahead`, but a file longer than `long` seconds gives a LongAudio: it is read through and not
    held. Ends early once `stop` is set."""
    decode = partial(
        _decode, sample_rate, long, longest, stop if jobs <= 1 else None
    )  # other processes are ended, which needs no telling
    for path, result in zip(paths, ordered(decode, paths, jobs, stop=stop), strict=stop is None):
        if result is None:
            return
        if isinstance(result, Crash):
            yield AudioError(
                f"{shown(path)}: the decoder crashed on this file",
                "Convert it with another program, or leave it out.",
                "damaged",
            )
        elif isinstance(result, int):
            yield LongAudio(result)
        else:
            yield AudioError(*result) if isinstance(result, tuple) else result
