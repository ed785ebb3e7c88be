"""Encoding in memory, which Ctrl-C always ends; audio from a stream of bytes."""

from __future__ import annotations

import io
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType

import numpy as np
import pytest
import soundfile
from meterfolders import music

from beatmeter.audio.decode import load
from beatmeter.audio.encode import decode, encode
from beatmeter.audio.piped import spooled
from beatmeter.datasets.synthetic import SynthPlan, synthesise
from beatmeter.errors import AudioError
from beatmeter.evaluation.report.players import excerpt
from beatmeter.experiments.robustness.curves import encode_mp3


@pytest.mark.parametrize(
    ("format", "subtype"),
    [("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III")],
)
def test_bytes_of_a_wave_and_back(format: str, subtype: str) -> None:
    wave = music(1, 2.0, 24_000)
    data = encode(wave, 24_000, format, subtype)
    back = decode(data)
    assert back.dtype == np.float32
    assert abs(len(back) - len(wave)) <= 1152 * 2
    assert np.array_equal(back, soundfile.read(io.BytesIO(data), dtype="float32")[0])
    if format in ("WAV", "FLAC"):
        assert np.abs(back - wave).max() <= 1 / 32768


def _synthesise(folder: Path) -> object:
    return synthesise(folder / "synth", 1, SynthPlan(seconds=2.0, format="flac"), jobs=1)


def _excerpt(folder: Path) -> object:
    soundfile.write(folder / "a.wav", music(1, 3.0, 24_000), 24_000)
    return excerpt(folder / "a.wav", 0.0)


def _mp3(folder: Path) -> object:
    return encode_mp3(music(1, 3.0, 24_000), 24_000, 64, np.random.default_rng(0))


@pytest.mark.parametrize("work", [_synthesise, _excerpt, _mp3])
def test_ctrl_c_while_a_wave_is_encoded_is_not_lost(tmp_path: Path, work: Callable[[Path], object]) -> None:
    """The signal comes as early as Python can see it: in a callback that libsndfile makes, where there is
    one."""
    sent = []

    def watch(frame: FrameType, event: str, argument: object) -> None:
        name = frame.f_code.co_name
        if (
            not sent
            and frame.f_code.co_filename == soundfile.__file__
            and ((event == "call" and name.startswith("vio_")) or name == "_cdata_io")
        ):
            sent.append(name)
            signal.raise_signal(signal.SIGINT)

    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        with pytest.raises(KeyboardInterrupt):
            work(tmp_path)
    finally:
        sys.setprofile(before)
        signal.signal(signal.SIGINT, handler)
    assert sent


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_no_room_for_a_temporary_file(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(music(1, 2.0), 22_050, "WAV", "PCM_16")
    monkeypatch.setattr(tempfile, "TemporaryFile", partial(Path("/dev/full").open, "r+b", buffering=0))
    for work in (lambda: encode(music(1, 2.0), 22_050, "WAV", "PCM_16"), lambda: decode(data)):
        with pytest.raises(AudioError, match="cannot keep audio in a temporary file") as error:
            work()
        assert error.value.passing


def test_a_stream_of_bytes_is_a_file_for_a_while(tmp_path: Path) -> None:
    data = encode(music(1, 2.0, 24_000), 24_000, "FLAC", "PCM_16")
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as sink:
        sink.write(data[: 1 << 14])
    with os.fdopen(reading, "rb") as source, spooled(source) as path:
        assert path.read_bytes() == data[: 1 << 14]
    with spooled(io.BytesIO(data)) as path:
        assert len(load(path)) == 48_000
    assert not path.parent.exists()


def test_errors_name_standard_input_and_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(AudioError) as error, spooled(io.BytesIO(b"no music" * 100)) as path:
        load(path)
    assert "standard input" in str(error.value)
    assert str(tmp_path) not in str(error.value)
    for source, words in ((io.BytesIO(b""), "is empty"), (io.BytesIO(), "is empty")):
        with pytest.raises(AudioError, match=words), spooled(source):
            raise AssertionError
    closed = io.BytesIO(b"x")
    closed.close()
    with pytest.raises(AudioError, match="cannot keep standard input"), spooled(closed):
        raise AssertionError
    with pytest.raises(KeyboardInterrupt), spooled(io.BytesIO(b"x")):
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_a_terminal_is_not_waited_for() -> None:
    pty = pytest.importorskip("pty")
    outer, inner = pty.openpty()
    with (
        os.fdopen(outer, "rb"),
        os.fdopen(inner, "rb", buffering=0) as source,
        pytest.raises(AudioError, match="is a terminal"),
        spooled(source),
    ):
        raise AssertionError
