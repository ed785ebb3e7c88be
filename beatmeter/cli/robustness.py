"""beatmeter robustness"""

from __future__ import annotations

from pathlib import Path

import click

from beatmeter.cli.options import TERMINAL, device_option, echo
from beatmeter.errors import ConfigError, DataError, nearest
from beatmeter.runtime.artifacts import to_json
from beatmeter.runtime.display import count

PATH = click.Path(path_type=Path)


@click.command()
@click.argument("dataset", type=PATH)
@click.option(
    "--model",
    type=PATH,
    help="A run folder, an ensemble, or the name of a model that ships.  [default: the best that ships]",
)
@click.option(
    "--way",
    "ways",
    multiple=True,
    metavar="NAME",
    help="Only this change: noise, mp3, length, pitch, speed or gain; may be repeated.",
)
@click.option(
    "--split",
    type=click.Choice(["train", "val", "test"]),
    help="Only this split of DATASET.  [default: all labelled tracks]",
)
@click.option("--limit", type=click.IntRange(min=1), help="At most this many tracks.")
@click.option(
    "--out",
    type=PATH,
    default="runs/robustness",
    show_default=True,
    help="Where robustness.json, .txt, .png and .svg go.",
)
@device_option
def robustness(
    dataset: Path,
    model: Path | None,
    ways: tuple[str, ...],
    split: str | None,
    limit: int | None,
    out: Path,
    device: str,
) -> None:
    """Measure how accuracy falls with noise, MP3, short clips, pitch, speed and level, and how it depends on
    tempo.

    \b
    beatmeter robustness data/synth --split test --limit 300
    beatmeter robustness MUSIC/ --model runs/NAME --way noise --way length
    """
    from beatmeter.datasets import open_dataset
    from beatmeter.evaluation.figures import to_png, to_svg
    from beatmeter.experiments.robustness import WAYS
    from beatmeter.experiments.robustness import robustness as measure
    from beatmeter.experiments.robustness.figure import robustness_figure
    from beatmeter.runtime.atomic import require_writable, write_bytes
    from beatmeter.runtime.device import choose_device
    from beatmeter.serving.models import find_model
    from beatmeter.serving.predictor import Predictor
    from beatmeter.settings import DataConfig

    for name in ways:
        if name not in WAYS:
            raise ConfigError(f"no way {name!r} of changing audio", nearest(name, WAYS))
    folder = find_model(model)
    files = [out / f"robustness.{kind}" for kind in ("txt", "json", "png", "svg")]
    require_writable(*files)
    predictor = Predictor.load(folder, choose_device(device))
    predictor.require_meter("robustness")
    tracks = [
        t
        for t in open_dataset(dataset, DataConfig(), predictor.classes).tracks
        if t.labels and split in (None, t.split)
    ][:limit]
    if not tracks:
        raise DataError(
            f"{dataset} has no labelled tracks{f' in the split {split}' if split else ''}",
            f"beatmeter data check {dataset}",
        )
    with TERMINAL.track("listening", len(tracks)) as tick:
        curves = measure(predictor, tracks, ways or tuple(WAYS), tick)
    lines = [
        f"{folder.name} on {len(tracks)} tracks of {dataset.name}: accuracy in percent with 95 % intervals"
    ]
    for curve in curves:
        lines += ["", f"{curve.title}, {curve.unit}"]
        lines += [
            (
                f"{p.level:8g}  {100 * p.accuracy.value:5.1f} [{100 * p.accuracy.low:.1f}, "
                f"{100 * p.accuracy.high:.1f}]  {count(p.clips, 'clip')}"
            )
            for p in curve.points
        ]
    text, figure = "\n".join(lines) + "\n", robustness_figure(curves)
    contents = (
        text.encode(),
        (to_json([c.to_json() for c in curves]) + "\n").encode(),
        to_png(figure),
        to_svg(figure, "robustness").encode(),
    )
    for path, content in zip(files, contents, strict=True):
        write_bytes(path, content)
    click.echo(text, nl=False)
    echo(f"curves: {out}")
