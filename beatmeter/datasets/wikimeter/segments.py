"""How a song is cut: 30-s segments of its middle, by ffmpeg."""

from __future__ import annotations

import math
from pathlib import Path

from beatmeter.audio import ffmpeg
from beatmeter.audio.decode import probe
from beatmeter.errors import AudioError, DataError, shown

LENGTH = 30.0  # seconds of a segment
SHORTEST = 15.0  # seconds that the last one needs
MOST = 25  # segments per song
SKIP = 10.0  # seconds left out at both ends
SLACK = 0.2  # seconds: two decoders may differ by the silence that an encoder adds
SKIP_ABOVE = 40.0  # only of songs that are longer than this


def spans(seconds: float) -> list[tuple[float, float]]:
    """Start and end (seconds) of every segment of a song of this length; none when it is shorter than
    SHORTEST."""
    first, last = (SKIP, seconds - SKIP) if seconds > SKIP_ABOVE else (0.0, seconds)
    starts = [first + LENGTH * i for i in range(min(MOST, math.ceil((last - first) / LENGTH)))]
    return [(start, min(start + LENGTH, last)) for start in starts if last - start >= SHORTEST]


def cut(audio: Path, seconds: float, song: str, folder: Path) -> list[tuple[float, float, Path]]:
    """Write the segments of a file of this length to `folder`: start, end (seconds) and file of each. Raises
    AudioError."""
    pieces = [
        (start, end, folder / f"{song}_seg{i:02d}.flac") for i, (start, end) in enumerate(spans(seconds))
    ]
    ffmpeg.cut(audio, pieces)
    for start, end, file in pieces:
        found = probe(file).seconds
        if abs(found - (end - start)) > SLACK:
            raise AudioError(
                f"ffmpeg cut {found:.2f} s of {shown(audio)} where {end - start:.2f} s were meant",
                "Convert it to FLAC first.",
            )
    return pieces


def require_ffmpeg() -> None:
    """Raise DataError when segments cannot be cut here."""
    if not ffmpeg.available():
        raise DataError(
            "ffmpeg is not installed, and segments are cut by it",
            "Install it: apt-get install ffmpeg, or brew install ffmpeg.",
        )
