"""Options of the commands that open datasets, and how they tell what was left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from beatmeter.errors import ConfigError
from beatmeter.settings import METERS, TaskConfig

if TYPE_CHECKING:
    from beatmeter.datasets import Exclusion

jobs_option = click.option(
    "--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Processes at work at a time."
)
classes_option = click.option(
    "--classes", default=",".join(METERS), show_default=True, help="Labels that count, separated by commas."
)
tables_option = click.option(
    "--tables",
    type=click.Choice(["2", "4"]),
    help="METER2800 tables to read: of 2 or of 4 classes.  [default: 4 if there]",
)
extra_option = click.option(
    "--extra-data",
    "extra",
    multiple=True,
    type=click.Path(),
    help="A further dataset whose tracks join training only; may be repeated.",
)
corrections_option = click.option(
    "--corrections",
    multiple=True,
    type=click.Path(),
    help="A file of corrected labels (id, label, new label), see data audit, or beats (id, time, suggested, "
    "new time), see data annotations audit; may be repeated.",
)


def class_names(classes: str) -> tuple[str, ...]:
    """The value of --classes."""
    names = tuple(name.strip() for name in classes.split(",") if name.strip())
    if not names:
        raise ConfigError("--classes names no class", f"For instance: --classes {','.join(METERS)}")
    return TaskConfig(classes=names).classes


def show_excluded(excluded: Sequence[Exclusion]) -> None:
    """One line per row that is left out."""
    for e in excluded:
        place = f" ({e.row})" if e.row else ""
        click.echo(f"left out: {e.id}{place}: {e.kind}: {e.reason}")
