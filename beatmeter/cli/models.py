"""beatmeter models"""

from __future__ import annotations

from pathlib import Path

import click

from beatmeter.cli.options import echo
from beatmeter.runtime.artifacts import to_json

PATH = click.Path(path_type=Path)


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="The whole index as JSON.")
@click.pass_context
def models(context: click.Context, as_json: bool) -> None:
    """List the models that ship, with what they reached on synthetic validation clips.

    \b
    beatmeter models
    beatmeter predict spectral-lag song.mp3      ask one of them by its name
    """
    if context.invoked_subcommand is not None:
        return
    from beatmeter.serving.models import SHIPPED, shipped_models

    index = shipped_models()
    if as_json:
        click.echo(to_json(index))
        return
    width = max(map(len, index["models"]), default=0)
    for name, about in index["models"].items():
        value, low, high = (100 * x for x in about["validation"]["balanced_accuracy"])
        mark = "  (the default)" if name == index["default"] else ""
        click.echo(
            f"{name:{width}}  balanced accuracy {value:.1f} % [{low:.1f}, {high:.1f}] on {about['clips']} "
            f"validation clips{mark}"
        )
    echo(f"{len(index['models'])} models in {SHIPPED}")
    echo(
        "most of these clips are hard on purpose: slow, bent, short, layered; of real music the README tells"
    )


@models.command(short_help="copy what `predict` needs of runs, to hand it on")
@click.argument("runs", nargs=-1, required=True, type=PATH, metavar="RUN...")
@click.option(
    "--out", type=PATH, required=True, metavar="DIR", help="Where the small copies go, with an index of them."
)
@click.option(
    "--validation",
    default="val",
    show_default=True,
    help="Which predictions of models of meter decide: of models trained on several sets, those on one.",
)
@click.option("--default", metavar="NAME", help="The model that becomes the default.  [default: the best]")
def pack(runs: tuple[Path, ...], out: Path, validation: str, default: str | None) -> None:
    """Copy what `predict` needs of finished runs and ensembles, to hand it on; one becomes the default.

    \b
    beatmeter models pack runs/spectral runs/lora runs/both --out models
    """
    from beatmeter.serving.packing import pack as copy

    index = copy(runs, out, validation, default)
    size = sum(f.stat().st_size for name in index["models"] for f in (out / name).iterdir())
    echo(f"{len(index['models'])} models, {size / 1e6:.1f} MB, in {out}; the default is {index['default']}")
