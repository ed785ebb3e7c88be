"""beatmeter listen"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from beatmeter.cli.options import columns, device_option, echo

if TYPE_CHECKING:
    from beatmeter.serving.streaming import Heard

BAR = 20  # columns of the bar of probability


@click.command()
@click.argument("model", required=False)
@click.option("--input", "source", metavar="NAME|NUMBER", help="Which input device; by default the system's.")
@click.option("--inputs", is_flag=True, help="List the input devices and leave.")
@click.option("--seconds", type=float, default=math.inf, help="Stop after so much sound.  [default: never]")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@device_option
def listen(
    model: str | None, source: str | None, inputs: bool, seconds: float, as_json: bool, device: str
) -> None:
    """Say in which meter the music is that an input device hears, once a second, until Ctrl-C.

    MODEL is a run folder, the folder of an ensemble, or the name of a model that ships, by default
    spectral-lag. The first answer takes 5 s of sound. In a pipe every answer is one line, separated by tabs:
    seconds, meter (none: no meter heard), probability, second meter, how many answers before it were skipped
    because they would have come too late. Needs pip install 'beatmeter[listen]'.

    \b
    beatmeter listen
    beatmeter listen --inputs
    beatmeter listen spectral-lag --input USB --json > heard.jsonl
    """
    from beatmeter.serving import microphone

    if inputs:
        for d in microphone.devices():
            click.echo(f"{d.number}\t{d.name}\t{d.sample_rate} Hz")
        return
    chosen = microphone.choose(source)

    from beatmeter.runtime.device import choose_device
    from beatmeter.serving.predictor import Predictor
    from beatmeter.serving.streaming import MeterStream

    predictor = Predictor.load(model or "spectral-lag", choose_device(device))
    predictor.require_meter("listening")
    stream = MeterStream(predictor, chosen.sample_rate, predictor.classes, thresholds=predictor.thresholds)
    show = _json if as_json else _live if sys.stdout.isatty() else _columns
    echo(f"listening to {chosen.name}; the first answer comes after 5 s, Ctrl-C ends it")
    samples = 0
    try:
        for block in microphone.blocks(chosen):
            for heard in stream.push(block):
                _each(show, heard)
            samples += len(block)
            if samples >= seconds * chosen.sample_rate:
                break
    except KeyboardInterrupt as stop:
        if type(stop) is not KeyboardInterrupt:  # a termination is no wish to see the rest
            raise
    for heard in stream.finish():
        _each(show, heard)
    if show is _live:
        click.echo()
    if stream.skipped:
        echo(f"{stream.skipped} answers were skipped: they would have come too late")


def _each(show: Callable[[Heard], None], heard: Heard) -> None:
    show(heard)
    sys.stdout.flush()


def _words(heard: Heard) -> str:
    if heard.meter is None:
        return "no meter heard"
    return f"{heard.meter}, with {heard.second} against it" if heard.second else f"{heard.meter} in a bar"


def _live(heard: Heard) -> None:
    """One line of the terminal, written over by the next answer."""
    from beatmeter.evaluation.timeline import clock
    from beatmeter.runtime.display import cut, fill

    bar = "#" * round(BAR * heard.probability)
    text = f"{clock(heard.time):>7}  {_words(heard):24} {heard.probability:4.2f}  {bar:{BAR}}"
    room = columns() - 1
    click.echo("\r" + fill(cut(text, room), room), nl=False)


def _columns(heard: Heard) -> None:
    cells = (f"{heard.time:.1f}", heard.meter or "none", f"{heard.probability:.3f}", heard.second or "-")
    click.echo("\t".join((*cells, str(heard.skipped))))


def _json(heard: Heard) -> None:
    from beatmeter.runtime.artifacts import to_json_line

    click.echo(
        to_json_line(
            {
                "time": heard.time,
                "meter": heard.meter,
                "probability": heard.probability,
                "second": heard.second,
                "gap": heard.gap,
                "scores": [float(s) for s in heard.scores],
                "skipped": heard.skipped,
            }
        )
    )
