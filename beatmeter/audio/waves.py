"""Decoded waveforms on disk, mapped into memory: streamed training decodes and resamples a file once, not
every epoch.

Samples are 16-bit integers times a power of two that each block of 1024 has for itself. That is exact for
mono 16-bit files at the model's own rate, and else at least 90 dB below the loudest sample of the block,
however quiet the music is.

One file a track, named by its key (hash of the audio file's bytes) below
`<cache>/waves/<rate>-<resampler>-<version>-<version of decoding>`. A file is written whole or not at all and
checked against its checksum whenever it is read; one that is damaged is decoded again. Delete what you like
at any time.
"""

from __future__ import annotations

import contextlib
import math
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import google_crc32c
import numpy as np
from jaxtyping import Float32

from beatmeter.audio.ahead import decode_ahead, require_short
from beatmeter.audio.decode import DECODING_VERSION
from beatmeter.audio.identity import Stamp, require_unchanged
from beatmeter.errors import AudioError
from beatmeter.runtime import atomic
from beatmeter.runtime.progress import Tick, untold
from beatmeter.runtime.regular import open_file

FOLDER = "waves"
VERSION = 1
BLOCK = 1024
_HEADER = struct.Struct("<8sIIQI")  # magic, version, sample rate, samples, checksum of the rest
_MAGIC, _START = b"BEATWAVE", 64


