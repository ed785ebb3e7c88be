"""Waves of many files, decoded in processes a few ahead of whoever reads them."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from beatmeter.audio.decode import load, probe, stream
from beatmeter.errors import AudioError, shown
from beatmeter.parallel import Crash, ordered

LONG = 600.0  # seconds; a longer file is not held in memory but streamed by whoever asked for it


@dataclass(frozen=True)
class LongAudio:
    """A file too long to hold: read through once, it has this many samples. `stream` gives them again."""

    samples: int


def require_short(path: Path, seconds: float, longest: float) -> None:
    """Raise AudioError when a track of so many seconds, counted whole, is too long to be held."""
    if round(seconds) > longest:
        raise AudioError(
            f"{shown(path)} lasts {seconds:.0f} s, and tracks of at most {longest:g} s are held whole (training.longest)",
            "Cut it into parts, raise training.longest if memory allows, or use --frozen: stored features take any length.",
            "long",
        )


def _decode(sample_rate: int, long: float, longest: float, path: Path) -> np.ndarray | int | tuple[str, str, str]:
    """The wave, the number of samples of a long file, or the parts of an AudioError (errors do not pickle well)."""
    try:
        seconds = probe(path).seconds
        require_short(path, seconds, longest)
        if seconds > long:
            return sum(len(block) for block in stream(path, sample_rate))
        return load(path, sample_rate)
    except AudioError as error:
        return error.what, error.hint, error.kind


def decode_ahead(paths: Sequence[Path], sample_rate: int, jobs: int, longest: float = math.inf) -> Iterator[np.ndarray | AudioError]:
    """The wave (sample,) of every path, in order, or the AudioError that says why not; more than `longest` seconds are one.

    `jobs` processes work a few files ahead of the reader (1 or less: this process decodes), so memory stays bounded. A
    file that kills its process gives an error, not a crash.
    """
    for result in decode_or_count(paths, sample_rate, jobs, math.inf, longest=longest):
        if not isinstance(result, LongAudio):
            yield result


def decode_or_count(
    paths: Sequence[Path], sample_rate: int, jobs: int, long: float = LONG, *, longest: float = math.inf
) -> Generator[np.ndarray | LongAudio | AudioError, None, None]:
    """`decode_ahead`, but a file longer than `long` seconds gives a LongAudio: it is read through and not held."""
    for path, result in zip(paths, ordered(partial(_decode, sample_rate, long, longest), paths, jobs), strict=True):
        if isinstance(result, Crash):
            yield AudioError(f"{shown(path)}: the decoder crashed on this file", "Convert it with another program, or leave it out.", "damaged")
        elif isinstance(result, int):
            yield LongAudio(result)
        else:
            yield AudioError(*result) if isinstance(result, tuple) else result
