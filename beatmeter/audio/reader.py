"""What every reader of an audio file gives: its rate, its channels, the length it promises, and its samples
in blocks."""

from __future__ import annotations

import math
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from jaxtyping import Float32

from beatmeter.errors import AudioError, shown

LOWEST_RATE, HIGHEST_RATE = 2_000, 800_000  # Hz
TOLERANCE = 0.5  # seconds that may lack at the end: encoders pad, headers round
FETCH_AGAIN = "Fetch it again; if the rest is lost, re-encode what there is."
MEND = "Convert it again from its source, or repair its header."
BLOCK_SECONDS = 4.0
BLOCK_VALUES = (
    1 << 22
)  # most samples in a block, all channels together: memory stays flat for 192 kHz and many channels


class Reader(ABC):
    """An open audio file.

    `frames` is how many samples per channel the file says it holds, None when it does not say. `promised`
    tells whether that number binds: a file that ends more than TOLERANCE before it is truncated. `bounds` are
    the seconds that were counted in the file, at least and at most, by other means than this reader's;
    `hidden` is how much lies behind the audio that the header counts, as a share of it.
    """

    path: Path
    name: str  # of the program that reads, for messages
    format: str
    sample_rate: int  # Hz
    channels: int
    frames: int | None
    promised: bool
    bounds: tuple[float, float] = (0.0, math.inf)
    hidden: float = 0.0

    @abstractmethod
    def read(self, frames: int) -> Float32[np.ndarray, "frame channel"]:
        """The next `frames` frames, fewer at the end, none after it. Raises AudioError where the file is
        damaged."""

    @abstractmethod
    def close(self) -> None:
        """Give the file back."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def blocks(self) -> Iterator[Float32[np.ndarray, "frame channel"]]:
        """All frames in blocks whose size depends on the file's rate and channels alone. Raises AudioError
        for whatever `finish` refuses."""
        size = max(1, min(int(BLOCK_SECONDS * self.sample_rate), BLOCK_VALUES // self.channels))
        done = 0
        while len(block := self.read(size)):
            done += len(block)
            yield block
        self.finish(done)

    def finish(self, frames: int) -> None:
        """There were so many frames: raise AudioError of the kind truncated when the file promises more,
        damaged when another number was counted in it or audio lies behind them."""
        seconds, (least, most) = frames / self.sample_rate, self.bounds
        if self.promised and self.frames is not None and self.frames - frames > TOLERANCE * self.sample_rate:
            raise truncated(self.path, seconds, self.frames / self.sample_rate)
        if not least - TOLERANCE <= seconds <= most + TOLERANCE:
            what = (
                f"{self.name} reads {seconds:.2f} s of {shown(self.path)}, which holds "
                f"{least if seconds < least else most:.2f} s"
            )
            raise AudioError(what, "Re-encode the file.", kind="damaged")
        self.require_nothing_behind(seconds)

    def require_nothing_behind(self, seconds: float) -> None:
        """Raise AudioError (kind damaged) when more audio lies behind the `seconds` that the header
        counts."""
        if seconds * self.hidden > TOLERANCE:
            what = (
                f"its header counts {seconds:.2f} s of audio, and another {seconds * self.hidden:.2f} s lie "
                "behind them"
            )
            raise AudioError(f"{shown(self.path)} is damaged: {what}", MEND, kind="damaged")


def truncated(path: Path, found: float, promised: float) -> AudioError:
    """The error for a file with `found` of its `promised` seconds."""
    return AudioError(
        f"{shown(path)} is truncated: {found:.2f} s of audio, its header promises {promised:.2f} s",
        FETCH_AGAIN,
        kind="truncated",
    )


def require_rate(path: Path, sample_rate: int, channels: int) -> None:
    """Refuse headers that no recording has: such files are damaged, and resampling them would fill the
    memory."""
    if not LOWEST_RATE <= sample_rate <= HIGHEST_RATE or not 1 <= channels <= 1024:
        raise AudioError(
            f"{shown(path)} says it has {channels} channels at {sample_rate} Hz",
            "Its header is damaged: convert or fetch it again.",
        )


def require_file(path: Path) -> int:
    """Size of a regular file in bytes. Raises AudioError when there is none, or when it is empty or not a
    file."""
    try:
        status = path.stat()
    except FileNotFoundError:
        raise AudioError(f"there is no file {shown(path)}", "Check the path.", kind="missing") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise AudioError(
            f"cannot open {shown(path)}: {reason}", "Check the path and its permissions."
        ) from None
    if stat.S_ISDIR(status.st_mode):
        raise AudioError(f"{shown(path)} is a folder", "Name an audio file.")
    if not stat.S_ISREG(status.st_mode):
        raise AudioError(f"{shown(path)} is not a regular file", "Copy the audio into a file first.")
    if status.st_size == 0:
        raise AudioError(f"{shown(path)} is empty (0 bytes)", "Fetch it again or leave it out.", kind="empty")
    if not os.access(path, os.R_OK):
        raise AudioError(f"cannot open {shown(path)}: permission denied", "Check its permissions.")
    return status.st_size


def decibels(rms: float) -> float:
    """20 log10(rms): level relative to full scale."""
    return 20 * math.log10(rms) if rms > 0 else -math.inf
