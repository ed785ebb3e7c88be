"""libmpg123's notes are kept away, and nothing else is."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from meterfolders import encode, music
from waiting import PATIENCE

from beatmeter.audio import quiet

pytestmark = pytest.mark.skipif(quiet._stderr() is None, reason="the C library's stderr cannot be set here")

DECODE = """
import ctypes, os, sys
from beatmeter.audio.decode import load
from beatmeter.errors import AudioError
libc = ctypes.CDLL(None)
stderr = ctypes.c_void_p.in_dll(libc, "stderr")
libc.fputs(b"before\\n", stderr)
for name in sys.argv[1:]:
    try:
        load(name)
    except AudioError as error:
        print(error.kind)
libc.fputs(b"after\\n", stderr)
os.write(2, b"end\\n")
"""


def test_an_mp3_with_bad_frames_prints_nothing(tmp_path: Path) -> None:
    data = bytearray(encode(music(1, 10.0, 44_100), ".mp3", 44_100))
    half = len(data) // 2
    (tmp_path / "junk.mp3").write_bytes(data[:half] + b"\xffjunk" * 300 + data[half:])
    for at in range(4000, len(data), 700):
        data[at] ^= 0x55
    (tmp_path / "flipped.mp3").write_bytes(data)
    names = [tmp_path / "junk.mp3", tmp_path / "flipped.mp3"]
    done = subprocess.run(
        [sys.executable, "-c", DECODE, *names], capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert done.stderr.split() == ["before", "after", "end"]


def test_blocks_of_several_threads_overlap_and_the_stream_comes_back() -> None:
    stream = quiet._stderr()
    assert stream is not None
    before = stream.value
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with quiet.quiet():
            entered.set()
            assert leave.wait(PATIENCE)

    thread = threading.Thread(target=hold)
    with quiet.quiet():
        thread.start()
        assert entered.wait(PATIENCE)
        silent = stream.value
        assert silent != before
    assert stream.value == silent  # the other thread is still inside
    leave.set()
    thread.join(PATIENCE)
    assert ctypes.c_void_p.in_dll(ctypes.CDLL(None), "stderr").value == before
    with pytest.raises(KeyboardInterrupt), quiet.quiet():
        raise KeyboardInterrupt
    assert stream.value == before
