"""beatmeter pretrain"""

from __future__ import annotations

from pathlib import Path

import click

from beatmeter.cli.options import TERMINAL, device_option, echo, quiet
from beatmeter.errors import ConfigError
from beatmeter.runtime.config import change, describe, parse_assignment
from beatmeter.settings import PretrainConfig


def _list_settings(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        for name, default, text in describe(PretrainConfig()):
            click.echo(f"{name} = {default!r}\n    {text}")
        context.exit()


@click.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder of the attempt: log, checkpoint, and the backbone when it is done.",
)
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="NAME=VALUE",
    help="Change one setting; may be repeated. See --settings.",
)
@click.option(
    "--settings",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_settings,
    help="List every setting and leave.",
)
@click.option(
    "--resume",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Go on with an interrupted attempt, bit for bit with as many processes.",
)
@device_option
def pretrain(out: Path | None, assignments: tuple[str, ...], resume: Path | None, device: str) -> None:
    """Make the embedded backbone: train it on an endless stream of synthesised music to hear beats, bars,
    tempo and meter.

    \b
    beatmeter pretrain --out runs/pretrain
    beatmeter pretrain --out runs/masked-only --set frame_weight=0 --set lag_weight=0 --set steps=500
    beatmeter pretrain --resume runs/pretrain

    The folder that comes out, DIR/backbone, serves everywhere as features.backbone. Processes that `torchrun
    --nproc-per-node 2 -m beatmeter pretrain ...` or `accelerate launch -m beatmeter pretrain ...` starts
    split every step.
    """
    if (out is None) == (resume is None) or (resume and assignments):
        raise ConfigError(
            "pretrain takes --out DIR with settings, or --resume DIR without",
            "beatmeter pretrain --out runs/pretrain",
        )
    config = PretrainConfig()
    for text in assignments:
        config = change(config, parse_assignment(text, config), f"--set {text}")
    from beatmeter.learning.pretraining.loop import pretrain as make
    from beatmeter.runtime import distributed
    from beatmeter.runtime.device import choose_device
    from beatmeter.runtime.progress import SILENT

    where = resume or out
    assert where is not None
    ranks, place = distributed.join(choose_device(device))
    tell, progress = (echo, TERMINAL) if ranks.main else (quiet, SILENT)
    try:
        make(config, where, place, resume is not None, tell, progress, ranks)
    except KeyboardInterrupt:
        tell(f"stopped; go on with: beatmeter pretrain --resume {where}")
        raise SystemExit(130) from None
    distributed.leave()
