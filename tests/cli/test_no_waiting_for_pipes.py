"""FIFOs beside the stores: in the folder of a watcher, and among the audio. None is waited for."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from beatmeter.audio.decode import open_audio
from beatmeter.audio.identity import track_key
from beatmeter.errors import AudioError, EngineError
from beatmeter.features.watch.log import LOG, logging_to
from beatmeter.features.watch.status import Status, StatusFile, read_in


@pytest.fixture(autouse=True)
def _no_endless_wait() -> Iterator[None]:
    def end(number: int, frame: object) -> None:
        raise AssertionError("somebody waits for a FIFO")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(300)  # seconds, for a machine ten times slower
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def test_the_folder_of_a_watcher(tmp_path: Path) -> None:
    file = StatusFile(tmp_path, Status("music", "store"))
    file.write()
    os.mkfifo(tmp_path / "other.json")
    assert [status.folder for status in read_in(tmp_path)] == ["music"]
    os.mkfifo(file.path.with_suffix(".lock"))
    with pytest.raises(EngineError, match="cannot be written: it is a FIFO"), file.held():
        pass
    os.mkfifo(tmp_path / "watch.log")
    with logging_to(tmp_path / "watch.log"):
        LOG.info("goes to stderr only")


@pytest.mark.parametrize("opened", [open_audio, track_key])
def test_audio(tmp_path: Path, opened: object) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "zero.wav").symlink_to("/dev/zero")
    for name in ("pipe.wav", "zero.wav"):
        with pytest.raises(AudioError, match="is not a regular file"):
            opened(tmp_path / name)  # type: ignore[operator]
