"""Waves to the bytes of an audio file, and back.

libsndfile gets a file descriptor, never a Python object: what is raised in a callback that C code makes
(Ctrl-C, for one) is printed and lost.
"""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np
import soundfile
from jaxtyping import Float32

from beatmeter.errors import AudioError, shown


def encode(
    wave: Float32[np.ndarray, " sample"], sample_rate: int, format: str, subtype: str, **options: Any
) -> bytes:
    """The file that libsndfile writes of a wave; `format`, `subtype` and `options` are those of
    `soundfile.write`. Raises AudioError (kind machine) when it cannot be written to a temporary file."""
    with _temporary() as file:
        try:
            soundfile.write(
                file.fileno(), wave, sample_rate, format=format, subtype=subtype, closefd=False, **options
            )
        except (
            soundfile.LibsndfileError,
            AssertionError,
        ) as error:  # AssertionError: fewer frames were written than given
            raise _no_room(getattr(error, "error_string", "not all of it could be written")) from None
        file.seek(0)
        data: bytes = file.read()
        return data


def decode(data: bytes) -> Float32[np.ndarray, " sample"]:
    """The wave of a file that `encode` made, at its own rate. Raises AudioError (kind machine) without room
    for a temporary file."""
    with _temporary() as file:
        try:
            file.write(data)
            file.seek(0)
        except OSError as error:
            raise _no_room(error.strerror or error) from None
        wave: np.ndarray = soundfile.read(file.fileno(), dtype="float32", closefd=False)[0]
        return wave


def _temporary() -> Any:
    try:
        return tempfile.TemporaryFile()
    except OSError as error:
        raise _no_room(error.strerror or error) from None


def _no_room(reason: object) -> AudioError:
    what = f"cannot keep audio in a temporary file: {shown(reason).rstrip('.')}"
    return AudioError(what, "Make room in the folder for temporary files (TMPDIR).", "machine")
