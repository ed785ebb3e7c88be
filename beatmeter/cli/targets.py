"""beatmeter targets"""

from __future__ import annotations

from pathlib import Path

import click

from beatmeter.cli.dataset_options import jobs_option
from beatmeter.cli.options import TERMINAL, echo


@click.command()
@click.argument("dataset", type=click.Path())
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="The table to write, a .csv file."
)
@click.option(
    "--columns", default="", metavar="NAME,NAME", help="Columns of DATASET to copy beside the targets."
)
@jobs_option
def targets(dataset: str, out: Path, columns: str, jobs: int) -> None:
    """Measure proxy targets of every track of DATASET: timbre, onsets, tempo, dynamics, harmony, and null
    columns.

    No target changes with the level of a recording; where one is not defined the cell is empty, and the
    .meta.json file beside the table says why, with units, definitions and versions. Safe to stop and run
    again.

    \b
    beatmeter targets MUSIC/ --out targets.csv
    beatmeter targets MUSIC/ --out targets.csv --columns composer,instrument --jobs 4
    beatmeter probe MUSIC/ --features cache/STORE --targets targets.csv,composer --group work
    beatmeter train --frozen MUSIC/ --set task.name=regression --set task.targets=targets.csv \\
        --set task.column=rise

    Exit status: 0 every track is in the table, 1 some files failed (they are listed), 2 nothing was measured.
    """
    from beatmeter.datasets import open_dataset
    from beatmeter.datasets.targets import measure_targets
    from beatmeter.settings import DataConfig, TaskConfig

    opened = open_dataset(Path(dataset), DataConfig(path=dataset), TaskConfig().meters, labelled=False)
    found = measure_targets(opened, out, [c for c in columns.split(",") if c.strip()], jobs, TERMINAL)
    for name, reason in sorted(found.failed.items()):
        click.echo(f"failed: {name}: {reason}")
    for name, reason in found.refused.items():
        echo(f"no column {name}: {reason}")
    click.echo(f"{out}: {found.rows} tracks, {len(found.columns)} columns: {', '.join(found.columns)}")
    raise SystemExit(1 if found.failed else 0)
