"""One way to tell how far work is: bars on a terminal, silence elsewhere, and nothing left behind when work
fails."""

from __future__ import annotations

import io
import sys

import pytest

from beatmeter.cli.options import TERMINAL
from beatmeter.runtime.progress import SILENT, Reporter


class Screen(io.StringIO):
    """A terminal that keeps what is written."""

    def isatty(self) -> bool:
        return True


def half(reporter: Reporter) -> None:
    with reporter.track("halving", 10, "apples") as tick:
        tick(5)
        raise ValueError("worm")


def test_a_bar_is_shown_on_a_terminal_and_wiped_when_work_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with pytest.raises(ValueError, match="worm"):
        half(TERMINAL)
    assert "halving" in screen.getvalue()
    assert screen.getvalue().rpartition("\r")[0].rpartition("\r")[2].strip() == "", "the last line is blank"


@pytest.mark.parametrize("reporter", [TERMINAL, SILENT], ids=["no terminal", "silent"])
def test_nothing_is_shown_elsewhere(reporter: Reporter, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="worm"):
        half(reporter)
    assert capsys.readouterr() == ("", "")
