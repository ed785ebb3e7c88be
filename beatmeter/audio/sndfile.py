"""Files that libsndfile reads: WAV, FLAC, Ogg Vorbis and Opus, MP3, AIFF, AU, CAF, W64 and others."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import numpy as np
import soundfile
from jaxtyping import Float32

from beatmeter.audio import mpeg
from beatmeter.audio.reader import FETCH_AGAIN, TOLERANCE, Reader, require_rate, truncated
from beatmeter.errors import AudioError, shown

_LOG_SIZE = re.compile(r"^\s*(?:data\w*(?: size)?|riff)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE | re.IGNORECASE)
_LOG_AIFF = re.compile(r"'COMM' chunk \((\d+)\) not equal to frame count\s*\*\*\* calculated from length of 'SSND' chunk \((\d+)\)")
_MALFORMED = 3  # SF_ERR_MALFORMED_FILE: a known format whose chunks make no sense
_UNKNOWN = 1 << 62  # libsndfile's number of frames when a stream does not tell
_LARGEST = 1 << 32  # bytes that the sizes in a RIFF or FORM header can count
_STREAMED = (1 << 31) - (1 << 20)  # data sizes from here on mean: not known when the header was written


class ShortReadError(AudioError):
    """libsndfile can open this file and would stop before its end; another reader may do better."""


class SoundFileReader(Reader):
    """`path` through libsndfile. Raises AudioError when libsndfile does not know it (kind unreadable) or when its
    header promises more than it holds (kind truncated), and ShortReadError when libsndfile would leave out the rest."""

    name = "libsndfile"

    def __init__(self, path: Path) -> None:
        self.path = path
        length = mpeg.measure(path) if mpeg.looks_like_mpeg(path) else None
        if length is not None and length.promised is not None:
            self._believe(length.promised / length.sample_rate, length.seconds)
        try:
            # bytes: a name need not be text
            self._file = soundfile.SoundFile(str(path) if sys.platform == "win32" else os.fsencode(path))
        except soundfile.LibsndfileError as error:
            if error.code == _MALFORMED:  # another reader would take what is left for the whole
                raise AudioError(f"{shown(path)} is damaged or truncated: its headers do not fit together", FETCH_AGAIN, kind="truncated") from None
            raise AudioError(f"libsndfile cannot read {shown(path)}: {error.error_string}") from None
        except (TypeError, ValueError) as error:  # headerless formats by their suffix, for one
            raise AudioError(f"libsndfile cannot read {shown(path)}: {error}") from None
        self.sample_rate, self.channels = self._file.samplerate, self._file.channels
        self.format = f"{self._file.format} {self._file.subtype}"
        self.frames: int | None = self._file.frames if self._file.frames < _UNKNOWN else None
        self.promised = self.frames is not None
        try:
            require_rate(path, self.sample_rate, self.channels)
            if self._file.frames == 0:
                raise ShortReadError(f"libsndfile sees no samples in {shown(path)}", "Install ffmpeg, or re-encode the file.")
            if length is None:
                self._require_whole()
            elif length.promised is None:
                self._believe(min(length.seconds, self._file.frames / self.sample_rate), length.seconds)
                self.frames, self.promised = length.samples, False
        except AudioError:
            self.close()
            raise

    def _believe(self, told: float, found: float) -> None:
        """Raise AudioError (truncated) when an MP3 has less than its header tells, ShortReadError when it has more."""
        if told - found > TOLERANCE:
            raise truncated(self.path, found, told)
        if found - told > TOLERANCE:
            what = f"libsndfile would read only {told:.1f} of the {found:.1f} s of {shown(self.path)}, whose header does not tell its length"
            raise ShortReadError(what, "Install ffmpeg, or re-encode the file.")

    def _require_whole(self) -> None:
        """Raise AudioError (truncated) for containers whose header promises more than the file holds: libsndfile
        shortens them without a word, except in its log."""
        log, seconds = self._file.extra_info, self._file.frames / self.sample_rate
        if self._file.format in ("WAV", "WAVEX", "AIFF") and self.path.stat().st_size > _LARGEST:
            raise AudioError(
                f"{shown(self.path)} is larger than its header can tell (4 GiB): only {seconds / 3600:.1f} h of it would be read",
                "Convert it to FLAC, W64 or RF64.",
                kind="truncated",
            )
        if "lacks an end-of-stream bit" in log and "Junk after the last page" in log:
            raise AudioError(f"{shown(self.path)} is truncated: it ends inside an Ogg page after {seconds:.2f} s", FETCH_AGAIN, kind="truncated")
        for promised, found in [*_LOG_SIZE.findall(log), *_LOG_AIFF.findall(log)]:
            lost = seconds * (int(promised) / max(1, int(found)) - 1)
            if lost > TOLERANCE and int(promised) < _STREAMED:
                raise truncated(self.path, seconds, seconds + lost)

    def read(self, frames: int) -> Float32[np.ndarray, "frame channel"]:
        try:
            block: np.ndarray = self._file.read(frames, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            at = self._file.tell() / self.sample_rate
            raise AudioError(
                f"{shown(self.path)} is damaged or truncated: after {at:.1f} s libsndfile says {error.error_string.rstrip('.')}",
                FETCH_AGAIN,
                kind="truncated",
            ) from None
        return block

    def close(self) -> None:
        self._file.close()
