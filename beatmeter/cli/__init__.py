"""The command line: parse, call the library, print. No command imports torch before it runs, so `--help` is
instant."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any

import click

from beatmeter import __version__
from beatmeter.cli.ablate import ablate
from beatmeter.cli.cache import cache
from beatmeter.cli.calibrate import calibrate
from beatmeter.cli.compare import compare, gate
from beatmeter.cli.config import config
from beatmeter.cli.data import data
from beatmeter.cli.demo import demo
from beatmeter.cli.ensemble import ensemble
from beatmeter.cli.export import export
from beatmeter.cli.extract import extract
from beatmeter.cli.help import show_help
from beatmeter.cli.index import index
from beatmeter.cli.listen import listen
from beatmeter.cli.map import draw_map
from beatmeter.cli.models import models
from beatmeter.cli.options import colourful
from beatmeter.cli.page import page, serve
from beatmeter.cli.predict import predict
from beatmeter.cli.pretrain import pretrain
from beatmeter.cli.probe import probe
from beatmeter.cli.report import report
from beatmeter.cli.robustness import robustness
from beatmeter.cli.search import search
from beatmeter.cli.similarity import embed, similarity
from beatmeter.cli.structure import structure
from beatmeter.cli.study import study
from beatmeter.cli.targets import targets
from beatmeter.cli.timeline import timeline
from beatmeter.cli.track import track
from beatmeter.cli.train import evaluate, train
from beatmeter.errors import BeatmeterError, shown
from beatmeter.runtime.atomic import WriteError
from beatmeter.runtime.loading import leave_uncollected


class Commands(click.Group):
    """A group that lets a broken pipe through to `main`: click would end with status 1 and no word, whichever
    pipe it was. Its help shows the commands by what one wants."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        longest = max(len(name) for name in self.commands)
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([((c.name or "").ljust(longest), line) for c, line in commands])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _BrokenPipe(error) from error


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="beatmeter")
def cli() -> None:
    """Hear meter, beats, sections and works in music, and train small models that do.

    \b
    beatmeter predict song.wav                   its meter; offline, right after the install
    beatmeter structure song.wav                 tempo, beats, sections
    beatmeter demo                               the whole line on synthetic music
    beatmeter train --frozen MUSIC/ --recipe spectral-lag
    beatmeter help                               topics, commands and words explained
    """


# Every command with a line that fits a narrow terminal.
SECTIONS = {
    "Hear music": (
        (predict, "in which meter files are"),
        (timeline, "where in a file which meter is heard"),
        (structure, "tempo, meter, beats, sections, energy, drops"),
        (listen, "the meter of what a microphone hears, live"),
        (serve, "a page in the browser that hears your microphone"),
        (page, "the same page as files for any web server"),
        (demo, "see in a few minutes what beatmeter does"),
    ),
    "Find works and copies": (
        (embed, "one vector for each track"),
        (search, "what sounds like a file, and why"),
        (index, "vectors on disk, for large collections"),
        (draw_map, "a collection drawn: near is alike"),
        (similarity, "fit and judge embeddings"),
    ),
    "Data and features": (
        (data, "check, split, make and convert data sets"),
        (extract, "write the features of every track to the store"),
        (cache, "look into stores, check, mend, hand them on"),
        (targets, "measure timbre, onsets, tempo, dynamics of tracks"),
    ),
    "Train": (
        (train, "train on stored features, or through the backbone"),
        (evaluate, "predict with a run's best epoch, and diagnose"),
        (calibrate, "learn what scores are worth, and when to be silent"),
        (ensemble, "combine runs into one model"),
        (gate, "is a run worth joining an ensemble?"),
        (pretrain, "make the embedded backbone from nothing"),
        (models, "list the models that ship; pack others"),
        (export, "two ONNX graphs for programs without torch"),
    ),
    "Compare and explain": (
        (report, "one page: how good, how sure, which errors"),
        (compare, "which system is better, or that nobody can know"),
        (ablate, "train with every setting of a plan and test it"),
        (study, "backbones, poolings, regimes on equal terms"),
        (robustness, "accuracy under noise, MP3, pitch, speed, level"),
        (probe, "what each layer of a backbone knows"),
        (track, "send finished runs to Weights & Biases or MLflow"),
    ),
    "Settings and words": (
        (config, "look at settings"),
        (show_help, "topics, commands and words explained"),
    ),
}
for command, _ in (row for rows in SECTIONS.values() for row in rows):
    cli.add_command(command)


