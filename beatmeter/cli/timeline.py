"""beatmeter timeline"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from beatmeter.cli.options import device_option, echo
from beatmeter.cli.systems import listening, model_and_files, standard_input
from beatmeter.errors import ConfigError, shown
from beatmeter.runtime.artifacts import to_json

if TYPE_CHECKING:
    from beatmeter.evaluation.timeline import Timeline

PATH = click.Path(path_type=Path)


@click.command()
@click.argument("paths", type=PATH, nargs=-1, required=True, metavar="[MODEL] FILE")
@click.option(
    "--window", type=float, default=10.0, show_default=True, help="Seconds that the model hears at once."
)
@click.option("--hop", type=float, default=2.5, show_default=True, help="Seconds between windows.")
@click.option(
    "--duration",
    type=float,
    default=30.0,
    show_default=True,
    help="Seconds that a meter is expected to last: more is smoother.",
)
@click.option("--plot", type=PATH, metavar="FILE", help="Draw it: a .png or .svg file.")
@click.option("--json", "as_json", is_flag=True, help="Segments and windows as JSON.")
@device_option
def timeline(
    paths: tuple[Path, ...],
    window: float,
    hop: float,
    duration: float,
    plot: Path | None,
    as_json: bool,
    device: str,
) -> None:
    """Say where in FILE which meter is heard, and when it changes.

    MODEL is a run folder, the folder of an ensemble, or the name of a model that ships; without it the best
    of those that ship answers. FILE - is standard input; one that ends in .csv holds predictions of windows
    (columns start and end), made by any program.

    \b
    beatmeter timeline song.mp3
    beatmeter timeline runs/NAME song.mp3 --plot song.svg --json
    beatmeter timeline - < song.mp3
    beatmeter timeline windows.csv
    """
    if plot is not None and plot.suffix not in (".png", ".svg"):
        raise ConfigError(f"a plot is a .png or .svg file, not {plot.name}")
    windows = len(paths) == 1 and paths[0].suffix == ".csv"
    found = (
        _of_predictions(paths[0], duration) if windows else _of_audio(paths, window, hop, duration, device)
    )
    if plot is not None and len(found) > 1:
        raise ConfigError(
            f"{paths[0]} holds {len(found)} pieces, a plot shows one",
            "Leave --plot out, or keep one piece in the file.",
        )
    if as_json:
        values = {name: t.to_json() for name, t in found.items()}
        click.echo(to_json(values if windows else next(iter(values.values()))))
    else:
        click.echo(
            "\n".join((f"{name}\n" if windows else "") + t.to_text() for name, t in found.items()), nl=False
        )
    if plot is not None:
        from beatmeter.evaluation import figures
        from beatmeter.runtime.atomic import write_bytes

        drawn = figures.timeline(next(iter(found.values())))
        write_bytes(
            plot,
            figures.to_png(drawn) if plot.suffix == ".png" else figures.to_svg(drawn, "timeline").encode(),
        )
        echo(f"plot: {plot}")


def _of_predictions(file: Path, duration: float) -> dict[str, Timeline]:
    from beatmeter.evaluation.predictions import read_predictions
    from beatmeter.evaluation.timeline import timelines

    return timelines(read_predictions(file), duration=duration)


def _of_audio(
    paths: tuple[Path, ...], window: float, hop: float, duration: float, device: str
) -> dict[str, Timeline]:
    import numpy as np

    from beatmeter.evaluation.timeline import timeline as build
    from beatmeter.runtime.device import choose_device
    from beatmeter.serving.predictor import Predictor

    model, files = model_and_files(paths)
    if len(files) > 1:
        raise ConfigError(
            f"{len(files)} files were named, the first is {shown(files[0])}",
            "A timeline is of one piece: beatmeter timeline MODEL FILE.",
        )
    predictor = Predictor.load(model, choose_device(device))
    predictor.require_meter("a timeline")
    with standard_input(files) as (file,), listening([file]) as (heard, _):
        times, answers = predictor.hear(file, window, hop, heard)
    scores = np.stack([answer.scores for answer in answers])
    found = [answer.heard for answer in answers]
    present = None if None in found else np.array(found, dtype=np.float64)
    return {files[0].name: build(times, scores, predictor.classes, predictor.thresholds, duration, present)}
