"""beatmeter config show"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from beatmeter.cli.options import layers, settings_options
from beatmeter.errors import ConfigError, shown
from beatmeter.runtime.artifacts import read_toml, to_json
from beatmeter.runtime.config import describe, layered
from beatmeter.runtime.display import fill, width_of
from beatmeter.settings import RunConfig

ENVIRONMENT = {  # what changes how a command runs, and what it changes
    "OMP_NUM_THREADS": "threads of one process",
    "OMP_WAIT_POLICY": "how threads wait for each other; beatmeter sets PASSIVE where nothing is set",
    "OPENBLAS_NUM_THREADS": "threads of numpy and scipy; beatmeter sets 1 where nothing is set",
    "CUDA_VISIBLE_DEVICES": "which GPUs may be used",
    "HF_HOME": "where fetched backbones are kept",
    "HF_HUB_CACHE": "the same, by itself",
    "HF_HUB_OFFLINE": "1: backbones are never fetched",
    "BEATMETER_ONNXRUNTIME_WEB": "where `page` takes onnxruntime-web from",
    "NUMBA_CACHE_DIR": "where compiled code is kept",
    "TMPDIR": "temporary files",
    "NO_COLOR": "no colours",
    "AWS_REGION": "of object stores",
    "AWS_ENDPOINT_URL": "of object stores",
    "WANDB_MODE": "of the tracker wandb: online, offline, disabled",
    "MLFLOW_TRACKING_URI": "of the tracker mlflow: where runs go",
}


@click.group()
def config() -> None:
    """Look at settings.

    \b
    beatmeter config show --recipe embedded-lag
    """


@config.command(short_help="every setting, and where its value comes from")
@click.argument("run", required=False, type=click.Path(path_type=Path))
@click.option("--changed", is_flag=True, help="Only settings that are not their defaults.")
@click.option("--json", "as_json", is_flag=True, help="As JSON: name, value, where it comes from, meaning.")
@settings_options
def show(
    run: Path | None, changed: bool, as_json: bool, recipe: tuple[str, ...], assignments: tuple[str, ...]
) -> None:
    """Every setting as a command would see it, with where its value comes from: the default, the settings of
    a RUN, a recipe, --set; then the environment variables that are set and matter.

    \b
    beatmeter config show
    beatmeter config show --recipe embedded-lag --set training.epochs=5 --changed
    beatmeter config show runs/NAME --changed
    """
    first = [] if run is None else [_of_run(run)]
    made, sources = layered(RunConfig(), [*first, *layers(recipe, assignments)])
    rows = [
        (name, value, sources.get(name, "default"), text)
        for name, value, text in describe(made)
        if not changed or value != DEFAULTS[name]
    ]
    here = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    if as_json:
        settings = [dict(zip(("name", "value", "from", "meaning"), row, strict=True)) for row in rows]
        click.echo(to_json({"settings": settings, "environment": here}))
        return
    click.echo("\n".join(_lines(rows, here)))


DEFAULTS: Mapping[str, Any] = {name: value for name, value, _ in describe(RunConfig())}


def _of_run(run: Path) -> tuple[str, Mapping[str, Any]]:
    file = run / "config.toml" if run.is_dir() else run
    if not file.exists():
        raise ConfigError(
            f"there are no settings in {shown(run)}", "Name a run folder, which holds config.toml."
        )
    return str(file), read_toml(file)


def _lines(rows: list[tuple[str, Any, str, str]], here: Mapping[str, str]) -> list[str]:
    cells = [("setting", "value", "from"), *((name, _said(value), source) for name, value, source, _ in rows)]
    widths = [max(width_of(row[k]) for row in cells) for k in (0, 1)]
    lines = [f"{fill(a, widths[0])}  {fill(b, min(widths[1], 32))}  {c}" for a, b, c in cells]
    if not rows:
        lines = ["every setting is its default"]
    if here:
        width = max(map(len, here))
        lines += ["", "environment"]
        lines += [
            f"{fill(name, width)}  {shown(value)}  ({ENVIRONMENT[name]})" for name, value in here.items()
        ]
    return lines


def _said(value: Any) -> str:
    """A value as `--set` takes it."""
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "(none)"
    if isinstance(value, bool):
        return str(value).lower()
    return '""' if value == "" else f"{value:g}" if isinstance(value, float) else str(value)
