"""Whatever lies under a file's name: a file is opened, all else is refused at once by what it is."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from beatmeter.runtime.regular import NotRegularError, open_file, open_handle


def test_a_file_is_opened_as_usual(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"x\r\n\xc3\xa9")
    (tmp_path / "link").symlink_to(file)
    with open_file(tmp_path / "link", "rb") as linked:
        assert linked.read() == b"x\r\n\xc3\xa9"
    with open_file(str(tmp_path / "b"), "x", encoding="utf-8") as new:
        new.write("é")
    assert (tmp_path / "b").read_text(encoding="utf-8") == "é"
    with pytest.raises(FileExistsError):
        open_file(file, "xb")
    with pytest.raises(FileNotFoundError):
        open_handle(tmp_path / "nowhere")


@pytest.mark.parametrize("how", [os.O_RDONLY, os.O_WRONLY, os.O_RDWR])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, how: int) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "to-fifo").symlink_to(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with socket.socket(socket.AF_UNIX) as link:
        link.bind(str(tmp_path / "socket"))
        before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0  # noqa: PTH208
        for name, kind in {
            "fifo": "FIFO",
            "to-fifo": "FIFO",
            "loop": "loop of links",
            "socket": "socket",
        }.items():
            with pytest.raises(NotRegularError, match=rf"it is .*{kind}.*not a regular file") as error:
                open_handle(tmp_path / name, how)
            assert error.value.filename == str(tmp_path / name)
        with pytest.raises(NotRegularError, match="it is a device, not a regular file"):
            open_handle("/dev/null", how)
        with pytest.raises(IsADirectoryError) as is_folder:
            open_handle(tmp_path, how)
        assert is_folder.value.errno == errno.EISDIR
        if before:
            assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
