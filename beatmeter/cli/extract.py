"""beatmeter extract"""

from __future__ import annotations

import click

from beatmeter.cli.options import bar, configure, device_option, echo, settings_options


@click.command()
@click.argument("dataset", type=click.Path())
@settings_options
@click.option("--layers", help="Layers to keep, for instance 1-6 or 3,5,7; the encoder stops after the last.")
@click.option("--cache", "cache_dir", type=click.Path(), help="Folder of feature stores.  [default: cache]")
@click.option("--jobs", default=1, show_default=True, help="Processes that decode audio.")
@click.option("--retry-failed", is_flag=True, help="Try files again that failed in an earlier run.")
@click.option("--limit", type=click.IntRange(min=1), help="At most this many tracks.")
@click.option("--shard", metavar="I/N", help="Only part I of N of the tracks: N runs, on any machines, fill one store.")
@click.option("--engine", default="local", show_default=True, metavar="NAME", help="Who works: local (this machine), dask or ray.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes to start here.  [default: 1; of dask and ray one per 4 cores]")
@click.option("--scheduler", metavar="ADDRESS", help="A Dask or Ray cluster that is there already.")
@device_option
def extract(
    dataset: str,
    recipe: tuple[str, ...],
    assignments: tuple[str, ...],
    layers: str | None,
    cache_dir: str | None,
    jobs: int,
    retry_failed: bool,
    limit: int | None,
    shard: str | None,
    engine: str,
    workers: int | None,
    scheduler: str | None,
    device: str,
) -> None:
    """Write the features of every track of DATASET to the store. Safe to stop and run again: only what is missing is done.

    \b
    beatmeter extract MUSIC/ --recipe spectral-lag
    beatmeter extract METER2800/ --set features.backbone=m-a-p/MERT-v1-95M --layers 1-6
    beatmeter extract MUSIC/ --engine dask --scheduler tcp://10.0.0.1:8786
    beatmeter extract MUSIC/ --shard $SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT

    \b
    Exit status: 0 everything is in the store, 1 some files failed (they are listed), 2 nothing could be done.
    """
    config = configure(recipe, assignments, features={k: v for k, v in {"layers": layers, "cache": cache_dir}.items() if v}, data={"path": dataset})
    from pathlib import Path

    from beatmeter.datasets import open_dataset
    from beatmeter.device import choose_device
    from beatmeter.engines import open_engine, spread
    from beatmeter.extraction import Shard
    from beatmeter.service import FeatureService

    part = Shard.parse(shard) if shard else Shard()
    opened = open_dataset(Path(dataset), config.data, config.task.classes, labelled=False)
    tracks = part.of(opened.tracks[:limit])
    if shard:
        echo(f"shard {part}: {len(tracks)} of {len(opened.tracks[:limit])} tracks")
    if opened.excluded:
        echo(f"{len(opened.excluded)} rows of {dataset} have no usable file; `beatmeter data check {dataset}` lists them")
    service = FeatureService(config.features, choose_device(device), jobs)
    echo(service.describe())
    if engine == "local" and not scheduler and (workers or 1) == 1:
        store, _, failed = service.ensure(tracks, report=echo, progress=bar, retry_failed=retry_failed)
    else:
        with open_engine(engine, workers or 0, scheduler) as crew:
            outcome = spread(service, tracks, crew, device, bar, retry_failed)
        store, failed = outcome.store, outcome.failed
        for line in outcome.lines():
            echo(line)
    for name, reason in sorted(failed.items()):
        click.echo(f"failed: {name}: {reason}")
    click.echo(f"{store.where}: {len(tracks) - len(failed)} of {len(tracks)} tracks have features")
    raise SystemExit(1 if failed or opened.excluded else 0)
