"""Files that only ffmpeg reads (AAC, ALAC, WMA, the sound of videos): its output as a stream of float32, when
it is installed. Cutting a file into pieces goes through it too."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import Float32

from beatmeter.audio import boxes
from beatmeter.audio.inspection import NOTHING, Inspection
from beatmeter.audio.reader import FETCH_AGAIN, Reader, require_rate
from beatmeter.errors import AudioError, shown

_TELLS_LENGTH = (
    "mov",
    "matroska",
    "asf",
    "flac",
)  # other containers have their length guessed from the bit rate
_QUIET_AND_LOCAL = ("-v", "error", "-protocol_whitelist", "file")
_OWN = 0  # group of processes; a terminal's Ctrl-C would end them in the middle, as if the file were damaged
_AU_HEADER = 24  # bytes: magic, offset, size, encoding, rate, channels, each a big-endian 32-bit number


def available() -> bool:
    """Whether ffmpeg is installed."""
    return shutil.which("ffmpeg") is not None


def _url(path: Path) -> str | bytes:
    """The path as ffmpeg's file protocol, so that no name is taken for an option, a pipe or a network
    address."""
    return f"file:{path}" if sys.platform == "win32" else b"file:" + os.fsencode(path)


def cut(path: Path, pieces: Sequence[tuple[float, float, Path]]) -> None:
    """Write pieces (start and end in seconds, file) of `path` as 16-bit FLAC at its own rate and channels, to
    the sample.

    The audio is decoded once; times count its samples, whatever time stamps the container holds. A file of
    that name is overwritten. Raises AudioError when ffmpeg is not installed or fails; files may be
    half-written then.
    """
    if not available():
        raise AudioError(
            "ffmpeg is not installed, and audio is cut by it", "Install it: apt-get install ffmpeg."
        )
    names = [f"s{i}" for i in range(len(pieces))]
    steps = [f"[0:a:0]asetpts=N/SR/TB,asplit={len(pieces)}" + "".join(f"[i{name}]" for name in names)]
    steps += [
        f"[i{name}]atrim=start={start:.6f}:end={end:.6f},asetpts=PTS-STARTPTS[{name}]"
        for name, (start, end, _) in zip(names, pieces, strict=True)
    ]
    command: list[str | bytes] = [
        "ffmpeg",
        "-nostdin",
        *_QUIET_AND_LOCAL,
        "-i",
        _url(path),
        "-filter_complex",
        ";".join(steps),
    ]
    for name, (_, _, file) in zip(names, pieces, strict=True):
        command += [
            "-map",
            f"[{name}]",
            "-map_metadata",
            "-1",
            "-c:a",
            "flac",
            "-sample_fmt",
            "s16",
            "-f",
            "flac",
            "-y",
            _url(file),
        ]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode != 0:
        reason = (
            shown(done.stderr.decode("utf-8", "backslashreplace").strip().rpartition("\n")[2])
            or f"status {done.returncode}"
        )
        raise AudioError(
            f"ffmpeg cannot cut {shown(path)}: {reason}", "Is the disk full, or the file damaged?"
        )


def _not_started(program: str, path: Path, error: OSError) -> AudioError:
    """No fault of the file: the folder for temporary files is full or missing, or there are too many
    processes or open files."""
    what = f"{program} cannot be started for {shown(path)}: {shown(error.strerror or error)}"
    return AudioError(
        what, "Make room in the folder for temporary files (TMPDIR), or for more processes.", kind="machine"
    )


def _require_all_of(path: Path) -> None:
    if lacking := boxes.missing(path):
        what = f"{shown(path)} is truncated: its container counts {lacking} bytes more than the file holds"
        raise AudioError(what, FETCH_AGAIN, kind="truncated")


class FFmpegReader(Reader):
    """`path` through ffmpeg: the first audio stream at its own rate and channels. Local files only: a
    playlist that names network addresses is not followed. Where the `inspection` knows nothing of the format,
    ffmpeg stops at the first error, else it would leave out what it cannot decode. Raises AudioError when
    ffmpeg finds no audio in it."""

    name = "ffmpeg"

    def __init__(self, path: Path, inspection: Inspection = NOTHING) -> None:
        self.path, self.bounds, self.hidden = path, inspection.bounds, inspection.hidden
        strict = ("-xerror",) if inspection == NOTHING else ()
        command = [
            "ffmpeg",
            "-nostdin",
            *_QUIET_AND_LOCAL,
            *strict,
            "-i",
            _url(path),
            "-map",
            "0:a:0",
            "-c:a",
            "pcm_f32be",
            "-f",
            "au",
            "pipe:1",
        ]
        with contextlib.ExitStack() as undo:
            try:
                self._errors: IO[bytes] = undo.enter_context(
                    tempfile.TemporaryFile()
                )  # a pipe that nobody empties would block ffmpeg
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=self._errors,
                    process_group=_OWN,
                )
            except OSError as error:
                raise _not_started("ffmpeg", path, error) from None
            undo.pop_all()
        assert self._process.stdout is not None
        self._out = self._process.stdout
        try:
            self.sample_rate, self.channels = self._read_header()
            require_rate(path, self.sample_rate, self.channels)
            self.format, seconds = self._describe()
            if seconds is None:
                _require_all_of(path)
        except BaseException:
            self.close()
            raise
        self.frames: int | None = None if seconds is None else round(seconds * self.sample_rate)
        self.promised = self.frames is not None

    def _read_header(self) -> tuple[int, int]:
        """Rate and channels, from the AU header that ffmpeg writes first."""
        header = self._out.read(_AU_HEADER)
        if len(header) < _AU_HEADER:
            self._process.wait()
            raise AudioError(f"ffmpeg finds no audio in {shown(self.path)}: {self._last_error()}")
        _, offset, _, _, sample_rate, channels = (int(n) for n in np.frombuffer(header, ">u4"))
        self._out.read(offset - _AU_HEADER)
        return sample_rate, channels

    def _describe(self) -> tuple[str, float | None]:
        """Container and codec, and the length in seconds where the container knows it."""
        if shutil.which("ffprobe") is None:
            return "ffmpeg", None
        entries = [
            "-select_streams",
            "a:0",
            "-show_entries",
            "format=format_name,duration:stream=codec_name,duration",
        ]
        command = ["ffprobe", *_QUIET_AND_LOCAL, *entries, "-of", "json", "-i", _url(self.path)]
        try:
            answer = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, check=False, process_group=_OWN
            ).stdout
        except OSError as error:
            raise _not_started("ffprobe", self.path, error) from None
        try:
            about: dict[str, Any] = json.loads(answer)
            stream, container = about["streams"][0], about["format"]
            seconds = float(stream.get("duration") or container["duration"])
        except (ValueError, KeyError, IndexError):
            return "ffmpeg", None
        names = str(container.get("format_name", "")).split(",")
        return f"{names[0].upper()} {stream.get('codec_name', '')}".strip(), seconds if any(
            n in names for n in _TELLS_LENGTH
        ) else None

    def _last_error(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "backslashreplace").strip().splitlines()
        return shown(lines[-1]) if lines else "it says nothing"

    def read(self, frames: int) -> Float32[np.ndarray, "frame channel"]:
        data = self._out.read(frames * self.channels * 4)
        whole = len(data) // (4 * self.channels)
        if whole < frames and self._process.wait() != 0:
            raise AudioError(
                f"ffmpeg stopped inside {shown(self.path)}: {self._last_error()}",
                "Fetch it again, or convert it.",
                kind="truncated",
            )
        values = np.frombuffer(data, ">f4", count=whole * self.channels).reshape(whole, self.channels)
        return values.astype(np.float32)

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._out.close()
        self._errors.close()
