"""predict: words for people on a terminal, columns for programs, errors on stderr, and nothing heavy loaded
for a misspelt name."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from beatmeter.cli import answers
from beatmeter.runtime.display import width_of
from beatmeter.serving.answer import Answer

Typed = Callable[..., tuple[int, str, str]]
MODEL = "spectral-lag"


@pytest.fixture(scope="module")
def album(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two songs under names that make it hard, and a file that is no audio."""
    folder = tmp_path_factory.mktemp("album")
    first, second = sorted((place / "music" / "audio").iterdir())[:2]
    shutil.copy(first, folder / f"日本語の とても長い 曲名 e\u0301tude{first.suffix}")
    shutil.copy(second, folder / f"tab\tand 7 spaces{second.suffix}")
    (folder / "broken.wav").write_bytes(b"RIFF nothing")
    return folder


def terminal(columns: int) -> tuple[int, int]:
    """The two ends of a terminal of so many columns."""
    main, end = pty.openpty()
    import fcntl
    import struct
    import termios

    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    return main, end


def on_a_terminal(columns: int, *words: object, **environment: str) -> str:
    """What a person sees on a terminal of so many columns: stdout and stderr together."""
    main, end = terminal(columns)
    env = (
        {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS", "LINES")}
        | {"TERM": "xterm-256color"}
        | environment
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "beatmeter", *map(str, words)], stdin=end, stdout=end, stderr=end, env=env
    )
    os.close(end)
    seen = b""
    while True:
        try:
            block = os.read(main, 65536)
        except OSError:  # the other end is closed
            break
        if not block:
            break
        seen += block
    process.wait()
    os.close(main)
    return seen.decode()


def lines_of(seen: str) -> list[str]:
    """What stays on the screen: every line as it was last written."""
    return [line.rsplit("\r", 1)[-1] for line in seen.replace("\r\n", "\n").split("\n")]


def test_in_a_pipe_every_answer_is_one_line_of_columns(typed: Typed, album: Path) -> None:
    status, out, said = typed("predict", MODEL, album)
    assert status == 1
    rows = [line.split("\t") for line in out.splitlines()]
    assert len(rows) == 2
    assert {len(row) for row in rows} == {6}
    paths = {row[0] for row in rows}
    assert any(path.startswith(f"{album}/日本語") for path in paths), "the path as it was given, whole"
    assert any("tab\\tand 7 spaces" in path for path in paths), "a tab in a name is no column"
    for _, meter, second, sure, p, grouping in rows:
        assert meter in ("3", "4", "5", "7", "9", "11", "none")
        assert second in ("3", "4", "5", "7", "9", "11", "-")
        assert sure in ("sure", "likely", "a guess", "-")
        assert 0 <= float(p) <= 1
        assert grouping == "-" or "+" in grouping
    assert len(said.splitlines()) == 1, "nothing on stderr but what is wrong"
    assert "broken.wav" in said


def test_csv_and_json_say_the_same(typed: Typed, album: Path) -> None:
    _, out, said = typed("predict", MODEL, album, "--csv")
    table = list(csv.DictReader(io.StringIO(out)))
    assert "broken.wav" in said
    _, out, _ = typed("predict", MODEL, album, "--json")
    objects = [json.loads(line) for line in out.splitlines()]
    assert len(table) == len(objects) == 3
    for row, value in zip(table, objects, strict=True):
        if "error" in value:
            assert row["error"] == value["error"]
            assert not row["meter"]
            continue
        assert (row["meter"] or None, row["second"] or None, row["sure"] == "true") == (
            value["meter"],
            value["second"],
            value["sure"],
        )
        for name, score in value["scores"].items():
            assert float(row[f"score_{name}"]) == pytest.approx(score, abs=1e-6)


def test_scores_in_columns(typed: Typed, album: Path) -> None:
    _, out, _ = typed("predict", MODEL, album, "--scores")
    for line in out.splitlines():
        assert [cell.partition("=")[0] for cell in line.split("\t")[6:]] == ["3", "4", "5", "7", "9", "11"]


@pytest.mark.parametrize("columns", [40, 80])
def test_on_a_terminal_answers_are_words_that_fit(album: Path, columns: int) -> None:
    seen = lines_of(on_a_terminal(columns, "predict", MODEL, album, "--scores"))
    answered = [
        line for line in seen if "in a bar" in line or "no meter heard" in line or "against it" in line
    ]
    assert len(answered) == 2
    own = [line for line in seen if "broken.wav" not in line]
    assert max(map(width_of, own)) <= columns, own
    assert sum("--csv, --json" in line for line in seen) <= 1
    assert any(line.startswith("bars of 3 4 5 7 9 11;") for line in seen), "a legend, once"
    if columns > 40:
        assert (
            len(
                {
                    width_of(line.split(" in a bar")[0].rstrip("0123456789"))
                    for line in answered
                    if " in a bar" in line
                }
            )
            == 1
        ), "in one column"


def test_colours_only_where_they_are_wanted() -> None:
    assert "\x1b[31m" in on_a_terminal(80, "predict", "no-model")
    for environment in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        assert "\x1b" not in on_a_terminal(80, "predict", "no-model", **environment)


def test_progress_on_a_terminal_and_nowhere_else(typed: Typed, album: Path) -> None:
    assert "listening" in on_a_terminal(80, "predict", MODEL, album, "--json")
    assert "listening" not in on_a_terminal(80, "predict", MODEL, album, "--json", TERM="dumb")
    assert "listening" not in typed("predict", MODEL, album)[2]


