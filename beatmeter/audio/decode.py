"""Audio files to mono float32 at one rate, whole or as a stream of flat memory; a file that cannot be used is
an error.

Nothing is repaired, padded or replaced by silence. A file is refused when it is unreadable, shorter than
MINIMUM seconds, truncated, silent, or holds samples that are not finite (`AudioError.kind` says which).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr
from jaxtyping import Float32, Num

from beatmeter.audio import ffmpeg
from beatmeter.audio.inspection import Inspection, inspect
from beatmeter.audio.levels import Levels
from beatmeter.audio.reader import HIGHEST_RATE, LOWEST_RATE, Reader, require_file
from beatmeter.audio.sndfile import GaveUpError, ShortReadError, SoundFileReader
from beatmeter.errors import AudioError, shown
from beatmeter.schema import ChunkSpec

DECODING_VERSION = (
    1  # part of every fingerprint and of kept waveforms: raise it when any file gives other samples
)
SAMPLE_RATE = ChunkSpec().sample_rate  # Hz
MINIMUM = ChunkSpec().minimum / ChunkSpec().sample_rate  # seconds
_ARRAY = "Give samples as numbers: (sample,) or (sample, channel)."


@dataclass(frozen=True)
class AudioInfo:
    """What a file says of itself: `seconds`, `sample_rate` (Hz), `channels`, its format, and the program that
    reads it."""

    seconds: float
    sample_rate: int
    channels: int
    format: str
    reader: str


def open_audio(path: str | os.PathLike[str]) -> Reader:
    """Open an audio file with whatever can read it: libsndfile, else ffmpeg when it is installed. Raises
    AudioError; `blocks` of the reader may raise GaveUpError, after which ffmpeg may still read the file."""
    path = Path(path)
    require_file(path)
    inspection = inspect(path)
    try:
        return SoundFileReader(path, inspection)
    except AudioError as error:
        if error.kind != "unreadable":
            raise
        return _open_with_ffmpeg(path, inspection, error)
    except OSError as error:
        raise AudioError(
            f"cannot open {shown(path)}: {error.strerror or error}", "Check the path and its permissions."
        ) from None


def _open_with_ffmpeg(path: Path, inspection: Inspection, first: AudioError) -> Reader:
    """What is left when libsndfile gave the error `first`."""
    if not ffmpeg.available():
        hint = (
            first.hint
            or "If it plays elsewhere, install ffmpeg (apt-get install ffmpeg) or convert it to FLAC."
        )
        raise AudioError(f"{first.what.rstrip('.')}; ffmpeg is not installed", hint)
    try:
        return ffmpeg.FFmpegReader(path, inspection)
    except AudioError as error:
        if error.passing or error.kind == "truncated":
            raise
        if isinstance(first, (ShortReadError, GaveUpError)):
            raise first from None
        raise AudioError(
            f"{first.what.rstrip('.')}; {error.what}",
            "It is damaged or no audio: fetch it again or leave it out.",
        ) from None


def probe(path: str | os.PathLike[str]) -> AudioInfo:
    """Length, rate and channels of a file. Decodes only when nothing in the file tells its length. Raises
    AudioError when the file cannot be opened; what is damaged further in goes unnoticed."""
    with open_audio(path) as reader:
        frames = reader.frames if reader.frames is not None else sum(len(block) for block in reader.blocks())
        return AudioInfo(
            frames / reader.sample_rate, reader.sample_rate, reader.channels, reader.format, reader.name
        )


def stream(
    path: str | os.PathLike[str], sample_rate: int = SAMPLE_RATE, block_seconds: float = 10.0
) -> Iterator[Float32[np.ndarray, " sample"]]:
    """Mono float32 at `sample_rate` Hz in blocks of `block_seconds`, the last one shorter.

    Memory does not grow with the file, and the samples are the same whatever the block length. Some faults
    show only at the end (truncated, silent): AudioError may come after the first blocks, so keep nothing of a
    stream that raised.
    """
    size = max(1, round(block_seconds * sample_rate))
    waiting: list[np.ndarray] = []
    held = 0
    for wave in _resampled(Path(path), sample_rate):
        waiting.append(wave)
        held += len(wave)
        if held > size:  # not equal: what may be the last block is given only after the last checks
            joined = np.concatenate(waiting)
            cut = (held - 1) // size * size
            for start in range(0, cut, size):
                yield joined[start : start + size]
            waiting, held = [joined[cut:]], held - cut
    yield np.concatenate(waiting)


def load(path: str | os.PathLike[str], sample_rate: int = SAMPLE_RATE) -> Float32[np.ndarray, " sample"]:
    """The whole file, mono float32 at `sample_rate` Hz: `stream` joined. Raises AudioError when it cannot be
    used."""
    return np.concatenate(list(_resampled(Path(path), sample_rate)))


def measure(path: str | os.PathLike[str]) -> float:
    """Seconds of audio in a file that can be used: all of it is read, and AudioError raised for whatever
    `load` refuses, without resampling or keeping anything."""
    path = Path(path)
    try:
        with open_audio(path) as reader:
            return _measured(reader)
    except GaveUpError as error:
        with _open_with_ffmpeg(path, inspect(path), error) as reader:
            return _measured(reader)


def _measured(reader: Reader) -> float:
    levels = Levels(reader.path, reader.sample_rate)
    for block in reader.blocks():
        levels.mix(block)
    seconds = levels.samples / reader.sample_rate
    _finish(levels, seconds)
    return seconds


def from_array(
    samples: Num[np.ndarray, ...], sample_rate: float, wanted: int = SAMPLE_RATE
) -> Float32[np.ndarray, " sample"]:
    """Samples in memory, (sample,) or (sample, channel), as mono float32 at `wanted` Hz. Whole numbers are
    taken by their type, 32767 of int16 as 1.0. Raises AudioError for what is no audio and below MINIMUM
    seconds; silence is taken, streams hold it."""
    try:
        wave = np.asarray(samples)
        rate = int(sample_rate)
    except (TypeError, ValueError, OverflowError) as error:
        raise AudioError(f"this is no audio: {error}", _ARRAY, kind="damaged") from None
    if wave.ndim not in (1, 2) or wave.dtype.kind not in "fi":
        raise AudioError(
            f"an array of shape {wave.shape} and type {wave.dtype} is no audio", _ARRAY, kind="damaged"
        )
    if rate != sample_rate or not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise AudioError(
            f"a sample rate of {sample_rate} Hz is not possible",
            "Give the one that the samples were recorded at.",
        )
    if wave.dtype.kind == "i":
        wave = wave / np.float32(np.iinfo(wave.dtype).max)
    levels = Levels(Path("the array"), rate)
    mono = levels.mix(
        wave.astype(np.float32, copy=False)[:, None]
        if wave.ndim == 1
        else wave.astype(np.float32, copy=False)
    )
    _require_length(levels, len(mono) / rate)
    return np.ascontiguousarray(mono) if rate == wanted else soxr.resample(mono, rate, wanted, quality="HQ")


def _resampled(path: Path, sample_rate: int) -> Iterator[np.ndarray]:
    """Blocks of the file at `sample_rate`. All checks are done before the last block is given."""
    given = 0
    try:
        with open_audio(path) as reader:
            for wave in _converted(reader, sample_rate):
                given += len(wave)
                yield wave
    except GaveUpError as error:
        with _open_with_ffmpeg(path, inspect(path), error) as reader:
            for wave in _converted(reader, sample_rate):  # from the beginning; what was given is left out
                if len(wave) > given:
                    yield wave[given:]
                given = max(0, given - len(wave))


def _converted(reader: Reader, sample_rate: int) -> Iterator[np.ndarray]:
    levels = Levels(reader.path, reader.sample_rate)
    same = reader.sample_rate == sample_rate
    resampler = (
        None
        if same
        else soxr.ResampleStream(reader.sample_rate, sample_rate, 1, dtype="float32", quality="HQ")
    )
    before = None
    for block in reader.blocks():
        mono = levels.mix(block)
        if before is not None:
            yield before
        before = np.ascontiguousarray(mono) if resampler is None else resampler.resample_chunk(mono)
    tail = [] if resampler is None else [resampler.resample_chunk(np.empty(0, dtype=np.float32), last=True)]
    _finish(levels, levels.samples / reader.sample_rate)
    yield np.concatenate([*([] if before is None else [before]), *tail])


def _finish(levels: Levels, seconds: float) -> None:
    _require_length(levels, seconds)
    levels.finish()


def _require_length(levels: Levels, seconds: float) -> None:
    if seconds < MINIMUM:
        amount = (
            f"{seconds:.2f} s"
            if levels.samples > 99
            else f"{levels.samples} sample{'s' * (levels.samples != 1)}"
        )
        raise AudioError(
            f"{shown(levels.path)} is too short: {amount} of audio, at least {MINIMUM:g} s are needed",
            "Leave it out or use a longer one.",
            kind="short",
        )
