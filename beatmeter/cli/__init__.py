"""The command line: parse, call the library, print. No command imports torch before it runs, so `--help` is instant."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

import click

from beatmeter import __version__
from beatmeter.cli.ablate import ablate
from beatmeter.cli.cache import cache
from beatmeter.cli.data import data
from beatmeter.cli.demo import demo
from beatmeter.cli.extract import extract
from beatmeter.cli.lab import calibrate, compare, ensemble, gate, report
from beatmeter.cli.models import models
from beatmeter.cli.predict import predict
from beatmeter.cli.pretrain import pretrain
from beatmeter.cli.robustness import robustness
from beatmeter.cli.study import study
from beatmeter.cli.timeline import timeline
from beatmeter.cli.train import evaluate, train
from beatmeter.errors import BeatmeterError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="beatmeter")
def cli() -> None:
    """Hear musical meter: 3, 4, 5, 7, 9, 11, or two at once.

    \b
    beatmeter predict song.wav                   an answer for one file, offline
    beatmeter demo                               the whole line on synthetic music
    beatmeter extract MUSIC/ --recipe spectral-lag
    beatmeter train --frozen MUSIC/ --recipe spectral-lag
    beatmeter predict runs/NAME MUSIC/
    """


MODELS = (extract, train, evaluate, predict, timeline, models, pretrain)
LABORATORY = (ablate, study, compare, calibrate, gate, ensemble, report, robustness)
for command in (*MODELS, *LABORATORY, data, cache, demo):
    cli.add_command(command)


def main() -> None:
    """Run the command line; an error is one line on stderr, Ctrl-C and SIGTERM are quiet, exit statuses tell."""
    if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _terminate)
    try:
        status = cli.main(standalone_mode=False)
    except BeatmeterError as error:
        click.secho(f"error: {error}", fg="red", err=True)
        status = error.exit_code
    except click.exceptions.Abort as error:
        terminated = isinstance(error.__cause__, _Terminated)
        click.echo("stopped by SIGTERM" if terminated else "stopped", err=True)
        status = 143 if terminated else 130
    except click.ClickException as error:
        error.show()
        status = error.exit_code
    except BrokenPipeError:  # the reader of a pipe went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    sys.exit(status if isinstance(status, int) else 0)


class _Terminated(KeyboardInterrupt):
    """SIGTERM."""


def _terminate(number: int, frame: FrameType | None) -> None:
    """SIGTERM (of a scheduler, a container, `timeout`) ends a command as Ctrl-C does: what is finished is kept. It may come twice;
    the second must not disturb that."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise _Terminated