def main() -> None:
    """Run the command line; an error is one line on stderr, Ctrl-C and SIGTERM are quiet, exit statuses
    tell."""
    _open_streams()
    leave_uncollected()
    if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _terminate)
    try:
        status = cli.main(standalone_mode=False, color=None if colourful() else False)
    except BeatmeterError as error:
        status = _refuse(str(error), error.exit_code)
    except OSError as error:
        status = _refuse(_explained(error), 2)
    except _BrokenPipe as error:
        ours = _stream(error.args[0])  # its reader went away: nothing is wrong
        status = (
            0
            if ours
            else _refuse(f"a process that works for this one is gone: {os.strerror(errno.EPIPE)}", 2)
        )
    except click.exceptions.Abort as error:
        terminated = isinstance(error.__cause__, _Terminated)
        _tell(lambda: click.echo("stopped by SIGTERM" if terminated else "stopped", err=True))
        status = 143 if terminated else 130
    except click.ClickException as error:
        _tell(error.show)
        status = error.exit_code
    sys.exit(status if isinstance(status, int) else 0)


def _refuse(text: str, status: int) -> int:
    _tell(lambda: click.secho(f"error: {text}", fg="red", err=True, color=None if colourful() else False))
    return status


def _tell(show: Callable[[], None]) -> None:
    """Say something on stderr, if that can be written: the exit status tells the rest."""
    try:
        show()
    except OSError as error:
        _stream(error)


def _explained(error: OSError) -> str:
    """What the system refused, of which file, and what may help."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    stream = None if error.filename else _stream(error)
    if not (error.filename or stream):
        return f"the system refuses to go on: {error.strerror or error}"
    text = (
        f"cannot {'write' if stream or isinstance(error, WriteError) else 'use'} "
        f"{stream or shown(os.fsdecode(error.filename))}: {reason}"
    )
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{text}. Free some space, then run the same command again."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{text}. Change its permissions, or choose another place."
    return text


def _open_streams() -> None:
    """Streams that were closed before we began: what is written to stdout is an error, and no file that is
    opened takes its number. A letter that the terminal cannot show becomes an escape."""
    for number, name, flags in (
        (0, "stdin", os.O_RDONLY),
        (1, "stdout", os.O_RDONLY),
        (2, "stderr", os.O_WRONLY),
    ):
        if getattr(sys, name) is None:
            handle = os.open(os.devnull, flags)
            if handle != number:
                os.dup2(handle, number)
                os.close(handle)
            setattr(sys, name, open(number, "r" if name == "stdin" else "w", closefd=False))  # noqa: SIM115 - it stays open
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _stream(error: OSError) -> str | None:
    """The standard stream whose writing raised `error`, if one did; what still waits in it is thrown away."""
    writes = [
        frame for frame, _ in traceback.walk_tb(error.__traceback__) if frame.f_code is click.echo.__code__
    ]
    if not writes:
        return None
    number = writes[-1].f_locals["file"].fileno()
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, number)
    os.close(null)
    return "standard error" if number == sys.stderr.fileno() else "standard output"


class _BrokenPipe(Exception):  # noqa: N818 - it is no error of ours
    """A pipe whose other end is closed."""


class _Terminated(KeyboardInterrupt):
    """SIGTERM."""


def _terminate(number: int, frame: FrameType | None) -> None:
    """SIGTERM (of a scheduler, a container, `timeout`) ends a command as Ctrl-C does: what is finished is
    kept. It may come twice; the second must not disturb that."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise _Terminated
