"""beatmeter timeline"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from beatmeter.cli.options import device_option, echo
from beatmeter.errors import ConfigError

if TYPE_CHECKING:
    from beatmeter.timeline import Timeline

PATH = click.Path(path_type=Path)


@click.command()
@click.argument("run", type=PATH, metavar="RUN")
@click.argument("file", type=PATH, metavar="[FILE]", required=False)
@click.option("--window", type=float, default=10.0, show_default=True, help="Seconds that the model hears at once.")
@click.option("--hop", type=float, default=2.5, show_default=True, help="Seconds between windows.")
@click.option("--duration", type=float, default=30.0, show_default=True, help="Seconds that a meter is expected to last: more is smoother.")
@click.option("--plot", type=PATH, metavar="FILE", help="Draw it: a .png or .svg file.")
@click.option("--json", "as_json", is_flag=True, help="Segments and windows as JSON.")
@device_option
def timeline(run: Path, file: Path | None, window: float, hop: float, duration: float, plot: Path | None, as_json: bool, device: str) -> None:
    """Say where in FILE which meter is heard, and when it changes, by the model of RUN and its calibration if there is one.

    Without FILE, RUN is a predictions file whose items are windows (columns start and end), made by any program.

    \b
    beatmeter timeline runs/NAME song.mp3
    beatmeter timeline runs/NAME song.mp3 --plot song.svg --json
    beatmeter timeline windows.csv
    """
    if plot is not None and plot.suffix not in (".png", ".svg"):
        raise ConfigError(f"a plot is a .png or .svg file, not {plot.name}")
    found = _of_predictions(run, duration) if file is None else {file.name: _of_audio(run, file, window, hop, duration, device)}
    if plot is not None and len(found) > 1:
        raise ConfigError(f"{run} holds {len(found)} pieces, a plot shows one", "Leave --plot out, or keep one piece in the file.")
    if as_json:
        click.echo(json.dumps({name: t.to_json() for name, t in found.items()} if file is None else found[file.name].to_json(), indent=1))
    else:
        click.echo("\n".join((f"{name}\n" if file is None else "") + t.to_text() for name, t in found.items()), nl=False)
    if plot is not None:
        from beatmeter import figures
        from beatmeter.atomic import write_bytes

        drawn = figures.timeline(next(iter(found.values())))
        write_bytes(plot, figures.to_png(drawn) if plot.suffix == ".png" else figures.to_svg(drawn, "timeline").encode())
        echo(f"plot: {plot}")


def _of_predictions(file: Path, duration: float) -> dict[str, Timeline]:
    from beatmeter.predictions import read_predictions
    from beatmeter.timeline import timelines

    if file.is_dir():
        raise ConfigError(f"{file} is a run: name the piece to hear", f"beatmeter timeline {file} song.mp3")
    return timelines(read_predictions(file), duration=duration)


def _of_audio(run: Path, file: Path, window: float, hop: float, duration: float, device: str) -> Timeline:
    from beatmeter.audio.decode import SAMPLE_RATE, load
    from beatmeter.calibration import Calibration
    from beatmeter.device import choose_device
    from beatmeter.predictor import Predictor
    from beatmeter.timeline import hear
    from beatmeter.timeline import timeline as build

    wave = load(file)
    predictor = Predictor.load(run, choose_device(device))
    times, scores = hear(lambda part, rate: predictor.predict(part, rate).scores, wave, SAMPLE_RATE, window, hop)
    thresholds = None
    if (run / "calibration.json").exists():
        calibration = Calibration.load(run / "calibration.json")
        scores, thresholds = calibration(scores), calibration.threshold("production")
    return build(times, scores, predictor.classes, thresholds, duration)