def encode(wave: Float32[np.ndarray, " sample"], sample_rate: int) -> bytes:
    """A wave as the content of a file."""
    blocks = -(-len(wave) // BLOCK)
    x = np.zeros((blocks, BLOCK), np.float64)
    x.reshape(-1)[: len(wave)] = wave
    low, high = x.min(axis=1), x.max(axis=1)
    power = 16 - np.frexp(np.maximum(-low, high))[1]  # the largest that may fit; it fits two lower
    for _ in range(2):
        power -= (np.rint(np.ldexp(high, power)) > 32767) | (np.rint(np.ldexp(low, power)) < -32768)
    power = np.clip(power, -127, 127)
    values = np.rint(np.ldexp(x, power[:, None])).astype("<i2")
    body: bytes = power.astype("i1").tobytes() + values.tobytes()
    header = _HEADER.pack(_MAGIC, VERSION, sample_rate, len(wave), google_crc32c.value(body))
    return header.ljust(_START, b"\0") + body


def decode(content: np.ndarray, sample_rate: int) -> Float32[np.ndarray, " sample"] | None:
    """What `encode` was given, from a file's bytes; None when they are not whole or not what was written."""
    samples = _length(bytes(content[: _HEADER.size]), len(content), sample_rate)
    body = content[_START:]
    if samples is None or google_crc32c.value(body) != _HEADER.unpack(bytes(content[: _HEADER.size]))[4]:
        return None
    blocks = -(-samples // BLOCK)
    power = body[:blocks].view("i1")
    values = (
        body[blocks:].view("<i2").reshape(blocks, BLOCK)
    )  # not aligned for odd numbers of blocks, which numpy takes
    wave: np.ndarray = np.multiply(
        values, np.ldexp(np.float32(1), -power.astype(np.int32))[:, None], dtype=np.float32
    )
    return wave.reshape(-1)[:samples]


def _length(header: bytes, size: int, sample_rate: int) -> int | None:
    """Samples of a file of `size` bytes, None when it is not a whole one of this rate."""
    if len(header) < _HEADER.size:
        return None
    magic, version, rate, samples, _ = _HEADER.unpack(header)
    blocks = -(-samples // BLOCK)
    return (
        samples
        if (magic, version, rate, size) == (_MAGIC, VERSION, sample_rate, _START + blocks * (2 * BLOCK + 1))
        else None
    )


@dataclass(frozen=True)
class Filled:
    """What `Waves.fill` did: lengths in samples by key (of all that can be used, kept or not), errors by key,
    counts, and why the folder cannot be written, empty when it can."""

    samples: Mapping[str, int]
    failed: Mapping[str, AudioError]
    decoded: int
    kept: int
    bytes: int
    unwritable: str


class Waves:
    """Waveforms at one rate in a cache folder, at most `limit` bytes of them (all rates together)."""

    def __init__(self, cache: Path, sample_rate: int, resampler: str, limit: int) -> None:
        self.root, self.sample_rate, self.limit = cache / FOLDER, sample_rate, limit
        self.folder = self.root / f"{sample_rate}-{resampler}-{VERSION}-{DECODING_VERSION}"

    def path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.wave"

    def fill(
        self,
        paths: Mapping[str, Path],
        jobs: int,
        tick: Tick = untold,
        stamps: Mapping[str, Stamp | None] | None = None,
        longest: float = math.inf,
    ) -> Filled:
        """Decode what is missing of `paths` (by key) and keep it while there is room. Waveforms of other
        tracks that were not used for longest make room; those of this call do not, what is too much is
        decoded whenever it is asked for.

        `stamps` are those of the files from before their keys were computed: one that changed since fails,
        for this time. So does a track of more than `longest` seconds, of which no more than its header is
        read.
        """
        samples: dict[str, int] = {}
        failed: dict[str, AudioError] = {}
        unwritable = ""
        for key, path in paths.items():
            n = self.samples(key)
            if n is not None:
                try:
                    require_short(path, n / self.sample_rate, longest)
                    samples[key] = n
                except AudioError as error:
                    failed[key] = error
                with contextlib.suppress(OSError):
                    os.utime(self.path(key))
                tick(1)
        missing = {key: path for key, path in paths.items() if key not in samples and key not in failed}
        decoded = 0
        room = _Room(self.root, self.limit, {self.path(key) for key in paths})
        for key, wave in zip(
            missing, decode_ahead(list(missing.values()), self.sample_rate, jobs, longest), strict=True
        ):
            try:
                if stamps is not None:
                    require_unchanged(paths[key], stamps[key])
                if isinstance(wave, AudioError):
                    raise wave
                require_short(paths[key], len(wave) / self.sample_rate, longest)  # headers may say less
                samples[key], decoded = len(wave), decoded + 1
                room.write(self.path(key), encode(wave, self.sample_rate))
            except AudioError as error:
                failed[key] = error
            except OSError as error:  # full or read-only: go on without
                unwritable = error.strerror or str(error)
                room.close()
            tick(1)
        held = [size for key in samples if (size := self._bytes(key)) is not None]
        return Filled(samples, failed, decoded, len(held), sum(held), unwritable)

    def _bytes(self, key: str) -> int | None:
        try:
            return self.path(key).stat().st_size
        except OSError:  # not kept, or cleared meanwhile
            return None

    def samples(self, key: str) -> int | None:
        """Length of a kept waveform, None when it is not kept."""
        try:
            with open_file(self.path(key), "rb") as file:
                return _length(file.read(_HEADER.size), os.fstat(file.fileno()).st_size, self.sample_rate)
        except OSError:
            return None

    def read(self, key: str) -> Float32[np.ndarray, " sample"] | None:
        """A kept waveform, None when it is not kept or damaged. A damaged one is removed where that is
        possible."""
        path = self.path(key)
        try:
            with open_file(path, "rb") as file:
                content = np.memmap(file, np.uint8, "r")
        except (OSError, ValueError):
            return None
        wave = decode(content, self.sample_rate)
        if wave is None:
            with contextlib.suppress(OSError):
                path.unlink()
        return wave


class _Room:
    """Space for new files: older ones that are not `spared` go, the least recently used first."""

    def __init__(self, root: Path, limit: int, spared: set[Path]) -> None:
        files = list(_files(root))
        self.left = limit - sum(f.bytes for f in files)
        self.old = sorted((f for f in files if f.path not in spared), key=lambda f: f.used, reverse=True)
        self.most = self.left + sum(f.bytes for f in self.old)  # once all of them are gone

    def write(self, path: Path, content: bytes) -> None:
        """Write a file, when there can be room for it. Raises OSError where nothing can be removed or
        written."""
        if len(content) > self.most:  # nothing goes for a file that does not fit
            return
        while self.left < len(content):
            gone = self.old.pop()
            gone.path.unlink(missing_ok=True)
            self.left += gone.bytes
        atomic.write_bytes(path, content)
        self.left, self.most = self.left - len(content), self.most - len(content)

    def close(self) -> None:
        """No more room."""
        self.left, self.most, self.old = 0, 0, []


@dataclass(frozen=True)
class _File:
    path: Path
    bytes: int
    used: float


def _files(root: Path) -> Iterator[_File]:
    for path in root.glob("*/*/*.wave"):
        with contextlib.suppress(OSError):
            status = path.stat()
            yield _File(path, status.st_size, status.st_mtime)
