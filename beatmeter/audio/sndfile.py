"""Files that libsndfile reads: WAV, FLAC, Ogg Vorbis and Opus, MP3, AIFF, AU, CAF, W64 and others."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from pathlib import Path

import numpy as np
import soundfile
from jaxtyping import Float32

from beatmeter.audio import flac
from beatmeter.audio.inspection import Inspection
from beatmeter.audio.quiet import quiet
from beatmeter.audio.reader import FETCH_AGAIN, MEND, TOLERANCE, Reader, require_rate, truncated
from beatmeter.errors import AudioError, shown

_LOG_SIZE = re.compile(
    r"^\s*(?:data\w*(?: size)?|riff)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE | re.IGNORECASE
)
_LOG_AIFF = re.compile(
    r"'COMM' chunk \((\d+)\) not equal to frame count\s*\*\*\* calculated from length of 'SSND' chunk "
    r"\((\d+)\)"
)
_MALFORMED = 3  # SF_ERR_MALFORMED_FILE: a known format whose chunks make no sense
_UNKNOWN = 1 << 62  # libsndfile's number of frames when a stream does not tell
_LARGEST = 1 << 32  # bytes that the sizes in a RIFF or FORM header can count
_STREAMED = (1 << 31) - (1 << 20)  # data sizes from here on mean: not known when the header was written


def _by_name_or_descriptor(path: Path) -> str | bytes | int:
    """What libsndfile is to open. Beside song.mp3 it takes ._song.mp3, which macOS leaves in archives, for
    the header of an SD2 file, and refuses both; of a descriptor it does not know the name."""
    forks = (path.with_name(f"._{path.name}"), path.parent / ".AppleDouble" / path.name)
    if sys.platform == "win32":
        return str(path)
    return os.open(path, os.O_RDONLY) if any(map(os.path.lexists, forks)) else os.fsencode(path)


class ShortReadError(AudioError):
    """libsndfile can open this file and would stop before its end; another reader may do better."""


class GaveUpError(AudioError):
    """libsndfile stopped inside a file whose bytes are as they should be; another reader may do better."""


class SoundFileReader(Reader):
    """`path` through libsndfile. Raises AudioError when libsndfile does not know it (kind unreadable) or when
    its header promises more than it holds (kind truncated) or less (damaged), and ShortReadError when
    libsndfile would leave out the rest. `read` raises GaveUpError when libsndfile fails at what is whole."""

    name = "libsndfile"

    def __init__(self, path: Path, inspection: Inspection) -> None:
        self.path = path
        self.bounds, self.hidden = inspection.bounds, inspection.hidden
        self._quiet = contextlib.nullcontext if inspection.mpeg is None else quiet
        self._sound = inspection.ogg is not None  # damage would have been seen
        length, extent, links = (
            inspection.mpeg,
            inspection.chunks,
            1 if inspection.ogg is None else inspection.ogg.links,
        )
        if length is not None and length.promised is not None:
            own = length.seconds - length.joined
            self._believe(
                length.promised / length.sample_rate,
                min(own, length.promised / length.sample_rate) if length.joined else own,
            )
        if length is not None and length.joined:
            what = (
                f"libsndfile would leave out {length.joined:.1f} s of {shown(path)}, at another sample rate"
            )
            raise ShortReadError(what, "Install ffmpeg, or re-encode the file.")
        try:
            # bytes: a name need not be text
            with self._quiet():
                self._file = soundfile.SoundFile(_by_name_or_descriptor(path))
        except soundfile.LibsndfileError as error:
            if (
                error.code == _MALFORMED and extent is not None and extent.counted > extent.present
            ):  # another reader would take what is left
                what = (
                    f"{shown(path)} is truncated: its header counts {extent.counted} bytes of audio, "
                    f"{extent.present} are there"
                )
                raise AudioError(what, FETCH_AGAIN, kind="truncated") from None
            if (
                extent is not None and self.hidden > 0.05
            ):  # two files in one, or two chunks of audio, of which others read the first
                what = (
                    f"{shown(path)} is damaged: its header counts {extent.present} bytes of audio, and "
                    f"another {extent.behind} lie behind them"
                )
                raise AudioError(what, MEND, kind="damaged") from None
            raise AudioError(f"libsndfile cannot read {shown(path)}: {error.error_string}") from None
        except (TypeError, ValueError) as error:  # headerless formats by their suffix, for one
            raise AudioError(f"libsndfile cannot read {shown(path)}: {error}") from None
        self.sample_rate, self.channels = self._file.samplerate, self._file.channels
        self.format = f"{self._file.format} {self._file.subtype}"
        self.frames: int | None = self._file.frames if self._file.frames < _UNKNOWN else None
        self.promised = self.frames is not None
        told = inspection.flac is not None and inspection.flac.md5 is not None and self._file.format == "FLAC"
        self._checksum = flac.Checksum(inspection.flac) if told and inspection.flac is not None else None
        try:
            require_rate(path, self.sample_rate, self.channels)
            if self._file.frames == 0:
                raise ShortReadError(
                    f"libsndfile sees no samples in {shown(path)}", "Install ffmpeg, or re-encode the file."
                )
            if length is None:
                self._require_whole()
            elif length.promised is None:
                self._believe(min(length.seconds, self._file.frames / self.sample_rate), length.seconds)
                self.frames, self.promised = length.samples, False
            counted = self._file.frames / self.sample_rate
            self.require_nothing_behind(
                counted / (1 + self.hidden) if self._file.format == "W64" else counted
            )  # of W64 it reads all bytes
            if links > 1:
                what = (
                    f"libsndfile would read only the first of the {links} Ogg streams that follow one "
                    f"another in {shown(path)}"
                )
                raise ShortReadError(what, "Install ffmpeg, or re-encode the file.")
        except AudioError:
            self.close()
            raise

    def _believe(self, told: float, found: float) -> None:
        """Raise AudioError (truncated) when an MP3 has less than its header tells, ShortReadError when it has
        more."""
        if told - found > TOLERANCE:
            raise truncated(self.path, found, told)
        if found - told > TOLERANCE:
            what = (
                f"libsndfile would read only {told:.1f} of the {found:.1f} s of {shown(self.path)}, whose "
                "header does not tell its length"
            )
            raise ShortReadError(what, "Install ffmpeg, or re-encode the file.")

    def _require_whole(self) -> None:
        """Raise AudioError (truncated) for containers whose header promises more than the file holds:
        libsndfile shortens them without a word, except in its log."""
        log, seconds = self._file.extra_info, self._file.frames / self.sample_rate
        if self._file.format in ("WAV", "WAVEX", "AIFF") and self.path.stat().st_size > _LARGEST:
            raise AudioError(
                f"{shown(self.path)} is larger than its header can tell (4 GiB): only {seconds / 3600:.1f} h "
                "of it would be read",
                "Convert it to FLAC, W64 or RF64.",
                kind="truncated",
            )
        for promised, found in [*_LOG_SIZE.findall(log), *_LOG_AIFF.findall(log)]:
            lost = seconds * (int(promised) / max(1, int(found)) - 1)
            if lost > TOLERANCE and int(promised) < _STREAMED:
                raise truncated(self.path, seconds, seconds + lost)

    def read(self, frames: int) -> Float32[np.ndarray, "frame channel"]:
        try:
            with self._quiet():
                block: np.ndarray = self._file.read(
                    frames,
                    dtype="float32" if self._checksum is None else self._checksum.dtype,
                    always_2d=True,
                )
        except soundfile.LibsndfileError as error:
            at, reason = self._file.tell() / self.sample_rate, error.error_string.rstrip(".")
            if self._sound:
                raise GaveUpError(
                    f"libsndfile stops after {at:.1f} s of {shown(self.path)}, which is whole: {reason}"
                ) from None
            raise AudioError(
                f"{shown(self.path)} is damaged or truncated: after {at:.1f} s libsndfile says {reason}",
                FETCH_AGAIN,
                kind="truncated",
            ) from None
        return block if self._checksum is None else self._checksum.floats(block)

    def finish(self, frames: int) -> None:
        super().finish(frames)
        if self._checksum is not None and not self._checksum.right:
            what = (
                f"{shown(self.path)} is damaged: its samples are not those that were encoded (the MD5 in "
                "its header is another)"
            )
            raise AudioError(what, FETCH_AGAIN, kind="damaged")

    def close(self) -> None:
        self._file.close()