def test_standard_input(album: Path) -> None:
    song = next(path for path in album.iterdir() if "tab" in path.name)
    with song.open("rb") as file:
        done = subprocess.run(
            [sys.executable, "-m", "beatmeter", "predict", MODEL, "-", song, "--json"],
            stdin=file,
            capture_output=True,
            check=False,
        )
    piped, named = map(json.loads, done.stdout.splitlines())
    assert (piped.pop("file"), named.pop("file")) == ("-", str(song))
    assert piped == named
    done = subprocess.run(
        [sys.executable, "-m", "beatmeter", "predict", MODEL, "-"],
        input=b"no audio",
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == b""
    assert b"standard input" in done.stderr
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("spectrallag", "a.wav"),
            (
                "there is no model 'spectrallag', and no file or folder of that name. Did you mean "
                "'spectral-lag'?"
            ),
        ),
        (("runs/frist", "a.wav"), "there is no file or folder runs/frist"),
        ((MODEL,), "is a model: name the files to hear"),
        ((MODEL, "a.wav", "--priors", "3:0.4"), "--priors '3:0.4' cannot be read"),
        ((MODEL, "a.wav", "--priors", "13=0.4"), "there is no class '13' to have a prior"),
        ((MODEL, "a.wav", "--priors", "3=1.4"), "the prior of 3 is 1.4"),
        ((MODEL, "EMPTY"), "there are no audio files in"),
    ],
)
def test_what_is_wrong_is_said_before_anything_heavy_is_loaded(
    tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    (tmp_path / "empty").mkdir()
    typed = [str(tmp_path / "empty") if word == "EMPTY" else word for word in words]
    code = (
        "import sys, atexit\n"
        "atexit.register(lambda: print('torch' in sys.modules))\n"
        f"sys.argv = ['beatmeter', 'predict', *{typed!r}]\n"
        "from beatmeter.cli import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stdout == "False\n"


def test_a_misspelt_audio_file_is_one_missing_file_among_others(typed: Typed, album: Path) -> None:
    song = next(path for path in album.iterdir() if "tab" in path.name)
    status, out, said = typed("predict", "sonk.wav", song)
    assert (status, len(out.splitlines())) == (1, 1)
    assert said.startswith("there is no file sonk.wav")


def made(scores: tuple[float, ...], **values: object) -> Answer:
    return Answer(("3", "4", "11"), np.array(scores), 10.0, **values)  # type: ignore[arg-type]


def test_words() -> None:
    assert answers.words(made((0.9, 0.1, 0.1))) == "3 in a bar"
    assert answers.words(made((0.1, 0.9, 0.6), second="3")) == "4, with 3 against it"
    assert answers.words(made((0.1, 0.9, 0.6), heard=0.2)) == "no meter heard"
    assert [
        answers.sureness(made((p, 0.1, 0.1), sure=sure))
        for p, sure in ((0.9, True), (0.9, False), (0.4, False))
    ] == [
        "sure",
        "likely",
        "a guess",
    ]
    assert answers.columns("a", made((0.1, 0.2, 0.1), heard=0.25), False) == "a\tnone\t-\t-\t0.750\t-"


def test_no_meter_fits_in_every_line() -> None:
    lines = answers.Lines(["noise.wav", "a"], ("3", "4", "11"), 60, scores=False)
    assert lines.answer("noise.wav", made((0.1, 0.2, 0.1), heard=0.1)) == "noise.wav  no meter heard"
    for width in (20, 40, 60, 200):
        wide = answers.Lines(["x" * 90], ("3", "4", "11"), width, scores=True)
        text = wide.answer("x" * 90, made((0.1, 0.2, 0.94), second="11"))
        assert width < 40 or max(map(width_of, text.splitlines())) <= width


def test_a_timeline_takes_standard_input_and_shows_progress(typed: Typed, album: Path) -> None:
    song = next(path for path in album.iterdir() if "tab" in path.name)
    command = [sys.executable, "-m", "beatmeter", "timeline", MODEL]
    with song.open("rb") as file:
        piped = subprocess.run([*command, "-"], stdin=file, capture_output=True, check=True)
    status, out, said = typed("timeline", MODEL, song)
    assert (status, piped.stdout.decode()) == (0, out)
    assert "listening" not in piped.stderr.decode() + said
    assert "listening" in on_a_terminal(80, "timeline", MODEL, song)


@pytest.mark.parametrize("command", ["predict", "timeline"])
def test_ctrl_c_in_the_middle_of_a_long_file_ends_cleanly(command: str, tmp_path: Path) -> None:
    song = tmp_path / "long.wav"
    soundfile.write(
        song, np.tile(np.random.default_rng(0).integers(-9000, 9000, 800_000).astype(np.int16), 36), 8000
    )  # an hour
    main, end = terminal(80)
    env = {**os.environ, "TERM": "xterm"}
    process = subprocess.Popen(
        [sys.executable, "-m", "beatmeter", command, MODEL, song],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=end,
        env=env,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # a shell's background job ignores it
    )
    os.close(end)
    seen = b""
    while not re.search(rb" [1-9]\d*/3600 ", seen):  # the first half minute has been heard
        seen += os.read(main, 65536)
    process.send_signal(signal.SIGINT)
    with contextlib.suppress(OSError):  # the other end is closed
        while block := os.read(main, 65536):
            seen += block
    os.close(main)
    out, _ = process.communicate()
    assert (process.returncode, out) == (130, b"")
    assert lines_of(seen.decode())[-2:] == ["stopped", ""]
    assert b"Traceback" not in seen
