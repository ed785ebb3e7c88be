"""What a file holds, found by walking over its container before any of it is decoded, so that no reader takes
a part for the whole."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from beatmeter.audio import chunks, flac, mpeg, ogg
from beatmeter.errors import AudioError, shown


@dataclass(frozen=True)
class Inspection:
    """What is known of a file: each is None for files of another format."""

    mpeg: mpeg.Length | None = None
    ogg: ogg.Streams | None = None
    chunks: chunks.Extent | None = None
    flac: flac.StreamInfo | None = None

    @property
    def bounds(self) -> tuple[float, float]:
        """Seconds of audio in the file, at least and at most."""
        if self.mpeg is not None:
            return (
                0.995 * self.mpeg.seconds,
                1.005 * self.mpeg.seconds,
            )  # padding is cut off, joined files have a frame without music each
        return (0.0, math.inf) if self.ogg is None else (self.ogg.least, self.ogg.most)

    @property
    def hidden(self) -> float:
        """How much lies behind the audio that the header counts, as a share of it."""
        return 0.0 if self.chunks is None else self.chunks.behind / max(1, self.chunks.present)


NOTHING = Inspection()  # of a format that nobody here walks over


def inspect(path: Path) -> Inspection:
    """Look at the container of a file by its first bytes. Raises AudioError when it is damaged, or when no
    reader would find all of its audio."""
    try:
        head, start = mpeg.head(path)
        if mpeg.looks_like_mpeg(path, head):
            return Inspection(mpeg=mpeg.measure(path))
        if head == b"OggS":
            return Inspection(ogg=ogg.inspect(path, start))
        if head == b"fLaC":
            return Inspection(flac=flac.inspect(path, start))
        return Inspection(chunks=chunks.measure(path))
    except OSError as error:
        raise AudioError(
            f"cannot read {shown(path)}: {error.strerror or error}",
            "Check the path, its permissions and the disk.",
        ) from None
