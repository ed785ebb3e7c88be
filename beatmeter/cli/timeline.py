"""beatmeter timeline"""

from __future__ import annotations

import json
from pathlib import Path

import click

from beatmeter.cli.options import device_option, echo
from beatmeter.errors import ConfigError

PATH = click.Path(path_type=Path)


@click.command()
@click.argument("run", type=PATH, metavar="RUN")
@click.argument("file", type=PATH, metavar="FILE")
@click.option("--window", type=float, default=10.0, show_default=True, help="Seconds that the model hears at once.")
@click.option("--hop", type=float, default=2.5, show_default=True, help="Seconds between windows.")
@click.option("--duration", type=float, default=30.0, show_default=True, help="Seconds that a meter is expected to last: more is smoother.")
@click.option("--plot", type=PATH, metavar="FILE", help="Draw it: a .png or .svg file.")
@click.option("--json", "as_json", is_flag=True, help="Segments and windows as JSON.")
@device_option
def timeline(run: Path, file: Path, window: float, hop: float, duration: float, plot: Path | None, as_json: bool, device: str) -> None:
    """Say where in FILE which meter is heard, and when it changes, by the model of RUN and its calibration if there is one.

    \b
    beatmeter timeline runs/NAME song.mp3
    beatmeter timeline runs/NAME song.mp3 --plot song.svg --json
    """
    from beatmeter.audio.decode import SAMPLE_RATE, load
    from beatmeter.calibration import Calibration
    from beatmeter.device import choose_device
    from beatmeter.predictor import Predictor
    from beatmeter.timeline import hear
    from beatmeter.timeline import timeline as build

    if plot is not None and plot.suffix not in (".png", ".svg"):
        raise ConfigError(f"a plot is a .png or .svg file, not {plot.name}")
    wave = load(file)
    predictor = Predictor.load(run, choose_device(device))
    times, scores = hear(lambda part, rate: predictor.predict(part, rate).scores, wave, SAMPLE_RATE, window, hop)
    thresholds = None
    if (run / "calibration.json").exists():
        calibration = Calibration.load(run / "calibration.json")
        scores, thresholds = calibration(scores), calibration.threshold("production")
    found = build(times, scores, predictor.classes, thresholds, duration)
    click.echo(json.dumps(found.to_json(), indent=1) if as_json else found.to_text(), nl=as_json)
    if plot is not None:
        from beatmeter import figures
        from beatmeter.atomic import write_bytes

        drawn = figures.timeline(found)
        write_bytes(plot, figures.to_png(drawn) if plot.suffix == ".png" else figures.to_svg(drawn, "timeline").encode())
        echo(f"plot: {plot}")
